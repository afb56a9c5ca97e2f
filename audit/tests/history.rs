//! What the history says of paths and of two heights, and transitions that are executed again without the state.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::{certify, chain_and_state, envelope, genesis, mkdir, name, run};
use quorate_audit::{
    Aspect, Auditor, Difference, Judgement, NoTransition, Policy, Rule, Subject, Touch, Transition,
    differences,
};
use quorate_crypto::{Bounded, Ed25519Verifier, Hash};
use quorate_protocol::OperationBody;
use quorate_protocol::file::Name;
use quorate_protocol::operation::{Authority, RenameMode};
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::time::SetTime;

/// The transition to the height of this index in the chain.
fn transition(genesis: &quorate_protocol::Genesis, chain: &[CommittedBatch], index: usize) -> Transition {
    let verifier = Ed25519Verifier::new();
    let mut auditor = Auditor::new(genesis, &verifier, Policy::FULL).unwrap();
    for committed in &chain[..index] {
        auditor.check(committed).unwrap();
    }
    Transition::make(&auditor, chain[index].clone()).unwrap().unwrap()
}

#[test]
fn every_transition_holds_by_itself() {
    let (genesis, chain, _) = chain_and_state();
    let verifier = Ed25519Verifier::new();
    for index in 0..chain.len() {
        let made = transition(&genesis, &chain, index);
        let read = Transition::from_file(&made.to_file()).unwrap();
        assert_eq!(read, made);
        assert_eq!(read.judge(&genesis, &verifier), Ok(Judgement::Holds), "height {}", index + 1);
    }
    // An auditor that does not execute has no state to show.
    let auditor = Auditor::new(&genesis, &verifier, Policy::STANDARD).unwrap();
    assert_eq!(Transition::make(&auditor, chain[0].clone()), Ok(None));
}

#[test]
fn no_changed_byte_of_a_transition_convicts_or_holds() {
    let (genesis, chain, _) = chain_and_state();
    let verifier = Ed25519Verifier::new();
    let made = transition(&genesis, &chain, 3);
    let file = made.to_file();
    for index in 0..file.len() {
        let mut other = file.clone();
        other[index] ^= 1;
        let outcome = Transition::from_file(&other).and_then(|read| read.judge(&genesis, &verifier));
        assert!(outcome.is_err(), "byte {index}: {outcome:?}");
        assert!(Transition::from_file(&file[..index]).is_err(), "cut at {index}");
    }
    assert!(Transition::from_file(&[file.as_slice(), &[0]].concat()).is_err());
    // The state before another height; the frontier of another one; another proposal; another header below.
    let later = transition(&genesis, &chain, 4);
    let swapped: [Transition; 4] = [
        Transition { copy: later.copy.clone(), ..made.clone() },
        Transition { log: later.log.clone(), ..made.clone() },
        Transition { below: later.below.clone(), ..made.clone() },
        Transition { committed: later.committed.clone(), ..made.clone() },
    ];
    for other in swapped {
        let outcome = other.judge(&genesis, &verifier);
        assert!(matches!(outcome, Err(NoTransition::Copy(_) | NoTransition::Below)), "{outcome:?}");
    }
    let mut elsewhere = genesis.clone();
    elsewhere.nonce = [9; 32];
    assert!(matches!(made.judge(&elsewhere, &verifier), Err(NoTransition::Foreign(..))));
}

/// All replicas certify what execution does not give; whoever has the transition sees it.
#[test]
fn a_quorum_that_certifies_a_wrong_root_is_seen_without_the_state() {
    let (genesis, chain, _) = chain_and_state();
    let verifier = Ed25519Verifier::new();
    let made = transition(&genesis, &chain, 3);
    let lie = |change: &dyn Fn(&mut CommittedBatch)| {
        let mut other = made.clone();
        change(&mut other.committed);
        let header = &mut other.committed.batch.header;
        header.proposal = other.committed.batch.proposal.digest(&genesis.cluster(), 0, header.height);
        other.committed.certificate = certify(&genesis, &other.committed.batch.header, 7, &[0, 2, 3]);
        match other.judge(&genesis, &verifier) {
            Ok(Judgement::Broken { breach, signers, faulty }) => {
                let surely = if breach.rule == Rule::EnvelopeSignature { 2 } else { 3 };
                assert_eq!((signers.as_slice(), faulty), ([0, 2, 3].as_slice(), surely));
                assert_eq!(breach.height, 4);
                breach.rule
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(lie(&|committed| committed.batch.header.state_root = Hash([1; 32])), Rule::Execution);
    assert_eq!(lie(&|committed| committed.batch.header.receipts_root = Hash([1; 32])), Rule::Execution);
    assert_eq!(lie(&|committed| committed.batch.header.log_root = Hash([1; 32])), Rule::Execution);
    assert_eq!(lie(&|committed| committed.batch.header.version = 2), Rule::Version);
    assert_eq!(lie(&|committed| committed.batch.proposal.time.0 = 1), Rule::Proposal);
    let unsigned = lie(&|committed| {
        let mut envelopes = committed.batch.proposal.envelopes.to_vec();
        envelopes[0].body.valid_until.0 += 1;
        committed.batch.proposal.envelopes = Bounded::try_from(envelopes).unwrap();
    });
    assert_eq!(unsigned, Rule::EnvelopeSignature);
}

fn create(parent: u64, text: &str) -> OperationBody {
    OperationBody::Create {
        parent,
        name: name(text),
        mode: 0o644,
        umask: 0,
        exclusive: true,
        open: None,
        ino: None,
        entropy: [3; 16],
    }
}

fn chmod(ino: u64, mode: u16) -> OperationBody {
    set(ino, Some(mode), None, None)
}

fn set(ino: u64, mode: Option<u16>, uid: Option<u32>, size: Option<u64>) -> OperationBody {
    OperationBody::SetAttributes {
        ino,
        mode,
        uid,
        gid: None,
        size,
        atime: SetTime::Omit,
        mtime: SetTime::Omit,
        authority: Authority::Check,
        token: None,
    }
}

fn rename(parent: u64, from: &str, new_parent: u64, to: &str) -> OperationBody {
    let (name, new_name) = (name(from), name(to));
    OperationBody::Rename { parent, name, new_parent, new_name, mode: RenameMode::Replace }
}

fn unlink(parent: u64, text: &str) -> OperationBody {
    OperationBody::Unlink { parent, name: name(text) }
}

/// A life of /d/f: inode 2 is d, 3 is f. The middle of it lies in one batch.
fn life() -> Vec<Vec<quorate_protocol::Envelope>> {
    let cluster = genesis().cluster();
    vec![
        vec![envelope(cluster, 0, vec![OperationBody::Register { nonce: [5; 32] }])],
        vec![envelope(cluster, 1, vec![mkdir("d"), create(2, "f"), chmod(3, 0o600), create(2, "g")])],
        // f is truncated, owned by another, taken away, made anew as inode 5, and replaced by g, inode 4.
        vec![envelope(
            cluster,
            5,
            vec![
                set(3, None, None, Some(10)),
                set(3, None, Some(7), None),
                unlink(2, "f"),
                create(2, "f"),
                chmod(3, 0o777),
                rename(2, "g", 2, "f"),
            ],
        )],
        vec![envelope(cluster, 11, vec![rename(1, "d", 1, "e"), mkdir("d"), rename(1, "e", 1, "x")])],
    ]
}

fn names(path: &str) -> Vec<Name> {
    path.split('/').filter(|part| !part.is_empty()).map(name).collect()
}

fn touches_of(subject: Subject) -> Vec<(u64, Touch)> {
    let (genesis, chain, _) = run(life());
    let verifier = Ed25519Verifier::new();
    let mut auditor = Auditor::new(&genesis, &verifier, Policy::FULL).unwrap();
    auditor.trace(subject).unwrap();
    let mut all = Vec::new();
    for committed in &chain {
        auditor.check(committed).unwrap();
        all.extend(auditor.touches().iter().map(|touch| (committed.batch.header.height, touch.clone())));
    }
    all
}

type Short = (u64, u32, Vec<Aspect>, Option<u64>);

fn short(subject: Subject) -> Vec<Short> {
    let touches = touches_of(subject).into_iter();
    touches
        .map(|(height, touch)| (height, touch.index, touch.aspects.into_iter().collect(), touch.after))
        .collect()
}

/// Where it was named when does not matter; before it was made there was nothing.
#[test]
fn an_inode_is_followed_under_all_its_names() {
    use Aspect::{Appeared, Content, Mode, Name, Owner, Vanished};
    assert_eq!(
        short(Subject::Inode(3)),
        [
            (2, 1, vec![Appeared], Some(3)),
            (2, 2, vec![Mode], Some(3)),
            (3, 0, vec![Content], Some(3)),
            (3, 1, vec![Owner], Some(3)),
            (3, 2, vec![Vanished], None),
        ]
    );
    assert_eq!(short(Subject::Inode(4)), [(2, 3, vec![Appeared], Some(4)), (3, 5, vec![Name], Some(4))]);
    assert_eq!(short(Subject::Inode(99)), []);
}

#[test]
fn a_path_is_followed_operation_by_operation() {
    use Aspect::{Appeared, Content, Mode, Owner, Vanished};
    let short = |path: &str| short(Subject::Path(names(path)));
    assert_eq!(
        short("/d/f"),
        [
            (2, 1, vec![Appeared], Some(3)),
            (2, 2, vec![Mode], Some(3)),
            (3, 0, vec![Content], Some(3)),
            (3, 1, vec![Owner], Some(3)),
            (3, 2, vec![Vanished], None),
            (3, 3, vec![Appeared], Some(5)),
            (3, 5, vec![Appeared], Some(4)),
            (4, 0, vec![Vanished], None),
        ]
    );
    // The directory's own name, and what it holds.
    let entries = short("/d").iter().filter(|touch| touch.2 == [Aspect::Entries]).count();
    assert_eq!(entries, 5);
    assert_eq!(short("/x/f"), [(4, 2, vec![Appeared], Some(4))]);
    assert_eq!(short("/never/there"), []);
    assert!(short("/").iter().all(|touch| touch.3 == Some(1)));
}

#[test]
fn two_heights_differ_in_what_was_changed_between_them() {
    let cluster = genesis().cluster();
    let mut batches = life();
    batches.push(vec![envelope(
        cluster,
        14,
        vec![OperationBody::Link { ino: 4, parent: 1, name: name("one") }],
    )]);
    batches.push(vec![envelope(cluster, 15, vec![rename(1, "one", 1, "two")])]);
    let (_, _, states) = run(batches);
    let text = |path: &[Name]| -> String {
        path.iter().map(|name| format!("/{}", name.as_bytes().escape_ascii())).collect()
    };
    let between = |old: usize, new: usize| -> Vec<String> {
        let found = differences(&states[old], &states[new]).unwrap().found;
        let said = found.iter().map(|difference| match difference {
            Difference::Added { path, ino } => format!("+{} {ino}", text(path)),
            Difference::Removed { path, ino } => format!("-{} {ino}", text(path)),
            Difference::Moved { from, to, ino, over } => {
                format!("{}>{} {ino}{}", text(from), text(to), over.map_or("", |_| " over"))
            }
            Difference::Replaced { path, before, after } => format!("{} {before}>{after}", text(path)),
            Difference::Modified { path, ino, aspects } => {
                let aspects: Vec<_> = aspects.iter().map(|aspect| aspect.name()).collect();
                format!("{} {ino} {}", text(path), aspects.join(","))
            }
        });
        said.collect()
    };
    assert_eq!(between(0, 1), Vec::<String>::new());
    assert_eq!(between(1, 2), ["+/d 2", "+/d/f 3", "+/d/g 4"]);
    assert_eq!(between(2, 3), ["/d/g>/d/f 4 over"]);
    assert_eq!(between(3, 4), ["+/d 6", "/d>/x 2"]);
    assert_eq!(between(4, 3), ["/x>/d 2 over"]);
    assert_eq!(between(2, 4), ["+/d 6", "-/d/f 3", "/d>/x 2", "/d/g>/x/f 4"]);
    // Who keeps another name has not moved.
    assert_eq!(between(4, 5), ["+/one 4", "/one 4 links"]);
    assert_eq!(between(5, 6), ["-/one 4", "+/two 4"]);
    assert_eq!(between(2, 2), Vec::<String>::new());
}

/// The work of a difference is that of what changed: ten files among thousands.
#[test]
fn a_difference_looks_at_few_nodes_of_a_large_tree() {
    const FILES: u64 = 100_000;
    const PER_ENVELOPE: u64 = 250;
    let cluster = genesis().cluster();
    let mut batches = vec![
        vec![envelope(cluster, 0, vec![OperationBody::Register { nonce: [5; 32] }])],
        vec![envelope(cluster, 1, vec![mkdir("d")])],
    ];
    let mut first = 2;
    for start in (0..FILES).step_by(usize::try_from(PER_ENVELOPE).unwrap()) {
        let files = (start..start + PER_ENVELOPE).map(|number| create(2, &format!("f{number}")));
        batches.push(vec![envelope(cluster, first, files.collect())]);
        first += PER_ENVELOPE;
    }
    let changed: Vec<u64> = (0..10).map(|number| 3 + number * (FILES / 10)).collect();
    batches.push(vec![envelope(cluster, first, changed.iter().map(|ino| chmod(*ino, 0o600)).collect())]);
    let (_, _, states) = run(batches);
    let [.., before, after] = states.as_slice() else { panic!("no states") };
    let found = differences(before, after).unwrap();
    let modified: BTreeSet<u64> = found
        .found
        .iter()
        .map(|difference| match difference {
            Difference::Modified { ino, aspects, .. } if aspects.iter().eq([&Aspect::Mode]) => *ino,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(modified, changed.into_iter().collect());
    assert!(before.row_count() > 2 * FILES);
    // Two nodes for each step of a path from the root, of some 16 + 64 steps at most.
    assert!(found.nodes < found.rows * 160, "{} nodes for {} rows", found.nodes, found.rows);
    assert!(found.nodes < before.row_count() / 10, "{} nodes", found.nodes);
}
