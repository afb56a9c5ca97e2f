//! Reads: what a client makes of a proof is what the replica's whole state says, and nothing forged passes.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use quorate_crypto::Bounded;
use quorate_execution::{
    Answer, AnswerFault, Changes, Errno, PartialState, RestoreError, State, check_answer,
};
use quorate_protocol::blocks::BlockEvidence;
use quorate_protocol::operation::{Authority, Piece, PrincipalRights, SetXattrMode, WriteAt};
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Groups, OperationBody, OperationResult};

fn write(ino: u64, offset: u64, bytes: &[u8]) -> OperationBody {
    OperationBody::Write {
        ino,
        at: WriteAt::Offset(offset),
        pieces: Bounded::try_from(vec![Piece::Inline(bytes.try_into().unwrap())]).unwrap(),
        evidence: BlockEvidence::default(),
        authority: Authority::Check,
        token: None,
        entropy: [8; 16],
    }
}

/// A small tree with some of everything: 2 = /open, 3 = /closed, 4 = /open/file, 5 = /closed/file, 6 a symlink.
fn tree(chain: &mut Chain) -> Client {
    let mut client = chain.client(1);
    let symlink = OperationBody::Symlink {
        parent: 2,
        name: name("link"),
        target: b"../closed".as_slice().try_into().unwrap(),
        ino: None,
        entropy: [2; 16],
    };
    let xattr = |ino: u64, key: &str| OperationBody::SetXattr {
        ino,
        name: key.as_bytes().try_into().unwrap(),
        value: b"value".as_slice().try_into().unwrap(),
        mode: SetXattrMode::Any,
        entropy: [3; 16],
    };
    let mut bodies = vec![
        mkdir(1, "open", 0o755),
        mkdir(1, "closed", 0o700),
        create(2, "file", 0o644),
        create(3, "file", 0o600),
        symlink,
        write(4, 0, b"hello"),
        write(4, 3 << 20, &[7; 3000]),
        write(5, 0, b"secret"),
        xattr(4, "user.a"),
        xattr(4, "user.b"),
    ];
    bodies.extend((0..40).map(|index| create(2, &format!("f{index}"), 0o644)));
    let envelope = client.envelope(bodies);
    for result in chain.run(envelope) {
        assert!(matches!(result, OperationResult::Done(_)), "{result:?}");
    }
    client
}

fn queries(session: quorate_protocol::SessionId) -> Vec<Query> {
    let components =
        |names: &[&str]| Bounded::try_from(names.iter().map(|text| name(text)).collect::<Vec<_>>()).unwrap();
    let directory = |ino, after, limit, attributes| Query::Directory { ino, after, limit, attributes };
    vec![
        Query::Attributes { ino: 1 },
        Query::Attributes { ino: 5 },
        Query::Attributes { ino: 0 },
        Query::Attributes { ino: u64::MAX },
        Query::Lookup { parent: 1, name: name("open") },
        Query::Lookup { parent: 1, name: name("absent") },
        Query::Lookup { parent: 3, name: name("file") },
        Query::Lookup { parent: 4, name: name("file") },
        Query::Parent { ino: 3 },
        Query::Walk { start: 1, components: components(&["open", "file"]) },
        Query::Walk { start: 1, components: components(&["closed", "file"]) },
        Query::Walk { start: 1, components: components(&["open", "absent", "file"]) },
        directory(2, 0, 512, true),
        directory(2, 0, 7, false),
        directory(2, 1 << 62, 7, true),
        directory(3, 0, 512, true),
        directory(1, 0, 1, false),
        directory(4, 0, 1, false),
        Query::Symlink { ino: 6 },
        Query::Symlink { ino: 4 },
        Query::Xattr { ino: 4, name: b"user.a".as_slice().try_into().unwrap() },
        Query::Xattr { ino: 4, name: b"user.z".as_slice().try_into().unwrap() },
        Query::Xattrs { ino: 4 },
        Query::Content { ino: 4, first: 0, count: 64, session: None },
        Query::Content { ino: 4, first: 1, count: 1, session: Some(session) },
        Query::Content { ino: 5, first: 0, count: 1, session: Some(session) },
        Query::Session { session },
        Query::Session { session: [9; 32].into() },
        Query::Totals,
    ]
}

/// What the client makes of the replica's answer, which must be what the replica itself found.
fn asked(
    state: &State,
    client: &Client,
    credential: &Credential,
    query: &Query,
) -> (Vec<u8>, Result<Answer, Errno>) {
    let answered = state.answer(&client.key(), credential, query).unwrap();
    let checked = check_answer(state.header(), &answered.proof, &client.key(), credential, query);
    assert_eq!(checked.as_ref(), Ok(&answered.outcome), "{query:?} as {credential:?}");
    (answered.proof, answered.outcome)
}

#[test]
fn the_client_finds_in_the_proof_what_the_replica_found() {
    let mut chain = Chain::new();
    let client = tree(&mut chain);
    let credentials = [root(), user(5, 5, &[]), Credential { uid: 5, gid: 5, groups: Groups::OfPrincipal }];
    for query in queries(client.session) {
        for credential in &credentials {
            drop(asked(chain.state(), &client, credential, &query));
        }
    }
    let stranger = Client::new(chain.cluster(), 5, 1);
    let (_, outcome) = asked(chain.state(), &stranger, &root(), &Query::Attributes { ino: 1 });
    assert_eq!(outcome, Err(Errno::EPERM), "a denial is proven too");
}

#[test]
fn answers_are_the_right_ones() {
    let mut chain = Chain::new();
    let client = tree(&mut chain);
    let state = chain.state();
    let outcome = |credential: &Credential, query: Query| asked(state, &client, credential, &query).1;
    let lookup = |parent, text| Query::Lookup { parent, name: name(text) };
    let page = Query::Directory { ino: 2, after: 0, limit: 512, attributes: true };
    let Ok(Answer::Directory(page)) = outcome(&root(), page) else { panic!("no page") };
    assert_eq!((page.entries.len(), page.complete), (44, true));
    assert_eq!(outcome(&root(), lookup(2, "f99")), Err(Errno::ENOENT));
    let Ok(Answer::Attributes(found)) = outcome(&user(5, 5, &[]), lookup(2, "f7")) else { panic!("no f7") };
    assert_eq!(found.mode, 0o644);
    assert_eq!(outcome(&user(5, 5, &[]), lookup(3, "file")), Err(Errno::EACCES));
    let content = Query::Content { ino: 5, first: 0, count: 1, session: None };
    assert_eq!(outcome(&user(5, 5, &[]), content), Err(Errno::EACCES));
    assert_eq!(outcome(&root(), Query::Symlink { ino: 6 }), Ok(Answer::Symlink(b"../closed".to_vec())));
}

#[test]
fn a_denial_reveals_neither_names_nor_the_key_of_the_directory() {
    let mut chain = Chain::new();
    let client = tree(&mut chain);
    let directory_key = chain.state().row(&quorate_metadata::keys::directory_key(3)).unwrap();
    let contains = |proof: &[u8], needle: &[u8]| proof.windows(needle.len()).any(|window| window == needle);
    for query in queries(client.session) {
        let (proof, _) = asked(chain.state(), &client, &user(5, 5, &[]), &query);
        assert!(!contains(&proof, &directory_key), "{query:?} reveals K_dir of a closed directory");
        assert!(!contains(&proof, b"secret"), "{query:?} reveals content");
    }
    let (proof, _) = asked(chain.state(), &client, &root(), &Query::Lookup { parent: 3, name: name("file") });
    assert!(contains(&proof, &directory_key));
}

#[test]
fn squash_is_proven_with_the_rows_that_say_so() {
    let mut chain = Chain::new();
    let mut client = tree(&mut chain);
    let key = principal_secret(5).public();
    let rights = PrincipalRights {
        administrator: false,
        squash_root: Some((65534, 65534)),
        gids: Bounded::try_from(vec![5, 6]).unwrap(),
        ..anyone()
    };
    let envelope = client.envelope(vec![OperationBody::PutPrincipal { key, rights }]);
    chain.run(envelope);
    let squashed = chain.client_of(5, 2);
    let lookup = Query::Lookup { parent: 3, name: name("file") };
    let (proof, outcome) = asked(chain.state(), &squashed, &root(), &lookup);
    assert_eq!(outcome, Err(Errno::EACCES));
    // Shown to another principal the same rows prove nothing, as they are not those of its key.
    let other = check_answer(chain.state().header(), &proof, &client.key(), &root(), &lookup);
    assert_ne!(other, Ok(Err(Errno::EACCES)));
    let grouped = Credential { uid: 9, gid: 6, groups: Groups::OfPrincipal };
    for query in queries(squashed.session) {
        drop(asked(chain.state(), &squashed, &grouped, &query));
        drop(asked(chain.state(), &squashed, &root(), &query));
    }
}

#[test]
fn a_session_is_summed_up_from_its_rows() {
    let mut chain = Chain::new();
    let client = tree(&mut chain);
    let rows = |session| {
        let (proof, _) = asked(chain.state(), &client, &root(), &Query::Session { session });
        PartialState::verify(chain.state().header(), &proof).unwrap().session(&session)
    };
    let summary = rows(client.session).unwrap().unwrap();
    assert_eq!((summary.number, summary.next), (1, client.next));
    assert_eq!(rows([9; 32].into()), Ok(None));
}

#[test]
fn rd4_every_flipped_byte_of_a_small_answer_is_refused() {
    let mut chain = Chain::new();
    let client = tree(&mut chain);
    let header = chain.state().header();
    for query in [
        Query::Attributes { ino: 4 },
        Query::Lookup { parent: 2, name: name("absent") },
        Query::Directory { ino: 2, after: 0, limit: 5, attributes: false },
        Query::Content { ino: 4, first: 0, count: 4, session: None },
    ] {
        let (proof, _) = asked(chain.state(), &client, &root(), &query);
        for position in 0..proof.len() {
            for flip in [0x01, 0x80] {
                let mut forged = proof.clone();
                forged[position] ^= flip;
                let checked = check_answer(header, &forged, &client.key(), &root(), &query);
                assert!(matches!(checked, Err(AnswerFault::Proof(_))), "byte {position} of {query:?}");
            }
        }
        for length in 0..proof.len() {
            assert!(check_answer(header, &proof[..length], &client.key(), &root(), &query).is_err());
        }
        let longer = [proof.as_slice(), &[0]].concat();
        assert!(check_answer(header, &longer, &client.key(), &root(), &query).is_err());
    }
}

#[test]
fn rd4_a_proof_answers_no_other_question_and_no_other_height() {
    let mut chain = Chain::new();
    let mut client = tree(&mut chain);
    let older = chain.state().clone();
    let envelope = client.envelope(vec![mkdir(1, "new", 0o755)]);
    chain.run(envelope);
    let all = queries(client.session);
    for (index, query) in all.iter().enumerate() {
        let (proof, _) = asked(&older, &client, &root(), query);
        let stale = check_answer(chain.state().header(), &proof, &client.key(), &root(), query);
        assert!(matches!(stale, Err(AnswerFault::Proof(_))));
        for (other_index, other) in all.iter().enumerate().filter(|(other, _)| *other != index) {
            let checked = check_answer(older.header(), &proof, &client.key(), &root(), other);
            let right = older.answer(&client.key(), &root(), other).unwrap().outcome;
            // A proof of more may answer less; then the answer is the right one.
            match checked {
                Ok(outcome) => assert_eq!(outcome, right, "question {other_index} by the proof of {index}"),
                Err(fault) => assert!(matches!(fault, AnswerFault::Incomplete(_)), "{fault}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_answer_alike_on_both_sides(
        makes in prop::collection::vec((0..12_u64, 0..20_u8, any::<bool>(), 0..0o1000_u16), 1..60),
        asks in prop::collection::vec((0..16_u64, 0..24_u8, any::<u64>(), 0..40_u16, any::<bool>()), 1..20),
        uid in 0..3_u32,
    ) {
        let mut chain = Chain::new();
        let mut client = chain.client(1);
        let bodies = makes.iter().map(|(parent, text, directory, mode)| {
            let text = format!("n{text}");
            if *directory { mkdir(parent + 1, &text, *mode) } else { create(parent + 1, &text, *mode) }
        });
        let envelope = client.envelope(bodies.collect());
        chain.run(envelope);
        let credential = user(uid, uid, &[]);
        for (ino, text, after, limit, attributes) in asks {
            let name = name(&format!("n{text}"));
            for query in [
                Query::Attributes { ino },
                Query::Lookup { parent: ino, name: name.clone() },
                Query::Directory { ino, after: after >> 1, limit, attributes },
                Query::Directory { ino, after: 0, limit, attributes },
                Query::Walk { start: 1, components: Bounded::try_from(vec![name.clone(), name]).unwrap() },
                Query::Xattrs { ino },
                Query::Content { ino, first: after, count: limit, session: None },
            ] {
                drop(asked(chain.state(), &client, &credential, &query));
            }
        }
    }
}

/// S10: what an earlier height answers is what its own state answered, and proves it under its header; rows that are
/// not those of then are refused.
#[test]
fn a_state_that_is_taken_back_answers_as_it_did() {
    let mut chain = Chain::new();
    let mut client = tree(&mut chain);
    let then = chain.state().clone();
    let mut changed = Changes::new();
    for number in 0..4 {
        let unlink = OperationBody::Unlink { parent: 2, name: name(&format!("f{number}")) };
        let bodies = vec![unlink, create(2, &format!("new{number}"), 0o644), write(4, number, b"HELLO")];
        let envelope = client.envelope(bodies);
        let executed = chain.step(1, vec![envelope]);
        changed.extend(executed.changes.into_keys().map(|key| (key, then.row(&key))));
    }
    let now = chain.state();
    assert_ne!(now.header().state_root, then.header().state_root);
    let past = now.rewound(then.header().clone(), &changed).unwrap();
    let key = client.key();
    let queries = [
        Query::Attributes { ino: 2 },
        Query::Lookup { parent: 2, name: name("f1") },
        Query::Lookup { parent: 2, name: name("new1") },
        Query::Directory { ino: 2, after: 0, limit: 100, attributes: true },
        Query::Content { ino: 4, first: 0, count: 4, session: None },
        Query::Content { ino: 5, first: 0, count: 1, session: None },
        Query::Totals,
    ];
    for query in queries {
        for credential in [root(), user(1000, 1000, &[])] {
            let answered = past.answer(&key, &credential, &query).unwrap();
            assert_eq!(answered, then.answer(&key, &credential, &query).unwrap(), "{query:?}");
            let checked = check_answer(then.header(), &answered.proof, &key, &credential, &query).unwrap();
            assert_eq!(checked, answered.outcome);
            let other = check_answer(now.header(), &answered.proof, &key, &credential, &query);
            assert!(matches!(other, Err(AnswerFault::Proof(_))), "{query:?}");
        }
    }
    // One row too few, one that is another, and the rows of another height.
    let (first, _) = changed.first_key_value().unwrap();
    let mut fewer = changed.clone();
    fewer.remove(&first.clone());
    let another = Changes::from_iter(changed.clone().into_keys().map(|key| (key, Some(vec![1].into()))));
    for wrong in [fewer, another, Changes::new()] {
        let refused = now.rewound(then.header().clone(), &wrong).unwrap_err();
        assert!(matches!(refused, RestoreError::Root { .. }), "{refused}");
    }
    let mut foreign = then.header().clone();
    foreign.cluster.0[0] ^= 1;
    assert_eq!(now.rewound(foreign, &changed).unwrap_err(), RestoreError::ForeignCluster);
}
