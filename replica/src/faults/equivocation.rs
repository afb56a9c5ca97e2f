//! Two proposals at one height, and votes for both (hazard A6).
//!
//! Invariant: both faces are valid: each has a parent that some replicas hold, a time that is allowed, and a
//! header that its execution gives; what tells them apart is only that one replica signed both.

use super::liar::Liar;
use quorate_crypto::{Bounded, Hash, derive_hash};
use quorate_execution::{Environment, State};
use quorate_protocol::limits::VOTES_PER_MESSAGE_MAX;
use quorate_protocol::{Height, PeerMessage, PrePrepare, Proposal, ReplicaIndex, View, Vote};
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

/// Heights whose second face is kept.
const FACES_MAX: usize = 256;

/// The second proposals of this leader.
pub(super) type Faces = BTreeMap<(View, Height), Face>;

/// One of them.
pub(super) struct Face {
    message: PrePrepare,
    digest: Hash,
    /// What executing it gives.
    state: Option<State>,
}

/// Whom a replica is made to believe.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Side {
    First,
    Second,
    Both,
}

impl Liar {
    fn faces(&self) -> MutexGuard<'_, Faces> {
        self.faces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By turns: both faces to everybody, the second to one, to all but one, to every other one.
    pub(super) fn side(&self, height: Height, to: ReplicaIndex) -> Side {
        let n = self.members.n() as u64;
        let round = height / 4;
        // Another one each round, never this one itself.
        let one = (u64::from(self.me) + 1 + round % (n - 1)) % n;
        let second = match height % 4 {
            0 => return Side::Both,
            1 => u64::from(to) == one,
            2 => u64::from(to) != one,
            _ => (u64::from(to) + round).is_multiple_of(2),
        };
        if second { Side::Second } else { Side::First }
    }

    pub(super) fn equivocate(
        &self,
        to: ReplicaIndex,
        message: &PeerMessage,
        send: &mut dyn FnMut(&PeerMessage),
    ) {
        match message {
            PeerMessage::PrePrepare(ours) if self.leads(ours.view) => {
                let side = self.side(ours.height, to);
                if side != Side::Second {
                    send(message);
                }
                if side != Side::First {
                    send(&PeerMessage::PrePrepare(self.second_face(ours)));
                }
            }
            PeerMessage::Votes(votes) => {
                let faced: Vec<Vote> = votes.iter().flat_map(|vote| self.faced(to, vote)).collect();
                for chunk in faced.chunks(VOTES_PER_MESSAGE_MAX) {
                    send(&PeerMessage::Votes(
                        Bounded::try_collect(chunk.iter().cloned()).unwrap_or_default(),
                    ));
                }
            }
            _ => send(message),
        }
    }

    /// The second proposal of a height: the same a nanosecond later, on the second face of its parent if most
    /// believe that one.
    fn second_face(&self, ours: &PrePrepare) -> PrePrepare {
        let place = (ours.view, ours.height);
        let mut faces = self.faces();
        if let Some(face) = faces.get(&place) {
            return face.message.clone();
        }
        let below = ours.height.saturating_sub(1);
        let parent = faces.get(&(ours.view, below)).filter(|_| below % 4 == 2);
        let parent = parent.map_or(ours.proposal.parent, |face| face.digest);
        let proposal = Proposal { parent, time: ours.proposal.time.plus(1), ..ours.proposal.clone() };
        let digest = proposal.digest(&self.cluster, ours.epoch, ours.height);
        let message = self.proposal(ours, proposal);
        faces.insert(place, Face { message: message.clone(), digest, state: None });
        if faces.len() > FACES_MAX {
            faces.pop_first();
        }
        message
    }

    /// Executes the second face of a height whose first one is being executed on `parent`.
    pub(super) fn execute_second_face(
        &self,
        environment: &Environment<'_>,
        (view, height): (View, Height),
        parent: &State,
    ) {
        let mut faces = self.faces();
        let below = faces.get(&(view, height.saturating_sub(1)));
        let below = below.and_then(|face| Some((face.digest, face.state.clone()?)));
        let Some(face) = faces.get_mut(&(view, height)).filter(|face| face.state.is_none()) else { return };
        let parent = match &below {
            Some((digest, state)) if *digest == face.message.proposal.parent => state,
            _ => parent,
        };
        let executed = parent.execute(environment, height, &face.message.proposal, face.digest);
        face.state = executed.ok().map(|executed| executed.state);
    }

    /// What one of its votes becomes for this replica.
    fn faced(&self, to: ReplicaIndex, vote: &Vote) -> Vec<Vote> {
        if vote.replica != self.me {
            return vec![vote.clone()];
        }
        let face =
            self.faces().get(&(vote.view, vote.height)).and_then(|face| Some(face.state.as_ref()?.hash()));
        // Who does not lead makes up the header of a proposal that nobody has.
        let header = face.unwrap_or_else(|| derive_hash("quorate fault second face", &[&vote.header.0]));
        let second = self.signed(Vote { header, ..vote.clone() });
        match self.side(vote.height, to) {
            Side::First => vec![vote.clone()],
            Side::Second => vec![second],
            Side::Both => vec![vote.clone(), second],
        }
    }
}
