//! The command line, one binary.
//!
//! Invariant: every failure ends in one clear line on standard error that says cause, effect and what to
//! do, and in an exit status that means something.

mod args;
mod commands;
mod failure;

use args::{Cli, Command};
use clap::Parser as _;
use failure::Failure;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = failure::helper_names(std::env::args_os().collect());
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    start_logging(&cli.log);
    let result = match cli.command {
        Command::Dev(args) => commands::dev::run(args, &cli.log),
        Command::Init(args) => commands::init::run(&args),
        Command::Key(args) => commands::key::run(&args),
        Command::Replica(args) => commands::replica::run(&args),
        Command::Mount(args) => commands::mount::run(&args, &cli.log),
        Command::Umount(args) => commands::mount::unmount(&args),
        Command::Status(args) => commands::status::run(&args),
        Command::Audit(args) => commands::audit::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(Failure { code, text }) => {
            // Nobody may be there to read it, as behind a mount in the background.
            let _ = writeln!(std::io::stderr(), "quorate: {text}");
            ExitCode::from(code)
        }
    }
}

/// Logs go to standard error, without colours when that is a file.
fn start_logging(level: &str) {
    use std::io::IsTerminal as _;
    // fuser warns of every request that is not implemented, which is how the kernel learns it.
    let filter = tracing_subscriber::EnvFilter::try_new(format!("fuser=error,{level}"))
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("fuser=error,warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A mount in the background outlives whoever read its standard error: that must not stop it.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
