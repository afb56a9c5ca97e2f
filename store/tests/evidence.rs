//! Evidence on disk: it survives, and what is damaged, cut or misnamed is told apart and skipped.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::fs;

use quorate_crypto::{Hash, Signature};
use quorate_protocol::Evidence;
use quorate_protocol::evidence::{Contradiction, Proof, SignedDigest};
use quorate_store::evidence::evidence_path;
use quorate_store::{EvidenceStore, StoredEvidenceError, read_evidence};
use support::directory;

fn piece(height: u64) -> Evidence {
    let side = |byte| SignedDigest { digest: Hash([byte; 32]), signature: Signature([byte; 64]) };
    let both = Contradiction::new(3, height, side(1), side(2));
    Evidence::new(Hash([9; 32]), 0, 2, Proof::ConflictingPrepare(both))
}

#[test]
fn evidence_survives_and_what_is_damaged_is_skipped() {
    let place = tempfile::tempdir().unwrap();
    let held = directory(place.path());
    assert_eq!(read_evidence(place.path()).unwrap().count(), 0, "a directory of an earlier release");
    let store = EvidenceStore::open(&held).unwrap();
    let pieces: Vec<Evidence> = (1..=4).map(piece).collect();
    pieces.iter().for_each(|piece| store.save(piece).unwrap());
    store.save(&pieces[0]).unwrap();
    let read = || read_evidence(place.path()).unwrap().collect::<Vec<_>>();
    let mut found: Vec<Evidence> = read().into_iter().map(Result::unwrap).collect();
    found.sort_by_key(|piece| piece.place());
    assert_eq!(found, pieces);
    // What a crash leaves behind is removed, what is not ours stays.
    let folder = evidence_path(place.path());
    let path = |piece: &Evidence| folder.join(format!("{}.evidence", piece.digest()));
    fs::write(folder.join("half.new"), b"quorate").unwrap();
    fs::write(folder.join("notes.txt"), b"mine").unwrap();
    EvidenceStore::open(&held).unwrap();
    assert!(!folder.join("half.new").exists() && folder.join("notes.txt").exists());
    // One byte, a cut, another name.
    let mut bytes = fs::read(path(&pieces[0])).unwrap();
    bytes[40] ^= 1;
    fs::write(path(&pieces[0]), &bytes).unwrap();
    let bytes = fs::read(path(&pieces[1])).unwrap();
    fs::write(path(&pieces[1]), &bytes[..bytes.len() - 1]).unwrap();
    fs::rename(path(&pieces[2]), path(&piece(77))).unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = read().into_iter().partition(Result::is_ok);
    assert_eq!(good.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [pieces[3].clone()]);
    let content = |error: &&StoredEvidenceError| matches!(error, StoredEvidenceError::Content { .. });
    let bad: Vec<StoredEvidenceError> = bad.into_iter().map(Result::unwrap_err).collect();
    assert_eq!((bad.len(), bad.iter().filter(content).count()), (3, 2));
}
