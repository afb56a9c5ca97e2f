//! Writes the seeds of every target, or of those named, into their corpora: `fuzz/corpus/TARGET/seed-NN`.
//! With `--list` it prints the names of the targets instead.
//!
//! Invariant: equal sources write equal bytes; files that it did not name are left alone.

use std::path::Path;

use quorate_fuzz::{TARGETS, corpus};

fn main() -> std::io::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.iter().any(|argument| argument == "--list") {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return Ok(());
    }
    for target in
        TARGETS.iter().filter(|target| wanted.is_empty() || wanted.iter().any(|name| name == target.name))
    {
        let directory = corpus(target.name);
        std::fs::create_dir_all(&directory)?;
        let seeds = (target.seeds)();
        for (number, seed) in seeds.iter().enumerate() {
            write(&directory.join(format!("seed-{number:02}")), seed)?;
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::write(path, bytes)
}
