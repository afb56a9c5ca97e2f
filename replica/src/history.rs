//! The committed past: certificates and receipts of the last heights in memory, everything in the log.
//!
//! Invariant: what is served is committed; receipts are those of the height's own execution.

use crate::inbound::bounded;
use crate::keeper::stored_receipts;
use quorate_crypto::Certificate;
use quorate_execution::{Executed, Receipts};
use quorate_protocol::client::EnvelopeResults;
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Header, Height};
use quorate_store::log::Archive;
use quorate_store::state::State as Database;
use std::collections::VecDeque;
use std::sync::Arc;

/// Heights whose receipts are kept in memory.
pub const RECENT_HEIGHTS_MAX: usize = 512;

struct Recent {
    header: Header,
    certificate: Certificate,
    receipts: Receipts,
}

/// The past of this replica.
pub struct History {
    archive: Archive,
    database: Arc<Database>,
    recent: VecDeque<Recent>,
}

impl History {
    /// Over the log's archive and the receipts in the state database.
    pub fn new(archive: Archive, database: Arc<Database>) -> Self {
        Self { archive, database, recent: VecDeque::new() }
    }

    /// Adds a committed height.
    pub fn committed(&mut self, executed: &Arc<Executed>, certificate: Certificate) {
        if self.recent.len() >= RECENT_HEIGHTS_MAX {
            self.recent.pop_front();
        }
        let header = executed.state.header().clone();
        self.recent.push_back(Recent { header, certificate, receipts: executed.receipts.clone() });
    }

    /// The results of the envelope whose first operation has this index of a height's batch, as long as the
    /// height's receipts are kept.
    pub fn results(&self, height: Height, index: u32) -> Option<EnvelopeResults> {
        match self.recent(height) {
            Some(recent) => {
                let certificate = Some(recent.certificate.clone());
                recent.receipts.results(&recent.header, index, certificate)
            }
            None => self.stored_results(height, index),
        }
    }

    fn recent(&self, height: Height) -> Option<&Recent> {
        let first = self.recent.front()?.header.height;
        self.recent.get(usize::try_from(height.checked_sub(first)?).ok()?)
    }

    fn stored_results(&self, height: Height, index: u32) -> Option<EnvelopeResults> {
        let receipts = Receipts::new(stored_receipts(&self.database, height)?).ok()?;
        let batch = self.archive.committed_batch(height).ok()??;
        receipts.results(&batch.batch.header, index, Some(batch.certificate))
    }

    /// Committed heights from `from` on, bounded for one message; empty when there is none or the disk
    /// fails, in which case another replica is asked.
    pub fn committed_from(&self, from: Height) -> Vec<CommittedBatch> {
        bounded(
            |height| match self.archive.committed_batch(height) {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(height, %error, "a committed height cannot be read from the log");
                    None
                }
            },
            from,
        )
    }
}
