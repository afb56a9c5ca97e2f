//! Right histories pass, wrong ones are refused, each for its own reason; and the text comes back as it was.
#![allow(missing_docs)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_history::{
    Answer, Event, Guarantee, History, Malformed, Operation, Place, Report, Violation, check,
};

/// A history in the making.
#[derive(Default)]
struct Maker {
    history: History,
    next: u64,
}

impl Maker {
    fn call(&mut self, client: u64, at: u64, operation: Operation) -> u64 {
        self.next += 1;
        let guarantee = Guarantee::Linearizable;
        let call = Event::Call { id: self.next, client, at, operation, guarantee };
        self.history.record(call).unwrap();
        self.next
    }

    fn answer(&mut self, id: u64, at: u64, answer: Answer, height: u64, index: u64) {
        let place = Some(Place { height, index: Some(index) });
        self.history.record(Event::Return { id, at, answer, place }).unwrap();
    }

    fn timed(&mut self, start: u64, end: u64, operation: Operation, answer: Answer) {
        let id = self.call(start, start, operation);
        self.history.record(Event::Return { id, at: end, answer, place: None }).unwrap();
    }

    fn whole(&mut self, (start, end): (u64, u64), operation: Operation, answer: Answer, height: u64) -> u64 {
        let id = self.call(start, start, operation);
        self.answer(id, end, answer, height, id);
        id
    }

    fn check(&self) -> Result<Report, Violation> {
        check(&self.history)
    }

    /// The call whose answer is wrong.
    fn wrong(&self) -> Option<u64> {
        match self.check() {
            Err(Violation::Answer(wrong)) => Some(wrong.id),
            _ => None,
        }
    }
}

fn put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.into(), value: value.into() }
}

fn create(key: &str, value: &str) -> Operation {
    Operation::Create { key: key.into(), value: value.into() }
}

fn get(key: &str) -> Operation {
    Operation::Get { key: key.into() }
}

fn value(value: &str) -> Answer {
    Answer::Value(value.into())
}

#[test]
fn a_right_history_passes() {
    let mut maker = Maker::default();
    maker.whole((0, 10), put("a", "1"), Answer::Done, 1);
    maker.whole((11, 20), put("a", "2"), Answer::Done, 2);
    // Concurrent with the second write: either state will do.
    maker.whole((12, 19), get("a"), value("1"), 1);
    maker.whole((12, 19), get("a"), value("2"), 2);
    maker.whole((21, 30), create("a", "3"), Answer::Exists, 3);
    maker.whole((31, 40), Operation::Move { from: "a".into(), to: "b".into() }, Answer::Done, 4);
    maker.whole((41, 42), Operation::List { prefix: String::new() }, Answer::Keys(vec!["b".into()]), 4);
    maker.whole((41, 50), Operation::Remove { key: "a".into() }, Answer::Absent, 5);
    let report = maker.check().unwrap();
    assert_eq!((report.calls, report.answered, report.compared, report.undecided), (8, 8, 8, 0));
}

#[test]
fn a_stale_read_is_refused() {
    let mut maker = Maker::default();
    maker.whole((0, 10), put("a", "1"), Answer::Done, 1);
    maker.whole((11, 20), put("a", "2"), Answer::Done, 2);
    maker.whole((21, 30), get("a"), value("1"), 1);
    assert!(matches!(maker.check(), Err(Violation::StaleRead { earlier: 2, floor: 2, read: 3, height: 1 })));
}

#[test]
fn reads_that_go_back_are_refused() {
    let mut maker = Maker::default();
    maker.whole((0, 100), put("a", "1"), Answer::Done, 1);
    maker.whole((10, 20), get("a"), value("1"), 1);
    maker.whole((21, 30), get("a"), Answer::Absent, 0);
    assert!(matches!(maker.check(), Err(Violation::StaleRead { read: 3, .. })));
}

#[test]
fn a_read_of_another_state_than_its_heights_is_refused() {
    let mut maker = Maker::default();
    maker.whole((0, 10), put("a", "1"), Answer::Done, 1);
    maker.whole((0, 10), put("a", "2"), Answer::Done, 2);
    maker.whole((0, 30), get("a"), value("1"), 2);
    assert_eq!(maker.wrong(), Some(3));
}

#[test]
fn a_lost_write_is_refused() {
    let mut maker = Maker::default();
    maker.whole((0, 10), put("a", "1"), Answer::Done, 1);
    maker.whole((11, 20), get("a"), Answer::Absent, 1);
    assert_eq!(maker.wrong(), Some(2));
}

#[test]
fn writes_against_the_order_of_time_are_refused() {
    let mut maker = Maker::default();
    maker.whole((0, 10), put("a", "1"), Answer::Done, 2);
    maker.whole((11, 20), put("a", "2"), Answer::Done, 1);
    assert!(matches!(maker.check(), Err(Violation::RealTime { earlier: 1, later: 2, .. })));
}

#[test]
fn a_write_into_a_height_that_was_read_before_is_refused() {
    let mut maker = Maker::default();
    maker.whole((0, 10), get("a"), Answer::Absent, 3);
    maker.whole((11, 20), put("a", "1"), Answer::Done, 3);
    assert!(matches!(maker.check(), Err(Violation::RealTime { .. })));
}

#[test]
fn two_makers_of_one_key_are_refused() {
    let mut maker = Maker::default();
    maker.whole((0, 10), create("a", "1"), Answer::Done, 1);
    maker.whole((0, 10), create("a", "2"), Answer::Done, 1);
    assert_eq!(maker.wrong(), Some(2));
}

#[test]
fn what_the_chain_does_not_say_is_refused() {
    let mut maker = Maker::default();
    let id = maker.whole((0, 10), put("a", "1"), Answer::Done, 1);
    maker.history.record(Event::Executed { id, place: Place { height: 2, index: Some(0) } }).unwrap();
    assert!(matches!(maker.check(), Err(Violation::Told { id: 1, .. })));
}

#[test]
fn two_calls_at_one_place_are_refused() {
    let mut maker = Maker::default();
    for key in ["a", "b"] {
        let id = maker.call(0, 0, put(key, "1"));
        maker.answer(id, 10, Answer::Done, 1, 0);
    }
    assert!(matches!(maker.check(), Err(Violation::SamePlace { .. })));
}

#[test]
fn a_list_that_lacks_a_key_is_refused() {
    let mut maker = Maker::default();
    maker.whole((0, 10), put("d/a", "1"), Answer::Done, 1);
    maker.whole((0, 10), put("d/b", "1"), Answer::Done, 2);
    let list = Operation::List { prefix: "d/".into() };
    maker.whole((11, 20), list, Answer::Keys(vec!["d/b".into()]), 2);
    assert_eq!(maker.wrong(), Some(3));
}

#[test]
fn an_unanswered_write_may_or_may_not_have_happened_but_an_executed_one_has() {
    let executed = |place: Option<u64>, seen: Answer| {
        let mut maker = Maker::default();
        let id = maker.call(0, 0, put("a", "1"));
        if let Some(height) = place {
            maker.history.record(Event::Executed { id, place: Place { height, index: Some(0) } }).unwrap();
        }
        maker.whole((5, 10), get("a"), seen, 1);
        maker.check()
    };
    assert_eq!(executed(None, Answer::Absent).unwrap().undecided, 1);
    assert_eq!(executed(None, value("1")).unwrap().undecided, 1);
    let mut maker = Maker::default();
    maker.call(0, 0, put("a", "1"));
    maker.whole((5, 10), get("a"), Answer::Absent, 1);
    maker.history.drop_unexecuted();
    assert_eq!(maker.check().unwrap().undecided, 0);
    assert_eq!(executed(Some(1), value("1")).unwrap().undecided, 0);
    assert!(executed(Some(1), Answer::Absent).is_err());
    assert!(executed(Some(2), value("1")).is_err());
}

#[test]
fn without_an_order_within_a_height_a_key_is_in_doubt_until_it_is_put_again() {
    let mut maker = Maker::default();
    for written in ["1", "2"] {
        let id = maker.call(0, 0, put("a", written));
        let place = Some(Place { height: 1, index: None });
        maker.history.record(Event::Return { id, at: 10, answer: Answer::Done, place }).unwrap();
    }
    maker.whole((11, 12), get("a"), value("1"), 1);
    maker.whole((13, 14), put("a", "3"), Answer::Done, 2);
    let read = maker.whole((15, 16), get("a"), value("3"), 2);
    assert_eq!(maker.check().unwrap().undecided, 1);
    maker.whole((15, 16), get("a"), value("1"), 2);
    assert_eq!(maker.wrong(), Some(read + 1));
}

#[test]
fn a_sessions_reads_may_be_behind_others_but_not_behind_themselves() {
    let read = |client, start| Event::Call {
        id: start,
        client,
        at: start,
        operation: get("a"),
        guarantee: Guarantee::Session,
    };
    let mut maker = Maker { next: 1000, ..Maker::default() };
    maker.whole((0, 10), put("a", "1"), Answer::Done, 1);
    maker.history.record(read(7, 20)).unwrap();
    maker.answer(20, 21, Answer::Absent, 0, 0);
    maker.check().unwrap();
    maker.history.record(read(7, 30)).unwrap();
    maker.answer(30, 31, value("1"), 1, 0);
    maker.check().unwrap();
    maker.history.record(read(7, 40)).unwrap();
    maker.answer(40, 41, Answer::Absent, 0, 0);
    assert!(matches!(maker.check(), Err(Violation::StaleRead { read: 40, .. })));
}

#[test]
fn without_heights_times_decide() {
    let mut right = Maker::default();
    right.timed(1, 10, put("a", "1"), Answer::Done);
    right.timed(2, 9, get("a"), Answer::Absent);
    right.timed(3, 30, put("a", "2"), Answer::Done);
    right.timed(11, 12, get("a"), value("2"));
    right.timed(13, 14, get("a"), value("2"));
    let report = right.check().unwrap();
    assert_eq!((report.timed_keys, report.compared, report.undecided), (1, 5, 0));

    let mut new_then_old = Maker::default();
    new_then_old.timed(1, 100, put("a", "1"), Answer::Done);
    new_then_old.timed(10, 20, get("a"), value("1"));
    new_then_old.timed(21, 30, get("a"), Answer::Absent);
    assert!(matches!(new_then_old.check(), Err(Violation::NoOrder { .. })));

    let mut stale = Maker::default();
    stale.timed(1, 10, put("a", "1"), Answer::Done);
    stale.timed(11, 20, put("a", "2"), Answer::Done);
    stale.timed(21, 30, get("a"), value("1"));
    assert!(matches!(stale.check(), Err(Violation::NoOrder { .. })));

    let mut unwritten = Maker::default();
    unwritten.timed(1, 10, get("a"), value("1"));
    assert!(matches!(unwritten.check(), Err(Violation::Unwritten { .. })));

    let mut early = Maker::default();
    early.timed(1, 10, get("a"), value("1"));
    early.timed(11, 20, put("a", "1"), Answer::Done);
    assert!(matches!(early.check(), Err(Violation::Unwritten { .. })));

    let mut crossed = Maker::default();
    crossed.timed(1, 50, put("a", "1"), Answer::Done);
    crossed.timed(1, 50, put("a", "2"), Answer::Done);
    crossed.timed(10, 11, get("a"), value("1"));
    crossed.timed(12, 13, get("a"), value("2"));
    crossed.timed(14, 15, get("a"), value("1"));
    assert!(matches!(crossed.check(), Err(Violation::NoOrder { .. })));
}

#[test]
fn what_is_no_history_is_refused() {
    let read = |text: &str| History::read(text.as_bytes());
    let call = r#"{"call":{"id":1,"client":0,"at":5,"operation":{"get":{"key":"a"}}}}"#;
    let answer = r#"{"return":{"id":1,"at":9,"answer":{"value":"x"},"place":{"height":3}}}"#;
    let whole = format!("{call}\n\n{answer}\n");
    assert_eq!(read(&whole).unwrap().calls().len(), 1);
    assert!(matches!(read(&format!("{call}\n{call}")), Err(Malformed::Twice(1))));
    assert!(matches!(read(answer), Err(Malformed::Unknown(1))));
    assert!(matches!(read(&format!("{whole}{answer}")), Err(Malformed::Answered(1))));
    assert!(matches!(read(&format!("{call}\n{}", answer.replace('9', "4"))), Err(Malformed::Backwards(1))));
    assert!(matches!(read("{}"), Err(Malformed::Line { line: 1, .. })));
    assert!(matches!(read(&format!("{call}\nnonsense")), Err(Malformed::Line { line: 2, .. })));
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    assert!(matches!(read(&long), Err(Malformed::LongLine(1))));
}

/// What clients do, by an execution that is sequential by construction.
fn executed(steps: &[(u8, u8, u8, u8)]) -> Maker {
    let mut maker = Maker::default();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for (number, (kind, key, before, after)) in (1..).zip(steps) {
        let key = format!("k{}", key % 3);
        let written = format!("v{number}");
        let there = values.contains_key(&key);
        let done = |done: bool, otherwise| if done { Answer::Done } else { otherwise };
        let (operation, answer) = match kind % 5 {
            0 => (put(&key, &written), Answer::Done),
            1 => (create(&key, &written), done(!there, Answer::Exists)),
            2 => (Operation::Remove { key: key.clone() }, done(there, Answer::Absent)),
            3 => {
                let operation = Operation::Move { from: key.clone(), to: "k0".into() };
                (operation, done(there, Answer::Absent))
            }
            _ => (get(&key), values.get(&key).cloned().map_or(Answer::Absent, Answer::Value)),
        };
        match &operation {
            Operation::Put { .. } | Operation::Create { .. } if answer == Answer::Done => {
                values.insert(key.clone(), written);
            }
            Operation::Remove { .. } => drop(values.remove(&key)),
            Operation::Move { .. } => {
                if let Some(moved) = values.remove(&key) {
                    values.insert("k0".into(), moved);
                }
            }
            _ => {}
        }
        // Each takes effect at its own time, somewhere between start and end; a height is one effect.
        let at = 1000 + 10 * number;
        let id = maker.call(number, at - u64::from(*before), operation);
        maker.answer(id, at + u64::from(*after), answer, number, 0);
    }
    maker
}

proptest! {
    #[test]
    fn sequential_executions_pass(steps in proptest::collection::vec(any::<(u8, u8, u8, u8)>(), 0..40)) {
        let report = executed(&steps).check().unwrap();
        prop_assert_eq!(report.compared, steps.len() as u64);
    }

    #[test]
    fn text_comes_back(steps in proptest::collection::vec(any::<(u8, u8, u8, u8)>(), 0..20)) {
        let history = executed(&steps).history;
        let mut text = Vec::new();
        history.write(&mut text).unwrap();
        let read = History::read(text.as_slice()).unwrap();
        prop_assert_eq!(read.calls(), history.calls());
    }

    /// Another answer to any one call is noticed.
    #[test]
    fn a_changed_answer_is_refused(
        steps in proptest::collection::vec(any::<(u8, u8, u8, u8)>(), 1..40),
        which: proptest::sample::Index,
    ) {
        let maker = executed(&steps);
        let changed = which.index(steps.len()) as u64 + 1;
        let mut history = History::default();
        for (id, call) in maker.history.calls() {
            let (operation, guarantee) = (call.operation.clone(), call.guarantee);
            history.record(Event::Call { id: *id, client: call.client, at: call.start, operation, guarantee }).unwrap();
            let outcome = call.outcome.clone().unwrap();
            let answer = match outcome.answer {
                answer if *id != changed => answer,
                Answer::Done => Answer::Absent,
                Answer::Value(_) => Answer::Absent,
                _ if call.operation.is_read() => Answer::Value("other".into()),
                _ => Answer::Done,
            };
            history.record(Event::Return { id: *id, at: outcome.end, answer, place: outcome.place }).unwrap();
        }
        prop_assert!(check(&history).is_err());
    }
}
