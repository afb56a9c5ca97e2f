//! Which client waits for what: sessions to connections, proposals to sessions, reads to heights.
//!
//! Invariant: tables hold only what a live connection asked for, bounded per connection, and lose all of it
//! when the connection ends.

use crate::waiting::Waiting;
use quorate_crypto::{Certificate, Hash};
use quorate_execution::Executed;
use quorate_protocol::client::{ClientReply, Notice, Refusal};
use quorate_protocol::query::ReadRequest;
use quorate_protocol::{Height, Proposal, SessionId, View, Vote};
use quorate_transport::{ClientConnection, ConnectionId, ReplyHandle};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// Sessions whose COMMITs one connection may wait for.
pub const SESSIONS_PER_CONNECTION_MAX: usize = 64;

/// A read of a height that is not committed here yet.
pub struct WaitingRead {
    /// Who asks.
    pub connection: ClientConnection,
    /// What.
    pub request: ReadRequest,
    /// The height that it waits for.
    pub height: Height,
    /// Where the answer goes.
    pub reply: ReplyHandle,
}

struct Route {
    connection: ClientConnection,
    results: bool,
}

/// Envelopes of routed sessions in one proposal.
struct Proposed {
    envelopes: Vec<Awaited>,
    /// The view of the last COMMIT that their clients were sent.
    voted: Option<View>,
}

/// An envelope whose client waits.
struct Awaited {
    session: SessionId,
    first: u64,
    /// Whether its results have left.
    answered: bool,
}

/// The tables.
#[derive(Default)]
pub struct Clients {
    routes: BTreeMap<SessionId, Route>,
    sessions: BTreeMap<ConnectionId, BTreeSet<SessionId>>,
    /// Envelopes of routed sessions in proposals that are not committed yet.
    proposed: BTreeMap<Hash, Proposed>,
    waiting: Waiting<WaitingRead>,
}

impl Clients {
    /// Notes where the COMMITs of a session go. `false` when the connection has too many sessions.
    pub fn route(&mut self, session: SessionId, connection: &ClientConnection, results: bool) -> bool {
        let mine = self.sessions.entry(connection.id()).or_default();
        if mine.len() >= SESSIONS_PER_CONNECTION_MAX && !mine.contains(&session) {
            return false;
        }
        mine.insert(session);
        if let Some(old) = self.routes.insert(session, Route { connection: connection.clone(), results })
            && old.connection.id() != connection.id()
            && let Some(theirs) = self.sessions.get_mut(&old.connection.id())
        {
            theirs.remove(&session);
        }
        true
    }

    /// Forgets a connection and all that waits for it.
    pub fn closed(&mut self, connection: ConnectionId) {
        for session in self.sessions.remove(&connection).unwrap_or_default() {
            self.routes.remove(&session);
        }
        self.waiting.closed(connection);
    }

    /// Notes which sessions wait for a proposal.
    pub fn proposed(&mut self, digest: Hash, proposal: &Proposal) {
        let bodies = proposal.envelopes.iter().map(|envelope| &envelope.body);
        let waiting: Vec<Awaited> = bodies
            .filter(|body| self.routes.contains_key(&body.session))
            .map(|body| Awaited { session: body.session, first: body.first, answered: false })
            .collect();
        if !waiting.is_empty() {
            self.proposed.insert(digest, Proposed { envelopes: waiting, voted: None });
        }
    }

    /// The proposal will not be committed.
    pub fn forget(&mut self, digest: &Hash) {
        self.proposed.remove(digest);
    }

    /// The proposal is committed. Whoever chose this replica for the results has them now. If its clients may not
    /// have a quorum of COMMITs of one view, because views changed meanwhile or this replica learnt the certificate
    /// before it sent its COMMIT, they get the certificate, and the results with it.
    pub fn committed(&mut self, digest: &Hash, executed: &Executed, certificate: &Certificate, view: View) {
        let Some(mut proposed) = self.proposed.remove(digest) else { return };
        let untold = certificate.view != view || proposed.voted != Some(certificate.view);
        if untold {
            proposed.envelopes.iter_mut().for_each(|envelope| envelope.answered = false);
        }
        self.send_results(&mut proposed.envelopes, executed, Some(certificate));
        if untold {
            self.notify(&proposed.envelopes, &Notice::Certified(certificate.clone()));
        }
    }

    /// Sends a notice once on each connection that waits for one of these envelopes.
    fn notify(&self, envelopes: &[Awaited], notice: &Notice) {
        let mut told = BTreeSet::new();
        for route in envelopes.iter().filter_map(|envelope| self.routes.get(&envelope.session)) {
            if told.insert(route.connection.id()) {
                route.connection.notify(notice);
            }
        }
    }

    /// Sends results that have not left yet to whoever chose this replica for them.
    fn send_results(
        &self,
        envelopes: &mut [Awaited],
        executed: &Executed,
        certificate: Option<&Certificate>,
    ) {
        for envelope in envelopes.iter_mut().filter(|envelope| !envelope.answered) {
            if let Some(route) = self.routes.get(&envelope.session)
                && route.results
                && let Some(index) = executed.receipts.find(&envelope.session, envelope.first)
                && let Some(results) =
                    executed.receipts.results(executed.state.header(), index, certificate.cloned())
            {
                route.connection.notify(&Notice::Results(results));
                envelope.answered = true;
            }
        }
    }

    /// Sends a COMMIT of this replica to the clients of the batch; those that chose this replica get their
    /// results first, so that they hold the header when the last COMMIT arrives.
    pub fn committing(&mut self, vote: &Vote, digest: Hash, executed: Option<&Arc<Executed>>) {
        let Some(mut proposed) = self.proposed.remove(&digest) else { return };
        if let Some(executed) = executed {
            self.send_results(&mut proposed.envelopes, executed, None);
        }
        proposed.voted = Some(vote.view);
        if let Ok(votes) = vec![vote.clone()].try_into() {
            self.notify(&proposed.envelopes, &Notice::Commits(votes));
        }
        self.proposed.insert(digest, proposed);
    }

    /// Lets a read wait for its height; refuses it when too many do.
    pub fn wait(&mut self, read: WaitingRead, now: Instant) {
        let (connection, height) = (read.connection.id(), read.height);
        if let Err(read) = self.waiting.push(connection, height, now, read) {
            read.reply.send(&refused(Refusal::Busy, "too many reads wait for a height"));
        }
    }

    /// Takes out the reads that may be answered at `committed`; refuses those that waited too long.
    pub fn ready(&mut self, committed: Height, now: Instant) -> Vec<WaitingRead> {
        let (ready, late) = self.waiting.take(committed, now, |read| read.reply.wanted());
        for read in late {
            read.reply.send(&refused(Refusal::Behind, "this replica has not reached that height"));
        }
        ready
    }
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct No(pub Refusal, pub String);

impl No {
    /// One in words.
    pub fn new(refusal: Refusal, text: impl std::fmt::Display) -> Self {
        Self(refusal, text.to_string())
    }

    /// As it is sent.
    pub fn reply(&self) -> ClientReply {
        refused(self.0, &self.1)
    }
}

/// A refusal in words.
#[must_use]
pub fn refused(refusal: Refusal, text: &str) -> ClientReply {
    let bytes: Vec<u8> = text.bytes().take(quorate_protocol::limits::ERROR_TEXT_BYTES_MAX).collect();
    ClientReply::Refused { refusal, text: bytes.try_into().unwrap_or_default() }
}
