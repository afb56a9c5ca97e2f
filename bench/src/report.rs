//! The figures of one run.
//!
//! Invariant: percentiles come from every single latency of the run, not from a sample.

use serde::Serialize;
use std::time::Duration;

/// The machine that a figure was measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Cores that the process may use.
    pub cores: usize,
    /// Model of the processor.
    pub processor: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Memory in MiB.
    pub memory_mib: u64,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cores, processor, kernel, memory_mib } = self;
        write!(formatter, "{cores} cores, {processor}, {memory_mib} MiB, Linux {kernel}")
    }
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = information
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kibibytes = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor.to_owned(),
            kernel: kernel.trim().to_owned(),
            memory_mib: kibibytes.unwrap_or_default() / 1024,
        }
    }
}

/// The result of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the workload.
    pub workload: String,
    /// Threads, or operations in flight.
    pub concurrency: usize,
    /// Operations that succeeded.
    pub operations: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Seconds that the run took.
    pub seconds: f64,
    /// Operations in a second.
    pub rate: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile in microseconds.
    pub p99_us: f64,
    /// Longest in microseconds.
    pub max_us: f64,
    /// Where.
    pub machine: Machine,
}

impl Report {
    /// Sums a run up.
    #[must_use]
    pub fn new(
        workload: &str,
        concurrency: usize,
        mut latencies: Vec<Duration>,
        errors: u64,
        took: Duration,
    ) -> Self {
        latencies.sort_unstable();
        let at = |share: f64| {
            let last = latencies.len().saturating_sub(1);
            // Rank of the percentile, rounded to the nearest latency that was really measured.
            let rank = (last as f64 * share).round() as usize;
            latencies.get(rank).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
        };
        let seconds = took.as_secs_f64();
        Self {
            workload: workload.to_owned(),
            concurrency,
            operations: latencies.len() as u64,
            errors,
            seconds,
            rate: if seconds > 0.0 { latencies.len() as f64 / seconds } else { 0.0 },
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: at(1.0),
            machine: Machine::here(),
        }
    }

    /// One line of JSON.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_latencies_that_were_measured() {
        let latencies = (1..=101).rev().map(Duration::from_micros).collect();
        let report = Report::new("test", 1, latencies, 2, Duration::from_secs(2));
        assert_eq!((report.operations, report.errors), (101, 2));
        assert!((report.p50_us - 51.0).abs() < 1e-6);
        assert!((report.p99_us - 100.0).abs() < 1e-6);
        assert!((report.max_us - 101.0).abs() < 1e-6);
        assert!((report.rate - 50.5).abs() < 1e-6);
        assert!(report.line().contains("\"workload\":\"test\""));
    }

    #[test]
    fn an_empty_run_has_zeros() {
        let report = Report::new("test", 1, Vec::new(), 0, Duration::ZERO);
        assert_eq!((report.operations, report.rate, report.p99_us), (0, 0.0, 0.0));
    }
}
