//! Anchors: an audit goes on from one as if it had come there, and no changed byte of one is believed.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use quorate_audit::{Anchor, Auditor, Head, NoAnchor, NoHead, Policy, genesis_header};
use quorate_crypto::{Ed25519Verifier, derive_hash};
use quorate_merkle::LogFrontier;
use quorate_protocol::Genesis;

/// The anchors of the chain, of the genesis on.
fn anchors() -> Vec<Anchor> {
    let (genesis, chain) = chain();
    let verifier = Ed25519Verifier::new();
    let mut auditor = Auditor::new(&genesis, &verifier, Policy::STANDARD).unwrap();
    let mut all = vec![auditor.anchor()];
    for committed in &chain {
        auditor.check(committed).unwrap();
        all.push(auditor.anchor());
    }
    all
}

#[test]
fn an_audit_goes_on_from_every_anchor_as_if_it_had_come_there() {
    let (genesis, chain) = chain();
    let verifier = Ed25519Verifier::new();
    let anchors = anchors();
    let last = anchors.last().unwrap();
    assert_eq!(anchors[0].head, Head { header: genesis_header(&genesis).unwrap(), certificate: None });
    for anchor in &anchors {
        let read = Anchor::from_file(&anchor.to_file()).unwrap();
        assert_eq!(&read, anchor);
        let mut auditor = Auditor::above(&read, &genesis, &verifier, Policy::STANDARD).unwrap();
        let height = anchor.head.header.height;
        assert_eq!(auditor.next_height(), height + 1);
        for committed in chain.iter().skip(usize::try_from(height).unwrap()) {
            auditor.check(committed).unwrap();
        }
        assert_eq!(&auditor.anchor(), last);
        let progress = auditor.progress();
        assert_eq!((progress.height, progress.operations), (6, 7));
        // A height that does not follow is refused there as everywhere.
        let mut auditor = Auditor::above(&read, &genesis, &verifier, Policy::STANDARD).unwrap();
        assert!(
            auditor.check(&chain[usize::try_from(height).unwrap().saturating_sub(1)]).is_err() || height == 0
        );
    }
    let full = Auditor::above(last, &genesis, &verifier, Policy::FULL);
    assert_eq!(full.err(), Some(NoAnchor::NoState));
}

#[test]
fn what_vouches_for_an_anchor_is_checked() {
    let (genesis, chain) = chain();
    let verifier = Ed25519Verifier::new();
    let good = anchors()[4].clone();
    let refused = |change: &dyn Fn(&mut Anchor)| {
        let mut anchor = good.clone();
        change(&mut anchor);
        anchor.check(&genesis, &verifier).err()
    };
    assert_eq!(refused(&|_| ()), None);
    assert_eq!(refused(&|anchor| anchor.log = None), None);
    let without = Anchor { log: None, ..good.clone() };
    assert_eq!(Auditor::above(&without, &genesis, &verifier, Policy::STANDARD).err(), Some(NoAnchor::NoLog));
    assert_eq!(refused(&|anchor| anchor.log = anchors()[3].log.clone()), Some(NoAnchor::Log(4)));
    let forged = |anchor: &mut Anchor| {
        let mut log = LogFrontier::new();
        for leaf in 0..4_u8 {
            log.append(&[leaf]).unwrap();
        }
        anchor.log = Some(log);
    };
    assert_eq!(refused(&forged), Some(NoAnchor::Log(4)));
    let none = |anchor: &mut Anchor| anchor.head.certificate = None;
    assert_eq!(refused(&none), Some(NoHead::Uncertified(4).into()));
    let other = |anchor: &mut Anchor| anchor.head.certificate = Some(chain[2].certificate.clone());
    assert_eq!(refused(&other), Some(NoHead::OtherHeader.into()));
    let elsewhere = Genesis { nonce: [9; 32], ..genesis.clone() };
    assert_eq!(good.check(&elsewhere, &verifier).err(), Some(NoAnchor::Cluster(good.cluster)));
}

#[test]
fn no_anchor_with_a_changed_byte_is_read() {
    let (genesis, verifier) = (genesis(), Ed25519Verifier::new());
    let good = anchors()[5].clone();
    let mut bytes = good.to_file();
    for at in 0..bytes.len() {
        bytes[at] ^= 0x01;
        assert!(Anchor::from_file(&bytes).is_err(), "byte {at}");
        bytes[at] ^= 0x01;
    }
    for length in 0..bytes.len() {
        assert!(Anchor::from_file(&bytes[..length]).is_err(), "{length} bytes");
    }
    // Under a checksum of his own a liar has signatures against him.
    let body = 18..bytes.len() - 32;
    for at in body.clone() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x01;
        let checksum = derive_hash("quorate anchor file v1", &[&changed[body.clone()]]);
        changed.truncate(body.end);
        changed.extend_from_slice(&checksum.0);
        let read = Anchor::from_file(&changed);
        assert!(read.and_then(|read| read.check(&genesis, &verifier)).is_err(), "byte {at}");
    }
    bytes.extend_from_slice(&[0; 1 << 15]);
    assert_eq!(Anchor::from_file(&bytes), Err(NoAnchor::Damaged));
    assert_eq!(Anchor::from_file(&bytes[1..]), Err(NoAnchor::Magic));
}

/// The format is bound: what was remembered must be read for ever.
#[test]
fn an_anchor_is_these_bytes() {
    let bytes = anchors()[5].to_file();
    let digest = derive_hash("quorate test golden", &[&bytes]).to_string();
    assert_eq!(
        (bytes.len(), digest.as_str()),
        (715, "21d12eff8cba07c1d081b2d26960e780409658064ee45abffdd1229f681e05e6")
    );
}
