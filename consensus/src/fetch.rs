//! Fetching by name what a certificate or a NEW-VIEW refers to and this replica lacks: batches by header
//! hash, downward, and NEW-VIEWs by view.
//!
//! Invariants: only what a certificate vouches for is wanted; a batch is taken in only if its header hash
//! was wanted or is named by the header above it; each want is asked of one peer at a time, and of the next
//! one after the retry time, or as soon as the connection with the one that was asked is lost.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::{Certificate, Hash};
use quorate_protocol::limits::{BATCHES_PER_MESSAGE_MAX, CATCH_UP_BYTES_TARGET};
use quorate_protocol::peer::Batch;
use quorate_protocol::{Height, PeerMessage, ReplicaIndex, View};

use crate::block::{Block, Execution};
use crate::effect::HaltReason;
use crate::input::Monotonic;
use crate::mutant::{Mutant, broken};
use crate::probe::{Probe, reached};
use crate::replica::Replica;

/// Batches wanted at one time: a window of certificates, and the claim of every replica.
const WANTS_MAX: usize = 256;
/// A batch that is named in the ordinary course is asked for after this part of the retry time, because it
/// is probably under way.
const PATIENCE_DIVISOR: u64 = 4;

/// Something to ask for, and whom.
#[derive(Clone, Debug)]
struct Want {
    height: Height,
    holders: Vec<ReplicaIndex>,
    turn: usize,
    at: Monotonic,
    /// Who was asked last: from then on the retry time alone decides when somebody is again.
    asked: Option<ReplicaIndex>,
    /// Whether a phase of this round asked for it.
    needed: bool,
}

impl Want {
    /// Whom to ask now, if it is time: the next holder that can be reached, or the next one if none can.
    fn ask(&mut self, now: Monotonic, retry: u64, gone: &BTreeSet<ReplicaIndex>) -> Option<ReplicaIndex> {
        if now < self.at {
            return None;
        }
        self.at = now.plus(retry);
        let index = self.turn.checked_rem(self.holders.len())?;
        let (before, after) = self.holders.split_at_checked(index)?;
        let mut in_turn = (0_usize..).zip(after.iter().chain(before));
        let reachable = in_turn.clone().find(|(_, holder)| !gone.contains(holder));
        let (passed, holder) = reachable.or_else(|| in_turn.next())?;
        if passed > 0 {
            reached(Probe::HolderUnreachable);
        }
        self.turn = index.wrapping_add(passed).wrapping_add(1);
        self.asked = Some(*holder);
        self.asked
    }
}

/// What is being fetched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetches {
    batches: BTreeMap<Hash, Want>,
    /// The NEW-VIEW of the highest view that a certificate proves to have begun.
    new_view: Option<(View, Want)>,
}

impl Fetches {
    pub(crate) fn start_round(&mut self) {
        self.batches.values_mut().for_each(|want| want.needed = false);
    }

    /// Whether the batch with this header is one that is fetched.
    pub(crate) fn wants(&self, header: &Hash) -> bool {
        self.batches.contains_key(header)
    }

    /// Who was asked cannot answer any more: somebody else is asked now.
    pub(crate) fn lost(&mut self, peer: ReplicaIndex, now: Monotonic) {
        let views = self.new_view.iter_mut().map(|(_, want)| want);
        for want in self.batches.values_mut().chain(views).filter(|want| want.asked == Some(peer)) {
            want.at = now;
        }
    }

    /// When the next question is due.
    pub(crate) fn next_at(&self) -> Option<Monotonic> {
        let views = self.new_view.iter().map(|(_, want)| want.at);
        self.batches.values().map(|want| want.at).chain(views).min()
    }
}

impl Replica {
    /// Wants the batch of a header on the path of a certificate, if it does not come by itself.
    pub(crate) fn want_batch(&mut self, header: Hash, height: Height, certificate: &Certificate) {
        let retry = self.configuration.timeouts().resend;
        let own = self.view.chain.get(&height).and_then(|digest| self.blocks.get(digest));
        let executing = own.is_some_and(|block| block.header.is_none());
        let patience = if executing { retry } else { retry.checked_div(PATIENCE_DIVISOR).unwrap_or(0) };
        self.want_batch_of(header, height, certificate.signers.iter().collect(), patience);
    }

    /// Wants the batch of a header of these holders, after `patience`.
    pub(crate) fn want_batch_of(
        &mut self,
        header: Hash,
        height: Height,
        mut holders: Vec<ReplicaIndex>,
        patience: u64,
    ) {
        holders.retain(|holder| *holder != self.configuration.me());
        if height > self.horizon() {
            reached(Probe::BatchBeyondHorizon);
            let committed = height.saturating_sub(self.configuration.window());
            holders.iter().for_each(|holder| self.hear(*holder, committed));
            return;
        }
        let at = self.now.plus(patience);
        if let Some(want) = self.fetches.batches.get_mut(&header) {
            want.needed = true;
            if want.asked.is_none() {
                want.at = want.at.min(at);
            }
        } else if self.fetches.batches.len() < WANTS_MAX {
            let turn = usize::from(self.configuration.me());
            self.fetches
                .batches
                .insert(header, Want { height, holders, turn, at, asked: None, needed: true });
        }
    }

    /// A certificate proves that its view began: this replica wants its NEW-VIEW if it has not entered it.
    pub(crate) fn note_certified_view(&mut self, certificate: &Certificate) {
        let view = certificate.view;
        let behind = view > self.view.number || (view == self.view.number && !self.view.entered);
        let known = self.fetches.new_view.as_ref().is_some_and(|(wanted, _)| *wanted >= view);
        if !behind || known || view == 0 {
            return;
        }
        reached(Probe::NewViewWanted);
        let me = self.configuration.me();
        let holders: Vec<ReplicaIndex> = certificate.signers.iter().filter(|s| *s != me).collect();
        let want =
            Want { height: 0, holders, turn: usize::from(me), at: self.now, asked: None, needed: true };
        self.fetches.new_view = Some((view, want));
    }

    /// Asks one peer once for the NEW-VIEW of a view that it talks about.
    pub(crate) fn ask_new_view(&mut self, peer: ReplicaIndex, view: View) {
        self.send(peer, PeerMessage::FetchNewView { view });
    }

    /// Sends the questions that are due, after the phases have said what they need.
    pub(crate) fn run_fetches(&mut self) {
        self.fetches.batches.retain(|_, want| want.needed);
        let entered = if self.view.entered { self.view.number } else { self.view.number.saturating_sub(1) };
        self.fetches.new_view = self.fetches.new_view.take().filter(|(view, _)| *view > entered);
        if self.halted.is_some() {
            return;
        }
        let (now, retry) = (self.now, self.configuration.timeouts().resend);
        let mut questions = Vec::new();
        for (header, want) in &mut self.fetches.batches {
            if let Some(peer) = want.ask(now, retry, &self.gone).filter(|_| !broken(Mutant::FetchOff)) {
                let above = self.committed.height;
                questions.push((peer, PeerMessage::FetchBatches { header: *header, above }));
            }
        }
        if let Some((view, want)) = &mut self.fetches.new_view
            && let Some(peer) = want.ask(now, retry, &self.gone)
        {
            questions.push((peer, PeerMessage::FetchNewView { view: *view }));
        }
        for (peer, question) in questions {
            self.send(peer, question);
        }
        self.run_catch_up();
    }

    /// Batches by header hash, descending, as the door has checked.
    pub(crate) fn on_batches(&mut self, batches: Vec<Batch>) {
        self.watch_batches(&batches);
        let wanted = batches.first().is_some_and(|batch| {
            let want = self.fetches.batches.get(&batch.header.hash());
            want.is_some_and(|want| want.height == batch.header.height)
        });
        if !wanted {
            reached(Probe::BatchesUnwanted);
        }
        if wanted {
            batches.into_iter().for_each(|batch| self.insert_certified(batch));
        }
    }

    /// Takes in a batch whose header a certificate vouches for, by itself or through a descendant.
    pub(crate) fn insert_certified(&mut self, batch: Batch) {
        let Batch { header, proposal } = batch;
        let (height, digest, hash) = (header.height, header.proposal, header.hash());
        if height <= self.committed.height || height > self.horizon() {
            return;
        }
        self.blocks.insert(Block::new(height, digest, std::sync::Arc::new(proposal)));
        let failed = self.blocks.get(&digest).is_some_and(|block| block.execution == Execution::Failed);
        let known = self.blocks.set_header(&digest, hash, header);
        let ours = if failed { Err(Hash::ZERO) } else { known };
        if let Err(ours) = ours {
            self.halt(HaltReason::Diverged { height, ours, certified: hash });
        }
        self.changed = true;
    }

    /// Serves batches that are not committed here from memory, and points to the log for the rest.
    pub(crate) fn serve_batches(&mut self, to: ReplicaIndex, header: Hash, above: Height) {
        let mut found: Vec<Batch> = Vec::new();
        let (mut wanted, mut bytes) = (header, 0_usize);
        while let Some(block) = self.blocks.by_header(&wanted) {
            let Some(batch) = block.batch() else { break };
            let length = borsh::object_length(&batch).unwrap_or(usize::MAX);
            bytes = bytes.saturating_add(length);
            let full = bytes > CATCH_UP_BYTES_TARGET || found.len() >= BATCHES_PER_MESSAGE_MAX;
            if block.height <= above || (full && !found.is_empty()) {
                break;
            }
            wanted = batch.header.previous;
            found.push(batch);
        }
        if let Ok(batches) = found.try_into() {
            let batches: quorate_crypto::Bounded<Batch, BATCHES_PER_MESSAGE_MAX> = batches;
            if !batches.is_empty() {
                reached(Probe::BatchesServed);
                self.send(to, PeerMessage::Batches(batches));
            }
        }
        if self.recent.contains_key(&wanted) && above < self.committed.height {
            reached(Probe::BatchesFromLog);
            self.serve_from_log(to, above.saturating_add(1));
        }
    }
}
