//! The signature rule against crafted keys and signatures (hazards CR1, CR2, CR3, AU4), and both schemes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use common::{CLUSTER, seed};
use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::scalar::Scalar;
use proptest::prelude::*;
use quorate_crypto::{
    Ed25519Signer, Ed25519Verifier, Hash, KeyError, KeyedHashSigner, KeyedHashVerifier, PublicKey, Role,
    SecretKey, Signature, SignatureError, Signer, Statement, StatementKind, Verifier, decode, encode,
};
use sha2::{Digest, Sha512};

const KINDS: [StatementKind; 10] = [
    StatementKind::PrePrepare,
    StatementKind::Prepare,
    StatementKind::Commit,
    StatementKind::ViewChange,
    StatementKind::NewView,
    StatementKind::Resign,
    StatementKind::Suspect,
    StatementKind::Envelope,
    StatementKind::BlockReceipt,
    StatementKind::ConnectionProof,
];

fn statement() -> Statement {
    Statement {
        cluster: CLUSTER,
        epoch: 3,
        kind: StatementKind::Commit,
        view: 5,
        height: 9,
        digest: Hash([0x22; 32]),
    }
}

fn scalar(byte: u8) -> Scalar {
    Scalar::from_bytes_mod_order([byte; 32])
}

fn key_of(point: EdwardsPoint) -> PublicKey {
    PublicKey(point.compress().to_bytes())
}

/// k = H(R, A, M), as every Ed25519 verifier computes it.
fn challenge(r: &[u8; 32], a: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(a).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

/// A signature whose R carries a component of small order: `torsion` is added to the honest one.
fn sign_with_torsion(
    secret: Scalar,
    key: EdwardsPoint,
    nonce: Scalar,
    torsion: EdwardsPoint,
    message: &[u8],
) -> Signature {
    let r = (ED25519_BASEPOINT_POINT * nonce + torsion).compress().to_bytes();
    let s = nonce + challenge(&r, &key.compress().to_bytes(), message) * secret;
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&r);
    bytes[32..].copy_from_slice(&s.to_bytes());
    Signature(bytes)
}

/// The equation that cofactored and batch verifiers check: 8 s B = 8 R + 8 k A.
fn holds_with_cofactor(key: EdwardsPoint, message: &[u8], signature: &Signature) -> bool {
    let r: [u8; 32] = signature.0[..32].try_into().unwrap();
    let s: [u8; 32] = signature.0[32..].try_into().unwrap();
    let point = curve25519_dalek::edwards::CompressedEdwardsY(r).decompress().unwrap();
    let s = Scalar::from_canonical_bytes(s).unwrap();
    let k = challenge(&r, &key.compress().to_bytes(), message);
    (ED25519_BASEPOINT_POINT * s - point - key * k).is_small_order()
}

/// Verdicts of every way to verify a statement in this room; they must agree.
fn verdicts(
    key: &PublicKey,
    statement: &Statement,
    signature: &Signature,
) -> Vec<Result<(), SignatureError>> {
    let single = match key.parse() {
        Ok(parsed) => parsed.verify_bytes(&statement.preimage(), signature),
        Err(error) => Err(SignatureError::Key(error)),
    };
    vec![
        single,
        Ed25519Verifier::new().verify(key, statement, signature),
        Ed25519Verifier::with_keys([*key]).verify(key, statement, signature),
    ]
}

#[test]
fn cr1_torsion_in_r_is_refused_by_every_path() {
    let secret = scalar(5);
    let key = ED25519_BASEPOINT_POINT * secret;
    let statement = statement();
    let message = statement.preimage();
    for (order, torsion) in EIGHT_TORSION.into_iter().enumerate() {
        let signature = sign_with_torsion(secret, key, scalar(9), torsion, &message);
        // A batch verifier would take all eight of them.
        assert!(holds_with_cofactor(key, &message, &signature), "torsion point {order}");
        let expected = if order == 0 { Ok(()) } else { Err(SignatureError::Invalid) };
        for verdict in verdicts(&key_of(key), &statement, &signature) {
            assert_eq!(verdict, expected, "torsion point {order}");
        }
    }
}

#[test]
fn cr1_keys_of_mixed_order_are_refused_when_registered() {
    let secret = scalar(5);
    let clean = ED25519_BASEPOINT_POINT * secret;
    assert_eq!(key_of(clean).validate(), Ok(()));
    for torsion in EIGHT_TORSION.into_iter().skip(1) {
        assert_eq!(key_of(clean + torsion).validate(), Err(KeyError::MixedOrder));
    }
}

#[test]
fn cr1_under_a_mixed_order_key_all_paths_agree() {
    // Such a key is never registered, but an envelope may name it: the verdict depends on k mod 8, which
    // the signer can grind, and must be the same for everybody.
    let secret = scalar(5);
    let key = ED25519_BASEPOINT_POINT * secret + EIGHT_TORSION[1];
    let statement = statement();
    let message = statement.preimage();
    let mut seen = [0, 0];
    for nonce in 1..=64 {
        let signature = sign_with_torsion(secret, key, scalar(nonce), EdwardsPoint::default(), &message);
        assert!(holds_with_cofactor(key, &message, &signature));
        let verdicts = verdicts(&key_of(key), &statement, &signature);
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]));
        seen[usize::from(verdicts[0].is_ok())] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "both verdicts occur: {seen:?}");
}

#[test]
fn cr1_small_order_r_is_refused() {
    // R the identity and s = k a: holds in the plain equation.
    let secret = scalar(5);
    let key = ED25519_BASEPOINT_POINT * secret;
    let statement = statement();
    let signature =
        sign_with_torsion(secret, key, Scalar::ZERO, EdwardsPoint::default(), &statement.preimage());
    for verdict in verdicts(&key_of(key), &statement, &signature) {
        assert_eq!(verdict, Err(SignatureError::Invalid));
    }
}

/// Hazard CR1, ADR 9: where the plain equation holds with an R of small order, and for R and s changed in any
/// bit, the verdict is that of `verify_strict`.
#[test]
fn cr1_the_verdict_is_that_of_verify_strict() {
    let secret = scalar(5);
    let (mut plain, mut refused) = (0, 0);
    for torsion in EIGHT_TORSION {
        let point = ED25519_BASEPOINT_POINT * secret + torsion;
        let Ok(parsed) = key_of(point).parse() else { continue };
        let dalek = ed25519_dalek::VerifyingKey::from_bytes(point.compress().as_bytes()).unwrap();
        let mut compare = |message: &[u8], signature: &Signature| {
            let bytes = ed25519_dalek::Signature::from_bytes(&signature.0);
            let strict = dalek.verify_strict(message, &bytes).is_ok();
            assert_eq!(parsed.verify_bytes(message, signature).is_ok(), strict);
            let lax = ed25519_dalek::Verifier::verify(&dalek, message, &bytes).is_ok();
            plain += usize::from(lax);
            refused += usize::from(lax && !strict);
        };
        for r in EIGHT_TORSION {
            for message in 0..32_u8 {
                // R of small order, s = k a: holds when k times the key's torsion happens to be -R.
                compare(&[message], &sign_with_torsion(secret, point, Scalar::ZERO, r, &[message]));
            }
        }
        let honest = sign_with_torsion(secret, point, scalar(9), EdwardsPoint::default(), b"m");
        for bit in 0..512 {
            let mut changed = honest;
            changed.0[bit / 8] ^= 1 << (bit % 8);
            compare(b"m", &changed);
        }
        compare(b"m", &honest);
        // The identity and the point of order 2 in forms that are not canonical: y = 1 with a sign, y = p + 1.
        for (first, last) in [(1, 0x80), (0xee, 0x7f), (0xee, 0xff), (0xec, 0xff)] {
            let mut r = if first == 1 { [0; 32] } else { [0xff; 32] };
            (r[0], r[31]) = (first, last);
            let s = challenge(&r, &point.compress().to_bytes(), b"m") * secret;
            let mut odd = Signature([0; 64]);
            odd.0[..32].copy_from_slice(&r);
            odd.0[32..].copy_from_slice(&s.to_bytes());
            compare(b"m", &odd);
        }
    }
    assert!(
        refused > 100 && plain > refused,
        "{plain} hold in the plain equation, {refused} of them refused"
    );
}

#[test]
fn cr2_small_order_keys_are_refused() {
    for torsion in EIGHT_TORSION {
        let key = key_of(torsion);
        assert_eq!(key.validate(), Err(KeyError::SmallOrder));
        assert_eq!(key.parse(), Err(KeyError::SmallOrder));
        let verdict = Ed25519Verifier::with_keys([key]).verify(&key, &statement(), &Signature::ZERO);
        assert_eq!(verdict, Err(SignatureError::Key(KeyError::SmallOrder)));
    }
}

#[test]
fn cr2_keys_in_other_than_canonical_form_are_refused() {
    // y = p + d for every d below 19 still fits 255 bits; some of them are on the curve.
    let mut seen = 0;
    for excess in 0..19u8 {
        for sign in [0x00, 0x80] {
            let mut bytes = [0xFF; 32];
            bytes[0] = 0xED + excess;
            bytes[31] = 0x7F | sign;
            match PublicKey(bytes).validate() {
                Err(KeyError::NotCanonical) => seen += 1,
                other => assert_eq!(other, Err(KeyError::NotOnCurve)),
            }
        }
    }
    assert!(seen > 4, "some are on the curve: {seen}");
    // x = 0 with the sign of a negative number: y = 1 and y = -1.
    let mut one = [0; 32];
    one[0] = 1;
    one[31] = 0x80;
    assert_eq!(PublicKey(one).validate(), Err(KeyError::NotCanonical));
    let mut minus_one = [0xFF; 32];
    minus_one[0] = 0xEC;
    assert_eq!(PublicKey(minus_one).validate(), Err(KeyError::NotCanonical));
}

#[test]
fn cr2_about_half_of_all_strings_are_no_key() {
    let refused = (0..=u8::MAX).filter(|byte| PublicKey([*byte; 32]).parse() == Err(KeyError::NotOnCurve));
    assert!((64..192).contains(&refused.count()));
}

#[test]
fn cr3_s_must_be_below_the_group_order() {
    // L, little-endian (RFC 8032, section 5.1).
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let signer = Ed25519Signer::new(seed(1).derive(Role::Consensus));
    let statement = statement();
    let mut signature = signer.sign(&statement);
    assert!(verdicts(&signer.public(), &statement, &signature).iter().all(Result::is_ok));
    // s + L, s + 2 L, .. : the same scalar, other bytes, as long as it fits.
    for multiple in 1..=15 {
        let mut carry = 0;
        for (byte, add) in signature.0[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        if carry > 0 {
            break;
        }
        for verdict in verdicts(&signer.public(), &statement, &signature) {
            assert_eq!(verdict, Err(SignatureError::Invalid), "s + {multiple} L");
        }
    }
}

#[test]
fn au4_the_type_is_signed() {
    let signer = Ed25519Signer::new(seed(1).derive(Role::Consensus));
    let verifier = Ed25519Verifier::with_keys([signer.public()]);
    for signed in KINDS {
        let signature = signer.sign(&Statement { kind: signed, ..statement() });
        for claimed in KINDS {
            let verdict =
                verifier.verify(&signer.public(), &Statement { kind: claimed, ..statement() }, &signature);
            assert_eq!(verdict.is_ok(), signed == claimed, "{signed:?} as {claimed:?}");
        }
    }
}

#[test]
fn au4_every_field_is_signed() {
    let honest = statement();
    let others = [
        Statement { cluster: Hash([0x12; 32]), ..honest },
        Statement { epoch: 4, ..honest },
        Statement { view: 6, ..honest },
        Statement { height: 10, ..honest },
        Statement { digest: Hash([0x23; 32]), ..honest },
        // Values moved between fields of equal width.
        Statement { epoch: honest.view, view: honest.epoch, ..honest },
        Statement { view: honest.height, height: honest.view, ..honest },
        Statement { cluster: honest.digest, digest: honest.cluster, ..honest },
    ];
    let secret = seed(1).derive(Role::Consensus);
    let real = Ed25519Signer::new(secret.clone());
    let fast = KeyedHashSigner::new(&secret);
    let schemes: [(&dyn Signer, &dyn Verifier); 2] =
        [(&real, &Ed25519Verifier::new()), (&fast, &KeyedHashVerifier::from_signers([&fast]))];
    for (signer, verifier) in schemes {
        let signature = signer.sign(&honest);
        assert_eq!(verifier.verify(&signer.public(), &honest, &signature), Ok(()));
        for other in others {
            let verdict = verifier.verify(&signer.public(), &other, &signature);
            assert_eq!(verdict, Err(SignatureError::Invalid), "{other:?}");
        }
    }
}

#[test]
fn preimage_fills_every_byte() {
    let ones = Hash([0xFF; 32]);
    let full = Statement {
        cluster: ones,
        epoch: u64::MAX,
        kind: StatementKind::ConnectionProof,
        view: u64::MAX,
        height: u64::MAX,
        digest: ones,
    };
    let preimage = full.preimage();
    assert_eq!(&preimage[..21], b"quorate statement v1\0");
    assert!(preimage[21..32].iter().all(|byte| *byte == 0));
    assert_eq!(preimage[72], 11);
    assert!(preimage[32..72].iter().chain(&preimage[73..]).all(|byte| *byte == 0xFF));
}

#[test]
fn au4_unknown_types_do_not_decode() {
    // 10 is a number that a type was given once which nothing ever signed.
    for (number, kind) in (1..=11).filter(|number| *number != 10).zip(KINDS) {
        assert_eq!(kind.number(), number);
        assert_eq!(encode(&kind), [number]);
        assert_eq!(decode(&[number]), Ok(kind));
    }
    for number in (12..=u8::MAX).chain([0, 10]) {
        assert!(decode::<StatementKind>(&[number]).is_err());
    }
}

#[test]
fn roles_have_keys_of_their_own() {
    let keys: std::collections::BTreeSet<_> =
        [1, 2].into_iter().flat_map(|byte| Role::ALL.map(|role| seed(byte).derive(role).public())).collect();
    assert_eq!(keys.len(), 2 * Role::ALL.len());
    assert!(keys.iter().all(|key| key.validate().is_ok()));
    // The seed itself is nobody's key.
    assert!(!keys.contains(&SecretKey::from_bytes(&[1; 32]).public()));
}

#[test]
fn secrets_are_not_shown() {
    let seed = seed(0xC5);
    let secret = seed.derive(Role::Consensus);
    let hidden = [hex::encode(*seed.to_bytes()), hex::encode(*secret.to_bytes())];
    let signer = KeyedHashSigner::new(&secret);
    let verifier = KeyedHashVerifier::new([&secret]);
    let shown =
        format!("{seed:?} {secret:?} {:?} {signer:?} {verifier:?}", Ed25519Signer::new(secret.clone()));
    for text in hidden {
        assert!(!shown.contains(&text));
        assert!(!shown.contains(&text[..8]));
    }
    assert!(!shown.contains("197, 197"), "bytes in decimal");
}

#[test]
fn both_schemes_share_their_keys_but_not_their_signatures() {
    let secret = seed(1).derive(Role::Consensus);
    let real = Ed25519Signer::new(secret.clone());
    let fast = KeyedHashSigner::new(&secret);
    assert_eq!(real.public(), fast.public());
    let statement = statement();
    assert!(Ed25519Verifier::new().verify(&fast.public(), &statement, &fast.sign(&statement)).is_err());
    let verifier = KeyedHashVerifier::new([&secret]);
    assert_eq!(verifier.verify(&fast.public(), &statement, &fast.sign(&statement)), Ok(()));
    assert!(verifier.verify(&real.public(), &statement, &real.sign(&statement)).is_err());
    let stranger = KeyedHashSigner::new(&seed(2).derive(Role::Consensus));
    let verdict = verifier.verify(&stranger.public(), &statement, &stranger.sign(&statement));
    assert_eq!(verdict, Err(SignatureError::UnknownKey));
}

#[test]
fn hexadecimal_forms_round_trip() {
    let secret = seed(1).derive(Role::Principal);
    let (key, signature) = (secret.public(), secret.sign_bytes(b"text"));
    assert_eq!(PublicKey::from_hex(&key.to_string()), Ok(key));
    assert_eq!(Signature::from_hex(&signature.to_string()), Ok(signature));
    assert!(PublicKey::from_hex("00").is_err() && Signature::from_hex("00").is_err());
    assert_eq!(*SecretKey::from_bytes(&secret.to_bytes()).to_bytes(), *secret.to_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_breaks_the_signature(bit in 0usize..512) {
        let signer = Ed25519Signer::new(seed(1).derive(Role::Consensus));
        let mut signature = signer.sign(&statement());
        signature.0[bit / 8] ^= 1 << (bit % 8);
        for verdict in verdicts(&signer.public(), &statement(), &signature) {
            prop_assert!(verdict.is_err());
        }
    }

    /// AU7: whatever the bytes are, the library answers, and no error of it escapes.
    #[test]
    fn any_bytes_get_a_verdict(key: [u8; 32], low: [u8; 32], high: [u8; 32]) {
        let mut signature = Signature::ZERO;
        signature.0[..32].copy_from_slice(&low);
        signature.0[32..].copy_from_slice(&high);
        for verdict in verdicts(&PublicKey(key), &statement(), &signature) {
            prop_assert!(verdict.is_err());
        }
    }
}
