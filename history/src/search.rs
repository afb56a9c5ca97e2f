//! Whether calls that carry no height have an order that explains them, by search: for what a mount shows.
//!
//! The calls are cut where nothing is under way. What states may hold at each cut is known, so that a search
//! (Wing and Gong 1993, with the states met already remembered, as Lowe 2017 has it) never looks further than from
//! one cut to the next, and what cannot be explained is told as what happened since the last cut.
//!
//! Invariant: a history is refused only if no order of its calls that respects their times explains all answers.
//! A call without an end may take effect at any later time, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Most calls between two cuts, those without an end included.
pub const SECTION_CALLS_MAX: usize = 64;
/// Most steps of one search.
pub const STEPS_MAX: u64 = 20_000_000;

/// A sequential thing whose calls are judged.
pub trait Model {
    /// What it holds.
    type State: Clone + Ord + fmt::Display;
    /// What is asked of it.
    type Operation: Clone + fmt::Display;
    /// What it answers.
    type Answer: Clone + fmt::Display;

    /// The state afterwards, if `answer` is what this operation is answered in `state`; whatever it is answered,
    /// if there is none. `None` if it is not.
    fn apply(
        state: &Self::State,
        operation: &Self::Operation,
        answer: Option<&Self::Answer>,
    ) -> Option<Self::State>;

    /// Whether a call with this answer leaves every state as it is.
    fn is_idle(operation: &Self::Operation, answer: &Self::Answer) -> bool;
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed<O, A> {
    /// Who asked.
    pub client: u64,
    /// When, in any unit of one clock for all clients.
    pub start: u64,
    /// When it was answered, and what; `None` if it never was.
    pub end: Option<(u64, A)>,
    /// For what.
    pub operation: O,
}

/// What was looked at.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Calls.
    pub calls: u64,
    /// Sections between two cuts.
    pub sections: u64,
    /// Most calls of one section.
    pub longest: usize,
    /// Steps of all searches.
    pub steps: u64,
}

/// Why a history is not accepted.
#[derive(Clone, thiserror::Error)]
pub enum Unexplained<M: Model> {
    /// No order explains these calls.
    #[error("no order explains these calls:\n{0}")]
    Story(Story<M>),
    /// A section that is too long or too tangled to be decided. Whoever recorded it has to pause more often.
    #[error("{calls} calls without a pause, or more than {STEPS_MAX} steps: undecided")]
    TooLong {
        /// Its calls.
        calls: usize,
    },
}

impl<M: Model> fmt::Debug for Unexplained<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The least that cannot be explained.
#[derive(Clone)]
pub struct Story<M: Model> {
    /// What may have been there at its beginning.
    pub before: Vec<M::State>,
    /// What happened, by start.
    pub calls: Vec<Timed<M::Operation, M::Answer>>,
}

impl<M: Model> fmt::Display for Story<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for state in &self.before {
            writeln!(formatter, "  before: {state}")?;
        }
        let from = self.calls.iter().map(|call| call.start).min().unwrap_or_default();
        for Timed { client, start, end, operation } in &self.calls {
            let start = start.saturating_sub(from);
            match end {
                Some((end, answer)) => {
                    let end = end.saturating_sub(from);
                    writeln!(
                        formatter,
                        "  {start:>8} to {end:>8}  client {client}: {operation} -> {answer}"
                    )?;
                }
                None => writeln!(formatter, "  {start:>8} to       ..  client {client}: {operation} -> ?")?,
            }
        }
        Ok(())
    }
}

type Calls<M> = Vec<Timed<<M as Model>::Operation, <M as Model>::Answer>>;

/// A state, and which calls without an end (by their position among all such) have had their effect.
type Standing<S> = (S, BTreeSet<usize>);

/// Judges calls on what held `initial` before the first of them.
///
/// # Errors
/// [`Unexplained`], with the smallest story that was found.
pub fn search<M: Model>(initial: &M::State, mut calls: Calls<M>) -> Result<Searched, Unexplained<M>> {
    calls.sort_by_key(|call| call.start);
    let mut searched = Searched { calls: calls.len() as u64, ..Searched::default() };
    let mut open: Calls<M> = Vec::new();
    let mut standings: BTreeSet<Standing<M::State>> = BTreeSet::from([(initial.clone(), BTreeSet::new())]);
    for section in sections::<M>(calls) {
        let (mut closed, unended): (Calls<M>, Calls<M>) =
            section.into_iter().partition(|call| call.end.is_some());
        open.extend(unended);
        let size = closed.len().saturating_add(open.len());
        searched.sections += 1;
        searched.longest = searched.longest.max(size);
        let after = explain::<M>(&standings, &closed, &open, &mut searched.steps)
            .ok_or(Unexplained::TooLong { calls: size })?;
        if after.is_empty() {
            shrink::<M>(&standings, &mut closed, &open, &mut searched.steps);
            closed.extend(open);
            closed.sort_by_key(|call| call.start);
            let before: BTreeSet<M::State> = standings.into_iter().map(|(state, _)| state).collect();
            return Err(Unexplained::Story(Story { before: before.into_iter().collect(), calls: closed }));
        }
        standings = after;
    }
    Ok(searched)
}

/// Cuts calls, by start, where all that had an end have ended.
fn sections<M: Model>(calls: Calls<M>) -> Vec<Calls<M>> {
    let mut sections: Vec<Calls<M>> = Vec::new();
    let mut latest = 0;
    for call in calls {
        // At equal times what begins comes first: it counts as concurrent.
        match sections.last_mut().filter(|_| call.start <= latest) {
            Some(section) => section.push(call),
            None => sections.push(vec![call]),
        }
        let section_end = sections.last().and_then(|section| section.last());
        let end = section_end.and_then(|call| call.end.as_ref()).map_or(0, |(end, _)| *end);
        latest = latest.max(end);
    }
    sections
}

/// Where the calls of a section may lead from these standings; empty if nowhere, `None` if that takes too long.
fn explain<M: Model>(
    standings: &BTreeSet<Standing<M::State>>,
    closed: &Calls<M>,
    open: &Calls<M>,
    steps: &mut u64,
) -> Option<BTreeSet<Standing<M::State>>> {
    if closed.len().saturating_add(open.len()) > SECTION_CALLS_MAX {
        return None;
    }
    let all = closed.len();
    let mut found = BTreeSet::new();
    // By the calls that were put in order, as bits: how the states come about does not matter.
    let mut met: BTreeMap<(u64, M::State), BTreeSet<BTreeSet<usize>>> = BTreeMap::new();
    let mut todo: Vec<(u64, M::State, BTreeSet<usize>)> =
        standings.iter().map(|(state, used)| (0, state.clone(), used.clone())).collect();
    while let Some((done, state, used)) = todo.pop() {
        *steps = steps.saturating_add(1);
        if *steps > STEPS_MAX {
            return None;
        }
        if !met.entry((done, state.clone())).or_default().insert(used.clone()) {
            continue;
        }
        let is_done = |position: usize| 1_u64.checked_shl(position as u32).is_some_and(|bit| done & bit != 0);
        if (0..all).all(is_done) {
            found.insert((state.clone(), used.clone()));
        }
        // Next may be whatever began before the first end of those that are not in order yet.
        let waiting = closed.iter().enumerate().filter(|(position, _)| !is_done(*position));
        let first_end = waiting.clone().filter_map(|(_, call)| call.end.as_ref()).map(|(end, _)| *end).min();
        let may_be_next = |start: u64| first_end.is_none_or(|end| start <= end);
        for (position, call) in waiting.filter(|(_, call)| may_be_next(call.start)) {
            let answer = call.end.as_ref().map(|(_, answer)| answer);
            if let Some(next) = M::apply(&state, &call.operation, answer) {
                todo.push((done | 1_u64 << position, next, used.clone()));
            }
        }
        // What nobody was told may have had its effect, from its beginning on.
        for (position, call) in open.iter().enumerate() {
            if used.contains(&position) || !may_be_next(call.start) {
                continue;
            }
            if let Some(next) = M::apply(&state, &call.operation, None) {
                let mut used = used.clone();
                used.insert(position);
                todo.push((done, next, used));
            }
        }
    }
    Some(found)
}

/// Leaves out what can be left out without the rest being explained: whatever comes after the first point that
/// cannot be explained, and calls that change nothing. Without them a history that is right stays right.
fn shrink<M: Model>(
    standings: &BTreeSet<Standing<M::State>>,
    closed: &mut Calls<M>,
    open: &Calls<M>,
    steps: &mut u64,
) {
    let mut wrong =
        |calls: &Calls<M>| explain::<M>(standings, calls, open, steps).is_some_and(|found| found.is_empty());
    // What began after the end of a call cannot explain its answer. The shortest such beginning:
    let mut ends: Vec<u64> =
        closed.iter().filter_map(|call| call.end.as_ref()).map(|(end, _)| *end).collect();
    ends.sort_unstable();
    for last in ends {
        // Of what was under way then only that it may have had its effect is known.
        let begun: Calls<M> = closed.iter().filter(|call| call.start <= last).cloned().collect();
        let known = |call: &Timed<M::Operation, M::Answer>| {
            let ended = call.end.as_ref().is_some_and(|(end, _)| *end <= last);
            if ended { call.clone() } else { Timed { end: None, ..call.clone() } }
        };
        let (ended, unended): (Calls<M>, Calls<M>) =
            begun.iter().map(known).partition(|call| call.end.is_some());
        let mut open = open.clone();
        open.extend(unended);
        let mut fresh = 0;
        if explain::<M>(standings, &ended, &open, &mut fresh).is_some_and(|found| found.is_empty()) {
            *closed = begun;
            break;
        }
    }
    let mut position = closed.len();
    while let Some(next) = position.checked_sub(1) {
        position = next;
        let idle = closed.get(position).is_some_and(|call| {
            call.end.as_ref().is_some_and(|(_, answer)| M::is_idle(&call.operation, answer))
        });
        if idle {
            let mut fewer = closed.clone();
            fewer.remove(position);
            if wrong(&fewer) {
                *closed = fewer;
            }
        }
    }
}
