//! What several test files share: seeds, members, signers and votes.
#![allow(dead_code, reason = "each test file uses some of these")]

use quorate_crypto::{
    Address, Certificate, CertificateKind, Ed25519Signer, Hash, Member, MemberSet, NodeSeed, Role, Signature,
    Signer, Statement, StatementKind,
};

/// Cluster id of the tests.
pub const CLUSTER: Hash = Hash([0x11; 32]);
/// Hash of the header that certificates of the tests are about.
pub const HEADER: Hash = Hash([0x33; 32]);

/// Seed whose bytes are all `byte`.
pub fn seed(byte: u8) -> NodeSeed {
    NodeSeed::from_bytes([byte; 32])
}

/// Member of index `index`, from the seed of all bytes index + 1.
pub fn member(index: u8) -> Member {
    let address = Address::try_from(format!("replica-{index}.example:{}", 4400 + u16::from(index))).unwrap();
    Member::from_seed(&seed(index + 1), address)
}

/// Set of the first `n` members in epoch 7.
pub fn members(n: u8) -> MemberSet {
    MemberSet::new(7, (0..n).map(member).collect()).unwrap()
}

/// The voting key of a member.
pub fn signer(index: u8) -> Ed25519Signer {
    Ed25519Signer::new(seed(index + 1).derive(Role::Consensus))
}

/// The vote that a certificate of the tests holds: view 5, height 9.
pub fn vote(kind: StatementKind) -> Statement {
    Statement { cluster: CLUSTER, epoch: 7, kind, view: 5, height: 9, digest: HEADER }
}

/// Signed votes of these members.
pub fn votes(kind: CertificateKind, indices: &[u8]) -> Vec<(u8, Signature)> {
    let statement = vote(kind.statement_kind());
    indices.iter().map(|index| (*index, signer(*index).sign(&statement))).collect()
}

/// Certificate of these members, of a set of `n`.
pub fn certificate(kind: CertificateKind, n: u8, indices: &[u8]) -> Certificate {
    Certificate::assemble(kind, &members(n), 5, 9, HEADER, votes(kind, indices)).unwrap()
}
