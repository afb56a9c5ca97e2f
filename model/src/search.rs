//! Visiting every state, breadth first.
//!
//! Invariant: a state is visited once, whichever replica is which; the first fork found is at the end of a
//! shortest run that leads to one. States are told apart by 64 bits of fingerprint.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use crate::header::{self, Headers};
use crate::state::State;
use crate::step::{Action, Model};

/// Fingerprints are hashes already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

/// From the fingerprint of each visited state to that of the state it was first reached from.
type Visited = HashMap<u64, u64, BuildHasherDefault<Same>>;

/// What was met on the way. Shows that a search has seen what it is about.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// A header of the greatest height was committed.
    pub top_committed: bool,
    /// A header was committed in the last view.
    pub committed_in_last_view: bool,
    /// A header with a prepare certificate was committed in a later view only, with others at hand.
    pub prepared_dropped: bool,
    /// A view could begin on different bases.
    pub many_bases: bool,
    /// A replica that restarted signed COMMIT in its view.
    pub mute_committed: bool,
    /// A replica knew a header to be committed.
    pub adopted: bool,
}

impl Marks {
    fn see(&mut self, model: &Model, state: &State) {
        let configuration = model.configuration();
        let committed = state.committed(configuration);
        let all: Headers = state.done | committed;
        self.top_committed |= all & header::at(configuration.heights) != 0;
        self.committed_in_last_view |= committed != 0 && state.view + 1 == configuration.views;
        self.many_bases |= state.bases.count_ones() > 1;
        self.mute_committed |= state.replicas.iter().any(|replica| replica.mute && replica.commits != 0);
        self.adopted |= state.replicas.iter().any(|replica| replica.tip != header::GENESIS);
        let earlier = state.certified.iter().fold(0, |set, some| set | some);
        self.prepared_dropped |= header::members(earlier)
            .any(|lost| header::members(committed).any(|kept| !header::compatible(lost, kept)));
    }
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// States visited.
    pub states: usize,
    /// Steps to the farthest of them.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What was met.
    pub marks: Marks,
    /// The steps to a fork, if there is one.
    pub fork: Option<Vec<Action>>,
}

/// Visits every state, or all up to the first fork.
#[must_use]
pub fn search(model: &Model) -> Report {
    let began = Instant::now();
    let initial = State::initial(model.configuration());
    let mut visited = Visited::default();
    visited.insert(initial.fingerprint(), initial.fingerprint());
    let (mut level, mut depth, mut marks) = (vec![initial], 0, Marks::default());
    loop {
        let mut above = Vec::new();
        let mut fork = None;
        for state in &level {
            let from = state.fingerprint();
            model.steps(state, |_, next| {
                let fingerprint = next.fingerprint();
                if fork.is_none()
                    && let Entry::Vacant(entry) = visited.entry(fingerprint)
                {
                    entry.insert(from);
                    marks.see(model, &next);
                    if next.fork(model.configuration()).is_some() {
                        fork = Some(fingerprint);
                    }
                    above.push(next);
                }
            });
            if fork.is_some() {
                break;
            }
        }
        let ended = above.is_empty() || fork.is_some();
        if !above.is_empty() {
            depth += 1;
        }
        if ended {
            let fork = fork.map(|fingerprint| way(model, &visited, fingerprint));
            return Report { states: visited.len(), depth, took: began.elapsed(), marks, fork };
        }
        level = above;
    }
}

/// The steps that first led to a visited state.
fn way(model: &Model, visited: &Visited, end: u64) -> Vec<Action> {
    let mut state = State::initial(model.configuration());
    let (start, mut fingerprints) = (state.fingerprint(), vec![end]);
    while let Some(before) = fingerprints.last().and_then(|at| visited.get(at)).filter(|at| **at != start) {
        fingerprints.push(*before);
    }
    let mut actions = Vec::new();
    for wanted in fingerprints.into_iter().rev() {
        let mut found = None;
        model.steps(&state, |action, next| {
            if found.is_none() && next.fingerprint() == wanted {
                found = Some((action, next));
            }
        });
        if let Some((action, next)) = found {
            actions.push(action);
            state = next;
        }
    }
    actions
}

/// The state after an action, which must be possible.
#[must_use]
pub fn after(model: &Model, state: &State, wanted: Action) -> Option<State> {
    let mut found = None;
    model.steps(state, |action, next| {
        if action == wanted {
            found = Some(next);
        }
    });
    found
}
