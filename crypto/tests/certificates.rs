//! Certificates against duplicate, missing, spare and foreign votes (hazards AU8, AU10, CR4, CR6).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use common::{CLUSTER, HEADER, certificate, member, members, signer, vote, votes};
use proptest::prelude::*;
use quorate_crypto::{
    Bitmap, Bounded, Certificate, CertificateBuilder, CertificateError, CertificateKind, Ed25519Verifier,
    Hash, MemberSet, Signature, SignatureError, Signer, StatementKind, decode, encode, quorum,
};

fn verify(certificate: &Certificate, n: u8) -> Result<(), CertificateError> {
    certificate.verify(&CLUSTER, &members(n), &Ed25519Verifier::new())
}

fn with_bitmap(bytes: &[u8]) -> Certificate {
    let mut certificate = certificate(CertificateKind::Commit, 4, &[0, 1, 2]);
    certificate.signers = Bitmap::from_bytes(bytes).unwrap();
    certificate
}

#[test]
fn any_count_from_quorum_to_all_holds() {
    for n in [4u8, 5, 6, 7, 9, 32] {
        let all: Vec<u8> = (0..n).collect();
        for count in quorum(usize::from(n))..=usize::from(n) {
            for kind in [CertificateKind::Prepare, CertificateKind::Commit] {
                let certificate = certificate(kind, n, &all[all.len() - count..]);
                assert_eq!(verify(&certificate, n), Ok(()), "{count} of {n}");
                assert_eq!(decode(&encode(&certificate)), Ok(certificate));
            }
        }
    }
}

#[test]
fn the_order_of_votes_does_not_matter() {
    let kind = CertificateKind::Prepare;
    assert_eq!(certificate(kind, 4, &[3, 0, 2]), certificate(kind, 4, &[0, 2, 3]));
}

#[test]
fn au8_two_votes_of_one_member_do_not_count_twice() {
    let members = members(4);
    let kind = CertificateKind::Commit;
    let assembled = Certificate::assemble(kind, &members, 5, 9, HEADER, votes(kind, &[0, 1, 1]));
    assert_eq!(assembled, Err(CertificateError::DuplicateVote(1)));

    // The first vote stays, and a bad second one does not displace it (AU9).
    let mut builder = CertificateBuilder::new(kind, 7, 5, 9, HEADER);
    for (index, signature) in votes(kind, &[0, 1, 2]) {
        assert_eq!(builder.add(&members, index, signature), Ok(()));
        assert_eq!(
            builder.add(&members, index, Signature::ZERO),
            Err(CertificateError::DuplicateVote(index))
        );
    }
    assert_eq!(builder.count(), 3);
    assert!(builder.contains(2) && !builder.contains(3));
    assert_eq!(verify(&builder.build(&members).unwrap(), 4), Ok(()));
}

#[test]
fn au8_one_signature_in_three_places_is_refused() {
    let mut forged = certificate(CertificateKind::Commit, 4, &[0, 1, 2]);
    let first = forged.signatures[0];
    forged.signatures = Bounded::try_from(vec![first; 3]).unwrap();
    let error = SignatureError::Invalid;
    assert_eq!(verify(&forged, 4), Err(CertificateError::Signature { index: 1, error }));
}

#[test]
fn au8_a_bad_signature_beyond_the_quorum_spoils_it() {
    for position in 0..4 {
        let mut spoiled = certificate(CertificateKind::Commit, 4, &[0, 1, 2, 3]);
        spoiled.signatures.as_mut_slice()[position] = Signature::ZERO;
        assert!(
            matches!(verify(&spoiled, 4), Err(CertificateError::Signature { index, .. }) if usize::from(index) == position)
        );
    }
}

#[test]
fn au8_fewer_than_a_quorum_are_refused() {
    let members = members(4);
    let kind = CertificateKind::Commit;
    let assembled = Certificate::assemble(kind, &members, 5, 9, HEADER, votes(kind, &[0, 3]));
    assert_eq!(assembled, Err(CertificateError::NoQuorum { signers: 2, quorum: 3 }));

    let mut short = with_bitmap(&[0b011]);
    short.signatures = short.signatures.iter().copied().take(2).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(verify(&short, 4), Err(CertificateError::NoQuorum { signers: 2, quorum: 3 }));

    let mut none = with_bitmap(&[0]);
    none.signatures = Bounded::new();
    assert_eq!(verify(&none, 4), Err(CertificateError::NoQuorum { signers: 0, quorum: 3 }));
}

#[test]
fn au8_signatures_and_bits_must_be_as_many() {
    assert_eq!(
        verify(&with_bitmap(&[0b1111]), 4),
        Err(CertificateError::Count { signers: 4, signatures: 3 })
    );
    assert_eq!(
        verify(&with_bitmap(&[0b0011]), 4),
        Err(CertificateError::Count { signers: 2, signatures: 3 })
    );
}

#[test]
fn cr6_bits_beyond_the_last_member_are_refused() {
    for bit in 4..8 {
        assert_eq!(verify(&with_bitmap(&[0b111 | 1 << bit]), 4), Err(CertificateError::Bitmap));
        // In place of a member's bit, so that the count is right.
        assert_eq!(verify(&with_bitmap(&[0b011 | 1 << bit]), 4), Err(CertificateError::Bitmap));
    }
    let assembled = Certificate::assemble(
        CertificateKind::Commit,
        &members(4),
        5,
        9,
        HEADER,
        [0, 1, 4].map(|index| (index, Signature::ZERO)),
    );
    assert_eq!(assembled, Err(CertificateError::UnknownMember(4)));
}

#[test]
fn cr4_bitmaps_of_another_length_are_refused() {
    assert_eq!(verify(&with_bitmap(&[0b111]), 4), Ok(()));
    for bytes in [&[][..], &[0b111, 0], &[0b111, 0, 0, 0]] {
        assert_eq!(verify(&with_bitmap(bytes), 4), Err(CertificateError::Bitmap));
    }
    // Nine members need two bytes, though no bit of the second need be set.
    let nine = certificate(CertificateKind::Commit, 9, &[0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(nine.signers.as_bytes(), [0b0111_1111, 0]);
    let mut short = nine.clone();
    short.signers = Bitmap::from_bytes(&[0b0111_1111]).unwrap();
    assert_eq!(verify(&short, 9), Err(CertificateError::Bitmap));
}

#[test]
fn cr4_a_bitmap_or_list_beyond_its_bound_does_not_decode() {
    let good = encode(&certificate(CertificateKind::Commit, 4, &[0, 1, 2]));
    // The bitmap's length is at byte 57, behind kind, epoch, view, height and hash.
    assert_eq!(good[57..62], [1, 0, 0, 0, 0b111]);
    let mut long = good.clone();
    long[57] = 5;
    long.splice(62..62, [0; 4]);
    assert!(decode::<Certificate>(&long).is_err());
    assert_eq!(good[62..66], [3, 0, 0, 0]);
    let mut many = good[..62].to_vec();
    many.extend([33, 0, 0, 0]);
    many.extend([0; 33 * 64]);
    assert!(decode::<Certificate>(&many).is_err());
    for kind in (0..=u8::MAX).filter(|kind| ![2, 3].contains(kind)) {
        let mut other = good.clone();
        other[0] = kind;
        assert!(decode::<Certificate>(&other).is_err());
    }
}

#[test]
fn signatures_in_another_order_are_refused() {
    let mut swapped = certificate(CertificateKind::Commit, 4, &[0, 1, 2]);
    swapped.signatures.as_mut_slice().swap(0, 2);
    assert!(matches!(verify(&swapped, 4), Err(CertificateError::Signature { index: 0, .. })));
}

#[test]
fn au4_prepares_do_not_pass_for_commits() {
    for (made, claimed) in [
        (CertificateKind::Prepare, CertificateKind::Commit),
        (CertificateKind::Commit, CertificateKind::Prepare),
    ] {
        let mut certificate = certificate(made, 4, &[0, 1, 2]);
        certificate.kind = claimed;
        assert!(matches!(verify(&certificate, 4), Err(CertificateError::Signature { .. })));
    }
}

#[test]
fn au10_votes_of_different_views_do_not_combine() {
    let kind = CertificateKind::Commit;
    let mut mixed = votes(kind, &[0, 1]);
    let later = quorate_crypto::Statement { view: 6, ..vote(StatementKind::Commit) };
    mixed.push((2, signer(2).sign(&later)));
    for view in [5, 6] {
        let certificate =
            Certificate::assemble(kind, &members(4), view, 9, HEADER, mixed.iter().copied()).unwrap();
        assert!(matches!(verify(&certificate, 4), Err(CertificateError::Signature { .. })));
    }
}

#[test]
fn every_field_is_covered() {
    let honest = certificate(CertificateKind::Commit, 4, &[0, 1, 2]);
    let others = [
        Certificate { view: 6, ..honest.clone() },
        Certificate { height: 10, ..honest.clone() },
        Certificate { header_hash: Hash([0x34; 32]), ..honest.clone() },
    ];
    for other in others {
        assert!(matches!(verify(&other, 4), Err(CertificateError::Signature { index: 0, .. })));
    }
    let elsewhere = honest.verify(&Hash([0x12; 32]), &members(4), &Ed25519Verifier::new());
    assert!(matches!(elsewhere, Err(CertificateError::Signature { index: 0, .. })));
}

#[test]
fn the_members_are_those_of_the_epoch() {
    let honest = certificate(CertificateKind::Commit, 4, &[0, 1, 2]);
    let next = MemberSet::new(8, (0..4).map(member).collect()).unwrap();
    let mismatch = Err(CertificateError::Epoch { certificate: 7, members: 8 });
    assert_eq!(honest.verify(&CLUSTER, &next, &Ed25519Verifier::new()), mismatch);
    let renamed = Certificate { epoch: 8, ..honest.clone() };
    assert!(renamed.verify(&CLUSTER, &next, &Ed25519Verifier::new()).is_err());
    // Same epoch, but other members under these indices.
    let others = MemberSet::new(7, (1..5).map(member).collect()).unwrap();
    assert!(honest.verify(&CLUSTER, &others, &Ed25519Verifier::new()).is_err());

    let builder = CertificateBuilder::new(CertificateKind::Commit, 6, 5, 9, HEADER);
    assert_eq!(builder.build(&members(4)), Err(CertificateError::Epoch { certificate: 6, members: 7 }));
}

#[test]
fn bitmap_operations() {
    let mut bitmap = Bitmap::empty(12);
    assert!(bitmap.fits(12) && bitmap.fits(9) && !bitmap.fits(8) && !bitmap.fits(17));
    assert!(bitmap.insert(0) && bitmap.insert(11) && bitmap.insert(7));
    assert!(!bitmap.insert(7), "already set");
    assert!(!bitmap.insert(16) && !bitmap.insert(255), "outside");
    assert_eq!(bitmap.iter().collect::<Vec<_>>(), [0, 7, 11]);
    assert_eq!(bitmap.as_bytes(), [0b1000_0001, 0b0000_1000]);
    assert_eq!(bitmap.count(), 3);
    assert!(bitmap.fits(12) && !bitmap.fits(11));
    assert!(bitmap.contains(11) && !bitmap.contains(12) && !bitmap.contains(200));
    assert!(Bitmap::from_bytes(&[0; 5]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bitmap_agrees_with_a_set(indices in prop::collection::btree_set(0u8..32, 0..=32), n in 1usize..=32) {
        let mut bitmap = Bitmap::empty(32);
        for index in &indices {
            prop_assert!(bitmap.insert(*index));
        }
        prop_assert_eq!(bitmap.count(), indices.len());
        prop_assert_eq!(bitmap.iter().collect::<Vec<_>>(), indices.iter().copied().collect::<Vec<_>>());
        let inside = indices.iter().all(|index| usize::from(*index) < n);
        prop_assert_eq!(bitmap.fits(n), inside && n.div_ceil(8) == 4);
        prop_assert_eq!(decode::<Bitmap>(&encode(&bitmap)), Ok(bitmap));
    }

    #[test]
    fn no_flipped_byte_of_a_certificate_passes(position in 0usize..1000, change in 1u8..) {
        let mut bytes = encode(&certificate(CertificateKind::Commit, 4, &[0, 2, 3]));
        let position = position % bytes.len();
        bytes[position] ^= change;
        let accepted = decode::<Certificate>(&bytes).is_ok_and(|certificate| verify(&certificate, 4).is_ok());
        prop_assert!(!accepted, "byte {}", position);
    }
}
