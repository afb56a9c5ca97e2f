//! Parsers of the log's open formats: notes, policies, proofs, tiles.

use quorate_audit::tlog::{
    HeadSigner, LogKeys, LogProof, SignedNote, TileBuilder, TilePath, TileRow, TrustPolicy, VerifierKey,
    inclusion_path, parse_entries, parse_hashes,
};
use quorate_crypto::{Address, Hash, Member, MemberSet, NodeSeed};
use quorate_merkle::rfc6962::leaf_hash;
use quorate_protocol::log_head::LogHead;

use crate::memory::decoding;

const CLUSTER: Hash = Hash([0x11; 32]);

fn seed(index: u8) -> NodeSeed {
    NodeSeed::from_bytes([index.wrapping_add(1); 32])
}

fn keys() -> LogKeys {
    let address = || Address::try_from("[::1]:7".to_owned()).expect("a short address");
    let members = (0..4).map(|index| Member::from_seed(&seed(index), address())).collect();
    LogKeys::new(&CLUSTER, &MemberSet::new(0, members).expect("four members")).expect("distinct keys")
}

/// A head of a log of three entries under the signatures of these replicas.
fn signed(builder: &TileBuilder, replicas: &[u8]) -> SignedNote {
    let head = LogHead { size: builder.size(), root: builder.root() };
    let sign =
        |index: u8| HeadSigner::new(&CLUSTER, &seed(index)).sign(head, 1_700_000_000).expect("a usable time");
    keys().note(head, &replicas.iter().map(|index| (*index, sign(*index))).collect::<Vec<_>>())
}

fn log() -> TileBuilder {
    let mut builder = TileBuilder::new();
    for entry in ["one", "two", "three"] {
        builder.append(entry.as_bytes()).expect("a short log");
    }
    builder
}

pub fn note_seeds() -> Vec<Vec<u8>> {
    let text = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONnc\
                AlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let notes: [&[u8]; 2] = [&[0, 2, 3], &[1]];
    notes
        .map(|replicas| signed(&log(), replicas).to_string())
        .into_iter()
        .chain([text.to_owned()])
        .map(String::into_bytes)
        .collect()
}

pub fn policy_seeds() -> Vec<Vec<u8>> {
    let policy = keys().policy().to_string();
    let (logs, rest) = policy.split_once("group").expect("a group");
    let nested = format!(
        "# nested\n{logs}group a any replica-0 replica-1\ngroup b all a replica-2\nquorum b\n#{rest}"
    );
    vec![policy.into_bytes(), nested.into_bytes(), b"quorum none\n".to_vec()]
}

pub fn proof_seeds() -> Vec<Vec<u8>> {
    let builder = log();
    let tile =
        builder.partial().into_iter().find(|file| file.path.row() == TileRow::Level(0)).expect("a tile");
    let path =
        inclusion_path(builder.size(), 1, |path| parse_hashes(&tile.bytes, path.width())).expect("an entry");
    let whole =
        LogProof { extra: Some(b"two".to_vec()), index: 1, path, checkpoint: signed(&builder, &[0, 1, 2]) };
    let bare = LogProof { extra: None, path: Vec::new(), ..whole.clone() };
    [whole, bare].map(|proof| proof.to_string().into_bytes()).into()
}

pub fn tile_seeds() -> Vec<Vec<u8>> {
    let file = |path: &str, bytes: &[u8]| [path.as_bytes(), b"\n", bytes].concat();
    let partial = log().partial().into_iter().map(|made| file(&made.path.to_string(), &made.bytes));
    partial
        .chain([file("tile/entries/x001/x234/067.p/1", &[0, 0]), file("tile/63/000.p/2", &[7; 64])])
        .collect()
}

/// A note, and a verifier key: what is read is written again to the same bytes; a quorum is not made of garbage.
pub fn note(data: &[u8]) {
    if let Ok(note) = decoding(data.len(), || SignedNote::parse(data)) {
        assert!(note.to_string().as_bytes() == data, "a note reads as another one");
        if let Ok(checked) = keys().check(&note) {
            assert!(checked.notes.len() >= 3 && checked.cosignatures.len() >= 3, "too few make a head");
            assert_eq!(checked.head, LogHead { size: 3, root: log().root() }, "a head that nobody signed");
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = VerifierKey::parse(text)
    {
        assert_eq!(key.to_string(), text, "a key reads as another one");
    }
}

/// A policy: what is read is written so that it reads the same, and asking it never panics.
pub fn policy(data: &[u8]) {
    let Ok(policy) = decoding(data.len(), || TrustPolicy::parse(data)) else { return };
    assert_eq!(TrustPolicy::parse(policy.to_string().as_bytes()).as_ref(), Ok(&policy));
    let everyone: Vec<&VerifierKey> =
        policy.logs.iter().chain(policy.witnesses.iter().map(|(_, key)| key)).collect();
    assert_eq!(policy.is_satisfied(&everyone), !policy.logs.is_empty(), "all that are known are not enough");
    assert!(!policy.is_satisfied(&[]), "nobody is enough");
}

/// A proof: what is read is written again to the same bytes, and only an entry of the log is proven.
pub fn proof(data: &[u8]) {
    let Ok(proof) = decoding(data.len(), || LogProof::parse(data)) else { return };
    assert!(proof.to_string().as_bytes() == data, "a proof reads as another one");
    let leaf = leaf_hash(proof.extra.as_deref().unwrap_or_default());
    if proof.verify(&keys(), &leaf).is_ok() {
        let entry = [b"one".as_slice(), b"two", b"three"]
            .get(usize::try_from(proof.index).unwrap_or(usize::MAX))
            .copied();
        assert_eq!(proof.extra.as_deref(), entry, "another entry is proven");
    }
}

/// A path, a newline, and the file of that name: one form of each.
pub fn tiles(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (name, bytes) = (data.get(..end).unwrap_or_default(), data.get(end + 1..).unwrap_or_default());
    let Some(path) = std::str::from_utf8(name).ok().and_then(TilePath::parse) else { return };
    assert_eq!(path.to_string().as_bytes(), name, "a path reads as another one");
    if let Ok(entries) = decoding(bytes.len(), || parse_entries(bytes, path.width())) {
        let written: Vec<u8> = entries
            .iter()
            .flat_map(|entry| {
                u16::try_from(entry.len())
                    .expect("a bound")
                    .to_be_bytes()
                    .into_iter()
                    .chain(entry.iter().copied())
            })
            .collect();
        assert!(entries.len() == path.width() && written == bytes, "a bundle reads as another one");
    }
    if let Ok(hashes) = parse_hashes(bytes, path.width()) {
        assert!(
            hashes.iter().flat_map(|hash| hash.0).eq(bytes.iter().copied()),
            "a tile reads as another one"
        );
    }
}
