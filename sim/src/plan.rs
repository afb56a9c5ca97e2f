//! The configuration of a run, drawn from its seed: sizes, speeds, time-outs, clients, faults.
//!
//! Invariant: a plan depends on the seed alone. Each kind of trouble is switched on or off as a whole for a
//! run (swarm testing), because mixtures of everything hide what needs one kind in abundance.

use std::collections::BTreeMap;
use std::fmt;

use quorate_consensus::{MonitorBounds, Parameters, PoolBounds, ProposalBounds, Timeouts};
use quorate_crypto::faults;
use quorate_protocol::ReplicaIndex;

use crate::byzantine::Behaviour;
use crate::cast::Scheme;
use crate::client::{Addressing, ClientPlan};
use crate::faults::{Fault, FaultKind, Scheduled, schedule};
use crate::hostile::{HostilePlan, Hostility};
use crate::machine::Execution;
use crate::mutant::Mutant;
use crate::network::Weather;
use crate::random::{MILLION, Random, Stream};
use crate::reader::ReaderPlan;
use crate::trace::{MILLISECOND, SECOND};
use crate::world::EVENTS_MAX;

/// One seed in this many runs on real execution.
pub const REAL_EXECUTION_ONE_IN: u64 = 16;
/// One seed in this many signs with Ed25519.
pub const ED25519_ONE_IN: u64 = 64;
/// One seed in this many has Byzantine replicas.
pub const BYZANTINE_ONE_IN: u64 = 4;
/// After the calm everything must be done within this many of the longest back-offs ..
pub const RECOVERY_BACK_OFFS: u64 = 10;
/// .. and this many hand-over times.
pub const RECOVERY_HAND_OVERS: u64 = 4;
/// In a run without troubles the request time-out is so many times that of the plan.
pub const UNTROUBLED_PATIENCE: u64 = 8;
/// Most clients of a run.
pub const CLIENTS_MAX: u64 = 4;
/// Most readers of a run.
pub const READERS_MAX: u64 = 2;
/// One seed in this many has hostile clients.
pub const HOSTILE_ONE_IN: u64 = 6;
/// Most hostile clients of a run.
pub const HOSTILE_MAX: u64 = 2;
/// Most faults of a run.
pub const FAULTS_MAX: u64 = 12;

/// How fast things are. Ranges in nanoseconds, both ends included.
#[derive(Copy, Clone, Debug)]
pub struct Speeds {
    /// Of a link in one direction.
    pub latency: (u64, u64),
    /// Added to each message.
    pub jitter: u64,
    /// Of a sync.
    pub sync: (u64, u64),
    /// Of an execution.
    pub execution: (u64, u64),
}

/// Seeds among which one has small pools.
const SMALL_POOL_ONE_IN: u64 = 8;

/// The clock of a replica.
#[derive(Copy, Clone, Debug, Default)]
pub struct Clock {
    /// How far its wall clock is off, in nanoseconds.
    pub skew: i64,
    /// How much faster or slower its monotonic clock runs, in millionths.
    pub drift: i64,
}

/// Everything that a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Replicas.
    pub n: usize,
    /// Signatures.
    pub scheme: Scheme,
    /// State machine.
    pub execution: Execution,
    /// W.
    pub window: u64,
    /// Time-outs and bounds of consensus.
    pub parameters: Parameters,
    /// Speeds.
    pub speeds: Speeds,
    /// Whether links keep the order of messages unless the weather says otherwise.
    pub in_order: bool,
    /// Whether a cut loses what is under way.
    pub cuts_lose: bool,
    /// Whether messages and records go through their encoding.
    pub encoded: bool,
    /// What goes wrong with single messages until the calm.
    pub weather: Weather,
    /// Clocks by replica.
    pub clocks: Vec<Clock>,
    /// Clients.
    pub clients: Vec<ClientPlan>,
    /// Byzantine replicas, at most f.
    pub byzantine: BTreeMap<ReplicaIndex, Behaviour>,
    /// Whether replicas are told of connections that are lost and back.
    pub hints: bool,
    /// Replicas whose disks may be damaged: together with the Byzantine ones at most f.
    pub frail: Vec<ReplicaIndex>,
    /// Readers.
    pub readers: Vec<ReaderPlan>,
    /// Hostile clients.
    pub hostile: Vec<HostilePlan>,
    /// Faults with their times, ascending.
    pub faults: Vec<Scheduled>,
    /// When everything is repaired.
    pub calm_at: u64,
    /// How long after that everything must be done.
    pub patience: u64,
    /// Within which time each request of a client is answered, whatever goes on; `None` if nothing is
    /// promised before the calm.
    pub promise: Option<u64>,
    /// Most events: see [`EVENTS_MAX`].
    pub events_max: u64,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::sized(seed, None)
    }

    /// The plan of a seed, with a number of replicas that it does not draw.
    #[must_use]
    pub fn sized(seed: u64, n: Option<usize>) -> Self {
        let random = &mut Random::new(seed, Stream::Plan);
        let drawn = size(random);
        let n = n.unwrap_or(drawn);
        let speeds = speeds(random);
        let round = 4 * (speeds.latency.1 + speeds.jitter) + 2 * speeds.sync.1 + speeds.execution.1;
        let leaders = &mut Random::new(seed, Stream::Leaders);
        let timeouts = timeouts((random, leaders), round);
        let kinds: Vec<FaultKind> = FaultKind::ALL.into_iter().filter(|_| random.one_in(3)).collect();
        let span = timeouts.request * random.between(8, 30);
        let byzantine = byzantine(random, n);
        let frail = frail(random, n, &byzantine);
        let clients = clients(random, n, span, &timeouts);
        let count = if kinds.is_empty() { 0 } else { random.between(1, FAULTS_MAX) };
        let troubles = schedule(random, (n, &frail), &kinds, count, span, &timeouts);
        let monitor = monitor(leaders, round, &timeouts);
        let parameters = Parameters { timeouts, proposal: proposal(random), pool: pool(seed), monitor };
        Self {
            seed,
            n,
            scheme: if random.one_in(ED25519_ONE_IN) { Scheme::Ed25519 } else { Scheme::KeyedHash },
            execution: if random.one_in(REAL_EXECUTION_ONE_IN) { Execution::Real } else { Execution::Fake },
            window: random.pick(&[1, 2, 3, 4, 4, 8, 16]),
            parameters,
            speeds,
            in_order: random.one_in(2),
            cuts_lose: random.one_in(2),
            encoded: random.one_in(8),
            weather: weather(random, round),
            clocks: clocks(random, n, &timeouts),
            clients,
            readers: readers(random, span, &timeouts),
            byzantine,
            frail,
            hostile: hostile(random, span),
            hints: leaders.one_in(2),
            faults: troubles,
            calm_at: span,
            patience: RECOVERY_BACK_OFFS * timeouts.back_off_max + RECOVERY_HAND_OVERS * timeouts.hand_over,
            promise: None,
            events_max: EVENTS_MAX,
            mutant: None,
        }
    }

    /// The same run with these Byzantine replicas, which are f: nobody else may lose what it has synced.
    #[must_use]
    pub fn with_liars(mut self, byzantine: BTreeMap<ReplicaIndex, Behaviour>) -> Self {
        self.faults.retain(|scheduled| !matches!(scheduled.fault, Fault::DiskDamage { .. }));
        Self { byzantine, frail: Vec::new(), ..self }
    }

    /// The same run without any trouble but hostile clients, and with time-outs that an undisturbed cluster never meets.
    #[must_use]
    pub fn untroubled(seed: u64) -> Self {
        Self::new(seed).without_troubles()
    }

    /// The plan without any trouble, and with time-outs that an undisturbed cluster never meets.
    #[must_use]
    pub fn without_troubles(mut self) -> Self {
        let Parameters { timeouts, monitor, .. } = &mut self.parameters;
        // A request that goes to one replica is forwarded, and may wait for two heights; beyond half of a round
        // the leader is to blame.
        monitor.delay_min = monitor.delay_min.max(timeouts.request / 4);
        monitor.wait_min *= UNTROUBLED_PATIENCE;
        monitor.term_heights = u64::MAX;
        timeouts.term = u64::MAX;
        timeouts.request *= UNTROUBLED_PATIENCE;
        timeouts.request_min = timeouts.request;
        timeouts.new_view = timeouts.new_view.max(timeouts.request_min);
        for client in &mut self.clients {
            (client.restarts, client.reconnects) = (None, None);
        }
        let clocks = vec![Clock::default(); self.n];
        Self { weather: Weather::CALM, faults: Vec::new(), clocks, byzantine: BTreeMap::new(), ..self }
    }
}

fn speeds(random: &mut Random) -> Speeds {
    let slowest = random.scaled(20_000, 40 * MILLISECOND);
    let sync = random.scaled(10_000, 10 * MILLISECOND);
    let execution = if random.one_in(3) { 0 } else { random.scaled(1_000, 5 * MILLISECOND) };
    let jitter = random.pick(&[0, slowest / 10, slowest, 3 * slowest]);
    Speeds {
        latency: (slowest / random.pick(&[1, 2, 20]), slowest),
        jitter,
        sync: (sync / 4, sync),
        execution: (0, execution),
    }
}

/// What is expected of leaders is drawn so tight that correct ones fall short now and then.
fn monitor(random: &mut Random, round: u64, timeouts: &Timeouts) -> MonitorBounds {
    MonitorBounds {
        delay_min: (round / random.pick(&[1, 4, 16])).max(1),
        wait_min: timeouts.request / random.pick(&[1, 2, 4]),
        overtaken_max: random.pick(&[1, 4, 64]) as u32,
        term_heights: random.pick(&[3, 10, u64::MAX, u64::MAX]),
    }
}

fn timeouts((random, leaders): (&mut Random, &mut Random), round: u64) -> Timeouts {
    let request = round.max(MILLISECOND) * random.pick(&[2, 3, 6, 12]);
    Timeouts {
        request,
        request_min: request / leaders.pick(&[1, 1, 2, 4]),
        term: request * leaders.pick(&[2, 8, 1000, 1000]),
        new_view: request * random.pick(&[1, 1, 2]),
        back_off_max: request * random.pick(&[2, 8, 8]),
        resend: request / random.pick(&[1, 2, 4]),
        announce: request * random.pick(&[1, 1, 3]),
        hand_over: request * random.pick(&[1, 10]),
        clock_window: 2 * SECOND,
    }
}

fn proposal(random: &mut Random) -> ProposalBounds {
    let envelopes = random.pick(&[1, 2, 8, ProposalBounds::default().envelopes]);
    ProposalBounds { envelopes, ..ProposalBounds::default() }
}

/// In one seed of [`SMALL_POOL_ONE_IN`] a session fills its part of the pool with what its client sends ahead.
fn pool(seed: u64) -> PoolBounds {
    let random = &mut Random::new(seed, Stream::Pool);
    let mut bounds = PoolBounds::default();
    if random.one_in(SMALL_POOL_ONE_IN) {
        bounds.envelopes_per_session = random.pick(&[1, 2, 3]);
    }
    bounds
}

fn weather(random: &mut Random, round: u64) -> Weather {
    if random.one_in(3) {
        return Weather::CALM;
    }
    let mut chance = |choices: &[u32]| if random.one_in(2) { random.pick(choices) } else { 0 };
    let loss = chance(&[MILLION / 1000, MILLION / 100, MILLION / 20, MILLION / 5]);
    let duplication = chance(&[MILLION / 100, MILLION / 10]);
    let reordering = chance(&[MILLION / 100, MILLION / 10, MILLION / 3]);
    Weather { loss, duplication, reordering, held: round * random.pick(&[1, 4, 16]) }
}

fn clocks(random: &mut Random, n: usize, timeouts: &Timeouts) -> Vec<Clock> {
    let apart = random.one_in(3);
    let window = timeouts.clock_window / 8;
    let drift = random.pick(&[10_000, 10_000, 200_000]);
    // One clock may be so wrong that nothing which its replica proposes is accepted (hazard A15).
    let wrong = random.one_in(4).then(|| random.below(n as u64) as usize);
    let mut signed = |bound: u64| random.below(2 * bound + 1) as i64 - bound as i64;
    let mut clock = |index| {
        let skew = if wrong == Some(index) { 3 * timeouts.clock_window } else { window };
        Clock { skew: signed(skew), drift: signed(drift) }
    };
    (0..n).map(|index| if apart { clock(index) } else { Clock::default() }).collect()
}

fn clients(random: &mut Random, n: usize, span: u64, timeouts: &Timeouts) -> Vec<ClientPlan> {
    let count = random.between(1, CLIENTS_MAX);
    let total = random.between(8, 48);
    let busy = random.one_in(3);
    let mut client = || {
        let envelopes = (total / count).max(2) as u32;
        let addressing = match random.below(4) {
            0 => Addressing::Leader,
            1 => Addressing::One(random.below(n as u64) as u8),
            _ => Addressing::Everybody,
        };
        ClientPlan {
            envelopes,
            window: random.pick(&[1, 1, 2, 4]),
            operations: random.pick(&[1, 3]),
            think: if busy { span / 64 } else { 2 * span / u64::from(envelopes) },
            patience: timeouts.request * random.pick(&[1, 2, 4]),
            addressing,
            restarts: random.one_in(6).then(|| span / random.between(1, 4)),
            reconnects: random.one_in(4).then(|| span / random.between(1, 8)),
        }
    };
    (0..count).map(|_| client()).collect()
}

/// In one seed of [`BYZANTINE_ONE_IN`] 1 to f replicas are Byzantine.
fn byzantine(random: &mut Random, n: usize) -> BTreeMap<ReplicaIndex, Behaviour> {
    if !random.one_in(BYZANTINE_ONE_IN) {
        return BTreeMap::new();
    }
    let count = random.between(1, faults(n) as u64);
    (0..count).map(|_| (random.below(n as u64) as ReplicaIndex, Behaviour::draw(random, n))).collect()
}

/// Mostly 4: larger clusters cost more, and their arithmetic is what differs.
fn size(random: &mut Random) -> usize {
    match random.below(128) {
        0 => 13,
        1 | 2 => 10,
        3..11 => 7,
        11..19 => 6,
        19..29 => 5,
        _ => 4,
    }
}

/// Replicas that are correct until their disks are damaged, as many as the Byzantine ones leave room for.
fn frail(random: &mut Random, n: usize, byzantine: &BTreeMap<ReplicaIndex, Behaviour>) -> Vec<ReplicaIndex> {
    let mut others: Vec<ReplicaIndex> =
        (0..n as ReplicaIndex).filter(|index| !byzantine.contains_key(index)).collect();
    let count = random.between(0, faults(n).saturating_sub(byzantine.len()) as u64);
    (0..count).map(|_| others.swap_remove(random.below(others.len() as u64) as usize)).collect()
}

fn hostile(random: &mut Random, span: u64) -> Vec<HostilePlan> {
    if !random.one_in(HOSTILE_ONE_IN) {
        return Vec::new();
    }
    let plan = |random: &mut Random| {
        let kinds: Vec<Hostility> = (0..random.between(1, 3)).map(|_| random.pick(&Hostility::ALL)).collect();
        // Who has a client's key may use up its numbers: that is the client itself.
        let is_principal = random.one_in(2) && !kinds.contains(&Hostility::ForeignSessions);
        HostilePlan { kinds, pause: span / random.pick(&[8, 32, 64]), is_principal }
    };
    (0..random.between(1, HOSTILE_MAX)).map(|_| plan(random)).collect()
}

fn readers(random: &mut Random, span: u64, timeouts: &Timeouts) -> Vec<ReaderPlan> {
    let reader = |random: &mut Random| ReaderPlan {
        think: span / random.pick(&[4, 16]),
        patience: timeouts.request * random.pick(&[1, 2]),
        is_mute: false,
    };
    (0..random.below(READERS_MAX + 1)).map(|_| reader(random)).collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, n, scheme, execution, window, speeds, weather, parameters, .. } = self;
        writeln!(
            formatter,
            "seed {seed}: {n} replicas, {scheme:?}, {execution:?} execution, window {window}"
        )?;
        writeln!(formatter, "  {speeds:?}, in order {}, cuts lose {}", self.in_order, self.cuts_lose)?;
        writeln!(formatter, "  {weather:?}")?;
        writeln!(formatter, "  {:?}", parameters.timeouts)?;
        writeln!(formatter, "  envelopes per proposal {}", parameters.proposal.envelopes)?;
        for (index, client) in self.clients.iter().enumerate() {
            writeln!(formatter, "  client {index}: {client:?}")?;
        }
        for (index, reader) in self.readers.iter().enumerate() {
            writeln!(formatter, "  reader {index}: {reader:?}")?;
        }
        for (index, hostile) in self.hostile.iter().enumerate() {
            writeln!(formatter, "  hostile {index}: {hostile:?}")?;
        }
        for (index, clock) in self.clocks.iter().enumerate() {
            writeln!(formatter, "  replica {index}: {clock:?}")?;
        }
        for Scheduled { at, fault } in &self.faults {
            writeln!(formatter, "  {} {}", crate::trace::clock(*at), Fault::words(fault))?;
        }
        for (index, behaviour) in &self.byzantine {
            writeln!(formatter, "  replica {index} is Byzantine: {behaviour:?}")?;
        }
        if let Some(mutant) = self.mutant {
            writeln!(formatter, "  broken on purpose: {mutant:?}")?;
        }
        write!(formatter, "  calm at {}", crate::trace::clock(self.calm_at))
    }
}
