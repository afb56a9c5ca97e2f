//! Heads: what vouches for them, and two that cannot be of one history.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use quorate_audit::{Head, HeadFault, Heads, NoHead, genesis_header};
use quorate_crypto::Ed25519Verifier;
use quorate_protocol::peer::CommittedBatch;

/// A height of another history, under the keys of all members: more than f are liars.
fn forged(honest: &CommittedBatch, previous: quorate_crypto::Hash) -> Head {
    let mut header = honest.batch.header.clone();
    header.state_root.0[0] ^= 1;
    header.previous = previous;
    let certificate = Some(certify(&genesis(), &header, 9, &[0, 1, 2, 3]));
    Head { header, certificate }
}

#[test]
fn heads_of_one_chain_are_taken_in_any_order() {
    let (genesis, chain) = chain();
    let verifier = Ed25519Verifier::new();
    let mut heads = Heads::new(&genesis, &verifier);
    assert_eq!(heads.gap_above(0), None);
    for index in [5, 0, 3, 2, 5] {
        heads.add(&Head::of(&chain[index])).unwrap();
    }
    assert_eq!(heads.gap_above(1), Some(2));
    heads.add(&Head::of(&chain[1])).unwrap();
    assert_eq!(heads.gap_above(1), Some(5));
    heads.add(&Head::of(&chain[4])).unwrap();
    assert_eq!(heads.gap_above(1), None);
    let first = Head { header: genesis_header(&genesis).unwrap(), certificate: None };
    heads.add(&first).unwrap();
    assert_eq!((heads.lowest(), heads.highest()), (Some(&first), Some(&Head::of(&chain[5]))));
    assert_eq!(heads.gap_above(0), None);
}

#[test]
fn a_second_history_is_noticed_and_both_heads_are_shown() {
    let (genesis, chain) = chain();
    let verifier = Ed25519Verifier::new();
    let honest = |index: usize| Head::of(&chain[index]);
    let fork = |first: &Head, second: &Head| {
        let mut heads = Heads::new(&genesis, &verifier);
        heads.add(first).unwrap();
        match heads.add(second) {
            Err(HeadFault::Fork(fork)) => {
                assert_eq!(heads.highest(), Some(first), "what was known stays");
                fork
            }
            other => panic!("{other:?}"),
        }
    };
    // At one height.
    let other = forged(&chain[2], chain[1].batch.header.hash());
    let found = fork(&honest(2), &other);
    assert_eq!((&*found.lower, &*found.higher), (&honest(2), &other));
    assert_eq!(found.signed_both(), [0, 1, 3]);
    let text = found.to_string();
    for head in [honest(2), other] {
        assert!(text.contains(&head.header.hash().to_string()), "{text}");
    }
    // One above the other, whichever comes first.
    let above = forged(&chain[3], forged(&chain[2], chain[1].batch.header.hash()).header.hash());
    for found in [fork(&honest(2), &above), fork(&above, &honest(2))] {
        assert_eq!((&*found.lower, &*found.higher), (&honest(2), &above));
    }
}

#[test]
fn nothing_is_a_head_without_a_quorum() {
    let (genesis, chain) = chain();
    let verifier = Ed25519Verifier::new();
    let mut heads = Heads::new(&genesis, &verifier);
    let mut head = Head::of(&chain[3]);
    head.certificate = None;
    assert_eq!(heads.add(&head), Err(NoHead::Uncertified(4).into()));
    head.certificate = Some(chain[2].certificate.clone());
    assert_eq!(heads.add(&head), Err(NoHead::OtherHeader.into()));
    let mut weak = certify(&genesis, &head.header, 1, &[0, 1, 2]);
    weak.signatures = quorate_crypto::Bounded::try_from(weak.signatures[..2].to_vec()).unwrap();
    head.certificate = Some(weak);
    assert!(matches!(heads.add(&head), Err(HeadFault::NoHead(NoHead::Certificate(_)))));
    let mut header = genesis_header(&genesis).unwrap();
    header.time.0 += 1;
    assert_eq!(heads.add(&Head { header, certificate: None }), Err(NoHead::Uncertified(0).into()));
    assert_eq!(heads.lowest(), None);
}
