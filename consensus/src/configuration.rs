//! What a replica is told once, when it starts: who it is, who the others are, bounds and time-outs.
//!
//! Invariant: a [`Configuration`] that exists is usable: its window, bounds and indices are in range.

use quorate_crypto::{Hash, MemberSet};
use quorate_protocol::limits::{
    ENVELOPE_BYTES_MAX, ENVELOPES_PER_PROPOSAL_MAX, OPERATIONS_PER_ENVELOPE_MAX, OPERATIONS_PER_PROPOSAL_MAX,
    PROPOSAL_BYTES_MAX, WINDOW_MAX,
};
use quorate_protocol::{Epoch, Header, ReplicaIndex, View};

/// Nanoseconds in a millisecond.
const MILLISECOND: u64 = 1_000_000;

/// How long a replica waits, in nanoseconds of its monotonic clock unless said otherwise.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// How long an admissible request, or a height in flight, may wait before the leader is suspected: this
    /// while nothing was measured, afterwards a multiple of how long requests took, and never longer.
    pub request: u64,
    /// The shortest that measurement makes of `request` and `new_view`: longer than a machine stalls.
    pub request_min: u64,
    /// How long a NEW-VIEW may take from the moment when a quorum of VIEW-CHANGEs is known, at most.
    pub new_view: u64,
    /// Both of the above double with each view beyond the first f that fails, up to this.
    pub back_off_max: u64,
    /// After this long without progress, what was sent is sent again; also the retry time of fetches.
    pub resend: u64,
    /// How often a replica tells the others how far it is.
    pub announce: u64,
    /// A leader hands over because of a restarted replica at most once per this time.
    pub hand_over: u64,
    /// A leader with work to do hands over after this time, and is suspected some time later.
    pub term: u64,
    /// How far the time of a fresh proposal may be from this replica's wall clock, either way.
    pub clock_window: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request: 1_000 * MILLISECOND,
            request_min: 150 * MILLISECOND,
            new_view: 1_000 * MILLISECOND,
            back_off_max: 8_000 * MILLISECOND,
            resend: 250 * MILLISECOND,
            announce: 1_000 * MILLISECOND,
            hand_over: 10_000 * MILLISECOND,
            term: 120_000 * MILLISECOND,
            clock_window: 2_000 * MILLISECOND,
        }
    }
}

/// What a leader puts into one proposal at most, and what a replica accepts from one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ProposalBounds {
    /// Encoded bytes, at most [`PROPOSAL_BYTES_MAX`].
    pub bytes: usize,
    /// Operations, at most [`OPERATIONS_PER_PROPOSAL_MAX`].
    pub operations: usize,
    /// Envelopes, at most [`ENVELOPES_PER_PROPOSAL_MAX`].
    pub envelopes: usize,
}

impl Default for ProposalBounds {
    fn default() -> Self {
        Self {
            bytes: PROPOSAL_BYTES_MAX,
            operations: OPERATIONS_PER_PROPOSAL_MAX,
            envelopes: ENVELOPES_PER_PROPOSAL_MAX,
        }
    }
}

/// How many envelopes a replica keeps that are not committed yet.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PoolBounds {
    /// Envelopes, over all sessions.
    pub envelopes: usize,
    /// Encoded bytes, over all sessions.
    pub bytes: usize,
    /// Envelopes of one principal's key; one that is larger than the pool's bytes allow for each counts for more.
    pub envelopes_per_principal: usize,
    /// Envelopes of one session.
    pub envelopes_per_session: usize,
}

impl Default for PoolBounds {
    fn default() -> Self {
        Self {
            envelopes: 65_536,
            bytes: 256 << 20,
            envelopes_per_principal: 32_768,
            envelopes_per_session: 256,
        }
    }
}

/// When a leader that does lead counts as slow, unfair or censoring, and for how long it may lead at most.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MonitorBounds {
    /// Nanoseconds that a request may wait for its proposal in any case: more than the noise of the machine.
    pub delay_min: u64,
    /// Nanoseconds for which a request that the leader surely has may stay out of its proposals, at least,
    /// while others are committed; also for how long a leader is watched before it is judged.
    pub wait_min: u64,
    /// How many requests of other sessions, beyond one for each session, may overtake one that the leader
    /// surely has.
    pub overtaken_max: u32,
    /// Heights of one term: then a leader hands over.
    pub term_heights: u64,
}

impl Default for MonitorBounds {
    fn default() -> Self {
        Self {
            delay_min: 5 * MILLISECOND,
            wait_min: 100 * MILLISECOND,
            overtaken_max: 64,
            term_heights: 100_000,
        }
    }
}

/// Everything of a configuration that has a sensible default.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Time-outs.
    pub timeouts: Timeouts,
    /// Bounds of a proposal.
    pub proposal: ProposalBounds,
    /// Bounds of the pool.
    pub pool: PoolBounds,
    /// Bounds of a leader's term and behaviour.
    pub monitor: MonitorBounds,
}

/// A configuration that cannot work. The fault of whoever wrote it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// The replica's index is not in the member set.
    #[error("replica {0} is not in the member set")]
    NotAMember(ReplicaIndex),
    /// The window is not 1 to [`WINDOW_MAX`].
    #[error("window of {0} heights, allowed are 1 to {WINDOW_MAX}")]
    Window(u64),
    /// A bound of proposals or of the pool is too small for one envelope, or beyond the protocol's.
    #[error("bound out of range: {0}")]
    Bound(&'static str),
    /// A time-out is zero, or less than what it bounds.
    #[error("time-out out of range: {0}")]
    Timeout(&'static str),
    /// The genesis header is not one of height 0 in the members' epoch.
    #[error("genesis header of another height or epoch")]
    Genesis,
}

/// What a replica is told when it starts.
#[derive(Clone, Debug)]
pub struct Configuration {
    cluster: Hash,
    members: MemberSet,
    me: ReplicaIndex,
    genesis: Header,
    genesis_hash: Hash,
    window: u64,
    parameters: Parameters,
}

impl Configuration {
    /// A checked configuration. `genesis` is the header of height 0, whose hash is the claim of a replica
    /// that holds no certificate and whose `proposal` is the parent digest of height 1; `window` is W.
    ///
    /// # Errors
    /// [`ConfigurationError`] names the first value that is out of range.
    pub fn new(
        cluster: Hash,
        members: MemberSet,
        me: ReplicaIndex,
        genesis: Header,
        window: u64,
        parameters: Parameters,
    ) -> Result<Self, ConfigurationError> {
        if members.get(me).is_none() {
            return Err(ConfigurationError::NotAMember(me));
        }
        if window == 0 || window > WINDOW_MAX {
            return Err(ConfigurationError::Window(window));
        }
        if genesis.height != 0 || genesis.epoch != members.epoch() {
            return Err(ConfigurationError::Genesis);
        }
        check_bounds(&parameters)?;
        check_timeouts(&parameters.timeouts)?;
        let genesis_hash = genesis.hash();
        Ok(Self { cluster, members, me, genesis, genesis_hash, window, parameters })
    }

    /// Cluster id, which every signature covers.
    #[must_use]
    pub const fn cluster(&self) -> &Hash {
        &self.cluster
    }

    /// The replicas of the epoch.
    #[must_use]
    pub const fn members(&self) -> &MemberSet {
        &self.members
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.members.epoch()
    }

    /// This replica.
    #[must_use]
    pub const fn me(&self) -> ReplicaIndex {
        self.me
    }

    /// The header of height 0.
    #[must_use]
    pub const fn genesis(&self) -> &Header {
        &self.genesis
    }

    /// Hash of the header of height 0.
    #[must_use]
    pub const fn genesis_hash(&self) -> Hash {
        self.genesis_hash
    }

    /// W: how many heights above its last committed one a replica votes for (rule R7).
    #[must_use]
    pub const fn window(&self) -> u64 {
        self.window
    }

    /// Time-outs and bounds.
    #[must_use]
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Time-outs.
    #[must_use]
    pub const fn timeouts(&self) -> &Timeouts {
        &self.parameters.timeouts
    }

    /// Q.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.members.quorum()
    }

    /// f + 1.
    #[must_use]
    pub fn weak_quorum(&self) -> usize {
        self.members.weak_quorum()
    }

    /// Leader of a view.
    #[must_use]
    pub fn leader(&self, view: View) -> ReplicaIndex {
        self.members.leader(view)
    }
}

fn check_bounds(parameters: &Parameters) -> Result<(), ConfigurationError> {
    let Parameters { proposal, pool, monitor, .. } = parameters;
    // A proposal has some 50 bytes besides its envelopes.
    let least = ENVELOPE_BYTES_MAX.saturating_add(1024);
    let within = [
        ("proposal.bytes", proposal.bytes >= least && proposal.bytes <= PROPOSAL_BYTES_MAX),
        (
            "proposal.operations",
            proposal.operations >= OPERATIONS_PER_ENVELOPE_MAX
                && proposal.operations <= OPERATIONS_PER_PROPOSAL_MAX,
        ),
        ("proposal.envelopes", (1..=ENVELOPES_PER_PROPOSAL_MAX).contains(&proposal.envelopes)),
        ("pool.envelopes", pool.envelopes > 0),
        ("pool.bytes", pool.bytes >= ENVELOPE_BYTES_MAX),
        ("pool.envelopes_per_principal", pool.envelopes_per_principal > 0),
        ("pool.envelopes_per_session", pool.envelopes_per_session > 0),
        ("monitor.delay_min", monitor.delay_min > 0),
        ("monitor.wait_min", monitor.wait_min > 0),
        ("monitor.overtaken_max", monitor.overtaken_max > 0),
        ("monitor.term_heights", monitor.term_heights > 0),
    ];
    match within.iter().find(|(_, inside)| !inside) {
        Some((name, _)) => Err(ConfigurationError::Bound(name)),
        None => Ok(()),
    }
}

fn check_timeouts(timeouts: &Timeouts) -> Result<(), ConfigurationError> {
    let Timeouts { request, request_min, new_view, back_off_max, resend, .. } = *timeouts;
    let Timeouts { announce, hand_over, term, clock_window, .. } = *timeouts;
    let within = [
        ("request", request > 0),
        ("request_min", request_min > 0 && request_min <= request && request_min <= new_view),
        ("new_view", new_view > 0),
        ("back_off_max", back_off_max > 0),
        ("resend", resend > 0),
        ("announce", announce > 0),
        ("hand_over", hand_over > 0),
        ("term", term > 0),
        ("clock_window", clock_window > 0),
    ];
    match within.iter().find(|(_, inside)| !inside) {
        Some((name, _)) => Err(ConfigurationError::Timeout(name)),
        None => Ok(()),
    }
}
