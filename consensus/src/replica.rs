//! The replica: its state, and the dispatch of one step.
//!
//! Invariant: a step first records its input, then lets every phase do what has become possible until
//! nothing changes, and only then hands out its effects: at most one persist, which comes first, with
//! everything that depends on it inside; then the PREPAREs, which depend on no record of their own (R2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_crypto::{Certificate, CertificateKind, Hash, Signer, Verifier};
use quorate_protocol::record::Record;
use quorate_protocol::view_change::{NewView, Rank, Resign, Suspect, Suspicion, ViewChange};
use quorate_protocol::{BatchTime, Epoch, Header, Height, PeerMessage, PrePrepare, ReplicaIndex, View, Vote};

use crate::bar::Bars;
use crate::block::Blocks;
use crate::catch_up::{CatchUp, Served};
use crate::configuration::Configuration;
use crate::door::rank;
use crate::effect::{Effect, HaltReason, Token};
use crate::fetch::Fetches;
use crate::input::{Input, Monotonic};
use crate::monitor::Monitor;
use crate::mutant::{Mutant, broken};
use crate::pool::Pool;
use crate::tally::{Standing, VoteTable};
use crate::timers::Timers;
use crate::witness::Witness;

/// Most rounds in which the phases of one step may make progress. Each round but the last moves a height
/// or a view, so this is far beyond what a window of heights can need.
const ROUNDS_MAX: usize = 4096;
/// Records of committed heights that wait for the next persist, at most.
const DEFERRED_RECORDS_MAX: usize = 16;

/// The last committed height.
#[derive(Clone, Debug)]
pub(crate) struct Tip {
    pub height: Height,
    pub header: Header,
    pub hash: Hash,
    pub operations: u64,
    /// `None` at height 0 only.
    pub certificate: Option<Certificate>,
    pub wake_at: Option<BatchTime>,
}

/// A PRE-PREPARE that was seen first at its height.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Digest of its proposal.
    pub digest: Hash,
    pub message: Arc<PrePrepare>,
}

/// The view that this replica is in or wants to enter.
#[derive(Clone, Debug)]
pub(crate) struct ViewState {
    pub number: View,
    /// Whether it has been entered; otherwise a VIEW-CHANGE for it was issued.
    pub entered: bool,
    /// Entered by an earlier run of this replica: no PRE-PREPARE and no PREPARE in it (rule R2).
    pub mute: bool,
    /// Led by this replica, which proposes nothing more in it, and until when it waits for what is in flight.
    pub retiring: Option<Monotonic>,
    /// Led by this replica, which has given it up.
    pub resigned: bool,
    pub entered_at: Monotonic,
    /// Committed height when it was entered.
    pub committed_at_entry: Height,
    /// The NEW-VIEW that opened it; none in view 0 and while it is not entered.
    pub new_view: Option<Arc<NewView>>,
    /// Height and header hash of the base; genesis in view 0.
    pub base: (Height, Hash),
    /// Whether all blocks from the committed height to the base are in `chain`.
    pub settled: bool,
    /// Digests by height above the committed one: path of the base, then what was accepted.
    pub chain: BTreeMap<Height, Hash>,
    /// First PRE-PREPARE seen of each height.
    pub pre_prepares: BTreeMap<Height, Kept>,
    /// The highest PRE-PREPARE that there was no room for.
    pub too_high: Height,
    /// Header hashes of own PREPAREs issued.
    pub prepared: BTreeMap<Height, Hash>,
    /// Height of the last own PREPARE issued.
    pub last_prepared: Height,
    /// Prepare certificates of this view.
    pub certificates: BTreeMap<Height, Certificate>,
    /// Header hashes of own COMMITs issued.
    pub commits: BTreeMap<Height, Hash>,
    /// The highest prepare certificate of this view on which a COMMIT was issued.
    pub committed_on: Option<Certificate>,
}

impl ViewState {
    /// A view that is not entered.
    pub(crate) const fn new(number: View, now: Monotonic) -> Self {
        Self {
            number,
            entered: false,
            mute: false,
            retiring: None,
            resigned: false,
            entered_at: now,
            committed_at_entry: 0,
            new_view: None,
            base: (0, Hash::ZERO),
            settled: false,
            chain: BTreeMap::new(),
            pre_prepares: BTreeMap::new(),
            too_high: 0,
            prepared: BTreeMap::new(),
            last_prepared: 0,
            certificates: BTreeMap::new(),
            commits: BTreeMap::new(),
            committed_on: None,
        }
    }

    /// The certificate of the base.
    pub(crate) fn base_certificate(&self) -> Option<&Certificate> {
        self.new_view.as_ref().and_then(|new_view| new_view.base.as_ref())
    }

    /// Forgets what lies at or below a height.
    pub(crate) fn prune(&mut self, committed: Height) {
        self.chain.retain(|height, _| *height > committed);
        self.pre_prepares.retain(|height, _| *height > committed);
        self.certificates.retain(|height, _| *height > committed);
        self.commits.retain(|height, _| *height > committed);
        self.prepared.retain(|height, _| *height > committed);
    }
}

/// What becomes known when a persist is synced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    pub votes: Vec<Vote>,
    pub view_change: Option<ViewChange>,
    pub entered: Option<View>,
}

/// Something that waits for the records of this step.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "moved once each, within a step")]
pub(crate) enum Dependent {
    Vote(Vote),
    Effect(Effect),
}

/// What one step wants to make durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Staged {
    pub records: Vec<Record>,
    pub then: Vec<Dependent>,
    pub pending: Pending,
    /// Own PREPAREs, which leave without a record.
    pub prepares: Vec<Vote>,
    /// Since when records wait on which nothing depends.
    pub since: Option<Monotonic>,
    /// Whether what waits goes to the disk in this step in any case.
    pub flush: bool,
}

impl Staged {
    /// Whether the records go to the disk in this step. A commit certificate can be had again from the
    /// others, so its record waits for the next persist that something depends on.
    pub(crate) fn is_due(&self) -> bool {
        let deferrable = |record: &Record| matches!(record, Record::Committed(_));
        self.flush
            || !self.then.is_empty()
            || self.records.len() > DEFERRED_RECORDS_MAX
            || !self.records.iter().all(deferrable)
    }
}

/// A glance at a replica, cheap to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Epoch.
    pub epoch: Epoch,
    /// View that it is in or wants to enter.
    pub view: View,
    /// Whether it has entered that view.
    pub entered: bool,
    /// Leader of that view.
    pub leader: ReplicaIndex,
    /// Last committed height.
    pub committed: Height,
    /// Whether it may PREPARE in that view: it entered it in this run and has not halted.
    pub may_prepare: bool,
    /// Envelopes in its pool.
    pub pool: usize,
    /// Heights above the committed one that it works on in this view.
    pub in_flight: usize,
    /// Why it suspects its leader, if it does.
    pub suspects: Option<Suspicion>,
    /// Why it stopped voting, if it did.
    pub halted: Option<HaltReason>,
}

/// One replica as a state machine.
pub struct Replica {
    pub(crate) configuration: Configuration,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) verifier: Arc<dyn Verifier>,
    pub(crate) now: Monotonic,
    pub(crate) wall: BatchTime,
    pub(crate) effects: Vec<Effect>,
    pub(crate) staged: Staged,
    pub(crate) next_token: u64,
    pub(crate) pending: BTreeMap<Token, Pending>,
    /// Whether a phase of this round changed something that another one may build on.
    pub(crate) changed: bool,

    pub(crate) committed: Tip,
    /// Commit certificates above the committed height.
    pub(crate) decided: BTreeMap<Height, Certificate>,
    /// Header hashes of the last committed heights, to recognise what peers ask for.
    pub(crate) recent: BTreeMap<Hash, Height>,
    /// The highest-ranked certificate whose record and batches are in the log; `None` is genesis.
    pub(crate) claim: Option<Certificate>,
    pub(crate) blocks: Blocks,
    pub(crate) votes: VoteTable,
    /// Who was caught with badly signed votes.
    pub(crate) bars: Bars,
    pub(crate) view: ViewState,
    /// The NEW-VIEW of the highest view that was entered.
    pub(crate) last_new_view: Option<Arc<NewView>>,
    /// The highest view of which the record of entering it is synced.
    pub(crate) entered_durably: Option<View>,

    /// The latest VIEW-CHANGE of each replica, own ones once they are durable.
    pub(crate) view_changes: BTreeMap<ReplicaIndex, ViewChange>,
    /// The latest suspicion of each other replica.
    pub(crate) suspects: BTreeMap<ReplicaIndex, Suspect>,
    /// The highest view that each replica resigned from as its leader.
    pub(crate) resignations: BTreeMap<ReplicaIndex, View>,
    /// The resignation that brought this replica out of its last view, to be repeated.
    pub(crate) own_resign: Option<Resign>,
    pub(crate) suspicion: Option<Suspicion>,
    /// Views left without a hand-over since a height was last committed without need of back-off.
    pub(crate) failed_views: u32,
    /// Heights in a row that needed a back-off.
    pub(crate) backed_off_heights: u32,
    /// Views entered since the last commit of a batch that was not empty.
    pub(crate) barren_views: u32,

    pub(crate) pool: Pool,
    pub(crate) monitor: Monitor,
    /// Peers whose connection was lost and is not back.
    pub(crate) gone: BTreeSet<ReplicaIndex>,
    /// The height that a reader waits for, and since when.
    pub(crate) awaited: Option<(Height, Monotonic)>,
    pub(crate) fetches: Fetches,
    pub(crate) catch_up: CatchUp,
    pub(crate) timers: Timers,
    pub(crate) witness: Witness,
    pub(crate) halted: Option<HaltReason>,
}

impl Replica {
    /// Takes one input at `now` (monotonic) and `wall` (wall clock), and says what to do.
    ///
    /// Neither clock is trusted for safety; `wall` only decides which fresh proposal times are plausible.
    pub fn step(&mut self, now: Monotonic, wall: BatchTime, input: Input) -> Vec<Effect> {
        self.now = now.max(self.now);
        self.wall = wall;
        self.timers.wake(self.now, self.configuration.timeouts());
        match input {
            Input::Message { from, message } => {
                let digest = message.digest();
                self.on_message(from, message.into_value(), digest);
            }
            Input::Request { envelope, next } => self.on_request(envelope, next),
            Input::Await(certificate) => self.on_await(certificate.into_value()),
            Input::Persisted(token) => self.on_persisted(token),
            Input::Executed { height, digest, outcome } => self.on_executed(height, digest, outcome),
            Input::Tick => self.timers.fired(),
            Input::Disconnected(peer) => self.on_disconnected(peer),
            Input::Connected(peer) => {
                self.gone.remove(&peer);
            }
            Input::Resign => {
                self.retire(self.haste());
                self.staged.flush = true;
            }
        }
        self.run();
        self.finish()
    }

    fn on_message(&mut self, from: ReplicaIndex, message: PeerMessage, digest: Hash) {
        match message {
            PeerMessage::PrePrepare(pre_prepare) => self.on_pre_prepare(from, pre_prepare, digest),
            PeerMessage::Votes(votes) => self.on_votes(from, votes.into_inner()),
            PeerMessage::Suspect(suspect) => self.on_suspect(from, suspect),
            PeerMessage::Resign(resign) => self.on_resign(&resign),
            PeerMessage::ViewChange(view_change) => self.on_view_change(from, view_change),
            PeerMessage::NewView(new_view) => self.on_new_view(Arc::new(new_view)),
            PeerMessage::Certificate(certificate) => {
                if certificate.kind == CertificateKind::Commit {
                    self.hear(from, certificate.height);
                }
                self.learn(certificate);
            }
            PeerMessage::Announce(announcement) => self.on_announce(from, &announcement),
            PeerMessage::FetchCommitted { from: height } => self.serve_committed(from, height),
            PeerMessage::Committed(batches) => self.on_committed(from, batches.into_inner()),
            PeerMessage::FetchBatches { header, above } => self.serve_batches(from, header, above),
            PeerMessage::Batches(batches) => self.on_batches(batches.into_inner()),
            PeerMessage::FetchNewView { view } => self.serve_new_view(from, view, Served::Asked),
            PeerMessage::Proposed(statement) => self.on_proposed(&statement),
            // Only the driver knows the session's next number and feeds a request instead; blocks and stored
            // evidence are the driver's alone.
            PeerMessage::Forward(_)
            | PeerMessage::FetchBlock { .. }
            | PeerMessage::Block { .. }
            | PeerMessage::OfferEvidence(_)
            | PeerMessage::FetchEvidence { .. }
            | PeerMessage::Evidence(_) => {}
        }
    }

    /// Lets every phase do what has become possible, until none can do more.
    pub(crate) fn run(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.changed = false;
            self.fetches.start_round();
            if self.halted.is_none() {
                self.check_term();
                self.check_views();
                self.build_new_view();
                self.settle_base();
                self.release_commits();
                self.deliver();
                self.accept_next();
                self.execute_next();
                self.prepare_next();
                self.propose();
                self.check_timers();
            }
            if !self.changed {
                break;
            }
        }
        self.run_fetches();
        self.run_timers();
    }

    /// Hands out the effects of the step, the persist first.
    pub(crate) fn finish(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let prepares = std::mem::take(&mut self.staged.prepares);
        if self.staged.is_due() {
            let staged = std::mem::take(&mut self.staged);
            if !staged.records.is_empty() || !staged.then.is_empty() {
                let token = self.staged_token();
                self.next_token = self.next_token.saturating_add(1);
                self.pending.insert(token, staged.pending);
                let then = crate::vote::merge_votes(staged.then);
                effects.push(Effect::Persist { token, records: staged.records, then });
            }
        }
        for message in crate::vote::vote_messages(prepares) {
            effects.push(Effect::Broadcast { message: Arc::new(message) });
        }
        effects.append(&mut self.effects);
        effects
    }

    /// The token of the persist that will hold what is staged now.
    pub(crate) const fn staged_token(&self) -> Token {
        Token(self.next_token)
    }

    fn on_persisted(&mut self, token: Token) {
        // Tokens complete in order; one that is reported late vouches for all before it.
        while let Some(entry) = self.pending.first_entry() {
            if *entry.key() > token {
                break;
            }
            let Pending { votes, view_change, entered } = entry.remove();
            for vote in votes {
                self.count_vote(vote, Standing::Valid);
            }
            // An own claim takes part in the view change only while that view is still wanted.
            if let Some(view_change) = view_change
                && view_change.claim.body.view == self.view.number
                && !self.view.entered
            {
                self.view_changes.insert(self.configuration.me(), view_change);
            }
            self.entered_durably = self.entered_durably.max(entered);
        }
    }

    pub(crate) fn send(&mut self, to: ReplicaIndex, message: PeerMessage) {
        self.effects.push(Effect::Send { to, message: Arc::new(message) });
    }

    pub(crate) fn broadcast(&mut self, message: PeerMessage) {
        self.effects.push(Effect::Broadcast { message: Arc::new(message) });
    }

    /// Stops voting for good in this run.
    pub(crate) fn halt(&mut self, reason: HaltReason) {
        if self.halted.is_none() {
            self.halted = Some(reason);
            self.staged.flush = true;
            self.effects.push(Effect::Halt { reason });
        }
    }

    /// Whether votes may be issued in the view at hand.
    pub(crate) fn is_active(&self) -> bool {
        self.view.entered && self.halted.is_none() && !self.is_superseded()
    }

    /// Whether the claim proves that a later view has begun. No quorum can be had in this one any more, and
    /// what is committed may not be what this view stands on: its NEW-VIEW is waited for.
    pub(crate) fn is_superseded(&self) -> bool {
        self.claim_rank().view > self.view.number && !broken(Mutant::SupersededVotes)
    }

    /// Whether the record of entering the view at hand is synced.
    pub(crate) fn is_entry_durable(&self) -> bool {
        self.entered_durably >= Some(self.view.number)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.configuration.leader(self.view.number) == self.configuration.me()
    }

    /// The committed header, as the floor of paths.
    pub(crate) const fn floor(&self) -> (Height, Hash) {
        (self.committed.height, self.committed.hash)
    }

    /// The highest height about which anything is kept.
    pub(crate) fn horizon(&self) -> Height {
        let ahead = self.configuration.window().saturating_mul(2);
        self.committed.height.saturating_add(ahead).saturating_add(crate::catch_up::HEIGHTS_AHEAD)
    }

    /// The highest height that this replica may PREPARE (rule R7).
    pub(crate) fn window_end(&self) -> Height {
        let beyond = if broken(Mutant::WindowIgnored) { self.configuration.window() } else { 0 };
        self.committed.height.saturating_add(self.configuration.window()).saturating_add(beyond)
    }

    pub(crate) fn claim_rank(&self) -> Rank {
        self.claim.as_ref().map_or(Rank::default(), rank)
    }

    /// Tells when batch time next asks for an empty batch, as the state of the committed height has it.
    /// To be called once after recovery, when the driver has brought its state to that height.
    pub const fn set_wake_at(&mut self, wake_at: Option<BatchTime>) {
        self.committed.wake_at = wake_at;
    }

    /// A glance at it.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            epoch: self.configuration.epoch(),
            view: self.view.number,
            entered: self.view.entered,
            leader: self.configuration.leader(self.view.number),
            committed: self.committed.height,
            may_prepare: self.is_active() && !self.view.mute,
            pool: self.pool.len(),
            in_flight: self.view.chain.len(),
            suspects: self.suspicion,
            halted: self.halted,
        }
    }

    /// What it was told when it started.
    #[must_use]
    pub const fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The view that it is in or wants to enter.
    #[must_use]
    pub const fn view(&self) -> View {
        self.view.number
    }

    /// Whether it has entered that view.
    #[must_use]
    pub const fn has_entered(&self) -> bool {
        self.view.entered
    }

    /// Its last committed height.
    #[must_use]
    pub const fn committed_height(&self) -> Height {
        self.committed.height
    }

    /// The header of its last committed height; the genesis header at height 0.
    #[must_use]
    pub const fn committed_header(&self) -> &Header {
        &self.committed.header
    }

    /// The certificate of its last committed height; `None` at height 0.
    #[must_use]
    pub const fn committed_certificate(&self) -> Option<&Certificate> {
        self.committed.certificate.as_ref()
    }

    /// Rank of its claim (rule R1).
    #[must_use]
    pub fn claim(&self) -> Rank {
        self.claim_rank()
    }

    /// Leader of the view that it is in or wants to enter.
    #[must_use]
    pub fn leader(&self) -> ReplicaIndex {
        self.configuration.leader(self.view.number)
    }

    /// Why it stopped voting, if it did.
    #[must_use]
    pub const fn halted(&self) -> Option<HaltReason> {
        self.halted
    }

    /// Replicas whose votes are not looked at now because they were badly signed, with how often that was found.
    pub fn barred(&self) -> impl Iterator<Item = (ReplicaIndex, u32)> {
        self.bars.barred(self.now)
    }

    /// Envelopes in its pool.
    #[must_use]
    pub fn pool_len(&self) -> usize {
        self.pool.len()
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Replica {} {:?} committed {} claim {:?} base {:?} chain {:?} prepared {} certificates {:?} \
             decided {:?} blocks {} wants {:?}",
            self.configuration.me(),
            (self.view.number, self.view.entered, self.view.mute),
            self.committed.height,
            self.claim_rank(),
            self.view.base,
            self.view.chain.keys(),
            self.view.last_prepared,
            self.view.certificates.keys(),
            self.decided.keys(),
            self.blocks.len(),
            self.fetches,
        )
    }
}
