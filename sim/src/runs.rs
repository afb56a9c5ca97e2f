//! The record of long runs: one line each, in a table that is kept with the sources.
//!
//! Invariant: lines are only ever appended; each names the commit that was run.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use crate::marks::MARKS;
use crate::probes::Probes;
use crate::run::Summary;

/// The commit that this program was built from; `+` behind it if the sources differed from it.
pub const COMMIT: &str = env!("QUORATE_COMMIT");

/// What a record begins with.
const HEAD: &str = "# Long runs of the simulator

`quorate-sim run --ledger FILE` appends a line to this table. Traces is a hash over the traces of all seeds of
the range: another build that gives another one did something else. Missed are the marks and probes that no seed
of the range reached, out of how many there are.

| commit | seeds | run | result | missed | seconds | seeds/s | traces |
|---|---|---|---|---|---|---|---|
";

/// Failing seeds that a line names.
const NAMED_MAX: usize = 8;

/// The line of a run.
#[must_use]
pub fn line(range: &Range<u64>, summary: &Summary) -> String {
    let seconds = summary.elapsed.as_secs_f64();
    let rate = summary.seeds as f64 / seconds.max(f64::MIN_POSITIVE);
    let result = if summary.failures.is_empty() {
        "no rule broken".to_owned()
    } else {
        let seeds = summary.failures.iter().take(NAMED_MAX).map(|(seed, _)| seed.to_string());
        format!("{} failed: {}", summary.failures.len(), seeds.collect::<Vec<_>>().join(" "))
    };
    let missed = missed(summary);
    let traces = crate::trace::short(&summary.traces);
    let Range { start, end } = range;
    format!(
        "| {COMMIT} | {start}..{end} | {} | {result} | {missed} | {seconds:.0} | {rate:.0} | {traces} |",
        summary.seeds
    )
}

/// The marks and probes that were never reached, and how many there are.
fn missed(summary: &Summary) -> String {
    let marks = summary.marks.missed().into_iter().map(|mark| format!("{mark:?}"));
    let probes = summary.probes.missed().into_iter().map(|probe| format!("{probe:?}"));
    let missed: Vec<String> = marks.chain(probes).collect();
    let all = MARKS + Probes::total();
    if missed.is_empty() {
        format!("none of {all}")
    } else {
        format!("{} of {all}: {}", missed.len(), missed.join(" "))
    }
}

/// Appends the line of a run to a record, which is begun if it is not there.
///
/// # Errors
/// If the file cannot be written.
pub fn append(path: &Path, range: &Range<u64>, summary: &Summary) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() == 0 {
        file.write_all(HEAD.as_bytes())?;
    }
    writeln!(file, "{}", line(range, summary))
}
