//! Byzantine replicas: correct code whose messages are bent on the way out, or added to, with its own key.
//!
//! Invariant: at most f replicas of a run are Byzantine; they sign only under their own keys and, as a
//! client that plots with them, under one session of their own; what they relay for others they may bend,
//! but cannot sign. They go on after the calm.
//!
//! Each attack is one small file: what goes out ([`World::bend`]), what is done unasked
//! ([`World::plot`]), what clients and readers are told ([`World::snubs`], [`World::misanswer`]).

mod catch_up;
mod clients;
mod deeds;
mod faces;
mod junk;
mod kinds;
mod leader;
mod malform;
mod mutate;
mod sign;
mod storm;
mod twins;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use quorate_crypto::Hash;
use quorate_protocol::view_change::ViewChange;
use quorate_protocol::{Envelope, Height, PeerMessage, ReplicaIndex, View};

use crate::network::Address;
use crate::node::Node;
use crate::oracle::Verdict;
use crate::world::{Event, Packet, World};

pub(crate) use self::clients::Snub;
pub use self::deeds::{Deed, Deeds};
use self::faces::OtherFace;
pub use self::kinds::{Attack, Behaviour};
pub(crate) use self::twins::Twins;

/// Messages that a liar remembers, to send them again.
const HEARD_MAX: usize = 64;
/// Views of whose VIEW-CHANGEs a liar keeps those that it heard.
const VIEWS_HEARD_MAX: usize = 8;
/// Envelopes that a liar remembers.
const ENVELOPES_MAX: usize = 16;
/// Unasked for deeds come so many times per request time-out.
const PLOTS_PER_TIMEOUT: u64 = 4;
/// One that shifts becomes another kind of liar once in so many plots.
const SHIFT_ONE_IN: u64 = 6;

/// A message that goes out in place of another one.
pub(crate) struct Outgoing {
    /// Nanoseconds by which it is held back.
    pub after: u64,
    /// The message.
    pub message: Arc<PeerMessage>,
}

impl Outgoing {
    /// At once and alone.
    fn now(message: Arc<PeerMessage>) -> Vec<Self> {
        vec![Self { after: 0, message }]
    }
}

/// What the Byzantine replicas of a run remember, all together: they collude.
#[derive(Debug, Default)]
pub struct Conspiracy {
    /// Who is Byzantine, and how.
    pub behaviours: BTreeMap<ReplicaIndex, Behaviour>,
    /// What they did.
    pub deeds: Deeds,
    others: BTreeMap<(ReplicaIndex, View, Height), OtherFace>,
    /// Proposals that a leader changed for everybody whom it deceives.
    altered: BTreeMap<(ReplicaIndex, View, Height), Arc<PeerMessage>>,
    /// Votes that were echoed.
    echoed: BTreeSet<(ReplicaIndex, View, Height, Hash)>,
    heard: VecDeque<Arc<PeerMessage>>,
    claims: BTreeMap<View, BTreeMap<ReplicaIndex, ViewChange>>,
    envelopes: VecDeque<Envelope>,
    /// When a request of a victim may be looked at.
    held_back: BTreeMap<Hash, u64>,
    pub(crate) twins: Twins,
}

impl Conspiracy {
    /// Nothing was bent yet.
    pub(crate) fn new(behaviours: BTreeMap<ReplicaIndex, Behaviour>, twins: Twins) -> Self {
        Self { behaviours, twins, ..Self::default() }
    }

    fn remember(&mut self, message: &PeerMessage) {
        if let PeerMessage::ViewChange(message) = message {
            let body = &message.claim.body;
            self.claims.entry(body.view).or_default().insert(body.replica, message.clone());
            if self.claims.len() > VIEWS_HEARD_MAX {
                self.claims.pop_first();
            }
        }
        self.heard.push_back(Arc::new(message.clone()));
        if self.heard.len() > HEARD_MAX {
            self.heard.pop_front();
        }
    }

    fn remember_envelope(&mut self, envelope: &Envelope) {
        self.envelopes.push_back(envelope.clone());
        if self.envelopes.len() > ENVELOPES_MAX {
            self.envelopes.pop_front();
        }
    }
}

impl World {
    /// How this replica misbehaves, if it does. A second copy of a key misbehaves as the first one.
    pub(crate) fn behaviour(&self, index: ReplicaIndex) -> Option<Behaviour> {
        self.conspiracy.behaviours.get(&self.member(index)).copied()
    }

    /// The replicas that do not count among the f.
    pub(crate) fn correct(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !self.is_faulty(node.index))
    }

    /// What a Byzantine replica sends to `to` in place of a message; nothing if it withholds it.
    pub(crate) fn bend(
        &mut self,
        behaviour: Behaviour,
        from: ReplicaIndex,
        to: ReplicaIndex,
        message: &Arc<PeerMessage>,
    ) -> Vec<Outgoing> {
        if self.behaviour(to).is_some() {
            // Accomplices do not deceive each other.
            return Outgoing::now(message.clone());
        }
        let marked = |mask: u64| mask >> to & 1 == 1;
        match behaviour {
            Behaviour::Withholding(mask) if marked(mask) => {
                self.conspiracy.deeds.hit(Deed::Withheld);
                Vec::new()
            }
            Behaviour::Selecting(mask) => self.selected(from, marked(mask), message),
            Behaviour::Equivocating(_) => Outgoing::now(self.other_face(from, to, message)),
            Behaviour::ClaimingNothing => Outgoing::now(self.without_claim(from, message)),
            Behaviour::Mutating => self.mutated(from, message),
            Behaviour::Forging(mask) if marked(mask) => Outgoing::now(self.forged(from, message)),
            Behaviour::Hiding(mask) => self.hidden(from, marked(mask), message),
            Behaviour::Dragging => self.dragged(message),
            Behaviour::SlowLeading => self.slowed(from, message),
            Behaviour::Misproposing(mask) if marked(mask) => Outgoing::now(self.misproposed(from, message)),
            Behaviour::Mistiming(mask) if marked(mask) => Outgoing::now(self.mistimed(from, message)),
            Behaviour::Misopening(mask) => self.misopened(from, to, marked(mask), message),
            Behaviour::Misleading => Outgoing::now(self.misled(message)),
            _ => Outgoing::now(message.clone()),
        }
    }

    /// A message reaches a Byzantine replica, which is correct besides: what it makes of that.
    pub(crate) fn eavesdrop(&mut self, index: ReplicaIndex, message: &PeerMessage) -> Verdict {
        match self.behaviour(index) {
            None => Ok(()),
            Some(Behaviour::Echoing) => self.echo(index, message),
            Some(_) => {
                self.conspiracy.remember(message);
                Ok(())
            }
        }
    }

    /// Every Byzantine replica that does something unasked begins to.
    pub(crate) fn begin_plots(&mut self) {
        let active: Vec<ReplicaIndex> = self
            .conspiracy
            .behaviours
            .iter()
            .filter(|(_, behaviour)| behaviour.is_active())
            .map(|(index, _)| *index)
            .collect();
        for index in active {
            let at = self.byzantine_random.below(self.plot_period());
            self.queue.after(at, Event::Plot(index));
        }
    }

    const fn plot_period(&self) -> u64 {
        let period = self.plan.parameters.timeouts.request / PLOTS_PER_TIMEOUT;
        if period == 0 { 1 } else { period }
    }

    /// A Byzantine replica does something unasked, and will again.
    pub(crate) fn plot(&mut self, index: ReplicaIndex) -> Verdict {
        self.queue.after(self.plot_period(), Event::Plot(index));
        if self.plan.byzantine.get(&index) == Some(&Behaviour::Shifting) {
            self.shift(index);
        }
        if !self.nodes[usize::from(index)].is_up() {
            return Ok(());
        }
        match self.behaviour(index) {
            Some(Behaviour::Storming) => self.storm(index),
            Some(Behaviour::Flooding) => self.flood(index),
            Some(Behaviour::Misleading) => self.mislead(index),
            Some(Behaviour::Misforwarding) => self.misforward(index),
            Some(Behaviour::Junking) => self.throw_junk(index),
            Some(Behaviour::Twinned { .. }) => self.twins_move(index),
            _ => Ok(()),
        }
    }

    /// Becomes another kind of liar, now and then.
    fn shift(&mut self, index: ReplicaIndex) {
        if self.byzantine_random.one_in(SHIFT_ONE_IN) {
            self.conspiracy.deeds.hit(Deed::Shifted);
            let next = Behaviour::draw_next(&mut self.byzantine_random, self.genesis.members.n());
            self.conspiracy.behaviours.insert(index, next);
            self.trace.note(self.queue.now(), 21, [u64::from(index), 0, 0, 0], || {
                format!("{index}: SHIFTS to {next:?}")
            });
        }
    }

    /// Sends something unasked to one replica.
    fn tell(&mut self, from: ReplicaIndex, to: ReplicaIndex, message: PeerMessage) -> Verdict {
        self.depart(from, to, &Arc::new(message), 0)
    }

    /// Sends something unasked to all others.
    fn tell_all(&mut self, from: ReplicaIndex, message: PeerMessage) -> Verdict {
        let message = Arc::new(message);
        for to in self.genesis.members.indices().filter(|to| *to != from) {
            self.depart(from, to, &message, 0)?;
        }
        Ok(())
    }

    /// Bytes go out that may be no message at all.
    fn throw(&mut self, from: ReplicaIndex, to: ReplicaIndex, bytes: Vec<u8>) {
        self.transmit(Address::Replica(from), Address::Replica(to), &Packet::Bytes(bytes.into()));
    }

    /// Any one of the others.
    fn somebody(&mut self, index: ReplicaIndex) -> ReplicaIndex {
        let n = self.genesis.members.n() as u64;
        ((u64::from(index) + self.byzantine_random.between(1, n - 1)) % n) as ReplicaIndex
    }
}
