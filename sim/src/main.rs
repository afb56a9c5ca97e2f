//! `quorate-sim`: runs seeds of the simulator, or tells the story of one.
//!
//! Invariant: exit status 0 means that every seed held, 1 that one failed, 2 a usage error.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use quorate_sim::byzantine::Attack;
use quorate_sim::hunt::{Caught, Ground, hunt_all};
use quorate_sim::minimise::{Minimised, minimise};
use quorate_sim::mutant::Mutant;
use quorate_sim::plan::Plan;
use quorate_sim::run::{Outcome, Summary, run_crashes, run_plan, run_seeds};
use quorate_sim::runs::{self, COMMIT};
use quorate_sim::trace::{SECOND, Story};
use quorate_sim::world::EVENTS_MAX;

/// A run of a seed is a hundred thousand small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long `run` looks for a smaller form of the first failure.
const MINIMISED_WITHIN: Duration = Duration::from_secs(30);

/// Simulates whole clusters deterministically and checks that no rule is ever broken.
#[derive(Parser)]
#[command(name = "quorate-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Runs this one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Tells its story, event by event.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Ends a run that has more events, with the story so far.
    #[arg(long, global = true, default_value_t = EVENTS_MAX)]
    events: u64,
    /// Breaks a rule on purpose.
    #[arg(long, global = true, value_parser = parse_mutant)]
    mutant: Option<Mutant>,
    /// Makes f replicas attack in this way, beside the other troubles of the seed.
    #[arg(long, global = true)]
    attack: Option<Attack>,
    /// Lets nothing but the attack go on, for ever, and times every request against what is promised.
    #[arg(long, global = true, requires = "attack")]
    steady: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds.
    Run {
        /// From A up to, not including, B, written A..B.
        #[arg(long, value_parser = parse_range, default_value = "0..20000")]
        seeds: std::ops::Range<u64>,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Stops after so many minutes.
        #[arg(long)]
        minutes: Option<u64>,
        /// Fails if a rare path was never taken: a mark, or a probe of a program that has them.
        #[arg(long)]
        complete: bool,
        /// Appends a line on this run to the record in this file.
        #[arg(long)]
        ledger: Option<PathBuf>,
    },
    /// Takes away from a failing seed what its failure does not need, and tells the story of what is left.
    Minimise {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Stops searching after so many seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Looks for each mutant of this program, or the one of --mutant, where it should be caught, and prints by what,
    /// after how many seeds.
    Mutants {
        /// At most so many seeds for each.
        #[arg(long, default_value_t = 2000)]
        most: u64,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Runs a seed without other troubles, once for every effect of one replica, before which it crashes.
    Crashes {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// The replica.
        #[arg(long, default_value_t = 0)]
        replica: u8,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
}

fn parse_mutant(name: &str) -> Result<Mutant, String> {
    let names = || Mutant::all().into_iter().map(Mutant::name).collect::<Vec<_>>().join(", ");
    Mutant::named(name).ok_or_else(|| format!("there are {}", names()))
}

fn parse_range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parse = |text: &str| text.trim().parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let (start, end) = text.split_once("..").ok_or_else(|| "expected A..B".to_owned())?;
    let range = parse(start)?..parse(end)?;
    if range.is_empty() { Err("no seeds in this range".to_owned()) } else { Ok(range) }
}

fn progress(done: u64, elapsed: Duration) {
    eprintln!("{done} seeds, {:.0} seeds/s", done as f64 / elapsed.as_secs_f64());
}

// `main` silences the panic hook for many seeds: what panics is reported with its seed.
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mutant = arguments.mutant;
    let drawn = |seed| match arguments.attack {
        None => Plan::new(seed),
        Some(attack) if arguments.steady => attack.steady_plan(seed),
        Some(attack) => attack.plan(seed),
    };
    let attack = arguments.attack.and_then(|attack| attack.to_possible_value());
    let attack = attack.map_or(String::new(), |attack| format!(" --attack {}", attack.get_name()));
    let flags = format!("{attack}{}", if arguments.steady { " --steady" } else { "" });
    let events_max = arguments.events;
    let plan = |seed| Plan { mutant, events_max, ..drawn(seed) };
    match (arguments.command, arguments.seed) {
        (Some(Command::Run { seeds, jobs, minutes, complete, ledger }), None) => {
            std::panic::set_hook(Box::new(|_| ()));
            let limit = minutes.map(|minutes| Duration::from_secs(minutes * 60));
            let summary = run_seeds(seeds.clone(), jobs, limit, plan, progress);
            let recorded = ledger.map_or(Ok(()), |path| runs::append(&path, &seeds, &summary));
            let missed = !summary.marks.missed().is_empty() || !summary.probes.missed().is_empty();
            let mut code = report(&summary, plan, &flags);
            if complete && missed {
                println!("FAILED: rare paths were never taken");
                code = ExitCode::from(1);
            }
            if let Err(error) = recorded {
                eprintln!("the record of this run cannot be written: {error}");
                return ExitCode::from(1);
            }
            code
        }
        (Some(Command::Minimise { seed, seconds }), None) => {
            std::panic::set_hook(Box::new(|_| ()));
            tell_minimised(plan(seed), Duration::from_secs(seconds))
        }
        (Some(Command::Mutants { most, jobs }), None) => {
            std::panic::set_hook(Box::new(|_| ()));
            let mutants = mutant.map_or_else(Mutant::all, |mutant| vec![mutant]);
            report_mutants(&hunt_all(&mutants, most, jobs))
        }
        (Some(Command::Crashes { seed, replica, jobs }), None) => {
            std::panic::set_hook(Box::new(|_| ()));
            report_crashes(seed, replica, &run_crashes(seed, replica, jobs, progress))
        }
        (None, Some(seed)) => tell(plan(seed), arguments.trace),
        _ => {
            eprintln!("either `quorate-sim run` or `quorate-sim --seed N`: see --help");
            ExitCode::from(2)
        }
    }
}

/// The summary of many seeds.
fn report(summary: &Summary, plan: impl Fn(u64) -> Plan, flags: &str) -> ExitCode {
    let Summary { seeds, events, heights, marks, deeds, traces, slowest, longest, failures, elapsed, probes } =
        summary;
    let seconds = elapsed.as_secs_f64();
    println!(
        "{seeds} seeds in {seconds:.1} s: {:.0} seeds/s, {:.0} events/s",
        *seeds as f64 / seconds,
        *events as f64 / seconds
    );
    println!("{events} events, {heights} heights decided");
    println!("slowest recovery: {:.1} % of the time allowed, seed {}", slowest.0 as f64 / 10.0, slowest.1);
    if longest.0 > 0 {
        println!("longest wait: {:.1} % of what is promised, seed {}", longest.0 as f64 / 10.0, longest.1);
    }
    println!("commit {COMMIT}, traces {traces}");
    println!("deeds: {deeds}");
    println!("marks: {marks}");
    println!("probes: {probes}");
    println!("never reached: marks {:?}, probes {:?}", marks.missed(), probes.missed());
    for (seed, failure) in failures {
        println!("seed {seed} FAILED at commit {COMMIT}: {failure}");
        println!("  replay: quorate-sim --seed {seed} --trace{flags}");
    }
    if failures.is_empty() {
        println!("no rule was broken");
        return ExitCode::SUCCESS;
    }
    if let Some((seed, _)) = failures.first() {
        return tell_minimised(plan(*seed), MINIMISED_WITHIN);
    }
    ExitCode::from(1)
}

/// What is left of a failing plan, and its story.
fn tell_minimised(plan: Plan, limit: Duration) -> ExitCode {
    let seed = plan.seed;
    let Some(Minimised { plan, failure, steps, runs, story }) = minimise(plan, limit) else {
        println!("seed {seed} breaks no rule at commit {COMMIT}");
        return ExitCode::SUCCESS;
    };
    println!("seed {seed} at commit {COMMIT}, made small by {} steps in {runs} runs:", steps.len());
    steps.iter().for_each(|step| println!("  without {step}"));
    println!("what is left: {plan}");
    story.iter().for_each(|line| println!("{line}"));
    println!("FAILED: {failure}");
    ExitCode::from(1)
}

/// The table of mutants.
fn report_mutants(caught: &[(Mutant, Option<Caught>)]) -> ExitCode {
    println!("| mutant | looked for in | caught by | seeds |\n|---|---|---|---|");
    for (mutant, caught) in caught {
        let (name, ground) = (mutant.name(), Ground::of(*mutant));
        match caught {
            Some(Caught { seeds, rule }) => println!("| {name} | {ground} | {rule} | {seeds} |"),
            None => println!("| {name} | {ground} | NOT CAUGHT | |"),
        }
    }
    let survivors = caught.iter().filter(|(_, caught)| caught.is_none()).count();
    println!("{} mutants, {survivors} survived", caught.len());
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// The summary of crashes at every effect.
fn report_crashes(seed: u64, replica: u8, summary: &Summary) -> ExitCode {
    println!("seed {seed}: replica {replica} crashed before each of {} effects", summary.seeds);
    println!("marks: {}", summary.marks);
    for (effect, failure) in &summary.failures {
        println!("effect {effect} FAILED: {failure}");
    }
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// One seed, in words if wanted.
fn tell(plan: Plan, in_words: bool) -> ExitCode {
    println!("{plan}");
    let Outcome { trace, events, height, duration, marks, deeds, failure, story, .. } =
        run_plan(plan, if in_words { Story::Kept } else { Story::Silent });
    let mut output = std::io::stdout().lock();
    for line in story {
        // A closed pipe ends the story; nobody is left to be told of it.
        if writeln!(output, "{line}").is_err() {
            return ExitCode::SUCCESS;
        }
    }
    println!("{events} events, {height} heights, {:.3} virtual seconds", duration as f64 / SECOND as f64);
    println!("deeds: {deeds}");
    println!("marks: {marks}");
    println!("commit {COMMIT}, trace {trace}");
    match failure {
        None => {
            println!("no rule was broken");
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!("FAILED: {failure}");
            ExitCode::from(1)
        }
    }
}
