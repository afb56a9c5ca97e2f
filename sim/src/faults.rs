//! What goes wrong, and when.
//!
//! Invariant: every fault ends by the calm at the latest, except damage to a log, which strikes only replicas
//! that the plan counts among the f; none of the others makes a correct replica break a rule: a replica that
//! crashes loses only what it had not synced.

use quorate_consensus::Timeouts;
use quorate_protocol::ReplicaIndex;

use crate::disk::{Damage, PARTS};
use crate::random::{MILLION, Random};

/// Most effects after which an armed crash strikes.
pub const ARMED_EFFECTS_MAX: u64 = 40;
/// Most partitions of one series of blips.
pub const BLIPS_MAX: u64 = 6;

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
    /// Partitions that last for some messages only, one after the other.
    Blips,
    /// Some links are slow in one direction.
    SlowLinks,
    /// A disk is full for a while.
    DiskFull,
    /// A sync fails.
    SyncFails,
    /// Synced records are damaged.
    DiskDamage,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
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
        Self::Blips,
        Self::SlowLinks,
        Self::DiskFull,
        Self::SyncFails,
        Self::DiskDamage,
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
    /// Those whose bit is set and the others are parted and rejoined again and again (hazard A16).
    Blips {
        /// A bit for each replica.
        side: u64,
        /// How often.
        count: u64,
        /// For how long each time.
        lasts: u64,
        /// From one partition to the next.
        gap: u64,
    },
    /// Messages on single directed links take longer.
    SlowLinks {
        /// From, to.
        links: Vec<(ReplicaIndex, ReplicaIndex)>,
        /// How much longer.
        extra: u64,
        /// For how long.
        lasts: u64,
    },
    /// Appends fail: the process ends, and starts again when there is space.
    DiskFull {
        /// Whom.
        target: Target,
        /// For how long.
        lasts: u64,
    },
    /// The next sync fails: the process ends (hazard PR7) and is started again.
    SyncFails {
        /// Whom.
        target: Target,
        /// For how long it is down.
        down: u64,
    },
    /// Synced records are damaged while the replica is down (hazard PR6).
    DiskDamage {
        /// Whom: one of those that the plan counts among the f.
        replica: ReplicaIndex,
        /// What happens to the log.
        damage: Damage,
        /// For how long it is down.
        down: u64,
    },
}

impl Fault {
    /// Whether it names only replicas that a cluster of `n` has. What names sets of replicas fits always.
    #[must_use]
    pub fn fits(&self, n: ReplicaIndex) -> bool {
        match self {
            Self::DiskDamage { replica, .. } => *replica < n,
            Self::Crash { target, .. }
            | Self::Arm { target, .. }
            | Self::Isolate { target, .. }
            | Self::SlowDisk { target, .. }
            | Self::Pause { target, .. }
            | Self::ClockJump { target, .. }
            | Self::Resign { target }
            | Self::DiskFull { target, .. }
            | Self::SyncFails { target, .. } => match target {
                Target::Replica(index) => *index < n,
                Target::Leader => true,
            },
            Self::PowerLoss { .. }
            | Self::RollingRestart { .. }
            | Self::Split { .. }
            | Self::CutLinks { .. }
            | Self::Storm { .. }
            | Self::Blips { .. }
            | Self::SlowLinks { .. } => true,
        }
    }

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

/// Draws faults of the given kinds over a span of time. Disks are damaged of the `frail` replicas only.
pub fn schedule(
    random: &mut Random,
    (n, frail): (usize, &[ReplicaIndex]),
    kinds: &[FaultKind],
    count: u64,
    span: u64,
    timeouts: &Timeouts,
) -> Vec<Scheduled> {
    let mut faults: Vec<Scheduled> = (0..count)
        .filter_map(|_| {
            let kind = random.pick(kinds);
            let at = random.below(span);
            Some(Scheduled { at, fault: draw(random, (n as u64, frail), kind, timeouts)? })
        })
        .collect();
    faults.sort_by_key(|scheduled| scheduled.at);
    faults
}

/// Damage to the disk of one of the frail replicas, if there are any.
fn damage(random: &mut Random, frail: &[ReplicaIndex], timeouts: &Timeouts) -> Option<Fault> {
    if frail.is_empty() {
        return None;
    }
    let replica = random.pick(frail);
    let place = random.between(0, PARTS);
    let damage = match random.below(8) {
        0..3 => Damage::Rot(place),
        3 | 4 => Damage::RotLast,
        5 => Damage::Lost,
        6 => Damage::RolledBack(place),
        _ => Damage::AllRolledBack(place),
    };
    Some(Fault::DiskDamage { replica, damage, down: random.scaled(timeouts.request / 8, timeouts.request) })
}

fn links(random: &mut Random, n: u64) -> Vec<(ReplicaIndex, ReplicaIndex)> {
    let mut link = || (random.below(n) as ReplicaIndex, random.below(n) as ReplicaIndex);
    (0..n).map(|_| link()).collect()
}

fn draw(
    random: &mut Random,
    (n, frail): (u64, &[ReplicaIndex]),
    kind: FaultKind,
    timeouts: &Timeouts,
) -> Option<Fault> {
    let lasts = random.scaled(timeouts.request / 8, timeouts.request * 8);
    let any = Target::Replica(random.below(n) as ReplicaIndex);
    let target = if random.one_in(4) { Target::Leader } else { any };
    let direction = random.pick(&[Direction::Both, Direction::Both, Direction::Out, Direction::In]);
    let fault = match kind {
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
        FaultKind::CutLinks => Fault::CutLinks { links: links(random, n), lasts },
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
        FaultKind::Blips => {
            let lasts = random.scaled(timeouts.request / 16, timeouts.request * 2);
            let gap = lasts * random.pick(&[2, 4, 8]);
            let count = random.between(1, BLIPS_MAX);
            Fault::Blips { side: random.between(1, (1 << n) - 2), count, lasts, gap }
        }
        FaultKind::SlowLinks => {
            let extra = timeouts.request / random.pick(&[1, 2, 8]);
            Fault::SlowLinks { links: links(random, n), extra, lasts }
        }
        FaultKind::DiskFull => Fault::DiskFull { target, lasts },
        FaultKind::SyncFails => Fault::SyncFails { target, down: lasts / 8 },
        FaultKind::DiskDamage => return damage(random, frail, timeouts),
    };
    Some(fault)
}
