//! Golden vectors of every signed and stored form of this room, as `docs/SPEC/crypto.md` describes them.
//!
//! `golden/crypto.py`, which shares no code with this package, computed the file. It never changes for a
//! given version of a format: a difference here is a break of certified history.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use std::collections::BTreeMap;

use common::{CLUSTER, certificate, members};
use quorate_crypto::{
    Certificate, CertificateKind, Ed25519Signer, Ed25519Verifier, Hash, MemberSet, NodeSeed, PublicKey, Role,
    Signer, Statement, StatementKind, decode, derive_hash, encode,
};

/// The vectors by name.
fn vectors() -> BTreeMap<&'static str, Vec<u8>> {
    let file = include_str!("golden/crypto.txt");
    let lines = file.lines().map(|line| line.split_once(" = ").unwrap());
    lines.map(|(name, digits)| (name, hex::decode(digits).unwrap())).collect()
}

fn seed() -> NodeSeed {
    NodeSeed::from_bytes(vectors()["seed"].as_slice().try_into().unwrap())
}

#[test]
fn derived_keys() {
    let vectors = vectors();
    for role in Role::ALL {
        let name = role.context().strip_prefix("quorate key v1 ").unwrap().replace(' ', "_");
        let key = seed().derive(role);
        assert_eq!(key.to_bytes()[..], vectors[format!("secret.{name}").as_str()], "{role:?}");
        assert_eq!(key.public().0[..], vectors[format!("public.{name}").as_str()], "{role:?}");
    }
}

#[test]
fn derived_hash() {
    assert_eq!(derive_hash("quorate test vector", &[b"abc", b""]).0[..], vectors()["derive_hash"]);
}

#[test]
fn statement() {
    let vectors = vectors();
    let statement = Statement {
        cluster: CLUSTER,
        epoch: 0x0102_0304_0506_0708,
        kind: StatementKind::Commit,
        view: 0x1112_1314_1516_1718,
        height: 0x2122_2324_2526_2728,
        digest: Hash([0x22; 32]),
    };
    assert_eq!(statement.preimage()[..], vectors["statement.preimage"]);
    let signer = Ed25519Signer::new(seed().derive(Role::Consensus));
    assert_eq!(signer.sign(&statement).0[..], vectors["statement.signature"]);
}

#[test]
fn member_set() {
    let vectors = vectors();
    assert_eq!(encode(&members(4)), vectors["members.encoding"]);
    assert_eq!(members(4).digest().0[..], vectors["members.digest"]);
    assert_eq!(decode::<MemberSet>(&vectors["members.encoding"]), Ok(members(4)));
}

#[test]
fn certificates() {
    let vectors = vectors();
    let expected = [
        ("certificate.prepare", certificate(CertificateKind::Prepare, 4, &[0, 1, 2, 3])),
        ("certificate.commit", certificate(CertificateKind::Commit, 4, &[0, 2, 3])),
    ];
    for (name, certificate) in expected {
        assert_eq!(encode(&certificate), vectors[name], "{name}");
        let stored: Certificate = decode(&vectors[name]).unwrap();
        assert_eq!(stored.verify(&CLUSTER, &members(4), &Ed25519Verifier::new()), Ok(()), "{name}");
    }
}

#[test]
fn rfc_8032_test_1() {
    // The first vector of RFC 8032, section 7.1: the key pair and the signature of the empty message.
    let secret: [u8; 32] = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
        .unwrap()
        .try_into()
        .unwrap();
    let secret = quorate_crypto::SecretKey::from_bytes(&secret);
    let public =
        PublicKey::from_hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
    assert_eq!(secret.public(), public);
    assert_eq!(public.validate(), Ok(()));
    assert_eq!(
        secret.sign_bytes(b"").to_string(),
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    );
    assert_eq!(public.parse().unwrap().verify_bytes(b"", &secret.sign_bytes(b"")), Ok(()));
}
