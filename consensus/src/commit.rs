//! From prepare certificate to COMMIT, and from commit certificate to committed height.
//!
//! Invariants: a COMMIT rests on a durable prepare certificate of its view at or above its height, on durable
//! batches down to the committed height (rules R1 and R2), and on this replica's own execution, which gave the
//! header that it signs (ADR 11); one certificate releases the COMMITs of all heights below it; heights are delivered one by one, each with its own certificate, after this
//! replica has executed them to the certified header.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::{Certificate, Hash};
use quorate_protocol::record::Record;
use quorate_protocol::{Height, VoteKind};

use crate::block::{Block, Execution, Path};
use crate::door::{Verified, rank};
use crate::effect::{Effect, HaltReason};
use crate::input::Monotonic;
use crate::mutant::{Mutant, broken};
use crate::probe::{Probe, reached};
use crate::replica::{Dependent, Replica, Tip};

/// Heights that need a back-off before it is lowered by one step.
const BACKED_OFF_HEIGHTS_MAX: u32 = 32;
/// Committed header hashes that are remembered, to recognise what a peer asks for.
const RECENT_MAX: usize = 512;

impl Replica {
    /// Issues the COMMITs that the highest usable prepare certificate of this view releases.
    pub(crate) fn release_commits(&mut self) {
        if !self.is_active() {
            return;
        }
        let floor = self.floor();
        let mut missing = Vec::new();
        let mut usable = None;
        for certificate in self.view.certificates.values().rev() {
            match self.blocks.path(certificate.header_hash, certificate.height, floor) {
                Path::Complete(path) => {
                    usable = Some((certificate.clone(), path));
                    break;
                }
                Path::Missing { header, height } => {
                    reached(Probe::CertificateWithoutBatches);
                    missing.push((header, height, certificate.clone()));
                }
                Path::Contradicts => {}
            }
        }
        for (header, height, certificate) in missing {
            self.want_batch(header, height, &certificate);
        }
        if let Some((certificate, path)) = usable {
            self.commit_on(&certificate, &path);
        }
    }

    /// Issues COMMITs for all heights of a certified path that are executed and have none in this view yet.
    fn commit_on(&mut self, certificate: &Certificate, path: &[Hash]) {
        let due: Vec<(Height, Hash, Hash)> = path
            .iter()
            .filter_map(|digest| self.blocks.get(digest))
            // What others certified is signed only once own execution agrees; if it does not, this replica halts.
            .filter(|block| block.is_executed() || broken(Mutant::CommitUnexecuted))
            .filter(|block| !self.view.commits.contains_key(&block.height))
            .filter(|block| block.height == certificate.height || !broken(Mutant::BelowUnreleased))
            .filter_map(|block| block.header.as_ref().map(|(hash, _)| (block.height, block.digest, *hash)))
            .collect();
        if path.iter().filter_map(|digest| self.blocks.get(digest)).any(|block| !block.is_executed()) {
            reached(Probe::CertifiedBeforeExecuted);
        }
        self.adopt_path(path);
        if due.is_empty() {
            return;
        }
        if due.len() > 1 {
            reached(Probe::SeveralCommitsReleased);
        }
        path.iter().for_each(|digest| self.log_block(digest));
        if rank(certificate) > self.claim_rank() {
            if !broken(Mutant::CertificateUnlogged) {
                self.staged.records.push(Record::Prepared(certificate.clone()));
            }
            self.claim = Some(certificate.clone());
        }
        let claimed = self.claim.as_ref().is_some_and(|claim| rank(claim) >= rank(certificate));
        assert!(claimed, "a COMMIT rests on a durable claim of at least its rank");
        let higher = self.view.committed_on.as_ref().is_none_or(|before| before.height < certificate.height);
        if higher {
            self.view.committed_on = Some(certificate.clone());
        }
        for (height, digest, header) in due {
            self.view.commits.insert(height, header);
            let vote = self.issue(VoteKind::Commit, height, header);
            self.staged.then.push(Dependent::Effect(Effect::NotifyClients { vote, digest }));
        }
    }

    /// Makes a certified path the lower part of this view's chain, and drops what does not rest on it.
    fn adopt_path(&mut self, path: &[Hash]) {
        let Some(top) = path.last().and_then(|digest| self.blocks.get(digest)) else { return };
        let (top_height, top_digest) = (top.height, top.digest);
        let placed: Vec<(Height, Hash)> =
            path.iter().filter_map(|digest| self.blocks.get(digest)).map(|b| (b.height, b.digest)).collect();
        for (height, digest) in placed {
            if self.view.chain.insert(height, digest) != Some(digest) {
                self.changed = true;
            }
        }
        let above = self.view.chain.range(top_height.saturating_add(1)..).next().map(|(_, digest)| *digest);
        let rests = above.is_none_or(|digest| {
            self.blocks.get(&digest).is_some_and(|block| block.proposal.parent == top_digest)
        });
        if !rests {
            reached(Probe::ChainGivesWay);
            self.view.chain.retain(|height, _| *height <= top_height);
            self.changed = true;
        }
    }

    /// Takes in a commit certificate above the committed height.
    pub(crate) fn learn_decided(&mut self, certificate: Certificate) {
        match self.decided.get(&certificate.height) {
            Some(known) if known.header_hash != certificate.header_hash => {
                self.halt(HaltReason::Forked { height: certificate.height });
            }
            Some(_) => {}
            None => {
                self.watch_certificate(&certificate);
                self.decided.insert(certificate.height, certificate);
                self.changed = true;
            }
        }
    }

    /// Commits heights in order, as long as certificate, batch and own execution are there.
    pub(crate) fn deliver(&mut self) {
        while self.halted.is_none() {
            let height = self.committed.height.saturating_add(1);
            let Some(certificate) = self.decided.get(&height).cloned() else { return };
            let Some(block) = self.blocks.by_header(&certificate.header_hash) else {
                reached(Probe::DecidedWithoutBatch);
                self.want_batch(certificate.header_hash, height, &certificate);
                return;
            };
            let previous = block.header.as_ref().map(|(_, header)| header.previous);
            if block.height != height || previous != Some(self.committed.hash) {
                self.halt(HaltReason::Forked { height });
                return;
            }
            if !block.is_executed() {
                reached(Probe::DecidedBeforeExecuted);
                return;
            }
            let digest = block.digest;
            self.commit(&digest, certificate);
        }
    }

    /// Makes a block the committed height.
    fn commit(&mut self, digest: &Hash, certificate: Certificate) {
        self.log_block(digest);
        let Some(block) = self.blocks.remove(digest) else { return };
        let Block { height, proposal, operations, header: Some((hash, header)), execution, .. } = block
        else {
            return;
        };
        let Execution::Done { advanced, wake_at } = execution else { return };
        self.staged.records.push(Record::Committed(certificate.clone()));
        self.staged.since.get_or_insert(self.now);
        if rank(&certificate) >= self.claim_rank() {
            self.claim = Some(certificate.clone());
        }
        let arrival = self.monitor.committed(height, self.now);
        let served = self.pool.commit(&proposal, &advanced, header.time, self.now);
        let waited = served.iter().copied().chain(arrival).min();
        for since in served {
            // What waited through a view change says nothing of ordinary times.
            if since > self.view.entered_at {
                self.monitor.served(self.now.since(since));
            }
        }
        // COMMITs of an earlier view, or what is caught up on, say nothing of the view at hand.
        if self.view.entered && certificate.view == self.view.number {
            self.judge_back_off(waited);
        }
        self.watch_commit(&header, &certificate);
        self.committed = Tip {
            height,
            header: header.clone(),
            hash,
            operations,
            certificate: Some(certificate.clone()),
            wake_at,
        };
        let token = self.staged_token();
        self.effects.push(Effect::Committed {
            token,
            height,
            header,
            certificate,
            digest: *digest,
            proposal,
        });
        self.after_commit(operations);
    }

    /// Takes the back-off back once a height needed none of it: otherwise each height would cost as many failed views
    /// again where a round takes longer than patience lasts (hazard VC13). What needed it for many heights has it
    /// lowered step by step, or a leader that is slow on purpose would keep it for its whole term.
    fn judge_back_off(&mut self, waited: Option<Monotonic>) {
        let Some(since) = waited.filter(|_| self.failed_views > 0) else { return };
        if self.now.since(self.waits_since(since)) <= self.patience() {
            self.failed_views = 0;
            self.backed_off_heights = 0;
            return;
        }
        reached(Probe::BackOffKept);
        self.backed_off_heights = self.backed_off_heights.saturating_add(1);
        if self.backed_off_heights >= BACKED_OFF_HEIGHTS_MAX {
            self.failed_views = self.failed_views.saturating_sub(1);
            self.backed_off_heights = 0;
        }
    }

    fn after_commit(&mut self, operations: u64) {
        let height = self.committed.height;
        remember(&mut self.recent, self.committed.hash, height);
        self.decided.remove(&height);
        self.caught_up_by_one();
        self.votes.prune(height);
        self.view.prune(height);
        if self.view.entered && height == self.view.base.0 && self.view.last_prepared < height {
            self.tell_committed_base();
        }
        if operations > 0 {
            self.barren_views = 0;
        }
        if self.awaited.is_some_and(|(awaited, _)| awaited <= height) {
            self.awaited = None;
        }
        self.timers.progress(self.now, self.configuration.timeouts());
        self.drop_contradicted();
        self.changed = true;
    }

    /// Drops every block that cannot be committed any more, with all that rests on it.
    fn drop_contradicted(&mut self) {
        let (committed, parent) = (self.committed.height, self.committed.header.proposal);
        let first = committed.saturating_add(1);
        let mut by_height: Vec<(Height, Hash, Hash)> =
            self.blocks.iter().map(|block| (block.height, block.digest, block.proposal.parent)).collect();
        by_height.sort_unstable();
        let (mut kept, mut dropped) = (BTreeSet::new(), BTreeSet::new());
        for (height, digest, below) in by_height {
            let dead = height < first || (height == first && below != parent) || dropped.contains(&below);
            if dead {
                dropped.insert(digest)
            } else {
                kept.insert(digest)
            };
        }
        if !dropped.is_empty() {
            reached(Probe::ContradictedDropped);
            self.view.chain.retain(|_, digest| kept.contains(digest));
            self.retain_blocks(&kept);
        }
    }

    /// Keeps these blocks and drops all others; envelopes of dropped heights go back to the pool (rule R3).
    pub(crate) fn retain_blocks(&mut self, kept: &BTreeSet<Hash>) {
        for block in self.blocks.retain(kept) {
            if block.execution != Execution::Idle {
                self.effects.push(Effect::Forget { digest: block.digest });
            }
            let envelopes: Vec<Verified<_>> = block
                .proposal
                .envelopes
                .iter()
                .filter(|envelope| !self.pool.contains(envelope))
                .map(|envelope| Verified::new(envelope.clone(), envelope.body.digest()))
                .collect();
            if !envelopes.is_empty() {
                reached(Probe::EnvelopesReturned);
                self.effects.push(Effect::Returned { envelopes });
            }
        }
    }
}

/// Remembers the header of a committed height.
pub(crate) fn remember(recent: &mut BTreeMap<Hash, Height>, hash: Hash, height: Height) {
    recent.insert(hash, height);
    if recent.len() > RECENT_MAX {
        let kept = height.saturating_sub(RECENT_MAX as u64 / 2);
        recent.retain(|_, height| *height > kept);
    }
}
