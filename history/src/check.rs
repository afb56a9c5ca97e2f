//! Whether a history is linearizable, with heights as witness.
//!
//! The chain says in which order everything was executed, so nothing has to be searched for: the order must
//! respect real time, and every answer must be what execution in that order gives. Calls that carry no
//! height are judged by their times alone, key by key (`registers`).
//!
//! Invariant: a history is refused only if no order of its calls explains it that agrees with the heights.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Answer, Call, CallId, Guarantee, History, Key, Operation, Place};
use crate::registers;
use crate::tree::{Doubt, Judgement, Tree};

/// What was looked at.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Calls.
    pub calls: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// Answers that were compared with those of sequential execution.
    pub compared: u64,
    /// Answers that were not, because it is not known what a key held: unanswered writes without a place,
    /// or several in one height without an order.
    pub undecided: u64,
    /// Keys that were judged by times alone.
    pub timed_keys: u64,
}

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A client was told another place than the chain shows.
    #[error("call {id}: the client was told {told:?}, the chain says {executed:?}")]
    Told {
        /// The call.
        id: CallId,
        /// What the client was told.
        told: Place,
        /// What the chain shows.
        executed: Place,
    },
    /// Two ordered calls at one place.
    #[error("calls {first} and {second} are both at {place:?}")]
    SamePlace {
        /// One.
        first: CallId,
        /// The other.
        second: CallId,
        /// Where.
        place: Place,
    },
    /// A call stands below one that ended before it began, in the order of the chain.
    #[error(
        "call {later} began after call {earlier} had ended, and is at height {height}, not above {floor}"
    )]
    RealTime {
        /// The one that ended first.
        earlier: CallId,
        /// Its height.
        floor: u64,
        /// The one that began later.
        later: CallId,
        /// Its height.
        height: u64,
    },
    /// A read saw a state that lacks what had ended before it began.
    #[error("read {read} began after call {earlier} had ended at height {floor}, and saw height {height}")]
    StaleRead {
        /// The call that it lacks.
        earlier: CallId,
        /// Its height.
        floor: u64,
        /// The read.
        read: CallId,
        /// The height that it saw.
        height: u64,
    },
    /// An answer is not that of sequential execution.
    #[error(transparent)]
    Answer(Box<WrongAnswer>),
    /// A read returned what nobody had written.
    #[error("read {read} of {key} returned {value:?}, which nobody had begun to write")]
    Unwritten {
        /// The read.
        read: CallId,
        /// The key.
        key: Key,
        /// What it returned.
        value: Option<String>,
    },
    /// No order of the reads and writes of a key agrees with their times.
    #[error("no order explains {key}: calls {first} and {second} stand against each other")]
    NoOrder {
        /// The key.
        key: Key,
        /// A call that belongs to one value.
        first: CallId,
        /// A call that belongs to another one.
        second: CallId,
    },
}

/// An answer that execution in the order of the chain does not give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("call {id} ({operation:?}) was answered {answer:?}, execution in order gives {expected:?}")]
pub struct WrongAnswer {
    /// The call.
    pub id: CallId,
    /// What it asked for.
    pub operation: Operation,
    /// What it was answered.
    pub answer: Answer,
    /// What is right.
    pub expected: Answer,
}

/// Judges a history.
///
/// # Errors
/// The first [`Violation`] found.
pub fn check(history: &History) -> Result<Report, Violation> {
    let mut report = Report { calls: history.calls().len() as u64, ..Report::default() };
    report.answered = history.calls().values().filter(|call| call.outcome.is_some()).count() as u64;
    told(history)?;
    real_time(history)?;
    answers(history, &mut report)?;
    registers::check(history, &mut report)?;
    Ok(report)
}

/// What clients were told of places is what the chain shows.
fn told(history: &History) -> Result<(), Violation> {
    for (id, call) in history.calls() {
        let told = call.outcome.as_ref().and_then(|outcome| outcome.place);
        if let (Some(told), Some(executed)) = (told, call.executed)
            && (told.height != executed.height
                || told.index.is_some_and(|index| Some(index) != executed.index))
        {
            return Err(Violation::Told { id: *id, told, executed });
        }
    }
    Ok(())
}

/// The highest place that is known to be behind, and whose it is.
#[derive(Copy, Clone, Default)]
struct Floor(Option<(u64, CallId)>);

impl Floor {
    fn raise(&mut self, height: u64, id: CallId) {
        if self.0.is_none_or(|(known, _)| known < height) {
            self.0 = Some((height, id));
        }
    }
}

/// What ended before something began stands below it: writes strictly, because a height that a client knows
/// of holds nothing that was not asked for before; reads at least at it.
fn real_time(history: &History) -> Result<(), Violation> {
    // At equal times what begins comes first: it counts as concurrent.
    let mut times: Vec<(u64, bool, CallId)> = Vec::new();
    for (id, call) in history.calls() {
        times.push((call.start, false, *id));
        times.extend(call.outcome.as_ref().map(|outcome| (outcome.end, true, *id)));
    }
    times.sort_unstable();
    let mut all = Floor::default();
    let mut own: BTreeMap<u64, Floor> = BTreeMap::new();
    for (_, is_end, id) in times {
        let Some(call) = history.calls().get(&id) else { continue };
        let Some(Place { height, .. }) = call.place() else { continue };
        if is_end {
            all.raise(height, id);
            own.entry(call.client).or_default().raise(height, id);
            continue;
        }
        let floor = match call.guarantee {
            Guarantee::Session if call.operation.is_read() => own.get(&call.client).copied(),
            _ => Some(all),
        };
        let Some((floor, earlier)) = floor.and_then(|floor| floor.0) else { continue };
        if call.operation.is_read() {
            if height < floor {
                return Err(Violation::StaleRead { earlier, floor, read: id, height });
            }
        } else if height <= floor {
            return Err(Violation::RealTime { earlier, floor, later: id, height });
        }
    }
    Ok(())
}

/// Every answer is that of execution in the order of the chain.
fn answers(history: &History, report: &mut Report) -> Result<(), Violation> {
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    let mut tree = Tree::default();
    for (id, call) in history.calls() {
        match call.place() {
            Some(place) if call.operation.is_read() => reads.push((place.height, *id, call)),
            Some(place) => writes.push((place, *id, call)),
            None if call.operation.is_read() => {}
            None => call.operation.keys().into_iter().for_each(|key| tree.doubt(key, Doubt::Execution)),
        }
    }
    writes.sort_unstable_by_key(|(place, id, _)| (*place, *id));
    reads.sort_unstable_by_key(|(height, id, _)| (*height, *id));
    same_place(&writes)?;
    let mut writes = writes.chunk_by(|(one, ..), (other, ..)| one.height == other.height).peekable();
    for (height, id, read) in reads {
        while let Some(group) =
            writes.next_if(|group| group.first().is_some_and(|(at, ..)| at.height <= height))
        {
            execute(&mut tree, group, report)?;
        }
        judge(&mut tree, id, read, report)?;
    }
    writes.try_for_each(|group| execute(&mut tree, group, report))
}

fn same_place(writes: &[(Place, CallId, &Call)]) -> Result<(), Violation> {
    for pair in writes.windows(2) {
        if let [(place, first, _), (other, second, _)] = pair
            && place == other
            && place.index.is_some()
        {
            return Err(Violation::SamePlace { first: *first, second: *second, place: *place });
        }
    }
    Ok(())
}

/// Executes what stands at one height.
fn execute(tree: &mut Tree, group: &[(Place, CallId, &Call)], report: &mut Report) -> Result<(), Violation> {
    let (mut seen, mut unclear) = (BTreeSet::new(), BTreeSet::new());
    if group.iter().any(|(place, ..)| place.index.is_none()) {
        for key in group.iter().flat_map(|(_, _, call)| call.operation.keys()) {
            if !seen.insert(key) {
                unclear.insert(key);
            }
        }
    }
    unclear.iter().for_each(|key| tree.doubt(key, Doubt::Order));
    for (_, id, call) in group {
        judge(tree, *id, call, report)?;
        // What one of them overwrites another one may overwrite before or after it.
        unclear.iter().for_each(|key| tree.doubt(key, Doubt::Order));
    }
    Ok(())
}

fn judge(tree: &mut Tree, id: CallId, call: &Call, report: &mut Report) -> Result<(), Violation> {
    let answer = call.outcome.as_ref().map(|outcome| &outcome.answer);
    let judgement = match (&call.operation, answer) {
        (Operation::List { prefix }, Some(answer)) => tree.judge_list(prefix, answer),
        (operation, answer) => tree.apply(operation, answer),
    };
    match judgement {
        Judgement::Right => report.compared += u64::from(answer.is_some()),
        Judgement::Undecided => report.undecided += 1,
        Judgement::Wrong(expected) => {
            let (operation, answer) = (call.operation.clone(), answer.cloned().unwrap_or(Answer::Done));
            return Err(Violation::Answer(Box::new(WrongAnswer { id, operation, answer, expected })));
        }
    }
    Ok(())
}
