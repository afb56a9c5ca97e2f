//! Messages between replicas.
//!
//! Invariant: nothing here is trusted because of who sent it, except that a suspicion counts for the
//! peer whose connection brought it.

use crate::blocks::BlockDescriptor;
use crate::evidence::{Evidence, EvidenceOffer, ProposalStatement};
use crate::limits::{BATCHES_PER_MESSAGE_MAX, BLOCK_BYTES_MAX, EVIDENCE_OFFERS_MAX, VOTES_PER_MESSAGE_MAX};
use crate::view_change::{NewView, Resign, Suspect, ViewChange};
use crate::{Envelope, Epoch, Header, Height, PrePrepare, Proposal, View, Vote};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, BoundedBytes, Certificate, Hash};

/// A batch with the header that names it, as fetched by header hash.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Batch {
    /// The header; its hash is what was asked for.
    pub header: Header,
    /// The proposal whose digest the header names.
    pub proposal: Proposal,
}

/// A committed height: everything needed to check and execute it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CommittedBatch {
    /// Header and proposal.
    pub batch: Batch,
    /// The commit certificate of the header.
    pub certificate: Certificate,
}

/// What one replica tells all others now and then, and on connecting.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Announcement {
    /// Epoch.
    pub epoch: Epoch,
    /// View that it is in, or that it wants to enter.
    pub view: View,
    /// Whether it has entered that view.
    pub entered: bool,
    /// Its last committed height.
    pub committed: Height,
}

/// A message from one replica to another.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum PeerMessage {
    /// A leader's proposal.
    PrePrepare(PrePrepare),
    /// PREPAREs and COMMITs, of one or many heights, of one or many replicas.
    Votes(Bounded<Vote, VOTES_PER_MESSAGE_MAX>),
    /// A revocable suspicion.
    Suspect(Suspect),
    /// A leader gives up.
    Resign(Resign),
    /// A claim.
    ViewChange(ViewChange),
    /// The start of a view.
    NewView(NewView),
    /// A certificate on its own: the answer to a vote for a height that is decided already.
    Certificate(Certificate),
    /// How far the sender is.
    Announce(Announcement),
    /// Asks for committed heights from `from` on.
    FetchCommitted {
        /// First height.
        from: Height,
    },
    /// Committed heights, consecutive and ascending.
    Committed(Bounded<CommittedBatch, BATCHES_PER_MESSAGE_MAX>),
    /// Asks for the batch of a header, and of its ancestors down to `above` (exclusive).
    FetchBatches {
        /// The highest header wanted.
        header: Hash,
        /// The highest height that the asker does not need.
        above: Height,
    },
    /// Batches by header hash, descending: each header's hash is the `previous` of the one before.
    Batches(Bounded<Batch, BATCHES_PER_MESSAGE_MAX>),
    /// Asks for the NEW-VIEW of a view.
    FetchNewView {
        /// The view.
        view: View,
    },
    /// An envelope that the sender's client gave it, for a leader that may not have it.
    Forward(Envelope),
    /// Asks for a block that the state refers to and the asker lacks (rule S5). Not for consensus.
    FetchBlock {
        /// The block.
        id: Hash,
    },
    /// A block that was asked for; the asker checks it against the identifier. Not for consensus.
    Block {
        /// What the identifier names.
        descriptor: BlockDescriptor,
        /// The original content.
        content: BoundedBytes<BLOCK_BYTES_MAX>,
    },
    /// What the sender's leader proposed, for a peer that votes for something else there: if it was proposed
    /// something else, the two together are evidence (hazard A6).
    Proposed(ProposalStatement),
    /// Evidence that the sender has. Not for consensus.
    OfferEvidence(Bounded<EvidenceOffer, EVIDENCE_OFFERS_MAX>),
    /// Asks for a piece of evidence that was offered. Not for consensus.
    FetchEvidence {
        /// Names it.
        digest: Hash,
    },
    /// Evidence that was asked for; the asker verifies it. Not for consensus.
    Evidence(Box<Evidence>),
}
