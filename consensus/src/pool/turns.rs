//! Whose turn it is (hazards A3, A5).
//!
//! Invariant: keys take turns, and in each key's turn its sessions do, both in the order in which they came to
//! have something to propose; who was served goes to the end. So a request waits for one envelope of each other
//! key for each envelope of its own key before it, however many sessions anybody opens and fills.

use quorate_crypto::PublicKey;
use quorate_protocol::Envelope;

use super::{Pool, Session, SessionKey, key_of};

/// What one proposal may take.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Room {
    pub envelopes: usize,
    pub operations: usize,
    pub bytes: usize,
}

impl Pool {
    fn ticket(&mut self) -> u64 {
        self.tickets = self.tickets.saturating_add(1);
        self.tickets
    }

    /// Puts a session into its key's queue if it belongs there, and takes it out if not. Its place stays.
    pub(super) fn queue(&mut self, key: &SessionKey) {
        let ticket = self.ticket();
        let Some(session) = self.sessions.get_mut(key) else { return };
        match (session.ticket, session.is_ready()) {
            (None, true) => {
                session.ticket = Some(ticket);
                self.amend(&key.1, |owner| owner.queue.insert(ticket, key.0));
            }
            (Some(known), false) => {
                session.ticket = None;
                self.amend(&key.1, |owner| owner.queue.remove(&known));
            }
            _ => return,
        }
        self.take_turns(&key.1, false);
    }

    /// Puts a key into the queue of keys if it belongs there, and takes it out if not; `to_end` after its turn.
    fn take_turns(&mut self, key: &PublicKey, to_end: bool) {
        let ticket = self.ticket();
        let Some(owner) = self.owners.get_mut(key) else { return };
        let is_ready = !owner.queue.is_empty();
        if let Some(known) = owner.ticket.filter(|_| to_end || !is_ready) {
            self.turns.remove(&known);
            owner.ticket = None;
        }
        if is_ready && owner.ticket.is_none() {
            owner.ticket = Some(ticket);
            self.turns.insert(ticket, *key);
        }
    }

    /// Puts a session that was served at the end of its key's queue, and the key at the end of the other.
    fn requeue(&mut self, key: &SessionKey) {
        if let Some(ticket) = self.sessions.get_mut(key).and_then(|session| session.ticket.take()) {
            self.amend(&key.1, |owner| owner.queue.remove(&ticket));
        }
        self.queue(key);
        self.take_turns(&key.1, true);
    }

    /// Notes that an envelope is in a block of this view's chain.
    pub(crate) fn project(&mut self, envelope: &Envelope) {
        let key = key_of(envelope);
        self.withdraw(&key);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.projected = session.projected.max(envelope.next());
        self.requeue(&key);
        self.watch(&key);
    }

    /// Forgets what was proposed: a new view begins.
    pub(crate) fn reset_projection(&mut self) {
        let keys: Vec<SessionKey> = self.sessions.keys().copied().collect();
        for key in keys {
            self.withdraw(&key);
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            session.projected = session.next;
            session.pending = session.since.unwrap_or_default();
            session.forwarded = None;
            session.overtaken = 0;
            self.queue(&key);
            self.watch(&key);
        }
    }

    /// Whether anything could be proposed.
    pub(crate) fn has_ready(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Turns to another key and session to begin with, so that what one leader after the other fails at is not
    /// always the same.
    pub(crate) fn rotate(&mut self, turns: u64) {
        let part = |count: usize| turns.checked_rem(count as u64).unwrap_or(0);
        for _ in 0..part(self.turns.len()) {
            let Some(key) = self.turns.first_key_value().map(|(_, key)| *key) else { return };
            self.take_turns(&key, true);
        }
        let Some(key) = self.turns.first_key_value().map(|(_, key)| *key) else { return };
        for _ in 0..part(self.owners.get(&key).map_or(0, |owner| owner.queue.len())) {
            let Some(id) = self.owners.get(&key).and_then(|owner| owner.queue.values().next()).copied()
            else {
                return;
            };
            self.move_back(&(id, key));
        }
    }

    /// Puts a ready session at the end of its key's queue; the key keeps its place.
    fn move_back(&mut self, key: &SessionKey) {
        let ticket = self.ticket();
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(known) = session.ticket.replace(ticket) else { return };
        self.amend(&key.1, |owner| {
            owner.queue.remove(&known);
            owner.queue.insert(ticket, key.0);
        });
    }

    /// Takes envelopes for a proposal: one of each key in turn, and of its sessions in turn, in each session's
    /// order, until the room is used up. At least one is taken if any is ready.
    pub(crate) fn select(&mut self, room: Room) -> Vec<Envelope> {
        let (mut taken, mut operations, mut bytes) = (Vec::new(), 0_usize, 0_usize);
        while taken.len() < room.envelopes {
            let Some(entry) = self.next_ready() else { break };
            let envelope = entry.envelope.value();
            let (more_operations, more_bytes) = (
                operations.saturating_add(envelope.body.operations.len()),
                bytes.saturating_add(borsh::object_length(envelope).unwrap_or(usize::MAX)),
            );
            let fits = more_operations <= room.operations && more_bytes <= room.bytes;
            if !fits && !taken.is_empty() {
                break;
            }
            (operations, bytes) = (more_operations, more_bytes);
            let envelope = envelope.clone();
            self.project(&envelope);
            taken.push(envelope);
        }
        taken
    }

    /// What the first session of the first key proposes.
    fn next_ready(&self) -> Option<&super::Entry> {
        let (_, key) = self.turns.first_key_value()?;
        let (_, id) = self.owners.get(key)?.queue.first_key_value()?;
        let session = self.sessions.get(&(*id, *key))?;
        session.entries.get(&session.projected)
    }

    /// Whether a session and its key are in the queues in which they belong.
    pub(super) fn is_queued_rightly(&self, key: &SessionKey, session: &Session) -> bool {
        let Some(owner) = self.owners.get(&key.1) else { return false };
        let queued = session.ticket.is_some_and(|ticket| owner.queue.get(&ticket) == Some(&key.0));
        let turn = owner.ticket.is_some_and(|ticket| self.turns.get(&ticket) == Some(&key.1));
        queued == session.is_ready()
            && turn != owner.queue.is_empty()
            && owner.gapped.contains(&key.0) == session.is_gapped()
    }
}
