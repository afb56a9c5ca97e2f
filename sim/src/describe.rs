//! Messages and inputs as operands of the trace and in words.
//!
//! Invariant: two different messages of one kind get different operands, but for a hash collision.

use quorate_crypto::{Hash, derive_hash, encode};
use quorate_protocol::{PeerMessage, Vote, VoteKind};

use crate::trace::{short, word};

/// Number, height or view, and digest of a message.
#[must_use]
pub fn operands(message: &PeerMessage) -> [u64; 3] {
    let (number, place, digest) = match message {
        PeerMessage::PrePrepare(message) => (1, message.height, Hash(first_half(&message.signature.0))),
        PeerMessage::Votes(votes) => {
            let fold = |sum: u64, vote: &Vote| {
                sum.wrapping_mul(31).wrapping_add(word(&vote.header) ^ vote_place(vote))
            };
            return [2, votes.len() as u64, votes.iter().fold(0, fold)];
        }
        PeerMessage::Suspect(message) => (3, message.view, Hash([message.reason as u8; 32])),
        PeerMessage::Resign(message) => (4, message.view, Hash::ZERO),
        PeerMessage::ViewChange(message) => (5, message.claim.body.view, message.claim.body.header),
        PeerMessage::NewView(message) => (6, message.view, Hash(first_half(&message.signature.0))),
        PeerMessage::Certificate(message) => (7, message.height, message.header_hash),
        PeerMessage::FetchCommitted { from } => (8, *from, Hash::ZERO),
        PeerMessage::FetchBatches { header, above } => (9, *above, *header),
        PeerMessage::FetchNewView { view } => (10, *view, Hash::ZERO),
        PeerMessage::Announce(message) => (11, message.committed, Hash([message.entered.into(); 32])),
        other => (12, 0, derive_hash("quorate simulated trace v1", &[&encode(other)])),
    };
    [number, place, word(&digest)]
}

fn vote_place(vote: &Vote) -> u64 {
    vote.view << 32
        ^ vote.height << 8
        ^ u64::from(vote.replica) << 1
        ^ u64::from(vote.kind == VoteKind::Commit)
}

fn first_half(signature: &[u8; 64]) -> [u8; 32] {
    let mut half = [0; 32];
    half.copy_from_slice(&signature[..32]);
    half
}

/// A vote in words.
#[must_use]
pub fn vote_words(vote: &Vote) -> String {
    let kind = match vote.kind {
        VoteKind::Prepare => "PREPARE",
        VoteKind::Commit => "COMMIT",
    };
    format!("{kind} v{} h{} {} of {}", vote.view, vote.height, short(&vote.header), vote.replica)
}

/// A message in words.
#[must_use]
pub fn words(message: &PeerMessage) -> String {
    match message {
        PeerMessage::PrePrepare(message) => {
            let proposal = &message.proposal;
            format!(
                "PRE-PREPARE v{} h{} parent {} {} envelopes",
                message.view,
                message.height,
                short(&proposal.parent),
                proposal.envelopes.len()
            )
        }
        PeerMessage::Votes(votes) => votes.iter().map(vote_words).collect::<Vec<_>>().join(", "),
        PeerMessage::Suspect(message) => format!("SUSPECT v{} {:?}", message.view, message.reason),
        PeerMessage::Resign(message) => format!("RESIGN v{}", message.view),
        PeerMessage::ViewChange(message) => {
            let body = &message.claim.body;
            format!(
                "VIEW-CHANGE to v{} claim v{} h{} {}",
                body.view,
                body.rank.view,
                body.rank.height,
                short(&body.header)
            )
        }
        PeerMessage::NewView(message) => {
            let claims: Vec<_> = message.claims.iter().map(|claim| claim.body.replica).collect();
            let base = message.base.as_ref();
            let base = base.map_or("genesis".to_owned(), |base| {
                format!("{:?} v{} h{} {}", base.kind, base.view, base.height, short(&base.header_hash))
            });
            format!("NEW-VIEW v{} of {claims:?} base {base}", message.view)
        }
        PeerMessage::Certificate(message) => {
            format!(
                "CERTIFICATE {:?} v{} h{} {}",
                message.kind,
                message.view,
                message.height,
                short(&message.header_hash)
            )
        }
        PeerMessage::Announce(message) => {
            format!("ANNOUNCE v{} entered {} committed {}", message.view, message.entered, message.committed)
        }
        PeerMessage::FetchCommitted { from } => format!("FETCH-COMMITTED from h{from}"),
        PeerMessage::Committed(batches) => {
            let heights: Vec<_> = batches.iter().map(|entry| entry.batch.header.height).collect();
            format!("COMMITTED {heights:?}")
        }
        PeerMessage::FetchBatches { header, above } => {
            format!("FETCH-BATCHES {} above h{above}", short(header))
        }
        PeerMessage::Batches(batches) => {
            let heights: Vec<_> = batches.iter().map(|batch| batch.header.height).collect();
            format!("BATCHES {heights:?}")
        }
        PeerMessage::FetchNewView { view } => format!("FETCH-NEW-VIEW v{view}"),
        PeerMessage::Forward(envelope) => {
            format!("FORWARD session {} number {}", short(&envelope.body.session), envelope.body.first)
        }
        PeerMessage::FetchBlock { .. } | PeerMessage::Block { .. } => "BLOCK".to_owned(),
        PeerMessage::Proposed(message) => {
            let digest = short(&message.signed.digest);
            format!("PROPOSED v{} h{} {digest}", message.view, message.height)
        }
        PeerMessage::OfferEvidence(_) | PeerMessage::FetchEvidence { .. } | PeerMessage::Evidence(_) => {
            "EVIDENCE".to_owned()
        }
    }
}
