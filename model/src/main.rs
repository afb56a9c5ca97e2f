//! `quorate-model`: checks that the protocol holds within the bounds, and that each broken rule is found.
//!
//! Invariant: exit status 0 means that every configuration asked for came to what it must come to, 1 that one
//! did not, 2 a usage error.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::{Args, Parser, Subcommand};
use quorate_model::checks::{GOOD, MUTANTS};
use quorate_model::rules::Configuration;
use quorate_model::search::search;
use quorate_model::step::Model;
use quorate_model::story;

/// Visits every state of a bounded model of the protocol.
#[derive(Parser)]
#[command(name = "quorate-model", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks configurations: all that must hold, and all mutants, unless some are named.
    Check(Check),
    /// Lists configurations and mutants with their bounds.
    List,
}

#[derive(Args)]
struct Check {
    /// Checks everything; so does naming nothing.
    #[arg(long)]
    all: bool,
    /// Checks this configuration.
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    configuration: Vec<String>,
    /// Checks this mutant, and tells the run that forks.
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    mutant: Vec<String>,
    /// Searches at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
}

impl Check {
    /// What is to be checked; the name that nothing has otherwise.
    fn chosen(&self) -> Result<Vec<Configuration>, &str> {
        if self.configuration.is_empty() && self.mutant.is_empty() {
            return Ok(GOOD.iter().chain(&MUTANTS).copied().collect());
        }
        let find = |list: &'static [Configuration]| {
            move |name: &'_ String| list.iter().find(|known| known.name == name).copied()
        };
        let mut chosen = Vec::new();
        for (names, list) in [(&self.configuration, &GOOD[..]), (&self.mutant, &MUTANTS[..])] {
            for name in names {
                chosen.push(find(list)(name).ok_or(name.as_str())?);
            }
        }
        Ok(chosen)
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::List => {
            for configuration in GOOD.iter().chain(&MUTANTS) {
                say(&format!("{:28} {}", configuration.name, bounds(configuration)));
            }
            ExitCode::SUCCESS
        }
        Command::Check(check) => match check.chosen() {
            Ok(chosen) => run(&chosen, usize::from(check.jobs), !check.mutant.is_empty()),
            Err(name) => {
                eprintln!("nothing is called {name}; `quorate-model list` names what there is");
                ExitCode::from(2)
            }
        },
    }
}

/// A reader that has had enough changes no verdict.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn bounds(configuration: &Configuration) -> String {
    let Configuration { views, heights, crashes, about, .. } = configuration;
    format!("heights {heights}, views {views}, crashes {crashes}: {about}")
}

/// Checks configurations, some at a time, in order.
fn run(chosen: &[Configuration], jobs: usize, stories: bool) -> ExitCode {
    let (next, good) = (AtomicUsize::new(0), AtomicBool::new(true));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(chosen.len()) {
            scope.spawn(|| {
                while let Some(configuration) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !check(configuration, stories) {
                        good.store(false, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if good.into_inner() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks one configuration and says what came of it, in one piece.
fn check(configuration: &Configuration, stories: bool) -> bool {
    let model = Model::new(*configuration);
    let report = search(&model);
    let expected = report.fork.is_some() == configuration.mutant.is_some();
    let verdict = match (&report.fork, configuration.mutant.is_some()) {
        (None, false) => "holds",
        (Some(_), true) => "found",
        (Some(_), false) => "FORKS",
        (None, true) => "NOT FOUND",
    };
    let mut text = format!(
        "{:28} {verdict:9} {:>9} states, depth {:>2}, {:>5.1} s   {}",
        configuration.name,
        report.states,
        report.depth,
        report.took.as_secs_f64(),
        bounds(configuration),
    );
    if let Some(actions) = report.fork.filter(|_| stories || !expected) {
        text.push_str("\n\n");
        text.push_str(&story::tell(&model, &actions));
    }
    say(&text);
    expected
}
