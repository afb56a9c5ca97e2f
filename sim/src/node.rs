//! One simulated replica: the consensus state machine with what its driver keeps, in memory and on disk.
//!
//! Invariant: a crash leaves nothing but [`Node::disk`] and the saved states, which are never ahead of the
//! synced log; everything in [`Memory`] is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_consensus::{Effect, Monotonic, Replica, Token};
use quorate_crypto::{Bounded, Certificate, Hash};
use quorate_execution::StaticFault;
use quorate_protocol::limits::{BATCHES_PER_MESSAGE_MAX, CATCH_UP_BYTES_TARGET};
use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::{Envelope, Header, Height, PeerMessage, Proposal, ReplicaIndex, SessionId};

use crate::cast::GENESIS_TIME;
use crate::disk::{Disk, Refusal};
use crate::machine::{Executed, Receipts, Results, State};
use crate::plan::Clock;
use crate::random::MILLION;

/// Effects that wait for a sync.
#[derive(Debug)]
pub struct Released {
    /// To be fed back.
    pub token: Token,
    /// To be carried out.
    pub then: Vec<Effect>,
}

/// A committed height as a replica keeps it.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The header.
    pub header: Header,
    /// Its certificate.
    pub certificate: Certificate,
    /// The proposal.
    pub proposal: Arc<Proposal>,
    /// The results.
    pub receipts: Receipts,
    /// The state after it.
    pub state: State,
}

/// What a replica keeps while it runs.
pub struct Memory {
    /// Consensus.
    pub replica: Replica,
    /// Outcomes of executions that consensus was not told of yet, by digest of the proposal.
    pub running: BTreeMap<Hash, Result<Executed, StaticFault>>,
    /// Executed proposals that are not committed yet, by digest.
    pub speculative: BTreeMap<Hash, Executed>,
    /// Digests of the envelopes of each proposal, by its digest.
    pub proposals: BTreeMap<Hash, Arc<Vec<Hash>>>,
    /// The committed state and the digest of its proposal.
    pub committed: (State, Hash),
    /// Committed heights.
    pub history: BTreeMap<Height, Finished>,
    /// Height by (session, sequence number) of what was executed.
    pub places: BTreeMap<(SessionId, u64), Height>,
    /// Clients that wait for an envelope, by its digest.
    pub waiting: BTreeMap<Hash, BTreeSet<u8>>,
    /// The timer that was asked for last.
    pub timer: u64,
}

/// One replica, up or down.
pub struct Node {
    /// Its index.
    pub index: ReplicaIndex,
    /// Counts restarts, so that events of an earlier life are recognised.
    pub life: u64,
    /// What it keeps in memory; `None` while it is down.
    pub memory: Option<Memory>,
    /// Its log.
    pub disk: Disk<Released>,
    /// Heights whose state it saved before the crash.
    pub saved: BTreeMap<Height, Finished>,
    /// Its clock.
    pub clock: Clock,
    /// Until when it stands still.
    pub paused_until: u64,
    /// Crashes after so many effects, for so long.
    pub armed: Option<(u64, u64)>,
    /// Added to each sync until the given time.
    pub slow: (u64, u64),
    /// Until when its disk is full.
    pub full_until: u64,
    /// Whether the next sync fails, and how long it is down then.
    pub sync_fails: Option<u64>,
    /// Why it never runs again.
    pub refused: Option<Refusal>,
    /// When it last restarted.
    pub started_at: u64,
}

impl Node {
    /// A replica that has never run.
    #[must_use]
    pub fn new(index: ReplicaIndex, clock: Clock) -> Self {
        Self {
            index,
            life: 0,
            memory: None,
            disk: Disk::default(),
            saved: BTreeMap::new(),
            clock,
            paused_until: 0,
            armed: None,
            slow: (0, 0),
            full_until: 0,
            sync_fails: None,
            refused: None,
            started_at: 0,
        }
    }

    /// Whether it runs.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.memory.is_some()
    }

    /// Its monotonic clock at this virtual time: it starts anew with each life and drifts.
    #[must_use]
    pub fn monotonic(&self, now: u64) -> Monotonic {
        let elapsed = i128::from(now - self.started_at);
        let shown = elapsed * (i128::from(MILLION) + i128::from(self.clock.drift)) / i128::from(MILLION);
        Monotonic(u64::try_from(shown).unwrap_or(0))
    }

    /// The virtual time at which its monotonic clock shows at least this.
    #[must_use]
    pub fn virtual_time(&self, shown: Monotonic) -> u64 {
        let rate = i128::from(MILLION) + i128::from(self.clock.drift);
        let elapsed = (i128::from(shown.0) * i128::from(MILLION) + rate - 1) / rate;
        self.started_at.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Its wall clock at this virtual time.
    #[must_use]
    pub const fn wall(&self, now: u64) -> quorate_protocol::BatchTime {
        quorate_protocol::BatchTime(GENESIS_TIME.0.saturating_add(now).saturating_add_signed(self.clock.skew))
    }
}

impl Memory {
    /// What a replica has in memory after it has started.
    #[must_use]
    pub fn new(replica: Replica, committed: (State, Hash), history: BTreeMap<Height, Finished>) -> Self {
        let mut memory = Self {
            replica,
            running: BTreeMap::new(),
            speculative: BTreeMap::new(),
            proposals: BTreeMap::new(),
            committed,
            history: BTreeMap::new(),
            places: BTreeMap::new(),
            waiting: BTreeMap::new(),
            timer: 0,
        };
        for (height, finished) in history {
            memory.remember(height, finished);
        }
        memory
    }

    fn remember(&mut self, height: Height, finished: Finished) {
        for leaf in finished.receipts.executed() {
            self.places.insert((leaf.session, leaf.sequence), height);
        }
        self.history.insert(height, finished);
    }

    /// The state that a proposal with this parent executes on.
    #[must_use]
    pub fn parent_state(&self, parent: &Hash) -> Option<&State> {
        if self.committed.1 == *parent {
            return Some(&self.committed.0);
        }
        self.speculative.get(parent).map(|executed| &executed.state)
    }

    /// What consensus needs to know of the envelope's session.
    #[must_use]
    pub fn session_next(&self, envelope: &Envelope) -> Option<u64> {
        self.committed.0.next_for(envelope)
    }

    /// The results of the envelope of a session that starts with `first`, if it was executed.
    #[must_use]
    pub fn results(&self, session: SessionId, first: u64) -> Option<Results> {
        let finished = self.history.get(self.places.get(&(session, first))?)?;
        Results::new(&session, first, &finished.header, &finished.certificate, &finished.receipts)
    }

    /// Takes a committed height over: its state becomes the committed one.
    pub fn finish(&mut self, height: Height, digest: Hash, finished: Finished) {
        self.speculative.remove(&digest);
        self.committed = (finished.state.clone(), digest);
        self.remember(height, finished);
    }

    /// Committed heights from `from` on, as one message; `None` if there are none.
    #[must_use]
    pub fn committed_from(&self, from: Height) -> Option<PeerMessage> {
        let mut batches = Bounded::<CommittedBatch, BATCHES_PER_MESSAGE_MAX>::new();
        let mut bytes = 0;
        for finished in self.history.range(from..).map(|(_, finished)| finished) {
            let batch = Batch { header: finished.header.clone(), proposal: (*finished.proposal).clone() };
            bytes += quorate_crypto::encode(&batch).len();
            let full =
                batches.push(CommittedBatch { batch, certificate: finished.certificate.clone() }).is_err();
            if full || bytes >= CATCH_UP_BYTES_TARGET {
                break;
            }
        }
        (!batches.is_empty()).then_some(PeerMessage::Committed(batches))
    }
}
