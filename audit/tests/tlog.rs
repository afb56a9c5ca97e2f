//! The open formats of the log: golden bytes, strict parsing, tiles that lead to the root of their size, heads that
//! only a quorum can sign. `QUORATE_BLESS=1` writes the golden files anew; a change of them is a change of format.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_audit::tlog::{
    ENTRY_BYTES_MAX, HeadError, HeadSigner, KeyKind, LogKeys, LogProof, LogProofError, NoteError,
    PolicyError, Resource, SignedNote, TileBuilder, TileError, TilePath, TileRow, TrustPolicy, VerifierKey,
    inclusion_path, origin, parse_entries, parse_hashes, resources,
};
use quorate_crypto::{Address, Hash, Member, MemberSet, NodeSeed};
use quorate_merkle::log::{LogError, LogFrontier, inclusion_proof, verify_inclusion};
use quorate_merkle::rfc6962::leaf_hash;
use quorate_protocol::ReplicaIndex;
use quorate_protocol::log_head::{LogHead, SignedLogHead};

const CLUSTER: Hash = Hash([0x11; 32]);
const TIME: u64 = 1_700_000_000;

fn members(n: u8) -> MemberSet {
    let address = || Address::try_from("127.0.0.1:7000".to_owned()).unwrap();
    let member = |index: u8| Member::from_seed(&NodeSeed::from_bytes([index + 1; 32]), address());
    MemberSet::new(0, (0..n).map(member).collect()).unwrap()
}

fn keys() -> LogKeys {
    LogKeys::new(&CLUSTER, &members(4)).unwrap()
}

fn sign(head: LogHead, replicas: &[ReplicaIndex]) -> Vec<(ReplicaIndex, SignedLogHead)> {
    let signer = |index: u8| HeadSigner::new(&CLUSTER, &NodeSeed::from_bytes([index + 1; 32]));
    let sign = |index: u8| (index, signer(index).sign(head, TIME + u64::from(index)).unwrap());
    replicas.iter().map(|index| sign(*index)).collect()
}

fn entry(index: u64) -> Vec<u8> {
    format!("header {index}").into_bytes()
}

/// A log as files, its head, and the hashes of its leaves.
struct Written {
    files: BTreeMap<TilePath, Vec<u8>>,
    head: LogHead,
    leaves: Vec<Hash>,
}

fn write(size: u64) -> Written {
    let mut builder = TileBuilder::new();
    let mut files = BTreeMap::new();
    let mut add = |made: Vec<Resource>| files.extend(made.into_iter().map(|file| (file.path, file.bytes)));
    (0..size).for_each(|index| add(builder.append(&entry(index)).unwrap()));
    add(builder.partial());
    let head = LogHead { size: builder.size(), root: builder.root() };
    Written { files, head, leaves: (0..size).map(|index| leaf_hash(&entry(index))).collect() }
}

impl Written {
    fn path(&self, index: u64) -> Result<Vec<Hash>, TileError> {
        inclusion_path(self.head.size, index, |path| parse_hashes(&self.files[path], path.width()))
    }

    fn proof(&self, index: u64) -> LogProof {
        LogProof {
            extra: Some(entry(index)),
            index,
            path: self.path(index).unwrap(),
            checkpoint: keys().note(self.head, &sign(self.head, &[0, 2, 3])),
        }
    }
}

fn golden(name: &str, bytes: &[u8]) {
    let path = format!("{}/tests/golden/tlog/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("QUORATE_BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tlog")).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}: the format changed");
}

#[test]
fn golden_bytes_of_every_format() {
    let log = write(600);
    let proof = log.proof(300);
    golden("checkpoint", proof.checkpoint.to_string().as_bytes());
    golden("policy", keys().policy().to_string().as_bytes());
    golden("entry-300.tlog-proof", proof.to_string().as_bytes());
    let partial = TilePath::parse("tile/1/000.p/2").unwrap();
    golden("tile-1-000.p-2", &log.files[&partial]);
    let bundle = TilePath::parse("tile/entries/002.p/88").unwrap();
    golden("tile-entries-002.p-88", &log.files[&bundle]);
    let names: String = resources(70_000).map(|path| format!("{path}\n")).collect();
    golden("resources-70000", names.as_bytes());
}

#[test]
fn the_examples_of_the_specification_hold() {
    let key = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let note = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ON\
                ncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let key = VerifierKey::parse(key).unwrap();
    let parsed = SignedNote::parse(note.as_bytes()).unwrap();
    assert_eq!(parsed.to_string(), note);
    assert!(key.is_named_by(&parsed.signatures[0]));
    assert_eq!(key.verify(&parsed.text, &parsed.signatures[0]), Ok(None));
    let changed = parsed.text.replace("example", "Example");
    assert_eq!(key.verify(&changed, &parsed.signatures[0]), Err(NoteError::Signature));
    let names: Vec<String> = resources(70_000).map(|path| path.to_string()).collect();
    let level = |level: u8| names.iter().filter(|name| name.starts_with(&format!("tile/{level}/"))).count();
    assert_eq!([level(0), level(1), level(2), level(3)], [274, 2, 1, 0]);
    for name in ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1", "tile/entries/000"] {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
    let far = TilePath::new(TileRow::Level(0), 1_234_067, 256).unwrap();
    assert_eq!(far.to_string(), "tile/0/x001/x234/067");
    let edge: Vec<String> = resources(256).map(|path| path.to_string()).collect();
    assert_eq!(edge, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
}

#[test]
fn a_path_has_one_form() {
    for path in resources(300_000).chain(resources(1_234_567)) {
        assert_eq!(TilePath::parse(&path.to_string()), Some(path));
    }
    let refused = [
        "tile/0/1",
        "tile/0/0001",
        "tile/0/x000/001",
        "tile/00/001",
        "tile/64/001",
        "tile/-1/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/01",
        "tile/0/001.p/1/",
        "tile/0/001/",
        "tile/0/../001",
        "tile/entries/x01",
        "tile/entries/",
        "tile//001",
        "tile/data/001",
        "/tile/0/001",
        "tile/0/x001/x002",
        "tile/0/\u{661}01",
        "tile/0",
        "checkpoint",
        "",
        "tile/0/001.p/1.p/1",
        "tile/entries/001x001",
    ];
    for path in refused {
        assert_eq!(TilePath::parse(path), None, "{path}");
    }
}

#[test]
fn tiles_of_every_size_lead_to_the_root_and_prove_every_entry() {
    for size in (0..=40).chain([255, 256, 257, 511, 512, 513, 600]) {
        let log = write(size);
        let mut frontier = LogFrontier::new();
        for index in 0..size {
            assert_eq!(frontier.append(&entry(index)), Ok(index));
        }
        assert_eq!(log.head.root, frontier.root());
        let named: Vec<TilePath> = resources(size).collect();
        assert_eq!(named.len(), log.files.len(), "size {size}");
        assert!(named.iter().all(|path| log.files.contains_key(path)));
        for index in (0..size).step_by(if size > 40 { 37 } else { 1 }) {
            let path = log.path(index).unwrap();
            assert_eq!(path, inclusion_proof(&log.leaves, index).unwrap());
            let leaf = log.leaves[usize::try_from(index).unwrap()];
            assert_eq!(verify_inclusion(&log.head.root, size, index, &leaf, &path), Ok(()));
        }
        assert_eq!(log.path(size), Err(TileError::Log(LogError::OutOfRange)));
    }
    // Three levels of tiles.
    let log = write(66_000);
    for index in [0, 255, 256, 65_535, 65_536, 65_999] {
        let leaf = log.leaves[usize::try_from(index).unwrap()];
        assert_eq!(verify_inclusion(&log.head.root, 66_000, index, &leaf, &log.path(index).unwrap()), Ok(()));
    }
}

#[test]
fn bundles_give_back_their_entries_and_refuse_every_other_length() {
    let log = write(600);
    for (path, bytes) in log.files.iter().filter(|(path, _)| path.row() == TileRow::Entries) {
        let entries = parse_entries(bytes, path.width()).unwrap();
        let first = path.index() * 256;
        assert!((first..).zip(&entries).all(|(index, found)| *found == entry(index)));
        let (less, more) = (&bytes[..bytes.len() - 1], [bytes.as_slice(), &[0, 0]].concat());
        assert_eq!(parse_entries(less, path.width()), Err(TileError::BundleSize));
        assert_eq!(parse_entries(&more, path.width()), Err(TileError::BundleSize));
    }
    assert_eq!(parse_hashes(&[0; 64], 1), Err(TileError::TileSize));
    assert_eq!(parse_hashes(&[0; 63], 2), Err(TileError::TileSize));
    let mut builder = TileBuilder::new();
    let long = vec![7; ENTRY_BYTES_MAX + 1];
    assert_eq!(builder.append(&long), Err(TileError::EntryTooLong(ENTRY_BYTES_MAX + 1)));
    assert_eq!(builder.size(), 0);
    assert_eq!(builder.append(&long[1..]), Ok(Vec::new()));
    assert_eq!(parse_entries(&builder.partial()[0].bytes, 1).unwrap(), [&long[1..]]);
}

#[test]
fn au9_only_a_quorum_of_distinct_replicas_makes_a_head() {
    let (keys, head) = (keys(), write(600).head);
    let checked = keys.check(&keys.note(head, &sign(head, &[0, 2, 3]))).unwrap();
    assert_eq!(checked.head, head);
    assert_eq!(checked.notes.into_iter().collect::<Vec<_>>(), [0, 2, 3]);
    let few = |notes, cosignatures| Err(HeadError::TooFew { notes, cosignatures, needed: 3 });
    assert_eq!(keys.check(&keys.note(head, &sign(head, &[0, 2]))), few(2, 2));
    // One that signs often is one.
    assert_eq!(keys.check(&keys.note(head, &sign(head, &[0, 2, 2, 2]))), few(2, 2));
    // A note signature stands in for no cosignature.
    let mut note = keys.note(head, &sign(head, &[0, 1, 2]));
    let cosignature = note.signatures.pop().unwrap();
    assert_eq!(keys.check(&note), few(3, 2));
    // Strangers are passed over; a known key that does not hold spoils the note.
    let stranger =
        VerifierKey::new("example.com/w", KeyKind::Cosignature, members(5).members()[4].log_cosignature);
    note.signatures.push(stranger.unwrap().note_line(&quorate_crypto::Signature([1; 64])));
    note.signatures.push(cosignature);
    assert!(keys.check(&note).is_ok());
    note.signatures[0].bytes[0] ^= 1;
    assert_eq!(keys.check(&note), Err(HeadError::Note(NoteError::Signature)));
    // Of another head, or of another cluster.
    let other = LogHead { size: head.size + 1, ..head };
    let mut note = keys.note(head, &sign(head, &[0, 1, 2]));
    note.text = keys.text(other);
    assert_eq!(keys.check(&note), Err(HeadError::Note(NoteError::Signature)));
    let elsewhere = LogKeys::new(&Hash([0x12; 32]), &members(4)).unwrap();
    assert_eq!(elsewhere.check(&keys.note(head, &sign(head, &[0, 1, 2]))), Err(HeadError::Origin));
    // Each signature by itself, as it is taken from a replica.
    let signed = sign(head, &[1])[0].1;
    assert!(keys.holds(1, &signed));
    assert!(!keys.holds(2, &signed) && !keys.holds(4, &signed));
    assert!(!keys.holds(1, &SignedLogHead { time: signed.time + 1, ..signed }));
    assert!(!keys.holds(1, &SignedLogHead { head: other, ..signed }));
    assert!(HeadSigner::new(&CLUSTER, &NodeSeed::from_bytes([1; 32])).sign(head, u64::MAX).is_err());
}

#[test]
fn r6_who_signed_two_roots_of_one_size_is_found_in_two_checkpoints() {
    let (keys, head) = (keys(), write(600).head);
    let (forged, longer) = (LogHead { root: Hash([5; 32]), ..head }, LogHead { size: 601, ..head });
    let note = |head, replicas: &[u8]| keys.note(head, &sign(head, replicas));
    let culprits = |one: &SignedNote, other: &SignedNote| {
        keys.conflicts(one, other).unwrap().into_iter().map(|(replica, _)| replica).collect::<Vec<_>>()
    };
    assert_eq!(culprits(&note(head, &[0, 1, 2]), &note(forged, &[1, 2, 3])), [1, 2]);
    assert!(culprits(&note(head, &[0, 1, 2]), &note(longer, &[0, 1, 2])).is_empty());
    assert!(culprits(&note(head, &[0, 1, 2]), &note(head, &[0, 1, 2])).is_empty());
    // What does not hold proves nothing.
    let mut spoilt = note(forged, &[1, 2, 3]);
    spoilt.signatures[0].bytes[5] ^= 1;
    assert_eq!(culprits(&note(head, &[0, 1, 2]), &spoilt), [2]);
    let elsewhere = LogKeys::new(&Hash([0x12; 32]), &members(4)).unwrap();
    assert_eq!(elsewhere.conflicts(&note(head, &[1]), &spoilt), Err(HeadError::Origin));
}

#[test]
fn a_policy_asks_for_a_quorum_and_is_read_as_it_was_written() {
    let policy = keys().policy();
    let text = policy.to_string();
    let read = TrustPolicy::parse(text.as_bytes()).unwrap();
    assert_eq!(read, policy);
    let keys = keys();
    let signers = |notes: usize, cosigners: usize| {
        let notes = keys.replicas().iter().take(notes).map(|(note, _)| note);
        notes.chain(keys.replicas().iter().take(cosigners).map(|(_, key)| key)).collect::<Vec<_>>()
    };
    assert!(read.is_satisfied(&signers(1, 3)));
    assert!(!read.is_satisfied(&signers(1, 2)));
    assert!(!read.is_satisfied(&signers(0, 4)));
    assert!(text.starts_with(&format!("log {}+", origin(&CLUSTER))));
}

#[test]
fn policies_of_others_are_understood_or_refused() {
    let log = keys().replicas()[0].0.to_string();
    let cosigners: Vec<String> = keys().replicas().iter().map(|(_, key)| key.to_string()).collect();
    let [a, b, c] = [&cosigners[0], &cosigners[1], &cosigners[2]];
    let head = format!(
        "# a comment\n\n log {log} https://example.com/\nwitness a {a}\n\twitness b {b}\nwitness c {c}\n"
    );
    let good = |rest: &str| TrustPolicy::parse(format!("{head}{rest}").as_bytes()).unwrap();
    let policy = good("group x any a b\ngroup y all x c\nquorum y\n");
    let keys = keys();
    let signed = |cosigners: &[usize]| {
        let cosigners = cosigners.iter().map(|index| &keys.replicas()[*index].1);
        policy.is_satisfied(&std::iter::once(&keys.replicas()[0].0).chain(cosigners).collect::<Vec<_>>())
    };
    assert!(signed(&[1, 2]) && signed(&[0, 2]));
    assert!(!signed(&[0, 1]) && !signed(&[2]));
    assert!(good("quorum none\n").quorum.is_none());
    let bad = |rest: &str| TrustPolicy::parse(format!("{head}{rest}").as_bytes()).unwrap_err();
    let name = PolicyError::Name(7);
    assert_eq!(bad("quorum y\n"), name);
    assert_eq!(bad("group x 2 a a\nquorum x\n"), name);
    assert_eq!(bad("group a any b\nquorum a\n"), name);
    assert_eq!(bad("group none any b\nquorum b\n"), name);
    assert_eq!(bad("group x any a\ngroup y any a\nquorum x\n"), PolicyError::Name(8));
    assert_eq!(bad(&format!("witness d {a}\nquorum d\n")), name);
    for line in [
        "group x 0 a b\n",
        "group x 3 a b\n",
        "group x 01 a b\n",
        "group x any\n",
        "quorum\n",
        "log\n",
        "x y\n",
    ] {
        assert_eq!(bad(line), PolicyError::Line(7), "{line}");
    }
    assert_eq!(bad(""), PolicyError::Quorum);
    assert_eq!(bad("quorum a\nquorum a\n"), PolicyError::Quorum);
    assert_eq!(bad("quorum a"), PolicyError::Unended);
    assert_eq!(bad("quorum a\r\n"), PolicyError::Text);
    assert!(matches!(bad(&format!("witness d {log}\nquorum d\n")), PolicyError::Key { line: 7, .. }));
}

#[test]
fn a_proof_binds_entry_index_and_head() {
    let (log, keys) = (write(600), keys());
    let proof = log.proof(300);
    let text = proof.to_string();
    assert_eq!(LogProof::parse(text.as_bytes()).as_ref(), Ok(&proof));
    let leaf = leaf_hash(proof.extra.as_ref().unwrap());
    assert_eq!(proof.verify(&keys, &leaf).unwrap().head, log.head);
    let wrong = |proof: LogProof| proof.verify(&keys, &leaf).unwrap_err();
    assert!(matches!(wrong(LogProof { index: 301, ..proof.clone() }), LogProofError::Path(_)));
    let mut shorter = proof.clone();
    shorter.path.pop();
    assert!(matches!(wrong(shorter), LogProofError::Path(_)));
    assert!(matches!(proof.verify(&keys, &leaf_hash(b"header 299")), Err(LogProofError::Path(_))));
    let unsigned = LogProof { checkpoint: keys.note(log.head, &sign(log.head, &[0, 1])), ..proof.clone() };
    assert!(matches!(wrong(unsigned), LogProofError::Head(HeadError::TooFew { .. })));
    let single = write(1).proof(0);
    assert!(single.path.is_empty());
    assert_eq!(LogProof::parse(single.to_string().as_bytes()), Ok(LogProof { ..single }));
}

#[test]
fn every_changed_byte_of_a_signed_head_is_noticed() {
    let (log, keys) = (write(600), keys());
    let proof = log.proof(300);
    let (text, leaf) = (proof.to_string(), leaf_hash(&entry(300)));
    let extra = text.find("\nindex").unwrap();
    for at in 0..text.len() {
        for bit in [0x01, 0x20] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= bit;
            let Ok(read) = LogProof::parse(&bytes) else { continue };
            assert_eq!(read.to_string().as_bytes(), bytes, "one form");
            // The extra data is signed by nobody, and a key that is not known is passed over: that costs a signer.
            let holds = read.verify(&keys, &leaf).is_ok();
            assert!(!holds || (at < extra && read.extra != proof.extra), "byte {at}");
        }
    }
}

proptest! {
    #[test]
    fn what_a_parser_takes_it_writes_again(bytes in prop::collection::vec(any::<u8>(), 0..200), noise in ".{0,80}") {
        for input in [bytes.as_slice(), noise.as_bytes()] {
            if let Ok(note) = SignedNote::parse(input) {
                let written = note.to_string();
                prop_assert_eq!(written.as_bytes(), input);
            }
        }
        if let Ok(key) = VerifierKey::parse(&noise) {
            prop_assert_eq!(key.to_string(), noise);
        }
    }
}
