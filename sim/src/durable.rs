//! What the disk of a replica cannot lose any more, as far as votes rest on it (rule R2).
//!
//! Invariant: it is told of a record only when that is synced, and forgets none: what a correct driver made
//! durable once is in the log for ever.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::Hash;
use quorate_protocol::record::Record;
use quorate_protocol::view_change::{Rank, ViewChangeBody};
use quorate_protocol::{Epoch, Height, View, Vote, VoteKind};

/// Durable records of one replica.
#[derive(Debug, Default)]
pub struct Durable {
    entered: BTreeSet<(Epoch, View)>,
    asked: BTreeMap<(Epoch, View), Rank>,
    /// Header hashes of prepare certificates.
    prepared: BTreeMap<(Epoch, View, Height), Hash>,
    /// Batches by header hash: height and the header below.
    batches: BTreeMap<Hash, (Height, Hash)>,
    committed: Height,
    /// The highest certificate of any kind.
    claim: Rank,
}

impl Durable {
    /// A record is durable.
    pub fn add(&mut self, record: &Record) {
        match record {
            Record::Entered { epoch, view } => {
                self.entered.insert((*epoch, *view));
            }
            Record::Proposed { height, batch } => {
                self.batches.insert(batch.header.hash(), (*height, batch.header.previous));
            }
            Record::Prepared(certificate) => {
                let place = (certificate.epoch, certificate.view, certificate.height);
                self.prepared.insert(place, certificate.header_hash);
                self.claims(certificate.view, certificate.height);
            }
            Record::Committed(certificate) => {
                self.committed = self.committed.max(certificate.height);
                self.claims(certificate.view, certificate.height);
            }
            Record::ViewChange(message) => {
                let body = &message.claim.body;
                self.asked.insert((body.epoch, body.view), body.rank);
            }
            Record::Voted(_) | Record::NewView(_) => {}
        }
    }

    fn claims(&mut self, view: View, height: Height) {
        self.claim = self.claim.max(Rank { view, height });
    }

    /// What must be durable before this vote leaves and is not.
    #[must_use]
    pub fn vote_lacks(&self, vote: &Vote) -> Option<&'static str> {
        if !self.entered.contains(&(vote.epoch, vote.view)) {
            return Some("the view");
        }
        if vote.kind == VoteKind::Prepare {
            return None;
        }
        let (from, to) = ((vote.epoch, vote.view, vote.height), (vote.epoch, vote.view, Height::MAX));
        let mut certificates = self.prepared.range(from..=to).peekable();
        if certificates.peek().is_none() {
            return Some("a prepare certificate at or above it");
        }
        let rests = |((_, _, height), header): (&(Epoch, View, Height), &Hash)| {
            self.rests_on_batches(*height, *header, vote)
        };
        (!certificates.any(rests)).then_some("the batches from the certificate down to what is committed")
    }

    /// Whether all batches from a header down to the committed height are here, the one voted for included.
    fn rests_on_batches(&self, height: Height, header: Hash, vote: &Vote) -> bool {
        let (mut at, mut wanted, mut found) = (height, header, false);
        while at > self.committed || at >= vote.height {
            match self.batches.get(&wanted) {
                Some((known, previous)) if *known == at => {
                    found |= at == vote.height && wanted == vote.header;
                    (at, wanted) = (at - 1, *previous);
                }
                _ => return false,
            }
        }
        found
    }

    /// Whether the record of this VIEW-CHANGE is here, and its claim with it.
    #[must_use]
    pub fn has_asked(&self, body: &ViewChangeBody) -> bool {
        self.asked.get(&(body.epoch, body.view)) == Some(&body.rank) && self.claim >= body.rank
    }
}
