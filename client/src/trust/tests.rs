//! The floor, the cache of verified headers, and the naming of liars.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use quorate_crypto::{Address, Ed25519Signer, Ed25519Verifier, Member, NodeSeed, Role, Signer};

use super::*;

struct Fixture {
    trust: Trust,
    members: MemberSet,
    signers: Vec<Ed25519Signer>,
    genesis: Header,
}

const CLUSTER: Hash = Hash([9; 32]);

fn header(height: Height, mark: u8) -> Header {
    Header {
        version: 1,
        cluster: if height == 0 { Hash::ZERO } else { CLUSTER },
        epoch: 0,
        height,
        time: BatchTime(height * 1000),
        previous: Hash([mark; 32]),
        proposal: Hash::ZERO,
        state_root: Hash::ZERO,
        receipts_root: Hash::ZERO,
        first_operation: 0,
        operation_count: 0,
        log_root: Hash::ZERO,
        members: Hash::ZERO,
        touched_root: Hash::ZERO,
        touched_count: 0,
    }
}

fn fixture() -> Fixture {
    let seeds: Vec<_> = (1..=4_u8).map(|byte| NodeSeed::from_bytes([byte; 32])).collect();
    let members = seeds
        .iter()
        .map(|seed| Member::from_seed(seed, Address::try_from("h:1".to_owned()).unwrap()))
        .collect();
    let signers = seeds.iter().map(|seed| Ed25519Signer::new(seed.derive(Role::Consensus))).collect();
    let members = MemberSet::new(0, members).unwrap();
    let genesis = header(0, 1);
    let trust = Trust::new(CLUSTER, members.clone(), &genesis, Box::new(Ed25519Verifier::new()));
    Fixture { trust, members, signers, genesis }
}

impl Fixture {
    fn certificate(&self, kind: CertificateKind, header: &Header) -> Certificate {
        let hash = header.hash();
        let mut certificate = Certificate {
            kind,
            epoch: 0,
            view: 0,
            height: header.height,
            header_hash: hash,
            signers: quorate_crypto::Bitmap::empty(4),
            signatures: quorate_crypto::Bounded::new(),
        };
        let statement = certificate.statement(&CLUSTER);
        let votes = (0..3_u8).map(|replica| (replica, self.signers[usize::from(replica)].sign(&statement)));
        certificate = Certificate::assemble(kind, &self.members, 0, header.height, hash, votes).unwrap();
        certificate
    }
}

#[test]
fn a_certified_header_raises_the_floor_which_never_falls() {
    let fixture = fixture();
    let (low, high) = (header(3, 1), header(9, 1));
    let (low_certificate, high_certificate) = (
        fixture.certificate(CertificateKind::Commit, &low),
        fixture.certificate(CertificateKind::Commit, &high),
    );
    fixture.trust.verify_header(&high, Some(&high_certificate)).unwrap();
    assert_eq!((fixture.trust.floor(), fixture.trust.time()), (9, BatchTime(9000)));
    fixture.trust.verify_header(&low, Some(&low_certificate)).unwrap();
    assert_eq!(fixture.trust.floor(), 9);
    // Known by its hash: the certificate is not needed again.
    fixture.trust.verify_header(&low, None).unwrap();
}

#[test]
fn what_is_not_certified_is_refused() {
    let fixture = fixture();
    let (one, other) = (header(1, 1), header(1, 2));
    let commit = fixture.certificate(CertificateKind::Commit, &one);
    let prepare = fixture.certificate(CertificateKind::Prepare, &one);
    let refused = |header: &Header, certificate: Option<&Certificate>| {
        fixture.trust.verify_header(header, certificate).expect_err("must be refused")
    };
    assert_eq!(refused(&one, None), TrustFault::NoCertificate);
    assert_eq!(refused(&other, Some(&commit)), TrustFault::OtherHeader);
    assert_eq!(refused(&one, Some(&prepare)), TrustFault::NotCommitted);
    let foreign = Header { cluster: Hash([8; 32]), ..header(1, 1) };
    assert_eq!(refused(&foreign, Some(&commit)), TrustFault::Cluster);
    assert_eq!(refused(&header(0, 2), None), TrustFault::Genesis);
    let mut votes: Vec<_> = commit.votes().map(|(replica, signature)| (replica, *signature)).collect();
    votes[1].1.0[0] ^= 1;
    let broken =
        Certificate::assemble(CertificateKind::Commit, &fixture.members, 0, 1, one.hash(), votes).unwrap();
    assert!(matches!(refused(&one, Some(&broken)), TrustFault::Certificate(_)));
    // A valid certificate of another view under this one's number.
    let moved = Certificate { view: 1, ..commit };
    assert!(matches!(refused(&one, Some(&moved)), TrustFault::Certificate(_)));
    assert_eq!(fixture.trust.floor(), 0);
    fixture.trust.verify_header(&fixture.genesis, None).unwrap();
}

#[test]
fn a_fork_is_refused_and_told() {
    let fixture = fixture();
    let (one, other) = (header(1, 1), header(1, 2));
    let first = fixture.certificate(CertificateKind::Commit, &one);
    let second = fixture.certificate(CertificateKind::Commit, &other);
    fixture.trust.verify_certificate(&first).unwrap();
    assert_eq!(fixture.trust.verify_header(&other, Some(&second)), Err(TrustFault::Fork(1)));
    assert!(fixture.trust.is_committed(1, &one.hash()));
}

#[test]
fn a_prepare_certificate_verifies_but_commits_nothing() {
    let fixture = fixture();
    let one = header(5, 1);
    let prepare = fixture.certificate(CertificateKind::Prepare, &one);
    fixture.trust.verify_certificate(&prepare).unwrap();
    fixture.trust.verify_certificate(&prepare).unwrap();
    assert_eq!(fixture.trust.floor(), 0);
    assert!(!fixture.trust.is_committed(5, &one.hash()));
}

#[test]
fn liars_are_counted_by_name_and_memory_is_bounded() {
    let fixture = fixture();
    fixture.trust.accuse(2, &"a lie");
    fixture.trust.accuse(2, &"another");
    fixture.trust.accuse(77, &"no such replica");
    let caught = fixture.trust.misbehaviour();
    assert_eq!(caught.iter().map(|one| one.lies).collect::<Vec<_>>(), [0, 0, 2, 0]);
    assert_eq!(caught[2].last.as_deref(), Some("another"));
    let mut known = Known::default();
    for height in 0..(VERIFIED_HEADERS_MAX as u64 + 10) {
        known.commit(height, Hash([1; 32])).unwrap();
    }
    assert_eq!(known.headers.len(), VERIFIED_HEADERS_MAX);
}
