//! A replica out of its log.
//!
//! Invariants: whatever a durable record says was said stays said: a log with a contradiction, a gap or
//! another replica's votes is refused; a view that an earlier run entered is entered mutely (rule R2); a
//! VIEW-CHANGE and COMMITs that may have left are sent again (hazard PR3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_crypto::{Certificate, Hash, Signer, Verifier};
use quorate_protocol::peer::Batch;
use quorate_protocol::record::Record;
use quorate_protocol::view_change::{NewView, Rank, Suspicion, ViewChange};
use quorate_protocol::{BatchTime, Height, View, Vote, VoteKind};

use crate::bar::Bars;
use crate::block::{Block, Blocks};
use crate::catch_up::CatchUp;
use crate::commit::remember;
use crate::configuration::Configuration;
use crate::door::rank;
use crate::effect::Effect;
use crate::fetch::Fetches;
use crate::input::Monotonic;
use crate::monitor::Monitor;
use crate::mutant::{Mutant, broken};
use crate::pool::Pool;
use crate::probe::{Probe, reached};
use crate::replica::{Replica, Staged, Tip, ViewState};
use crate::tally::{Added, Standing, VoteTable};
use crate::timers::Timers;
use crate::witness::Witness;

/// A log that a replica must not vote on. The fault of the disk or of whoever put the log there.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The signer's key is not the member's.
    #[error("the consensus key is not that of this member")]
    Key,
    /// A vote or a VIEW-CHANGE of another replica or epoch is in the log.
    #[error("the log is that of another replica or epoch")]
    Foreign,
    /// Two different votes of one kind at one (view, height).
    #[error("two different votes at height {height} of view {view}")]
    Contradiction {
        /// View.
        view: View,
        /// Height.
        height: Height,
    },
    /// Views or committed heights do not rise as they must.
    #[error("records out of order: {0}")]
    Order(&'static str),
    /// A certificate is in the log without the batches that it needs.
    #[error("no batch of the certificate at height {0}")]
    MissingBatch(Height),
    /// A batch whose proposal is not the one that its header names.
    #[error("batch at height {0} does not match its header")]
    Batch(Height),
}

/// What replaying the records gives.
struct Replay<'a> {
    configuration: &'a Configuration,
    committed: Tip,
    recent: BTreeMap<Hash, Height>,
    blocks: Blocks,
    votes: VoteTable,
    claim: Option<Certificate>,
    /// The highest prepare certificate of the highest view that has one.
    prepared: Option<Certificate>,
    entered: Option<View>,
    new_view: Option<NewView>,
    /// Of a view that no record says was entered yet.
    announced: Option<NewView>,
    view_change: Option<ViewChange>,
}

impl<'a> Replay<'a> {
    fn new(configuration: &'a Configuration) -> Self {
        let genesis = configuration.genesis().clone();
        let hash = configuration.genesis_hash();
        let committed =
            Tip { height: 0, header: genesis, hash, operations: 0, certificate: None, wake_at: None };
        Self {
            configuration,
            committed,
            recent: BTreeMap::new(),
            blocks: Blocks::default(),
            votes: VoteTable::default(),
            claim: None,
            prepared: None,
            entered: None,
            new_view: None,
            announced: None,
            view_change: None,
        }
    }

    fn take(&mut self, record: Record) -> Result<(), RecoveryError> {
        match record {
            Record::Entered { epoch, view } => self.entered(epoch, view),
            Record::Proposed { height, batch } => self.proposed(height, batch),
            Record::Voted(vote) => self.voted(vote),
            Record::Prepared(certificate) => self.prepared(certificate),
            Record::Committed(certificate) => self.committed(certificate),
            Record::ViewChange(message) => self.view_change(message),
            Record::NewView(new_view) => {
                self.announced = Some(new_view);
                Ok(())
            }
        }
    }

    fn entered(&mut self, epoch: u64, view: View) -> Result<(), RecoveryError> {
        if epoch != self.configuration.epoch() {
            return Err(RecoveryError::Foreign);
        }
        let wanted = self.view_change.as_ref().map_or(0, |known| known.claim.body.view);
        if self.entered.is_some_and(|before| before >= view) || wanted > view {
            return Err(RecoveryError::Order("a view entered after a later one"));
        }
        if view > 0 && self.announced.as_ref().is_none_or(|new_view| new_view.view != view) {
            return Err(RecoveryError::Order("a view entered without its NEW-VIEW"));
        }
        self.entered = Some(view);
        // A log may end between a NEW-VIEW and its entry: the one before stays in force.
        self.new_view = self.announced.take();
        Ok(())
    }

    fn proposed(&mut self, height: Height, batch: Batch) -> Result<(), RecoveryError> {
        if height <= self.committed.height {
            return Ok(());
        }
        let Batch { header, proposal } = batch;
        if header.height != height {
            return Err(RecoveryError::Batch(height));
        }
        let digest = header.proposal;
        self.blocks.insert(Block::new(height, digest, Arc::new(proposal)));
        let known = self.blocks.set_header(&digest, header.hash(), header);
        if let Some(block) = self.blocks.get_mut(&digest) {
            block.logged = true;
        }
        known.map_err(|_| RecoveryError::Batch(height))
    }

    fn voted(&mut self, vote: Vote) -> Result<(), RecoveryError> {
        if vote.replica != self.configuration.me() || vote.epoch != self.configuration.epoch() {
            return Err(RecoveryError::Foreign);
        }
        let (view, height) = (vote.view, vote.height);
        if self.entered.is_none_or(|entered| entered < view) {
            return Err(RecoveryError::Order("a vote in a view that was not entered"));
        }
        match self.votes.add(vote, Standing::Valid, &|_| true) {
            Added::Conflict(_) => Err(RecoveryError::Contradiction { view, height }),
            Added::New | Added::Ignored | Added::Forged(_) => Ok(()),
        }
    }

    fn prepared(&mut self, certificate: Certificate) -> Result<(), RecoveryError> {
        let height = certificate.height;
        if height > self.committed.height && self.blocks.by_header(&certificate.header_hash).is_none() {
            return Err(RecoveryError::MissingBatch(height));
        }
        if rank(&certificate) > self.claim.as_ref().map_or(Rank::default(), rank) {
            self.claim = Some(certificate.clone());
        }
        if self.prepared.as_ref().is_none_or(|known| rank(known) < rank(&certificate)) {
            self.prepared = Some(certificate);
        }
        Ok(())
    }

    fn committed(&mut self, certificate: Certificate) -> Result<(), RecoveryError> {
        let height = certificate.height;
        if self.committed.height.checked_add(1) != Some(height) {
            return Err(RecoveryError::Order("committed heights are not consecutive"));
        }
        let block = self.blocks.by_header(&certificate.header_hash).map(|block| block.digest);
        let block = block.and_then(|digest| self.blocks.remove(&digest));
        let Some(Block { operations, header: Some((hash, header)), .. }) = block else {
            return Err(RecoveryError::MissingBatch(height));
        };
        if header.height != height || header.previous != self.committed.hash {
            return Err(RecoveryError::Order("a committed header on another parent"));
        }
        if rank(&certificate) >= self.claim.as_ref().map_or(Rank::default(), rank) {
            self.claim = Some(certificate.clone());
        }
        self.committed =
            Tip { height, header, hash, operations, certificate: Some(certificate), wake_at: None };
        remember(&mut self.recent, hash, height);
        self.votes.prune(height);
        let kept = self.blocks.iter().filter(|block| block.height > height).map(|block| block.digest);
        let kept: BTreeSet<Hash> = kept.collect();
        self.blocks.retain(&kept);
        Ok(())
    }

    fn view_change(&mut self, message: ViewChange) -> Result<(), RecoveryError> {
        let body = &message.claim.body;
        if body.replica != self.configuration.me() || body.epoch != self.configuration.epoch() {
            return Err(RecoveryError::Foreign);
        }
        let before = self.view_change.as_ref().map(|known| known.claim.body.view).max(self.entered);
        if before.is_some_and(|before| before >= body.view) {
            return Err(RecoveryError::Order("a VIEW-CHANGE for an earlier view"));
        }
        self.view_change = Some(message);
        Ok(())
    }

    /// The view to continue in, and whether it is a fresh log.
    fn view(&self, now: Monotonic) -> (ViewState, bool) {
        let wanted = self.view_change.as_ref().map_or(0, |known| known.claim.body.view);
        if self.entered.is_none_or(|entered| wanted > entered) && wanted > 0 {
            reached(Probe::RecoveredBetweenViews);
            return (ViewState::new(wanted, now), false);
        }
        let mut view = ViewState::new(self.entered.unwrap_or(0), now);
        view.entered = true;
        view.committed_at_entry = self.committed.height;
        view.base = (0, self.configuration.genesis_hash());
        if self.entered.is_none() {
            return (view, true);
        }
        reached(Probe::RecoveredMute);
        view.mute = !broken(Mutant::PreparesAgain);
        let new_view = self.new_view.as_ref().filter(|known| known.view == view.number);
        if let Some(base) = new_view.and_then(|known| known.base.as_ref()) {
            view.base = (base.height, base.header_hash);
        }
        view.new_view = new_view.cloned().map(Arc::new);
        if let Some(certificate) = self.prepared.as_ref().filter(|known| known.view == view.number) {
            view.certificates.insert(certificate.height, certificate.clone());
            view.committed_on = Some(certificate.clone());
        }
        for vote in self.votes.of(self.configuration.me()).filter(|vote| vote.view == view.number) {
            match vote.kind {
                VoteKind::Prepare => {
                    view.prepared.insert(vote.height, vote.header);
                    view.last_prepared = vote.height.max(view.last_prepared);
                }
                VoteKind::Commit => {
                    view.commits.insert(vote.height, vote.header);
                }
            }
        }
        view.prune(self.committed.height);
        (view, false)
    }
}

impl Replica {
    /// A replica that continues where these records of its log end. An empty log is that of a replica that
    /// has never run; whether a log was lost or rolled back only the driver's directory can tell (rule R2).
    ///
    /// The driver then brings its state to [`Replica::committed_height`] by executing the batches of its
    /// log, calls [`Replica::set_wake_at`], and only then carries out the effects.
    ///
    /// # Errors
    /// [`RecoveryError`]: this replica must not vote with this log.
    pub fn recover(
        configuration: Configuration,
        signer: Arc<dyn Signer>,
        verifier: Arc<dyn Verifier>,
        records: impl IntoIterator<Item = Record>,
        now: Monotonic,
        wall: BatchTime,
    ) -> Result<(Self, Vec<Effect>), RecoveryError> {
        let member = configuration.members().get(configuration.me());
        if member.is_none_or(|member| member.consensus != signer.public()) {
            return Err(RecoveryError::Key);
        }
        let mut replay = Replay::new(&configuration);
        let mut any = false;
        for record in records {
            replay.take(record)?;
            any = true;
        }
        let (view, fresh) = replay.view(now);
        if replay.announced.is_some() {
            reached(Probe::RecoveredBeforeEntry);
        }
        if fresh && any {
            return Err(RecoveryError::Order("records before the first view"));
        }
        let Replay { committed, recent, blocks, mut votes, claim, new_view, view_change, entered, .. } =
            replay;
        let pool = Pool::new(configuration.parameters().pool);
        let me = configuration.me();
        // No PREPARE after a restart in its view: earlier ones are not repeated, nor counted here (rule R2).
        votes.forget_prepares(me);
        let last_new_view = new_view.filter(|known| Some(known.view) == entered).map(Arc::new);
        let view_change = view_change.filter(|_| !view.entered);
        let mut replica = Self {
            configuration,
            signer,
            verifier,
            now,
            wall,
            effects: Vec::new(),
            staged: Staged::default(),
            next_token: 0,
            pending: BTreeMap::new(),
            changed: false,
            committed,
            decided: BTreeMap::new(),
            recent,
            claim,
            blocks,
            votes,
            bars: Bars::default(),
            view,
            last_new_view,
            entered_durably: entered,
            view_changes: view_change.into_iter().map(|message| (me, message)).collect(),
            suspects: BTreeMap::new(),
            resignations: BTreeMap::new(),
            own_resign: None,
            suspicion: None,
            failed_views: 0,
            backed_off_heights: 0,
            barren_views: 0,
            pool,
            monitor: Monitor::default(),
            gone: BTreeSet::new(),
            awaited: None,
            fetches: Fetches::default(),
            catch_up: CatchUp::default(),
            timers: Timers::default(),
            witness: Witness::default(),
            halted: None,
        };
        replica.check_claim()?;
        replica.resume(fresh);
        let effects = replica.finish();
        Ok((replica, effects))
    }

    /// Every batch between the claim and the committed height must be there, or the claim could not be
    /// supported.
    fn check_claim(&self) -> Result<(), RecoveryError> {
        let Some(claim) = &self.claim else { return Ok(()) };
        if claim.height > self.committed.height {
            reached(Probe::RecoveredLocked);
        }
        match self.blocks.path(claim.header_hash, claim.height, self.floor()) {
            crate::block::Path::Complete(_) => Ok(()),
            _ => Err(RecoveryError::MissingBatch(claim.height)),
        }
    }

    fn resume(&mut self, fresh: bool) {
        self.drop_unused();
        if fresh {
            let (epoch, view) = (self.configuration.epoch(), self.view.number);
            self.staged.records.push(Record::Entered { epoch, view });
            self.staged.pending.entered = Some(view);
        } else if self.view.entered {
            if self.is_leader() {
                reached(Probe::RecoveredLeader);
                self.hand_over();
            } else {
                self.suspicion = Some(Suspicion::Restarted);
            }
        }
        if let Some(claim) = self.claim.clone() {
            self.note_certified_view(&claim);
        }
        self.timers.progress_at = self.now;
        self.timers.repeat_now(self.now);
        self.run();
    }

    /// Drops blocks that neither the claim nor a vote of the view at hand refers to.
    fn drop_unused(&mut self) {
        let mut kept = self.blocks_in_use();
        let voted = self.view.prepared.values().chain(self.view.commits.values());
        for header in voted {
            if let Some(block) = self.blocks.by_header(header) {
                kept.extend(self.blocks.ancestry(block.digest));
            }
        }
        if let Some(block) = self.blocks.by_header(&self.view.base.1) {
            kept.extend(self.blocks.ancestry(block.digest));
        }
        if self.blocks.len() > kept.len() {
            reached(Probe::RecoveredUnused);
        }
        self.retain_blocks(&kept);
    }
}
