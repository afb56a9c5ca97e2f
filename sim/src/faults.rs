//! What goes wrong, and when.
//!
//! Invariant: every fault ends by the calm at the latest, and none of them makes a correct replica break a
//! rule: a replica that crashes loses only what it had not synced.

use quorate_consensus::Timeouts;
use quorate_protocol::ReplicaIndex;

use crate::random::{MILLION, Random};

/// Most effects after which an armed crash strikes.
pub const ARMED_EFFECTS_MAX: u64 = 40;

/// The kinds of faults, which a run switches on or off.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A replica crashes and restarts.
    Crash,
    /// A replica crashes in the middle of what it was about to do.
    CrashAtEffect,
    /// The leader crashes.
    CrashLeader,
    /// All replicas lose power at once.
    PowerLoss,
    /// All replicas restart one after the other.
    RollingRestart,
    /// The replicas are split in two groups.
    Split,
    /// A replica is cut off, or only deaf, or only mute.
    Isolate,
    /// The leader is cut off.
    IsolateLeader,
    /// Single directions of single links are cut.
    CutLinks,
    /// Messages are lost for a while.
    Storm,
    /// A disk is slow for a while.
    SlowDisk,
    /// A replica is paused and goes on.
    Pause,
    /// A wall clock jumps.
    ClockJump,
    /// An operator asks a replica to hand over.
    Resign,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::Crash,
        Self::CrashAtEffect,
        Self::CrashLeader,
        Self::PowerLoss,
        Self::RollingRestart,
        Self::Split,
        Self::Isolate,
        Self::IsolateLeader,
        Self::CutLinks,
        Self::Storm,
        Self::SlowDisk,
        Self::Pause,
        Self::ClockJump,
        Self::Resign,
    ];
}

/// Whom a fault strikes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This replica.
    Replica(ReplicaIndex),
    /// Whoever leads the highest view that a live replica is in.
    Leader,
}

/// Which direction of traffic is cut.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    Both,
    /// What it sends.
    Out,
    /// What it should receive.
    In,
}

/// A fault. Durations in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Crash now, restart later.
    Crash {
        /// Whom.
        target: Target,
        /// For how long.
        down: u64,
    },
    /// Crash after so many effects more.
    Arm {
        /// Whom.
        target: Target,
        /// After how many.
        effects: u64,
        /// For how long.
        down: u64,
    },
    /// All crash; each restarts after `down` plus up to `stagger`.
    PowerLoss {
        /// For how long.
        down: u64,
        /// Spread of the restarts.
        stagger: u64,
    },
    /// One after the other crashes.
    RollingRestart {
        /// For how long each.
        down: u64,
        /// From one crash to the next.
        gap: u64,
    },
    /// Those whose bit is set and the others do not hear each other.
    Split {
        /// A bit for each replica.
        side: u64,
        /// For how long.
        lasts: u64,
    },
    /// One replica is cut off from the others; clients still reach it.
    Isolate {
        /// Whom.
        target: Target,
        /// Which way.
        direction: Direction,
        /// For how long.
        lasts: u64,
    },
    /// Single directed links between replicas are cut.
    CutLinks {
        /// From, to.
        links: Vec<(ReplicaIndex, ReplicaIndex)>,
        /// For how long.
        lasts: u64,
    },
    /// This share of all messages is lost.
    Storm {
        /// In millionths.
        loss: u32,
        /// For how long.
        lasts: u64,
    },
    /// Each sync takes so much longer.
    SlowDisk {
        /// Whom.
        target: Target,
        /// How much longer.
        extra: u64,
        /// For how long.
        lasts: u64,
    },
    /// The process stands still; nothing is lost.
    Pause {
        /// Whom.
        target: Target,
        /// For how long.
        lasts: u64,
    },
    /// The wall clock jumps.
    ClockJump {
        /// Whom.
        target: Target,
        /// By how much.
        by: i64,
    },
    /// The operator asks for a hand-over.
    Resign {
        /// Whom.
        target: Target,
    },
}

impl Fault {
    /// The fault in words.
    #[must_use]
    pub fn words(&self) -> String {
        format!("{self:?}")
    }
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// When.
    pub at: u64,
    /// What.
    pub fault: Fault,
}

/// Draws faults of the given kinds over a span of time.
pub fn schedule(
    random: &mut Random,
    n: usize,
    kinds: &[FaultKind],
    count: u64,
    span: u64,
    timeouts: &Timeouts,
) -> Vec<Scheduled> {
    let mut faults: Vec<Scheduled> = (0..count)
        .map(|_| {
            let kind = random.pick(kinds);
            let at = random.below(span);
            Scheduled { at, fault: draw(random, n as u64, kind, timeouts) }
        })
        .collect();
    faults.sort_by_key(|scheduled| scheduled.at);
    faults
}

fn draw(random: &mut Random, n: u64, kind: FaultKind, timeouts: &Timeouts) -> Fault {
    let lasts = random.scaled(timeouts.request / 8, timeouts.request * 8);
    let any = Target::Replica(random.below(n) as ReplicaIndex);
    let target = if random.one_in(4) { Target::Leader } else { any };
    let direction = random.pick(&[Direction::Both, Direction::Both, Direction::Out, Direction::In]);
    match kind {
        FaultKind::Crash => Fault::Crash { target, down: lasts },
        FaultKind::CrashAtEffect => {
            Fault::Arm { target, effects: random.below(ARMED_EFFECTS_MAX), down: lasts / 4 }
        }
        FaultKind::CrashLeader => Fault::Crash { target: Target::Leader, down: lasts },
        FaultKind::PowerLoss => {
            Fault::PowerLoss { down: lasts / 8, stagger: random.pick(&[0, lasts / 8, lasts]) }
        }
        FaultKind::RollingRestart => {
            Fault::RollingRestart { down: lasts / 8, gap: lasts / random.pick(&[1, 4, 16]) }
        }
        FaultKind::Split => Fault::Split { side: random.between(1, (1 << n) - 2), lasts },
        FaultKind::Isolate => Fault::Isolate { target: any, direction, lasts },
        FaultKind::IsolateLeader => Fault::Isolate { target: Target::Leader, direction, lasts },
        FaultKind::CutLinks => {
            let mut link = || (random.below(n) as ReplicaIndex, random.below(n) as ReplicaIndex);
            let links = (0..n).map(|_| link()).collect();
            Fault::CutLinks { links, lasts }
        }
        FaultKind::Storm => {
            Fault::Storm { loss: random.pick(&[MILLION / 4, MILLION / 2, MILLION]), lasts: lasts / 2 }
        }
        FaultKind::SlowDisk => {
            Fault::SlowDisk { target, extra: timeouts.request / random.pick(&[1, 4, 16]), lasts }
        }
        FaultKind::Pause => Fault::Pause { target, lasts },
        FaultKind::ClockJump => {
            let by = random.below(timeouts.clock_window * 4) as i64 - 2 * timeouts.clock_window as i64;
            Fault::ClockJump { target, by }
        }
        FaultKind::Resign => Fault::Resign { target },
    }
}
