//! The lanes between two replicas: which message takes which, and what each may hold.
//!
//! Invariant: every message has one lane, and a lane's budget holds at least its largest frame.

use quorate_protocol::PeerMessage;
use quorate_protocol::limits::FRAME_BYTES_MAX;

use super::{
    INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, INBOX_URGENT_BYTES_MAX, LANES, OUTBOX_BYTES_MAX,
    OUTBOX_MESSAGES_MAX, OUTBOX_URGENT_BYTES_MAX, PROPOSAL_FRAME_BYTES_MAX, URGENT_FRAME_BYTES_MAX,
};
use crate::budget::Budget;
use crate::outbox::Outbox;

/// A lane; its number is the first byte of its stream.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Votes and everything else that is small and awaited.
    Urgent = 0,
    /// Proposals, the NEW-VIEW that they come after, and envelopes for the leader. Whoever gets a proposal before
    /// its NEW-VIEW can do nothing with it, and would wait until it is sent again.
    Proposals = 1,
    /// Catching up.
    Bulk = 2,
}

impl Lane {
    pub(super) const ALL: [Self; LANES] = [Self::Urgent, Self::Proposals, Self::Bulk];

    pub(super) fn of(message: &PeerMessage) -> Self {
        match message {
            PeerMessage::PrePrepare(_) | PeerMessage::NewView(_) | PeerMessage::Forward(_) => Self::Proposals,
            PeerMessage::Committed(_) | PeerMessage::Batches(_) | PeerMessage::Block { .. } => Self::Bulk,
            PeerMessage::OfferEvidence(_) | PeerMessage::FetchEvidence { .. } | PeerMessage::Evidence(_) => {
                Self::Bulk
            }
            PeerMessage::Votes(_)
            | PeerMessage::Suspect(_)
            | PeerMessage::Resign(_)
            | PeerMessage::ViewChange(_)
            | PeerMessage::Certificate(_)
            | PeerMessage::Announce(_)
            | PeerMessage::FetchCommitted { .. }
            | PeerMessage::FetchBatches { .. }
            | PeerMessage::FetchNewView { .. }
            | PeerMessage::Proposed(_)
            | PeerMessage::FetchBlock { .. } => Self::Urgent,
        }
    }

    /// Whether a message may come on this lane: its own, or, where it is too large for that, the bulk lane.
    pub(super) fn carries(self, message: &PeerMessage) -> bool {
        let own = Self::of(message);
        self == own || (self == Self::Bulk && own == Self::Urgent)
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    pub(super) const fn number(self) -> u8 {
        self as u8
    }

    pub(super) const fn priority(self) -> i32 {
        match self {
            Self::Urgent => 2,
            Self::Proposals => 1,
            Self::Bulk => 0,
        }
    }

    pub(super) const fn frame_bytes_max(self) -> usize {
        match self {
            Self::Urgent => URGENT_FRAME_BYTES_MAX,
            Self::Proposals => PROPOSAL_FRAME_BYTES_MAX,
            Self::Bulk => FRAME_BYTES_MAX,
        }
    }

    pub(super) fn outbox(self) -> Outbox {
        match self {
            Self::Urgent => Outbox::new(OUTBOX_MESSAGES_MAX, OUTBOX_URGENT_BYTES_MAX),
            Self::Proposals | Self::Bulk => Outbox::new(OUTBOX_MESSAGES_MAX, OUTBOX_BYTES_MAX),
        }
    }

    pub(super) fn inbox(self) -> Budget {
        match self {
            Self::Urgent => Budget::new(INBOX_URGENT_BYTES_MAX, INBOX_MESSAGES_MAX),
            Self::Proposals | Self::Bulk => Budget::new(INBOX_BYTES_MAX, INBOX_MESSAGES_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::{Bounded, Hash, Signature};
    use quorate_protocol::view_change::NewView;
    use quorate_protocol::{BatchTime, PrePrepare, Proposal};

    /// In order on one lane: on two, a proposal overtook the NEW-VIEW without which it is dropped.
    #[test]
    fn a_new_view_and_the_proposals_after_it_share_a_lane() {
        let new_view =
            NewView { epoch: 0, view: 1, claims: Bounded::new(), base: None, signature: Signature::ZERO };
        let proposal = Proposal { parent: Hash::ZERO, time: BatchTime(1), envelopes: Bounded::new() };
        let pre_prepare = PrePrepare { epoch: 0, view: 1, height: 1, proposal, signature: Signature::ZERO };
        let (new_view, pre_prepare) = (PeerMessage::NewView(new_view), PeerMessage::PrePrepare(pre_prepare));
        assert_eq!(Lane::of(&new_view), Lane::of(&pre_prepare));
        assert!(Lane::Proposals.carries(&new_view) && !Lane::Urgent.carries(&new_view));
    }

    #[test]
    fn lanes_are_numbered_by_their_place() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_number(lane.number()), Some(lane));
        }
        assert_eq!(Lane::from_number(3), None);
    }
}
