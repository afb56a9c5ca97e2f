//! A run as a story to read.
//!
//! Invariant: replicas and headers keep their names throughout, though the search renames both.

use std::fmt::Write;

use crate::header::{self, Header, Headers};
use crate::rules::Mutant;
use crate::search::after;
use crate::state::{CORRECT, Rank, State};
use crate::step::{Action, Model};

/// Tells a run line by line.
#[must_use]
pub fn tell(model: &Model, actions: &[Action]) -> String {
    let mut teller = Teller {
        model,
        state: State::initial(model.configuration()),
        names: std::array::from_fn(|header| header as Header),
        claims: [0; CORRECT],
        claims_before: [0; CORRECT],
        claims_there: [0; CORRECT],
        text: String::new(),
    };
    teller.line("R1, R2, R3 are correct; the fourth replica is Byzantine and signs whatever is wanted.");
    teller.line("Header `ab` is the child `b` of header `a`.");
    teller.line("view 0:");
    for action in actions {
        teller.step(*action);
    }
    teller.end();
    teller.text
}

struct Teller<'a> {
    model: &'a Model,
    state: State,
    /// The name in the story of each header as the search names it now.
    names: [Header; 16],
    /// The claims that replicas have; the search raises those that are too low to matter.
    claims: [Rank; CORRECT],
    /// The same when this view began.
    claims_before: [Rank; CORRECT],
    /// And what the search made of them.
    claims_there: [Rank; CORRECT],
    text: String,
}

impl Teller<'_> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn name(&self, header: Header) -> String {
        header::name(self.names[usize::from(header)])
    }

    fn list(&self, set: Headers) -> String {
        let names: Vec<String> = header::members(set).map(|header| self.name(header)).collect();
        names.join(", ")
    }

    /// The claim of a replica which the search has as this.
    const fn real(&self, index: usize, there: Rank) -> Rank {
        if there == self.claims_there[index] { self.claims_before[index] } else { there }
    }

    fn step(&mut self, action: Action) {
        let Some(next) = after(self.model, &self.state, action) else {
            self.line("  (a step that is not possible)");
            return;
        };
        let (view, before) = (self.state.view, self.state);
        match action {
            Action::Prepare { replica, header, base } => {
                let (who, name) = (replica + 1, self.name(header));
                let base = match base {
                    Some(base) if view > 0 => format!("enters on base {} and ", self.name(base)),
                    _ => String::new(),
                };
                self.line(&format!(
                    "  R{who} {base}signs PREPARE {name} (height {})",
                    header::height(header)
                ));
            }
            Action::Commit { replica, header } => {
                let signed = next.replicas[replica].commits & !before.replicas[replica].commits;
                let (who, name, list) = (replica + 1, self.name(header), self.list(signed));
                let list = if list.is_empty() { "nothing new".to_owned() } else { list };
                self.line(&format!("  R{who} has the prepare certificate of {name} and signs COMMIT {list}"));
            }
            Action::Adopt { replica, view, header } => {
                let (who, name) = (replica + 1, self.name(header));
                self.line(&format!("  R{who} learns the commit certificate of view {view} for {name}"));
            }
            Action::Crash { replica } => self.line(&format!("  R{} crashes and restarts", replica + 1)),
            Action::Leave { replica } => {
                let claim = claim(self.claims[replica]);
                self.line(&format!("  R{} sends VIEW-CHANGE({}) with {claim}", replica + 1, view + 1));
            }
            Action::Return { replica, header } => {
                let (who, name) = (replica + 1, self.name(header));
                self.line(&format!(
                    "  R{who} sees the commit certificate of {name} and is back in view {view}"
                ));
            }
            Action::NextView => self.next_view(&before, &next),
        }
        self.certificates(&before, &next, action);
        if action == Action::NextView {
            self.claims_before = self.claims;
            self.claims_there = next.replicas.map(|replica| replica.claim);
        } else {
            self.claims = std::array::from_fn(|index| self.real(index, next.replicas[index].claim));
        }
        self.state = next;
    }

    fn next_view(&mut self, before: &State, next: &State) {
        let mut line = String::from("  VIEW-CHANGE:");
        let dropped = self.model.configuration().is(Mutant::ClaimDropped);
        for (index, replica) in before.replicas.iter().enumerate() {
            let signed = if dropped {
                0
            } else {
                replica.early.map_or(self.claims[index], |early| self.real(index, early))
            };
            let end = if index + 1 == CORRECT { "" } else { ";" };
            let _ = write!(line, " R{} with {}{end}", index + 1, claim(signed));
        }
        self.line(&line);
        let (_, renaming) = self.model.next_view(before);
        let mut names = self.names;
        for header in 0..header::count(self.model.configuration().heights) {
            names[usize::from(renaming[usize::from(header)])] = self.names[usize::from(header)];
        }
        self.names = names;
        let bases = self.list(next.bases);
        self.line(&format!("view {}: NEW-VIEW is possible with the base {bases}", next.view));
    }

    fn certificates(&mut self, before: &State, next: &State, action: Action) {
        if action == Action::NextView {
            return;
        }
        let configuration = *self.model.configuration();
        let prepared = self.list(next.prepared(&configuration) & !before.prepared(&configuration));
        if !prepared.is_empty() {
            self.line(&format!("    = prepare certificate of view {} for {prepared}", next.view));
        }
        let committed = self.list(next.committed(&configuration) & !before.committed(&configuration));
        if !committed.is_empty() {
            self.line(&format!("    = commit certificate of view {} for {committed}", next.view));
        }
    }

    fn end(&mut self) {
        if let Some((a, b)) = self.state.fork(self.model.configuration()) {
            let (height, a, b) = (header::height(a), self.name(a), self.name(b));
            self.line(&format!("FORK at height {height}: {a} and {b} both have a commit certificate"));
        }
    }
}

fn claim(rank: Rank) -> String {
    if rank == 0 { "no claim".to_owned() } else { format!("claim (view {}, height {})", rank / 8, rank % 8) }
}
