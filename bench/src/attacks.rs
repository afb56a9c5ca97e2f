//! What is kept of throughput and latency under each attack, relative to runs without one.
//!
//! Invariant: every run with an attack stands between runs without, on clusters of their own that differ in
//! nothing else; ratios are those of medians, and every single run is reported.

use crate::field::Field;
use crate::hostile::{Hostile, Hostility};
use crate::report::Machine;
use crate::{BenchError, Report, consensus};
use quorate_protocol::ReplicaIndex;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Load before a run is measured: the attack has begun, caches are warm.
const WARM_UP: Duration = Duration::from_millis(700);
/// Attacks by clients, beside those by replicas.
pub const CLIENT_ATTACKS: [&str; 2] = ["bad-client", "flooding-client"];

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Replicas; as many are faulty as can be survived.
    pub replicas: usize,
    /// Kinds of faults, and [`CLIENT_ATTACKS`].
    pub kinds: Vec<String>,
    /// Runs with each attack, and as many without.
    pub rounds: usize,
    /// How long each run is measured.
    pub duration: Duration,
    /// Operations in flight.
    pub concurrency: usize,
    /// Client sessions.
    pub sessions: usize,
}

/// One attack.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its kind.
    pub attack: String,
    /// Replicas.
    pub replicas: usize,
    /// How many of them are faulty.
    pub faulty: usize,
    /// Operations a second: median of the runs without, and with the attack.
    pub rate: [f64; 2],
    /// The second as a share of the first.
    pub rate_kept: f64,
    /// Median latency in milliseconds, without and with.
    pub p50_ms: [f64; 2],
    /// 99th percentile in milliseconds, without and with.
    pub p99_ms: [f64; 2],
    /// Operations that clients saw fail under the attack.
    pub errors: u64,
    /// Every run without the attack.
    pub runs_without: Vec<Report>,
    /// Every run with it.
    pub runs_with: Vec<Report>,
}

/// All of them.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Name of the bench.
    pub workload: &'static str,
    /// Seconds of each run.
    pub seconds: f64,
    /// Runs with each attack.
    pub rounds: usize,
    /// Operations in flight.
    pub concurrency: usize,
    /// One for each attack.
    pub rows: Vec<Row>,
    /// Where.
    pub machine: Machine,
}

/// Measures every attack of the plan.
///
/// # Errors
/// [`BenchError`] when a cluster cannot be run; operations that fail are counted.
pub async fn run(program: &Path, plan: &Plan, progress: impl Fn(&Row)) -> Result<Table, BenchError> {
    if plan.rounds == 0 {
        return Err(BenchError::Parameters("rounds must be at least 1"));
    }
    let mut rows = Vec::new();
    for kind in &plan.kinds {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            without.push(measure(program, plan, None).await?);
            with.push(measure(program, plan, Some(kind)).await?);
        }
        let row = row(plan, kind, without, with);
        progress(&row);
        rows.push(row);
    }
    Ok(Table {
        workload: "attacks",
        seconds: plan.duration.as_secs_f64(),
        rounds: plan.rounds,
        concurrency: plan.concurrency,
        rows,
        machine: Machine::here(),
    })
}

fn faults(replicas: usize) -> usize {
    replicas.saturating_sub(1) / 3
}

/// One run, on a cluster of its own.
async fn measure(program: &Path, plan: &Plan, attack: Option<&str>) -> Result<Report, BenchError> {
    let hostility = match attack {
        Some("bad-client") => Some(Hostility::Bad),
        Some("flooding-client") => Some(Hostility::Flooding),
        _ => None,
    };
    let faulty: Vec<(ReplicaIndex, &str)> = match attack.filter(|_| hostility.is_none()) {
        // The first leaders; each withholds from the last one.
        Some(kind) => {
            (0..faults(plan.replicas)).filter_map(|index| Some((index.try_into().ok()?, kind))).collect()
        }
        None => Vec::new(),
    };
    let field = Field::start(program, plan.replicas, &faulty)?;
    let clients = field.clients(plan.sessions).await?;
    let _hostile = match hostility {
        Some(hostility) => Some(Hostile::start(&field, hostility).await?),
        None => None,
    };
    consensus::run(&clients, plan.concurrency, WARM_UP).await?;
    let report = consensus::run(&clients, plan.concurrency, plan.duration).await?;
    for client in &clients {
        client.close().await;
    }
    Ok(report)
}

fn row(plan: &Plan, kind: &str, without: Vec<Report>, with: Vec<Report>) -> Row {
    let both = |of: fn(&Report) -> f64| [median(&without, of), median(&with, of)];
    let rate = both(|report| report.rate);
    let [before, under] = rate;
    Row {
        attack: kind.to_owned(),
        replicas: plan.replicas,
        faulty: if CLIENT_ATTACKS.contains(&kind) { 0 } else { faults(plan.replicas) },
        rate,
        rate_kept: if before > 0.0 { under / before } else { 0.0 },
        p50_ms: both(|report| report.p50_us / 1e3),
        p99_ms: both(|report| report.p99_us / 1e3),
        errors: with.iter().map(|report| report.errors).sum(),
        runs_without: without,
        runs_with: with,
    }
}

fn median(reports: &[Report], of: impl Fn(&Report) -> f64) -> f64 {
    let mut values: Vec<f64> = reports.iter().map(of).collect();
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
        format!(
            "| {} | {} | {} | {before:.0} | {under:.0} | {:.0} % | {p50:.1} | {p50_under:.1} | {p99:.1} | {p99_under:.1} | {} |",
            self.attack,
            self.replicas,
            self.faulty,
            self.rate_kept * 100.0,
            self.errors
        )
    }
}

impl Table {
    /// The table in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "Null operations, {} in flight, {} runs of {:.0} s with each attack between as many without; medians. \
             {} cores, {}.\n\n{HEAD}",
            self.concurrency, self.rounds, self.seconds, self.machine.cores, self.machine.processor
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
| attack | n | faulty | ops/s without | ops/s with | kept | p50 ms | p50 ms with | p99 ms | p99 ms with | errors |
| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_made_of_medians() {
        let report = |ms: u64| {
            let latencies = vec![Duration::from_millis(ms); 10];
            Report::new("null", 1, latencies, 1, Duration::from_millis(10 * ms))
        };
        let plan = Plan {
            replicas: 7,
            kinds: Vec::new(),
            rounds: 3,
            duration: Duration::from_secs(1),
            concurrency: 1,
            sessions: 1,
        };
        let row = row(
            &plan,
            "flood",
            vec![report(1), report(2), report(100)],
            vec![report(4), report(4), report(8)],
        );
        assert_eq!((row.faulty, row.rate, row.errors), (2, [500.0, 250.0], 3));
        assert!((row.rate_kept - 0.5).abs() < 1e-9);
        assert_eq!((row.p50_ms, row.p99_ms), ([2.0, 4.0], [2.0, 4.0]));
        assert!(row.markdown().contains("| 50 % |"), "{}", row.markdown());
        assert!((median(&[report(1), report(3)], |report| report.p50_us) - 2000.0).abs() < 1e-9);
    }
}
