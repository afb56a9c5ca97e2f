//! Liars towards clients and readers: unfair ones, silent ones, old and inflated answers, and a client that
//! plots along.
//!
//! Invariant: the plotting client has a session of its own under the principal of all clients; it signs for
//! nobody else's session.

use std::sync::Arc;

use quorate_consensus::ReadIndex;
use quorate_crypto::{Bounded, Hash, Signature, Signer};
use quorate_protocol::envelope::session_id;
use quorate_protocol::operation::Operation;
use quorate_protocol::{
    Credential, Envelope, EnvelopeBody, Groups, OperationBody, PeerMessage, ReplicaIndex, SessionId,
};

use super::{Behaviour, Deed};
use crate::cast;
use crate::oracle::Verdict;
use crate::world::World;

/// An unfair replica lets its victim wait for this part of the request time-out.
const UNFAIRNESS: (u64, u64) = (3, 4);
/// The plotting client says something else to each replica once in so many plots.
const DOUBLE_ONE_IN: u64 = 4;
/// Nonce of the session that plots with the liars.
const PLOTTING_NONCE: [u8; 32] = [0xBA; 32];

/// What an attacker does with a request.
pub(crate) enum Snub {
    /// Nothing: it is looked at.
    Served,
    /// It is never looked at.
    Ignored,
    /// It is looked at later.
    Until(u64),
}

impl World {
    /// Whether and when an attacker looks at an envelope (hazard A3).
    pub(crate) fn snubs(&mut self, index: ReplicaIndex, envelope: &Envelope) -> Snub {
        let Some(behaviour) = self.behaviour(index) else { return Snub::Served };
        self.conspiracy.remember_envelope(envelope);
        match behaviour {
            Behaviour::Censoring(victim) if self.is_of(victim, &envelope.body.session) => {
                self.conspiracy.deeds.hit(Deed::Censored);
                Snub::Ignored
            }
            Behaviour::Delaying(victim) if self.is_of(victim, &envelope.body.session) => {
                let patience = self.plan.parameters.timeouts.request / UNFAIRNESS.1 * UNFAIRNESS.0;
                let (now, digest) = (self.queue.now(), envelope.body.digest());
                let until = *self.conspiracy.held_back.entry(digest).or_insert(now + patience);
                if until <= now {
                    return Snub::Served;
                }
                self.conspiracy.deeds.hit(Deed::Delayed);
                Snub::Until(until)
            }
            _ => Snub::Served,
        }
    }

    fn is_of(&self, victim: u8, session: &SessionId) -> bool {
        let victim = usize::from(victim) % self.clients.len();
        self.clients[victim].session() == *session
    }

    /// Whether a replica tells clients nothing.
    pub(crate) fn is_silent(&self, index: ReplicaIndex) -> bool {
        matches!(self.behaviour(index), Some(Behaviour::Selecting(_)))
    }

    /// What an attacker answers to a reader; `None` if nothing (hazards A9, RD1, RD2).
    pub(crate) fn misanswer(&mut self, index: ReplicaIndex, truth: ReadIndex) -> Option<ReadIndex> {
        match self.behaviour(index) {
            Some(Behaviour::Selecting(_)) => {
                self.conspiracy.deeds.hit(Deed::Misanswered);
                None
            }
            Some(Behaviour::Misanswering) => {
                self.conspiracy.deeds.hit(Deed::Misanswered);
                self.old_or_inflated(index, truth)
            }
            _ => Some(truth),
        }
    }

    fn old_or_inflated(&mut self, index: ReplicaIndex, truth: ReadIndex) -> Option<ReadIndex> {
        let random = &mut self.byzantine_random;
        let back = random.between(1, 8);
        let memory = self.nodes[usize::from(index)].memory.as_ref()?;
        let old = memory.history.range(..=truth.height.saturating_sub(back)).next_back();
        let old = old.map(|(_, finished)| finished.certificate.clone());
        match random.below(6) {
            0 => None,
            1 => Some(ReadIndex { height: 0, certificate: None }),
            2 => Some(ReadIndex {
                height: old.as_ref().map_or(0, |certificate| certificate.height),
                certificate: old,
            }),
            3 => Some(ReadIndex { height: truth.height + 1000, certificate: None }),
            4 => Some(ReadIndex { height: truth.height + 1, ..truth }),
            _ => {
                let mut certificate = truth.certificate?;
                certificate.height += 1;
                Some(ReadIndex { height: certificate.height, certificate: Some(certificate) })
            }
        }
    }

    pub(super) fn plotter(&self) -> Arc<dyn Signer> {
        cast::client_signer(self.plan.scheme)
    }

    /// An envelope of the client that plots along; number 0 registers its session.
    pub(super) fn plotting_envelope(&self, first: u64, operations: usize) -> Envelope {
        let body = match first {
            0 if operations == 1 => OperationBody::Register { nonce: PLOTTING_NONCE },
            _ => OperationBody::Null,
        };
        let operation = Operation { credential: 0, requires: 0, at: None, body };
        let credential = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
        EnvelopeBody {
            cluster: self.cluster,
            session: session_id(&self.cluster, &cast::principal(), &PLOTTING_NONCE),
            key: cast::principal(),
            first,
            valid_until: cast::REGISTRATION_END,
            credentials: Bounded::try_collect([credential]).unwrap_or_default(),
            operations: Bounded::try_collect(vec![operation; operations]).unwrap_or_default(),
        }
        .sign(self.plotter().as_ref())
    }

    /// Envelopes that hold at some replicas only, and different ones under one number (hazards A1, CL2).
    pub(super) fn misforward(&mut self, index: ReplicaIndex) -> Verdict {
        if self.byzantine_random.one_in(DOUBLE_ONE_IN) {
            return self.double(index);
        }
        let count = self.conspiracy.envelopes.len() as u64;
        let position = self.byzantine_random.below(count) as usize;
        let Some(mut envelope) = self.conspiracy.envelopes.get(position).cloned() else { return Ok(()) };
        match self.byzantine_random.below(6) {
            0 => envelope.signature = Signature::ZERO,
            1 => envelope.body.first += 1,
            2 => envelope.body.cluster = Hash([2; 32]),
            3 => envelope.body.operations = Bounded::new(),
            4 => envelope.body.valid_until = cast::GENESIS_TIME,
            // Genuine, but to one replica alone.
            _ => {}
        }
        self.conspiracy.deeds.hit(Deed::Misforwarded);
        let to = self.somebody(index);
        self.tell(index, to, PeerMessage::Forward(envelope))
    }

    /// The plotting client sends envelopes under the same number, with as many operations as the receiver's
    /// index says, to each replica.
    fn double(&mut self, index: ReplicaIndex) -> Verdict {
        let session = session_id(&self.cluster, &cast::principal(), &PLOTTING_NONCE);
        let memory = self.nodes[usize::from(index)].memory.as_ref();
        let next = memory.and_then(|memory| memory.committed.0.session_next(&session)).unwrap_or(0);
        for to in self.genesis.members.indices().filter(|to| *to != index) {
            let operations = if next == 0 { 1 } else { usize::from(to) + 1 };
            self.conspiracy.deeds.hit(Deed::Doubled);
            let envelope = self.plotting_envelope(next, operations);
            self.tell(index, to, PeerMessage::Forward(envelope))?;
        }
        Ok(())
    }
}
