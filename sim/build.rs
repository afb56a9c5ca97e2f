//! Tells the program which commit it is built from, so that a failing seed can name it.

use std::path::Path;
use std::process::Command;

/// The rooms that decide what a seed does.
const ROOMS: [&str; 8] =
    ["crypto", "merkle", "protocol", "metadata", "execution", "consensus", "history", "sim"];

/// What git prints, without the end of the line; nothing if there is no git or no repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn main() {
    let sources = ROOMS.map(|room| format!("../{room}/src"));
    sources.iter().for_each(|source| println!("cargo:rerun-if-changed={source}"));
    println!("cargo:rerun-if-changed=build.rs");
    // Moves with every commit and every checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(sources.iter().map(String::as_str));
    let changed = git(&status).is_some_and(|status| !status.is_empty());
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=QUORATE_COMMIT={commit}{}", if changed { "+" } else { "" });
}
