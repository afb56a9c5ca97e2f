//! How long nothing is committed when a leader is killed, and when it hands over.
//!
//! Invariant: the load goes on through every kill, and a time counts between two operations that clients hold
//! certificates of: what they see, not what replicas say.

use crate::BenchError;
use crate::field::{Field, leader_of_all, wait_for};
use crate::report::Machine;
use quorate_client::Client;
use quorate_protocol::{Credential, Groups, OperationBody, ReplicaIndex};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Width of a bar of the time line.
const BAR: Duration = Duration::from_millis(10);
/// Bars before and after the kill.
const BARS: (usize, usize) = (20, 180);
/// Bars that share a line of the time line in text, how many lines there are, and how long one may be.
const BARS_PER_LINE: usize = 2;
const LINES: usize = 40;
const LINE_LENGTH: u64 = 60;
/// How long the cluster may take to be whole again after a kill.
const WHOLE_PATIENCE: Duration = Duration::from_secs(60);
/// How long commits may stay away after a kill.
const RESUME_PATIENCE: Duration = Duration::from_secs(30);
/// A replica this many heights behind is not back yet.
const LAG_MAX: u64 = 64;
/// Load before each kill, and after commits have resumed.
const CALM: Duration = Duration::from_millis(400);

/// What to do.
#[derive(Copy, Clone, Debug)]
pub struct Crash {
    /// Replicas.
    pub replicas: usize,
    /// Leaders that are killed, and as many that hand over.
    pub kills: usize,
    /// Operations in flight.
    pub concurrency: usize,
    /// Client sessions.
    pub sessions: usize,
}

/// Milliseconds without a commit.
#[derive(Clone, Debug, Serialize)]
pub struct Pauses {
    /// How many were measured.
    pub count: usize,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Longest.
    pub max_ms: f64,
    /// All, in order of time.
    pub all_ms: Vec<f64>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct CrashReport {
    /// Name of the bench.
    pub workload: &'static str,
    /// Replicas.
    pub replicas: usize,
    /// Operations in flight.
    pub concurrency: usize,
    /// Leaders killed by SIGKILL.
    pub kill: Pauses,
    /// Leaders stopped by SIGTERM, which hand over, until the next leader is taken away.
    pub hand_over: Pauses,
    /// The first [`CALM`] of these: the hand-over itself, without the return of the replica that was stopped, for which
    /// the leader after it hands over once more.
    pub hand_over_itself: Pauses,
    /// The time before each of them, in which nothing happens.
    pub undisturbed: Pauses,
    /// Operations that clients saw fail.
    pub errors: u64,
    /// Operations that were committed.
    pub operations: u64,
    /// Of the kill with the median pause: operations in each ten milliseconds.
    pub timeline: Vec<u64>,
    /// Milliseconds from the first bar of the time line to the kill.
    pub timeline_kill_at_ms: u64,
    /// Where.
    pub machine: Machine,
}

impl CrashReport {
    /// A table in Markdown, and the time line of the median kill.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "Leaders taken away under load, n = {}, {} null operations in flight; milliseconds in which no client's \
             operation completed. {} operations in all, {} failed. {}.\n\n\
             | what happens to the leader | times | median | p99 | longest |\n| --- | --: | --: | --: | --: |\n",
            self.replicas, self.concurrency, self.operations, self.errors, self.machine
        );
        let rows = [
            ("killed", &self.kill),
            ("hands over, is stopped, and returns", &self.hand_over),
            ("hands over", &self.hand_over_itself),
            ("nothing", &self.undisturbed),
        ];
        for (what, pauses) in rows {
            let Pauses { count, p50_ms, p99_ms, max_ms, .. } = pauses;
            text.push_str(&format!("| {what} | {count} | {p50_ms:.1} | {p99_ms:.1} | {max_ms:.1} |\n"));
        }
        text.push_str("\nOperations that completed around the kill with the median pause:\n\n```text\n");
        let kill = self.timeline_kill_at_ms;
        let bars = self.timeline.chunks(BARS_PER_LINE).map(|bars| bars.iter().sum::<u64>());
        let most = bars.clone().max().unwrap_or_default().max(1);
        let width = BAR.as_millis().saturating_mul(BARS_PER_LINE as u128);
        for (number, operations) in (0_u128..).zip(bars).take(LINES) {
            let at = i128::try_from(number.saturating_mul(width)).unwrap_or_default() - i128::from(kill);
            let length = operations.saturating_mul(LINE_LENGTH).div_ceil(most);
            let bar = "#".repeat(usize::try_from(length).unwrap_or_default());
            text.push_str(&format!("{at:>6} ms {operations:>6} {bar}\n"));
        }
        text.push_str("```\n");
        text
    }
}

/// When operations were committed, since the start.
#[derive(Default)]
struct Log {
    commits: Mutex<Vec<Duration>>,
    errors: AtomicU64,
    over: AtomicBool,
}

impl Log {
    fn commits(&self) -> std::sync::MutexGuard<'_, Vec<Duration>> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_after(&self, instant: Duration) -> Option<Duration> {
        let commits = self.commits();
        // Nearly sorted: whoever completed first noted it first, give or take.
        commits.iter().rev().take_while(|at| **at > instant).min().copied()
    }

    /// The longest time without a commit that begins or lies around `at`, or begins before `until`.
    fn pause(&self, at: Duration, until: Duration) -> Duration {
        // Whatever is later is no end of such a time: a run ends with an error where nothing resumes for so long.
        let (earliest, latest) = (at.saturating_sub(CALM), until + RESUME_PATIENCE);
        let mut near: Vec<Duration> = {
            let commits = self.commits();
            let recent = commits.iter().rev().skip_while(|commit| **commit > latest);
            recent.take_while(|commit| **commit >= earliest).copied().collect()
        };
        near.sort_unstable();
        let gaps = near.windows(2).filter_map(|pair| match pair {
            [before, after] if *after > at && *before <= until => Some(after.saturating_sub(*before)),
            _ => None,
        });
        gaps.max().unwrap_or_default()
    }

    fn timeline(&self, at: Duration) -> Vec<u64> {
        let (before, after) = BARS;
        let mut bars = vec![0; before + after];
        let Some(first) = at.checked_sub(BAR * u32::try_from(before).unwrap_or_default()) else {
            return bars;
        };
        for commit in self.commits().iter() {
            let bar = commit.checked_sub(first).map(|since| since.as_micros() / BAR.as_micros());
            if let Some(bar) = bar.and_then(|bar| bars.get_mut(usize::try_from(bar).ok()?)) {
                *bar += 1;
            }
        }
        bars
    }
}

/// Kills leaders, and has leaders hand over, under load.
///
/// # Errors
/// [`BenchError`] when the cluster cannot be run or does not recover.
pub async fn run(program: &Path, crash: &Crash, progress: impl Fn(&str)) -> Result<CrashReport, BenchError> {
    if crash.kills == 0 || crash.concurrency == 0 || crash.sessions == 0 {
        return Err(BenchError::Parameters("kills, sessions and concurrency must be at least 1"));
    }
    let field = Field::start(program, crash.replicas, &[])?;
    let clients = field.clients(crash.sessions).await?;
    let observer = field.observer().await?;
    let (log, began) = (Arc::new(Log::default()), Instant::now());
    let tasks: Vec<_> = (0..crash.concurrency)
        .zip(clients.iter().cycle())
        .map(|(_, client)| tokio::spawn(load(client.clone(), Arc::clone(&log), began)))
        .collect();
    let mut taken = Vec::new();
    for round in 0..crash.kills.saturating_mul(2) {
        let whole = |status: &quorate_client::ClusterStatus| leader_of_all(status, LAG_MAX);
        let leader = wait_for(&observer, "all replicas vote", WHOLE_PATIENCE, whole).await?;
        tokio::time::sleep(CALM).await;
        let kill = round.is_multiple_of(2);
        let at = began.elapsed();
        taken.push(at);
        take_away(&field, leader, kill)?;
        let resumed = resumes(&log, began, at).await?;
        tokio::time::sleep(CALM).await;
        let pause = log.pause(at, resumed + CALM);
        progress(&format!(
            "{} of leader {leader}: {:.1} ms without a commit so far",
            if kill { "kill" } else { "hand-over" },
            pause.as_secs_f64() * 1e3
        ));
        while field.cluster.running(leader).is_some() {
            tokio::time::sleep(BAR).await;
        }
        field.cluster.start(leader)?;
    }
    // The last one is whole again before the load ends, as all others are before the next is taken away.
    wait_for(&observer, "all replicas vote", WHOLE_PATIENCE, |status| leader_of_all(status, LAG_MAX)).await?;
    taken.push(began.elapsed());
    log.over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.map_err(|_| BenchError::Worker)?;
    }
    for client in &clients {
        client.close().await;
    }
    Ok(report(crash, &log, &taken))
}

/// What the log says of the pauses after these times, at each of which but the last a leader was taken away: the first
/// was killed, the next handed over, and so on.
fn report(crash: &Crash, log: &Log, taken: &[Duration]) -> CrashReport {
    let rounds = || (0_usize..).zip(taken.windows(2));
    // Until the next one is taken away: what stands still only later counts as well.
    let pauses = |handed_over: bool| {
        rounds().filter_map(move |(round, pair)| match pair {
            [at, next] if round.is_multiple_of(2) != handed_over => Some((log.pause(*at, *next), *at)),
            _ => None,
        })
    };
    let (kills, hand_overs): (Vec<_>, Vec<_>) = (pauses(false).collect(), pauses(true).collect());
    let around = |window: fn(Duration) -> (Duration, Duration)| {
        let pauses = hand_overs.iter().map(|(_, at)| (window(*at), *at));
        let pauses = pauses.map(|((from, until), at)| (log.pause(from, until), at));
        self::pauses(&pauses.collect::<Vec<_>>())
    };
    let mut sorted = kills.clone();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).map(|(_, at)| *at).unwrap_or_default();
    // Counted before the time line is drawn: both lock the log.
    let operations = log.commits().len() as u64;
    CrashReport {
        workload: "leader-crash",
        replicas: crash.replicas,
        concurrency: crash.concurrency,
        kill: self::pauses(&kills),
        hand_over: self::pauses(&hand_overs),
        hand_over_itself: around(|at| (at, at + CALM)),
        undisturbed: around(|at| (at.saturating_sub(CALM), at.saturating_sub(CALM / 4))),
        errors: log.errors.load(Ordering::Relaxed),
        operations,
        timeline: log.timeline(median),
        timeline_kill_at_ms: u64::try_from((BAR * u32::try_from(BARS.0).unwrap_or_default()).as_millis())
            .unwrap_or_default(),
        machine: Machine::here(),
    }
}

/// Ends a leader's process, at once or in order; does not wait for it.
fn take_away(field: &Field, leader: ReplicaIndex, kill: bool) -> Result<(), BenchError> {
    use nix::sys::signal::Signal;
    let signal = if kill { Signal::SIGKILL } else { Signal::SIGTERM };
    let pid = field.cluster.running(leader).map(nix::unistd::Pid::from_raw);
    let pid = pid.ok_or(BenchError::Parameters("the leader does not run"))?;
    nix::sys::signal::kill(pid, signal)
        .map_err(|error| BenchError::Io { what: "signal a leader", source: error.into() })
}

/// When something is committed again that was not on its way when the leader was killed: for that, commits
/// must have gone on for a while.
async fn resumes(log: &Log, began: Instant, at: Duration) -> Result<Duration, BenchError> {
    const ON_ITS_WAY: Duration = Duration::from_millis(20);
    loop {
        tokio::time::sleep(BAR).await;
        if let Some(first) = log.first_after(at + ON_ITS_WAY) {
            return Ok(first);
        }
        if began.elapsed().saturating_sub(at) > RESUME_PATIENCE {
            return Err(BenchError::Late { what: "commits after a kill", patience: RESUME_PATIENCE });
        }
    }
}

async fn load(client: Client, log: Arc<Log>, began: Instant) {
    let credential = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
    while !log.over.load(Ordering::Relaxed) {
        match client.execute(&credential, OperationBody::Null).await {
            Ok(_) => log.commits().push(began.elapsed()),
            Err(error) => {
                tracing::warn!(%error, "an operation of the bench failed");
                log.errors.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(BAR).await;
            }
        }
    }
}

fn pauses(measured: &[(Duration, Duration)]) -> Pauses {
    let all_ms: Vec<f64> = measured.iter().map(|(pause, _)| pause.as_secs_f64() * 1e3).collect();
    let mut sorted = all_ms.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let rank = (sorted.len().saturating_sub(1) as f64 * share).ceil() as usize;
        sorted.get(rank).copied().unwrap_or_default()
    };
    Pauses { count: sorted.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0), all_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_the_longest_gap_around_the_kill() {
        let log = Log::default();
        // Every 5 ms, none from 100 to 400 ms, and then again.
        let at = |ms| Duration::from_millis(ms);
        log.commits().extend((0..=20).map(|n| at(n * 5)).chain((80..120).map(|n| at(n * 5))));
        assert_eq!(log.pause(at(103), at(600)), at(300));
        // Also one that ends later than what is looked at.
        assert_eq!(log.pause(at(20), at(150)), at(300));
        assert_eq!(log.pause(at(20), at(90)), at(5));
        assert_eq!(log.first_after(at(123)), Some(at(400)));
        let timeline = log.timeline(at(300));
        assert_eq!((timeline[0], timeline[1], timeline[20], timeline[30]), (1, 0, 0, 2));
    }

    /// The first report was never made: it locked the log twice.
    #[test]
    fn a_report_is_made_of_a_log() {
        let log = Log::default();
        let at = |ms| Duration::from_millis(ms);
        log.commits().extend((0..=20).map(|n| at(n * 5)).chain((60..120).map(|n| at(n * 5))));
        let crash = Crash { replicas: 4, kills: 1, concurrency: 2, sessions: 1 };
        log.commits()
            .extend((0..=300).map(|n| at(600 + n * 5)).filter(|when| !(at(1001)..at(1010)).contains(when)));
        let report = report(&crash, &log, &[at(250), at(1001), at(1960)]);
        assert_eq!((report.kill.count, report.hand_over.count), (1, 1));
        assert!(report.timeline.iter().any(|bar| *bar > 0));
        let table = report.markdown();
        for row in [
            "| killed | 1 | 200.0 |",
            "| hands over, is stopped, and returns | 1 | 10.0 |",
            "| hands over | 1 | 10.0 |",
            "| nothing | 1 | 5.0 |",
        ] {
            assert!(table.contains(row), "{row} is not in {table}");
        }
    }

    #[test]
    fn percentiles_are_pauses_that_were_measured() {
        let measured: Vec<_> = (1..=50).map(|ms| (Duration::from_millis(ms), Duration::ZERO)).collect();
        let pauses = pauses(&measured);
        assert_eq!((pauses.count, pauses.p50_ms, pauses.p99_ms, pauses.max_ms), (50, 26.0, 50.0, 50.0));
    }
}
