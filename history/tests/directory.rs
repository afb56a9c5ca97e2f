//! Directories as mounts show them: right histories pass, doctored ones are refused with a short story.
#![allow(missing_docs)]

use proptest::prelude::*;
use quorate_history::{Directory, File, Model as _, Question, Reply, Timed, Unexplained, search};

type Call = Timed<Question, Reply>;

fn call(client: u64, start: u64, end: u64, operation: Question, answer: Reply) -> Call {
    Timed { client, start, end: Some((end, answer)), operation }
}

fn create(name: &str) -> Question {
    Question::Create { name: name.into(), mode: 0o644 }
}

fn stat(name: &str) -> Question {
    Question::Stat(name.into())
}

fn unlink(name: &str) -> Question {
    Question::Unlink(name.into())
}

fn found(ino: u64, links: u32) -> Reply {
    Reply::Found(ino, File { mode: 0o644, links })
}

fn names(names: &[&str]) -> Reply {
    Reply::Names(names.iter().map(|name| (*name).to_owned()).collect())
}

fn judge(calls: Vec<Call>) -> Result<(), Unexplained<Directory>> {
    search::<Directory>(&Directory::default(), calls).map(drop)
}

/// The calls of the story that a history is refused with.
fn story(calls: Vec<Call>) -> Vec<String> {
    match judge(calls) {
        Err(Unexplained::Story(story)) => {
            assert!(story.to_string().contains("before: "), "{story}");
            story.calls.iter().map(|call| call.operation.to_string()).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_overlaps_may_have_any_order() {
    let rename = Question::Rename("a".into(), "b".into());
    let link = Question::Link("b".into(), "c".into());
    judge(vec![
        call(1, 0, 10, create("a"), Reply::Made(7)),
        // Two at once: one of them wins, and a third one sees either.
        call(1, 20, 40, create("d"), Reply::Exists),
        call(2, 20, 40, create("d"), Reply::Made(8)),
        call(3, 25, 30, stat("d"), Reply::Absent),
        call(4, 35, 38, stat("d"), found(8, 1)),
        call(1, 50, 60, rename, Reply::Done),
        call(2, 61, 70, link, Reply::Done),
        call(2, 71, 80, stat("c"), found(7, 2)),
        // Two names of one file: rename does nothing.
        call(1, 81, 90, Question::Rename("b".into(), "c".into()), Reply::Done),
        call(1, 91, 99, Question::List, names(&["b", "c", "d"])),
        call(1, 100, 110, Question::Chmod { name: "b".into(), mode: 0o600 }, Reply::Done),
        call(1, 111, 120, stat("c"), Reply::Found(7, File { mode: 0o600, links: 2 })),
    ])
    .unwrap();
}

#[test]
fn what_contradicts_the_clock_is_refused_and_the_story_is_short() {
    let mut calls = vec![call(1, 0, 10, create("a"), Reply::Made(7))];
    calls.extend((0..30).map(|n| call(2, 20 + n * 10, 25 + n * 10, stat("a"), found(7, 1))));
    // One that is stale, among others that overlap it.
    calls.push(call(1, 400, 410, unlink("a"), Reply::Done));
    calls.push(call(2, 405, 430, stat("b"), Reply::Absent));
    calls.push(call(3, 411, 420, stat("a"), found(7, 1)));
    calls.push(call(3, 421, 440, Question::List, names(&[])));
    assert_eq!(story(calls), ["unlink a", "stat a"]);
}

#[test]
fn each_kind_of_lie_is_refused() {
    let made = || call(1, 0, 10, create("a"), Reply::Made(7));
    let lies: [&[Call]; 7] = [
        // Both of two made it.
        &[made(), call(2, 5, 12, create("a"), Reply::Made(8))],
        // A lost rename.
        &[
            made(),
            call(1, 20, 30, Question::Rename("a".into(), "b".into()), Reply::Done),
            call(2, 31, 40, stat("a"), found(7, 1)),
        ],
        // A list that lacks an entry.
        &[made(), call(2, 20, 30, Question::List, names(&[]))],
        // A wrong count of links.
        &[
            made(),
            call(1, 20, 30, Question::Link("a".into(), "b".into()), Reply::Done),
            call(2, 31, 40, stat("a"), found(7, 1)),
        ],
        // A mode that went back.
        &[
            made(),
            call(1, 20, 30, Question::Chmod { name: "a".into(), mode: 0o600 }, Reply::Done),
            call(2, 31, 40, stat("a"), found(7, 1)),
        ],
        // Two who overlap a change, one after the other, in the wrong order.
        &[
            made(),
            call(1, 20, 90, unlink("a"), Reply::Done),
            call(2, 30, 40, stat("a"), Reply::Absent),
            call(3, 50, 60, stat("a"), found(7, 1)),
        ],
        // A file that nobody made.
        &[call(2, 20, 30, stat("a"), found(9, 1))],
    ];
    for lie in lies {
        assert!(!story(lie.to_vec()).is_empty());
    }
}

#[test]
fn a_call_without_an_end_may_take_effect_late_or_never() {
    let unended = |operation| Timed { client: 9, start: 0, end: None, operation };
    let stats = |answers: [Reply; 2]| {
        let [first, second] = answers;
        vec![unended(create("a")), call(1, 10, 20, stat("a"), first), call(1, 30, 40, stat("a"), second)]
    };
    judge(stats([Reply::Absent, Reply::Absent])).unwrap();
    judge(stats([Reply::Absent, found(5, 1)])).unwrap();
    judge(stats([found(5, 1), found(5, 1)])).unwrap();
    // Told from the last cut on: the file may be there before, and the open call stays in the story.
    assert_eq!(story(stats([found(5, 1), Reply::Absent])), ["create a with mode 644", "stat a"]);
    assert_eq!(story(stats([found(5, 1), found(6, 1)])).len(), 2);
}

#[test]
fn what_is_too_tangled_is_not_passed_over() {
    let calls = (0..100).map(|client| call(client, 0, 10, stat("a"), Reply::Absent)).collect();
    assert!(matches!(judge(calls), Err(Unexplained::TooLong { calls: 100 })));
}

fn question() -> impl Strategy<Value = Question> {
    let name = || prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
    let mode = || prop::sample::select(vec![0o600, 0o644]);
    prop_oneof![
        (name(), mode()).prop_map(|(name, mode)| Question::Create { name, mode }),
        name().prop_map(Question::Unlink),
        (name(), name()).prop_map(|(from, to)| Question::Rename(from, to)),
        (name(), name()).prop_map(|(from, to)| Question::Link(from, to)),
        (name(), mode()).prop_map(|(name, mode)| Question::Chmod { name, mode }),
        name().prop_map(Question::Stat),
        Just(Question::List),
    ]
}

/// What a directory answers, and what it holds then.
fn answer(state: &Directory, operation: &Question, number: u64) -> (Directory, Reply) {
    let every = [Reply::Done, Reply::Made(100 + number), Reply::Exists, Reply::Absent];
    for reply in every {
        if let Some(next) = Directory::apply(state, operation, Some(&reply)) {
            return (next, reply);
        }
    }
    // A reading one: of all that it may be answered one is right.
    let files = (0..=200).flat_map(|ino| {
        let links = 1..=3;
        links.flat_map(move |links| [0o600, 0o644].map(|mode| Reply::Found(ino, File { mode, links })))
    });
    let lists = (0..8_u32).map(|bits| {
        let chosen = ["a", "b", "c"].iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
        Reply::Names(chosen.map(|(_, name)| (*name).to_owned()).collect())
    });
    let reply = files.chain(lists).find(|reply| Directory::apply(state, operation, Some(reply)).is_some());
    (state.clone(), reply.expect("every question has an answer"))
}

proptest! {
    /// Whatever was executed in order passes, however long its calls seem to take; with one answer bent it is
    /// refused, unless what was asked may have been answered so at another moment of the call.
    #[test]
    fn executions_pass_and_bent_answers_of_calls_that_overlap_nothing_do_not(
        asked in prop::collection::vec((question(), 0_u64..15, 0_u64..15), 1..30),
        bent in any::<prop::sample::Index>(),
    ) {
        let (mut state, mut calls, mut strict) = (Directory::default(), Vec::new(), Vec::new());
        for (number, (operation, before, after)) in (0_u64..).zip(asked) {
            let (next, reply) = answer(&state, &operation, number);
            state = next;
            let at = 100 + number * 10;
            calls.push(call(number, at - before, at + after, operation.clone(), reply.clone()));
            strict.push(call(number, at, at + 1, operation, reply));
        }
        prop_assert!(judge(calls).is_ok());
        prop_assert!(judge(strict.clone()).is_ok());
        let at = bent.index(strict.len());
        if let Some((_, reply)) = strict[at].end.as_mut() {
            *reply = match reply {
                Reply::Absent | Reply::Exists => Reply::Done,
                Reply::Done | Reply::Found(..) => Reply::Absent,
                Reply::Made(_) => Reply::Exists,
                Reply::Names(names) if names.is_empty() => Reply::Names(vec!["a".to_owned()]),
                Reply::Names(_) => Reply::Names(Vec::new()),
            };
        }
        prop_assert!(matches!(judge(strict), Err(Unexplained::Story(_))));
    }
}
