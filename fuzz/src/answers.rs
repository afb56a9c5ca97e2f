//! Answers to reads: pruned copies of a real state, as a liar changes them (RD4, ST11).
//!
//! Property: under the certified header a client concludes from any proof what the full state says, or that
//! the proof is refused or incomplete. Honest proofs are enough. A state that is garbage panics nowhere.

use std::sync::OnceLock;

use quorate_crypto::{Bounded, Hash};
use quorate_execution::{PartialState, State, check_answer};
use quorate_merkle::PartialTrie;
use quorate_protocol::operation::{Authority, Piece, SetXattrMode, WriteAt};
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, OperationBody, OperationResult};

use crate::chain::{self, create, mkdir, name};
use crate::copy::Copy;
use crate::execution::base;
use crate::generate::query;
use crate::memory::decoding;
use crate::source::Source;

/// A state with one of everything: directories of several sizes, files with content, links, attributes.
pub fn state() -> &'static State {
    static STATE: OnceLock<State> = OnceLock::new();
    STATE.get_or_init(|| {
        let mut client = base().clients[0].clone();
        let write = |ino, at, bytes: Vec<u8>| OperationBody::Write {
            ino,
            at,
            pieces: Bounded::try_from(vec![Piece::Inline(bytes.try_into().expect("short"))]).expect("one"),
            evidence: Default::default(),
            authority: Authority::Check,
            token: None,
            entropy: [6; 16],
        };
        let xattr = |ino, text: &str| OperationBody::SetXattr {
            ino,
            name: text.as_bytes().to_vec().try_into().expect("short"),
            value: b"value".to_vec().try_into().expect("short"),
            mode: SetXattrMode::Any,
            entropy: [7; 16],
        };
        // Inodes from 2 on, in order.
        let mut bodies = vec![
            mkdir(1, "dir", 0o755),
            mkdir(2, "a", 0o700),
            create(1, "file", 0o644),
            create(2, "b", 0o600),
            OperationBody::Symlink {
                parent: 1,
                name: name("link"),
                target: b"dir/b".to_vec().try_into().expect("short"),
                ino: None,
                entropy: [5; 16],
            },
            mkdir(1, "c", 0o711),
        ];
        bodies.extend((0..12).map(|number| create(7, &format!("entry-{number}"), 0o644)));
        bodies.extend([
            OperationBody::Link { ino: 4, parent: 2, name: name("f") },
            write(4, WriteAt::Offset(0), vec![1; 300]),
            write(4, WriteAt::Offset(3 << 20), vec![2; 40]),
            write(5, WriteAt::Append, vec![3; 5]),
            xattr(4, "user.a"),
            xattr(4, "user.b"),
        ]);
        let count = bodies.len();
        let envelope = client.envelope(bodies);
        let chain = &base().chain;
        let executed = chain.execute_on(chain.state(), &chain.proposal(1000, vec![envelope]));
        let leaves = executed.receipts.leaves();
        let good = leaves.iter().filter(|leaf| matches!(leaf.result, OperationResult::Done(_)));
        assert_eq!(good.count(), count, "{leaves:?}");
        executed.state
    })
}

fn whole() -> &'static Copy {
    static WHOLE: OnceLock<Copy> = OnceLock::new();
    WHOLE.get_or_init(|| {
        Copy::read(&PartialTrie::encode(state().trie()).expect("a small state")).expect("not the empty trie")
    })
}

fn credential(source: &mut Source<'_>) -> Credential {
    match source.below(4) {
        0 | 1 => chain::root(),
        2 => chain::user(1000, 100, &[5]),
        _ => chain::user(7, 7, &[]),
    }
}

/// Honest proofs of some questions, as seeds.
pub fn honest_proofs() -> Vec<Vec<u8>> {
    let key = base().clients[0].key();
    let questions = [
        Query::Attributes { ino: 1 },
        Query::Directory { ino: 7, after: 0, limit: 5, attributes: true },
        Query::Content { ino: 4, first: 0, count: 4, session: None },
        Query::Xattrs { ino: 4 },
    ];
    let prove = |query| state().answer(&key, &chain::root(), query).map(|answered| answered.proof);
    questions.iter().map(|query| prove(query).expect("a small answer")).collect()
}

pub fn answer(data: &[u8]) {
    let mut source = Source::new(data);
    let (state, client) = (state(), &base().clients[0]);
    let (key, credential) = (client.key(), credential(&mut source));
    let asked = query(&mut source, client.session);
    let honest = state.answer(&key, &credential, &asked).expect("a small answer");
    let header = state.header();
    let check = |proof: &[u8]| check_answer(header, proof, &key, &credential, &asked);
    assert_eq!(check(&honest.proof), Ok(honest.outcome.clone()), "an honest answer to {asked:?}");

    let mut lie = match source.below(3) {
        0 => whole().clone(),
        1 => Copy::read(&honest.proof).expect("not the empty trie"),
        _ => {
            let other = query(&mut source, client.session);
            let other = state.answer(&key, &credential, &other).expect("a small answer");
            Copy::read(&other.proof).expect("not the empty trie")
        }
    };
    if source.flag() {
        lie.prune(&mut source);
    }
    for _ in 0..source.below(4) {
        lie.lie(&mut source, whole());
    }
    let proof = lie.write();
    if let Ok(outcome) = decoding(proof.len(), || check(&proof)) {
        assert_eq!(outcome, honest.outcome, "a forged answer to {asked:?}");
    }
    if let Ok(partial) = PartialState::verify(header, &proof) {
        let session = if source.flag() { client.session } else { Hash([source.byte(); 32]) };
        if let Ok(found) = partial.session(&session) {
            assert_eq!(found.map(|summary| summary.next), state.session_next(&session));
        }
    }
}

/// A proof that leads to the root of a header because the header was made for it: whatever the rows are, the
/// client's evaluation ends in an answer or in a typed error.
pub fn garbage(data: &[u8]) {
    let mut source = Source::new(data);
    let mut choices = Source::new(source.take(24));
    let client = &base().clients[0];
    let (credential, asked) = (credential(&mut choices), query(&mut choices, client.session));
    let proof = source.rest();
    let Ok(trie) = PartialTrie::decode(proof) else { return };
    let header = quorate_protocol::Header { state_root: trie.root(), ..state().header().clone() };
    let check = || check_answer(&header, proof, &client.key(), &credential, &asked).is_ok();
    decoding(proof.len(), check);
    let changed = Copy::read(&PartialTrie::encode(&trie).expect("what was decoded"));
    let Some(mut changed) = changed else { return };
    for _ in 0..choices.below(4) {
        changed.lie(&mut choices, whole());
    }
    let header = quorate_protocol::Header { state_root: changed.hash(), ..header };
    let _ = check_answer(&header, &changed.write(), &client.key(), &credential, &asked);
}
