//! A failure as a story that can be read: what leads to the broken rule, without the noise around it.
//!
//! Invariant: everything that struck from outside is told; of messages the first sending of each, broadcasts
//! in one line, the last [`LINES_MAX`] of them.

use std::collections::BTreeSet;

use crate::trace::{Entry, clock};

/// Most lines of a story besides what struck from outside.
pub const LINES_MAX: usize = 160;

/// What is told of an event.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Telling {
    /// Nothing: it follows from others, or repeats them.
    Left,
    /// It is told if it is recent enough.
    Told,
    /// It is told always.
    Kept,
    /// A message left a replica.
    Sent,
}

/// By the kinds under which `drive`, `strike`, `serve` and others note events.
const fn telling(entry: &Entry) -> Telling {
    match entry.kind {
        10..=13 | 16..=19 => Telling::Kept,
        2 | 6 | 8 | 9 | 20 | 21 => Telling::Told,
        // Proposals, votes, suspicions, resignations, view changes and certificates; no fetches and no
        // announcements.
        4 if entry.operands[1] <= 7 => Telling::Sent,
        _ => Telling::Left,
    }
}

/// The lines of a story.
#[must_use]
pub fn tell(entries: &[Entry]) -> Vec<String> {
    let mut lines: Vec<(bool, String)> = Vec::new();
    let mut said = BTreeSet::new();
    let mut position = 0;
    while let Some(entry) = entries.get(position) {
        position += 1;
        match telling(entry) {
            Telling::Left => {}
            Telling::Told => lines.push((false, entry.to_string())),
            Telling::Kept => lines.push((true, entry.to_string())),
            Telling::Sent => {
                let same = entries[position..].iter().take_while(|next| is_broadcast(entry, next));
                let copies: Vec<&Entry> = std::iter::once(entry).chain(same).collect();
                position += copies.len() - 1;
                let from = entry.operands[0] >> 8;
                if said.insert((from, entry.operands[1], entry.operands[2], entry.operands[3])) {
                    lines.push((false, broadcast(&copies)));
                }
            }
        }
    }
    let told = lines.iter().filter(|(kept, _)| !kept).count();
    let mut left = told.saturating_sub(LINES_MAX);
    let mut story = Vec::new();
    if left > 0 {
        story.push(format!("(the first {left} messages and results are left out)"));
    }
    for (kept, line) in lines {
        if !kept && left > 0 {
            left -= 1;
        } else {
            story.push(line);
        }
    }
    story
}

/// Whether the next event is the same message to another replica.
fn is_broadcast(entry: &Entry, next: &Entry) -> bool {
    next.kind == 4
        && next.at == entry.at
        && next.operands[0] >> 8 == entry.operands[0] >> 8
        && next.operands[1..] == entry.operands[1..]
}

fn broadcast(copies: &[&Entry]) -> String {
    let Some(first) = copies.first() else { return String::new() };
    let to: Vec<String> = copies.iter().map(|copy| (copy.operands[0] & 0xff).to_string()).collect();
    let words = first.words.split_once(": ").map_or(first.words.as_str(), |(_, words)| words);
    format!("{} {} -> {}: {words}", clock(first.at), first.operands[0] >> 8, to.join(" "))
}
