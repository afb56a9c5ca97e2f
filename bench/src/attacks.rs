//! What is kept of throughput and latency under each attack, relative to runs without one.
//!
//! Invariant: every run with an attack stands between two runs without, on clusters of their own that differ in
//! nothing else, and is compared with these two; ratios are medians over the rounds, and every run is reported.

use crate::consensus::Work;
use crate::field::Field;
use crate::hostile::{Hostile, Hostility};
use crate::report::Machine;
use crate::{BenchError, Report, consensus, usage};
use quorate_protocol::ReplicaIndex;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Load before a run is measured: the attack has begun, caches are warm. It counts for what is kept from the
/// start on, in which a leader's replacement shows.
const WARM_UP: Duration = Duration::from_millis(1000);
/// What a run takes besides: a cluster is made, started, and stopped.
const AROUND: Duration = Duration::from_millis(1500);
/// Attacks by clients, beside those by replicas.
pub const CLIENT_ATTACKS: [&str; 2] = ["bad-client", "flooding-client"];
/// Attacks that are measured with reads as well, because it is answers to reads that they bend.
const LYING_READS: [&str; 2] = ["stale-reply", "corrupt-proof"];

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Replicas; as many are faulty as can be survived.
    pub replicas: usize,
    /// Kinds of faults, and [`CLIENT_ATTACKS`].
    pub kinds: Vec<String>,
    /// Runs with each attack.
    pub rounds: usize,
    /// How long each run is measured.
    pub duration: Duration,
    /// Operations in flight.
    pub concurrency: usize,
    /// Client sessions.
    pub sessions: usize,
}

impl Plan {
    /// What is measured, in order: all with one kind of work, then all with the other one.
    fn cases(&self) -> Vec<(Work, &str)> {
        let nulls = self.kinds.iter().map(|kind| (Work::Null, kind.as_str()));
        let lying = self.kinds.iter().filter(|kind| LYING_READS.contains(&kind.as_str()));
        nulls.chain(lying.map(|kind| (Work::Read, kind.as_str()))).collect()
    }

    /// How many runs that makes, those without an attack included.
    #[must_use]
    pub fn runs(&self) -> usize {
        let cases = self.cases();
        let works = [Work::Null, Work::Read].into_iter();
        let first = works.filter(|work| cases.iter().any(|(other, _)| other == work)).count();
        cases.len().saturating_mul(self.rounds).saturating_mul(2).saturating_add(first)
    }

    /// About how long that takes.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        let one = self.duration.saturating_add(WARM_UP).saturating_add(AROUND);
        one.saturating_mul(u32::try_from(self.runs()).unwrap_or(u32::MAX))
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Operations a second from the first one on, which a blip of the beginning lowers.
    pub rate_from_start: f64,
    /// Share of all processors that those used who attack, or would attack.
    pub attackers_share: f64,
    /// What was measured after a warm-up.
    pub report: Report,
}

/// One attack.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its kind.
    pub attack: String,
    /// What clients do.
    pub work: Work,
    /// Replicas.
    pub replicas: usize,
    /// How many of them are faulty.
    pub faulty: usize,
    /// Operations a second: median of the runs without, and with the attack.
    pub rate: [f64; 2],
    /// The second as a share of the first: the median over runs with the attack, each compared with its two
    /// neighbours.
    pub rate_kept: f64,
    /// The same from the first operation on, so that the blip at the replacement of a leader counts.
    pub rate_kept_from_start: f64,
    /// Median latency in milliseconds, without and with.
    pub p50_ms: [f64; 2],
    /// 99th percentile in milliseconds, without and with.
    pub p99_ms: [f64; 2],
    /// Share of all processors that the attackers used, without and with: what they take from everybody else
    /// where all run on one machine.
    pub attackers_share: [f64; 2],
    /// Operations that clients saw fail under the attack.
    pub errors: u64,
    /// Every run without the attack: one more than with it.
    pub runs_without: Vec<Run>,
    /// Every run with it, between these.
    pub runs_with: Vec<Run>,
}

/// All of them.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Name of the bench.
    pub workload: &'static str,
    /// Replicas.
    pub replicas: usize,
    /// Seconds of each run.
    pub seconds: f64,
    /// Runs with each attack.
    pub rounds: usize,
    /// Operations in flight.
    pub concurrency: usize,
    /// Client sessions that share them.
    pub sessions: usize,
    /// One for each attack and kind of work.
    pub rows: Vec<Row>,
    /// Where.
    pub machine: Machine,
}

/// What happens.
#[derive(Copy, Clone, Debug)]
pub enum Progress<'a> {
    /// A run begins.
    Run {
        /// Which of [`Plan::runs`], from 1 on.
        number: usize,
        /// The attack that it is about.
        attack: &'a str,
    },
    /// An attack is measured.
    Done(&'a Row),
}

/// Measures every attack of the plan.
///
/// # Errors
/// [`BenchError`] when a cluster cannot be run; operations that fail are counted.
pub async fn run(program: &Path, plan: &Plan, progress: impl Fn(Progress<'_>)) -> Result<Table, BenchError> {
    if plan.rounds == 0 {
        return Err(BenchError::Parameters("rounds must be at least 1"));
    }
    let (mut rows, mut number) = (Vec::new(), 0);
    // The last run without an attack serves the next attack as well, if clients do the same in it.
    let mut before: Option<(Work, Run)> = None;
    for (work, kind) in plan.cases() {
        let mut one = async |attack: Option<&str>| {
            number += 1;
            progress(Progress::Run { number, attack: attack.unwrap_or("none") });
            measure(program, plan, (work, kind), attack.is_some()).await
        };
        let first = match before.take().filter(|(other, _)| *other == work) {
            Some((_, run)) => run,
            None => one(None).await?,
        };
        let (mut without, mut with) = (vec![first], Vec::new());
        for _ in 0..plan.rounds {
            with.push(one(Some(kind)).await?);
            without.push(one(None).await?);
        }
        before = without.last().cloned().map(|run| (work, run));
        let row = row(plan, (work, kind), without, with);
        progress(Progress::Done(&row));
        rows.push(row);
    }
    Ok(Table {
        workload: "attacks",
        replicas: plan.replicas,
        seconds: plan.duration.as_secs_f64(),
        rounds: plan.rounds,
        concurrency: plan.concurrency,
        sessions: plan.sessions,
        rows,
        machine: Machine::here(),
    })
}

fn faults(replicas: usize) -> usize {
    replicas.saturating_sub(1) / 3
}

fn hostility(kind: &str) -> Option<Hostility> {
    match kind {
        "bad-client" => Some(Hostility::Bad),
        "flooding-client" => Some(Hostility::Flooding),
        _ => None,
    }
}

/// One run, on a cluster of its own.
async fn measure(
    program: &Path,
    plan: &Plan,
    (work, kind): (Work, &str),
    attacked: bool,
) -> Result<Run, BenchError> {
    let hostility = hostility(kind);
    // The first leaders; each withholds from a later one.
    let faulty = if hostility.is_none() { faults(plan.replicas) } else { 0 };
    let faulty: Vec<ReplicaIndex> = (0..faulty).filter_map(|index| index.try_into().ok()).collect();
    let listed: Vec<(ReplicaIndex, &str)> =
        faulty.iter().filter(|_| attacked).map(|index| (*index, kind)).collect();
    let field = Field::start(program, plan.replicas, &listed)?;
    let clients = field.clients(plan.sessions).await?;
    let hostile = match (hostility.filter(|_| attacked), clients.first()) {
        (Some(hostility), Some(client)) => Some(Hostile::start(&field, client, hostility).await?),
        _ => None,
    };
    let used = || {
        let replicas = faulty.iter().filter_map(|index| field.cluster.running(*index));
        let used = replicas.map(usage::of_process).sum::<Duration>();
        used.saturating_add(hostile.as_ref().map(Hostile::used).unwrap_or_default())
    };
    let warm_up = consensus::run(&clients, plan.concurrency, WARM_UP, work).await?;
    let before = used();
    let report = consensus::run(&clients, plan.concurrency, plan.duration, work).await?;
    // One that crashed meanwhile has begun to count anew.
    let used = used().saturating_sub(before).as_secs_f64();
    for client in &clients {
        client.close().await;
    }
    let operations = warm_up.operations.saturating_add(report.operations) as f64;
    Ok(Run {
        rate_from_start: operations / (warm_up.seconds + report.seconds),
        attackers_share: used / (report.seconds * report.machine.cores as f64),
        report,
    })
}

fn row(plan: &Plan, (work, kind): (Work, &str), without: Vec<Run>, with: Vec<Run>) -> Row {
    let both = |of: fn(&Run) -> f64| [median(without.iter().map(of)), median(with.iter().map(of))];
    let kept = |of: fn(&Run) -> f64| {
        let around = without.windows(2).zip(&with).filter_map(|(pair, with)| match pair {
            [before, after] => Some(of(with) / f64::midpoint(of(before), of(after))),
            _ => None,
        });
        median(around.filter(|ratio| ratio.is_finite()))
    };
    Row {
        attack: kind.to_owned(),
        work,
        replicas: plan.replicas,
        faulty: if hostility(kind).is_some() { 0 } else { faults(plan.replicas) },
        rate: both(|run| run.report.rate),
        rate_kept: kept(|run| run.report.rate),
        rate_kept_from_start: kept(|run| run.rate_from_start),
        p50_ms: both(|run| run.report.p50_us / 1e3),
        p99_ms: both(|run| run.report.p99_us / 1e3),
        attackers_share: both(|run| run.attackers_share),
        errors: with.iter().map(|run| run.report.errors).sum(),
        runs_without: without,
        runs_with: with,
    }
}

/// The one in the middle, or what lies midway between the two there; 0 of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    let at = |rank: usize| values.get(rank).copied().unwrap_or_default();
    f64::midpoint(at(low), at(high))
}

impl Row {
    /// One line of the table.
    #[must_use]
    pub fn markdown(&self) -> String {
        let ([before, under], [p50, p50_under], [p99, p99_under]) = (self.rate, self.p50_ms, self.p99_ms);
        let [honest, attacking] = self.attackers_share.map(|share| share * 100.0);
        let reads = if self.work == Work::Read { ", reads" } else { "" };
        format!(
            "| {}{reads} | {} | {} | {before:.0} | {under:.0} | {:.0} % | {:.0} % | {p50:.1} | {p50_under:.1} | {p99:.1} | {p99_under:.1} | {honest:.0} % | {attacking:.0} % | {} |",
            self.attack,
            self.replicas,
            self.faulty,
            self.rate_kept * 100.0,
            self.rate_kept_from_start * 100.0,
            self.errors
        )
    }
}

impl Table {
    /// The table in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "n = {}. Null operations, or linearizable reads where it says so, {} in flight in {} sessions; {} runs of \
             {:.0} s with each attack, each between two without; medians. {}.\n\n{HEAD}",
            self.replicas, self.concurrency, self.sessions, self.rounds, self.seconds, self.machine
        );
        for row in &self.rows {
            text.push_str(&row.markdown());
            text.push('\n');
        }
        text
    }
}

/// Heads of the columns.
const HEAD: &str = "\
| attack | n | faulty | ops/s without | ops/s with | kept | kept from the start | p50 ms | p50 ms with | p99 ms | p99 ms with | attackers' CPU without | attackers' CPU with | errors |
| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |
";

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ms: u64) -> Run {
        let latencies = vec![Duration::from_millis(ms); 10];
        let report = Report::new("null", 1, latencies, 1, Duration::from_millis(10 * ms));
        Run { rate_from_start: report.rate / 2.0, attackers_share: 0.25, report }
    }

    fn plan(kinds: &[&str]) -> Plan {
        Plan {
            replicas: 7,
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            rounds: 3,
            duration: Duration::from_secs(1),
            concurrency: 1,
            sessions: 1,
        }
    }

    #[test]
    fn rows_are_made_of_medians_and_each_run_is_compared_with_its_neighbours() {
        // The machine becomes twice as slow in the middle, which the ratios do not show.
        let without = vec![run(1), run(1), run(2), run(2)];
        let row = row(&plan(&[]), (Work::Null, "flood"), without, vec![run(2), run(100), run(4)]);
        assert_eq!((row.faulty, row.rate, row.errors), (2, [750.0, 250.0], 3));
        assert!((row.rate_kept - 0.5).abs() < 1e-9 && (row.rate_kept_from_start - 0.5).abs() < 1e-9);
        assert_eq!((row.p50_ms, row.p99_ms), ([1.5, 4.0], [1.5, 4.0]));
        assert!(row.markdown().contains("| 50 % |"), "{}", row.markdown());
        assert!((median([3.0, 1.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!(median([].into_iter()).abs() < 1e-9);
    }

    #[test]
    fn a_plan_knows_its_runs() {
        // Three of null operations and one of reads, three rounds each, and one first run for each work.
        let plan = plan(&["silent", "corrupt-proof", "bad-client"]);
        assert_eq!(plan.runs(), 4 * 3 * 2 + 2);
        assert_eq!(plan.estimate(), Duration::from_millis(26 * 3500));
    }
}
