//! COMMIT counting: CL7 (Q, not f + 1), AU8 (duplicates and bad signatures), AU10 (views never combine).
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use quorate_crypto::{Address, Ed25519Signer, Ed25519Verifier, Member, NodeSeed, Role, Signer};

use super::*;

struct Fixture {
    members: MemberSet,
    signers: Vec<Ed25519Signer>,
    verifier: Ed25519Verifier,
    tally: Tally,
}

const CLUSTER: Hash = Hash([9; 32]);

fn fixture() -> Fixture {
    let seeds: Vec<_> = (1..=4_u8).map(|byte| NodeSeed::from_bytes([byte; 32])).collect();
    let members = seeds
        .iter()
        .map(|seed| Member::from_seed(seed, Address::try_from("h:1".to_owned()).unwrap()))
        .collect();
    let signers = seeds.iter().map(|seed| Ed25519Signer::new(seed.derive(Role::Consensus))).collect();
    let members = MemberSet::new(0, members).unwrap();
    Fixture { members, signers, verifier: Ed25519Verifier::new(), tally: Tally::new(CLUSTER) }
}

impl Fixture {
    fn vote(&self, replica: u8, view: u64, height: u64, header: u8) -> Vote {
        let mut vote = Vote {
            kind: VoteKind::Commit,
            epoch: 0,
            view,
            height,
            header: Hash([header; 32]),
            replica,
            signature: Signature([0; 64]),
        };
        vote.signature = self.signers[usize::from(replica)].sign(&vote.statement(CLUSTER));
        vote
    }

    fn add(&mut self, vote: &Vote) -> Counted {
        self.tally.add(vote.replica, vote, &self.members, &self.verifier)
    }
}

#[test]
fn cl7_a_quorum_is_needed_and_makes_a_certificate_that_verifies() {
    let mut fixture = fixture();
    for replica in [3, 1] {
        let vote = fixture.vote(replica, 2, 7, 5);
        assert_eq!(fixture.add(&vote), Counted::default(), "f + 1 COMMITs prove nothing");
    }
    let vote = fixture.vote(0, 2, 7, 5);
    let certificate = fixture.add(&vote).certificate.expect("a quorum");
    certificate.verify(&CLUSTER, &fixture.members, &fixture.verifier).unwrap();
    assert_eq!((certificate.view, certificate.height, certificate.header_hash), (2, 7, Hash([5; 32])));
    assert!(fixture.tally.is_empty());
}

#[test]
fn au10_votes_of_different_views_heights_and_headers_never_combine() {
    let mut fixture = fixture();
    for (replica, view, height, header) in [(0, 1, 7, 5), (1, 2, 7, 5), (2, 1, 8, 5), (3, 1, 7, 6)] {
        let vote = fixture.vote(replica, view, height, header);
        assert_eq!(fixture.add(&vote), Counted::default());
    }
    assert_eq!(fixture.tally.len(), 4);
}

#[test]
fn au8_a_replica_counts_once() {
    let mut fixture = fixture();
    let vote = fixture.vote(0, 0, 1, 1);
    for _ in 0..5 {
        assert_eq!(fixture.add(&vote), Counted::default());
    }
    assert_eq!(fixture.tally.len(), 1);
}

#[test]
fn au8_a_bad_signature_is_dropped_named_and_does_not_block() {
    let mut fixture = fixture();
    let mut bad = fixture.vote(2, 0, 1, 1);
    bad.signature.0[10] ^= 1;
    assert_eq!(fixture.add(&bad), Counted::default(), "checked only when a quorum is there");
    let vote = fixture.vote(0, 0, 1, 1);
    fixture.add(&vote);
    let vote = fixture.vote(1, 0, 1, 1);
    let counted = fixture.add(&vote);
    assert_eq!((counted.certificate.is_none(), counted.faults), (true, vec![(2, VoteFault::Signature)]));
    let vote = fixture.vote(3, 0, 1, 1);
    assert!(fixture.add(&vote).certificate.is_some());
}

#[test]
fn votes_in_the_name_of_others_prepares_and_other_epochs_are_refused() {
    let mut fixture = fixture();
    let vote = fixture.vote(1, 0, 1, 1);
    let counted = fixture.tally.add(0, &vote, &fixture.members, &fixture.verifier);
    assert_eq!(counted.faults, [(0, VoteFault::OtherReplica)]);
    let prepare = Vote { kind: VoteKind::Prepare, ..vote.clone() };
    assert_eq!(fixture.add(&prepare).faults, [(1, VoteFault::NotCommit)]);
    let foreign = Vote { epoch: 1, ..vote };
    assert_eq!(fixture.add(&foreign).faults, [(1, VoteFault::Epoch)]);
    assert!(fixture.tally.is_empty());
}

#[test]
fn a_flood_of_one_replica_is_bounded_and_crowds_out_nobody() {
    let mut fixture = fixture();
    for replica in [0, 1] {
        let vote = fixture.vote(replica, 0, 5, 1);
        fixture.add(&vote);
    }
    for height in 0..(VOTES_PER_REPLICA_MAX as u64 * 3) {
        let vote = Vote { height, ..fixture.vote(3, 0, 0, 9) };
        fixture.add(&vote);
    }
    assert!(fixture.tally.len() <= VOTES_PER_REPLICA_MAX + 2);
    let vote = fixture.vote(2, 0, 5, 1);
    assert!(fixture.add(&vote).certificate.is_some(), "the others' votes were kept");
}
