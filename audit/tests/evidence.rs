//! Evidence of every kind convinces, no byte of it can be changed, and what honest replicas sign never does.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

use quorate_audit::tlog::HeadSigner;
use quorate_audit::{Court, NoProof, rule_of, statements};
use quorate_crypto::{
    Address, Bounded, Certificate, Ed25519Signer, Ed25519Verifier, Hash, Member, MemberSet, NodeSeed, Role,
    Signature, Signer, decode, encode,
};
use quorate_protocol::envelope::session_id;
use quorate_protocol::evidence::{Contradiction, ParentWitness, Proof, SignedDigest};
use quorate_protocol::log_head::LogHead;
use quorate_protocol::view_change::{Rank, SignedClaim, ViewChangeBody};
use quorate_protocol::{
    BatchTime, Envelope, EnvelopeBody, Evidence, EvidenceKind, Header, Operation, OperationBody, PrePrepare,
    Proposal, Vote, VoteKind,
};

const CLUSTER: Hash = Hash([1; 32]);

fn signer(replica: u8) -> Ed25519Signer {
    Ed25519Signer::new(NodeSeed::from_bytes([replica + 1; 32]).derive(Role::Consensus))
}

fn header(height: u64, proposal: Hash, state: u8) -> Header {
    Header {
        version: 1,
        cluster: if height == 0 { Hash::ZERO } else { CLUSTER },
        epoch: 0,
        height,
        time: BatchTime(1000 * height + 1000),
        previous: Hash::ZERO,
        proposal,
        state_root: Hash([state; 32]),
        receipts_root: Hash::ZERO,
        first_operation: 0,
        operation_count: 3,
        log_root: Hash::ZERO,
        members: Hash::ZERO,
        touched_root: Hash::ZERO,
        touched_count: 0,
    }
}

struct World {
    members: MemberSet,
    genesis: Header,
    verifier: Ed25519Verifier,
}

impl World {
    fn new() -> Self {
        let address = || Address::try_from("test:1").unwrap();
        let seeds = (1..=4).map(|index| NodeSeed::from_bytes([index; 32]));
        let members: Vec<Member> = seeds.map(|seed| Member::from_seed(&seed, address())).collect();
        let members = MemberSet::new(0, members).unwrap();
        let verifier = Ed25519Verifier::with_keys(members.members().iter().map(|member| member.consensus));
        Self { members, genesis: header(0, CLUSTER, 0), verifier }
    }

    fn judge(&self, evidence: &Evidence) -> Result<u8, NoProof> {
        let court = Court {
            cluster: CLUSTER,
            members: &self.members,
            genesis: &self.genesis,
            verifier: &self.verifier,
        };
        court.judge(evidence).map(|guilt| {
            assert_eq!((guilt.kind, guilt.rule), (evidence.kind(), rule_of(evidence.kind())));
            guilt.culprit
        })
    }

    fn certificate(&self, kind: VoteKind, view: u64, header: &Header) -> Certificate {
        let votes = [0, 1, 3]
            .map(|replica| (replica, vote(replica, kind, view, header.height, header.hash()).signature));
        let kind = kind.certificate_kind();
        Certificate::assemble(kind, &self.members, view, header.height, header.hash(), votes).unwrap()
    }
}

fn vote(replica: u8, kind: VoteKind, view: u64, height: u64, header: Hash) -> Vote {
    let mut vote = Vote { kind, epoch: 0, view, height, header, replica, signature: Signature::ZERO };
    vote.signature = signer(replica).sign(&vote.statement(CLUSTER));
    vote
}

fn claim(replica: u8, view: u64, rank: Rank) -> SignedClaim {
    let body = ViewChangeBody { epoch: 0, view, rank, header: Hash([5; 32]), committed: 0, replica };
    let signature = signer(replica).sign(&body.statement(CLUSTER));
    SignedClaim { body, signature }
}

fn envelope(good: bool) -> Envelope {
    let client = Ed25519Signer::new(NodeSeed::from_bytes([100; 32]).derive(Role::Principal));
    let key = client.public();
    let operation = Operation { credential: 0, requires: 0, at: None, body: OperationBody::Null };
    let body = EnvelopeBody {
        cluster: CLUSTER,
        session: session_id(&CLUSTER, &key, &[5; 32]),
        key,
        first: 0,
        valid_until: BatchTime(1 << 40),
        credentials: Bounded::new(),
        operations: vec![operation].try_into().unwrap(),
    };
    let signed = body.sign(&client);
    if good { signed } else { Envelope { signature: Signature([3; 64]), ..signed } }
}

fn proposal(parent: Hash, time: u64, envelopes: Vec<Envelope>) -> Proposal {
    Proposal { parent, time: BatchTime(time), envelopes: envelopes.try_into().unwrap() }
}

/// What the leader of view 2 proposes.
fn pre_prepare(height: u64, proposal: Proposal) -> PrePrepare {
    let digest = proposal.digest(&CLUSTER, 0, height);
    let signature = signer(2).sign(&PrePrepare::statement(CLUSTER, 0, 2, height, digest));
    PrePrepare { epoch: 0, view: 2, height, proposal, signature }
}

fn pair(statements: [Vote; 2]) -> Contradiction {
    let [one, other] = statements.map(|vote| SignedDigest { digest: vote.header, signature: vote.signature });
    Contradiction::new(2, 9, one, other)
}

/// A head of the log as a replica signs it.
fn signed_head(replica: u8, size: u64, root: u8) -> SignedDigest {
    let signer = HeadSigner::new(&CLUSTER, &NodeSeed::from_bytes([replica + 1; 32]));
    let signed = signer.sign(LogHead { size, root: Hash([root; 32]) }, 7).unwrap();
    SignedDigest { digest: signed.head.root, signature: signed.note }
}

fn against_2(proof: Proof) -> Evidence {
    Evidence::new(CLUSTER, 0, 2, proof)
}

/// A piece of every kind, and of every kind of witness, against replica 2.
fn pieces(world: &World) -> Vec<Evidence> {
    let votes = |kind| pair([7, 8].map(|byte| vote(2, kind, 2, 9, Hash([byte; 32]))));
    let proposals = pair([7, 8].map(|byte| {
        let (digest, mut shaped) = (Hash([byte; 32]), vote(2, VoteKind::Prepare, 2, 9, Hash([byte; 32])));
        shaped.signature = signer(2).sign(&PrePrepare::statement(CLUSTER, 0, 2, 9, digest));
        shaped
    }));
    let commit = vote(2, VoteKind::Commit, 3, 9, Hash([7; 32]));
    let parent = proposal(Hash([6; 32]), 5000, vec![envelope(true)]);
    let parent_digest = parent.digest(&CLUSTER, 0, 8);
    let certified = header(8, Hash([4; 32]), 1);
    let early = |height, parent, time, witness| Proof::TimeRegression {
        pre_prepare: pre_prepare(height, proposal(parent, time, vec![])),
        parent: witness,
    };
    let witness = ParentWitness::Certified {
        header: certified.clone(),
        certificate: world.certificate(VoteKind::Prepare, 1, &certified),
    };
    let (right, wrong) = (header(9, Hash([3; 32]), 1), header(9, Hash([3; 32]), 2));
    let certificate = world.certificate(VoteKind::Commit, 2, &right);
    let unfounded = |kind, view, certified| Proof::UnfoundedCommit {
        commit: vote(2, VoteKind::Commit, view, 9, wrong.hash()),
        certificate: world.certificate(kind, certified, &right),
    };
    let proofs = vec![
        Proof::ConflictingPrePrepare(proposals),
        Proof::ConflictingPrepare(votes(VoteKind::Prepare)),
        Proof::ConflictingCommit(votes(VoteKind::Commit)),
        Proof::ViewChangeOmission { claim: claim(2, 4, Rank { view: 3, height: 8 }), commit },
        early(1, CLUSTER, world.genesis.time.0 + 2, ParentWitness::Genesis),
        early(9, Hash([4; 32]), certified.time.0 + 2, witness),
        early(9, parent_digest, 5000, ParentWitness::Proposed(parent)),
        Proof::InvalidProposal {
            pre_prepare: pre_prepare(9, proposal(Hash([4; 32]), 1, vec![envelope(true), envelope(false)])),
            envelope: 1,
        },
        Proof::BadExecution {
            vote: vote(2, VoteKind::Prepare, 1, 9, wrong.hash()),
            header: wrong.clone(),
            certified: right.clone(),
            certificate,
        },
        Proof::conflicting_head(10, signed_head(2, 10, 8), signed_head(2, 10, 7)),
        unfounded(VoteKind::Commit, 5, 4),
        unfounded(VoteKind::Prepare, 5, 5),
    ];
    proofs.into_iter().map(against_2).collect()
}

#[test]
fn every_kind_convinces_and_says_what_it_shows() {
    let world = World::new();
    let mut kinds: Vec<EvidenceKind> = Vec::new();
    for piece in pieces(&world) {
        assert_eq!(world.judge(&piece), Ok(2), "{}", piece.kind());
        let said = statements(&piece);
        assert!(said.len() >= 2 && said[0].signer == Some(2), "{said:?}");
        for shown in said.iter().filter(|shown| shown.signer.is_some()) {
            let (bytes, signature) = (shown.signed_bytes().unwrap(), shown.signature.unwrap());
            let member = world.members.get(2).unwrap();
            let key = if shown.note.is_some() { member.log_note } else { member.consensus };
            let held = key.parse().unwrap().verify_bytes(&bytes, &signature);
            assert_eq!(held, Ok(()), "what is shown is what was signed");
        }
        kinds.push(piece.kind());
    }
    kinds.dedup();
    assert_eq!(kinds, EvidenceKind::ALL);
}

#[test]
fn au8_no_byte_of_evidence_can_be_changed() {
    let world = World::new();
    for piece in pieces(&world) {
        let bytes = encode(&piece);
        for position in 0..bytes.len() {
            for flip in [1, 0x80] {
                let mut changed = bytes.clone();
                changed[position] ^= flip;
                let Ok(other) = decode::<Evidence>(&changed) else { continue };
                let judged = world.judge(&other);
                assert!(judged.is_err(), "{} byte {position}: {judged:?}", piece.kind());
            }
        }
    }
}

#[test]
fn nobody_else_is_convicted_by_it() {
    let world = World::new();
    for piece in pieces(&world) {
        for culprit in [0, 1, 3, 4, 31] {
            assert!(world.judge(&Evidence { culprit, ..piece.clone() }).is_err());
        }
        for other in [
            Evidence { epoch: 1, ..piece.clone() },
            Evidence { cluster: Hash([2; 32]), ..piece.clone() },
            Evidence { version: 2, ..piece.clone() },
        ] {
            assert!(world.judge(&other).is_err());
        }
    }
}

/// What comes close, and is nothing that a correct replica could not have signed.
#[test]
fn what_an_honest_replica_may_sign_proves_nothing() {
    let world = World::new();
    let judge = |proof| world.judge(&against_2(proof)).unwrap_err();
    // The same statement twice; PREPARE and COMMIT; two views; two heights.
    let twice = [7, 7].map(|byte| vote(2, VoteKind::Commit, 2, 9, Hash([byte; 32])));
    assert_eq!(judge(Proof::ConflictingCommit(pair(twice))), NoProof::NoContradiction);
    let both = [VoteKind::Prepare, VoteKind::Commit].map(|kind| vote(2, kind, 2, 9, Hash([kind as u8; 32])));
    judge(Proof::ConflictingCommit(pair(both.clone())));
    judge(Proof::ConflictingPrepare(pair(both)));
    judge(Proof::ConflictingCommit(pair(
        [2, 3].map(|v| vote(2, VoteKind::Commit, v, 9, Hash([v as u8; 32]))),
    )));
    judge(Proof::ConflictingCommit(pair(
        [9, 8].map(|h| vote(2, VoteKind::Commit, 2, h, Hash([h as u8; 32]))),
    )));
    let mut wrong_order = pair([7, 8].map(|byte| vote(2, VoteKind::Commit, 2, 9, Hash([byte; 32]))));
    (wrong_order.low, wrong_order.high) = (wrong_order.high, wrong_order.low);
    assert_eq!(judge(Proof::ConflictingCommit(wrong_order)), NoProof::NoContradiction, "one encoding");
    // A claim that covers the COMMIT, exactly or by a later view; a COMMIT of the new view; a PREPARE.
    let omission = |rank, commit: Vote| judge(Proof::ViewChangeOmission { claim: claim(2, 4, rank), commit });
    let commit = vote(2, VoteKind::Commit, 3, 9, Hash([7; 32]));
    let rank = |view, height| Rank { view, height };
    assert_eq!(omission(rank(3, 9), commit.clone()), NoProof::Covered);
    assert_eq!(omission(rank(3, 10), commit), NoProof::Covered);
    let earlier = vote(2, VoteKind::Commit, 2, 90, Hash([7; 32]));
    assert_eq!(omission(rank(3, 1), earlier), NoProof::Covered, "ranks go by view first");
    assert_eq!(omission(rank(3, 8), vote(2, VoteKind::Commit, 4, 9, Hash([7; 32]))), NoProof::NotLeft);
    assert_eq!(omission(rank(3, 8), vote(2, VoteKind::Prepare, 3, 9, Hash([7; 32]))), NoProof::NotACommit);
    // The least time that is allowed; another parent's time.
    let least = pre_prepare(1, proposal(CLUSTER, world.genesis.time.0 + 3, vec![]));
    let parent = ParentWitness::Genesis;
    let refusal = judge(Proof::TimeRegression { pre_prepare: least, parent: parent.clone() });
    assert!(matches!(refusal, NoProof::TimeAllowed { .. }));
    let other = pre_prepare(1, proposal(Hash([4; 32]), 0, vec![]));
    assert_eq!(judge(Proof::TimeRegression { pre_prepare: other, parent }), NoProof::Parent);
    let other = pre_prepare(9, proposal(Hash([4; 32]), 0, vec![]));
    let made_up = header(8, Hash([4; 32]), 9);
    let certificate = world.certificate(VoteKind::Commit, 1, &header(8, Hash([4; 32]), 1));
    let parent = ParentWitness::Certified { header: made_up, certificate };
    assert_eq!(judge(Proof::TimeRegression { pre_prepare: other, parent }), NoProof::Header);
    // A good envelope, none at all; the sequence number is for execution to look at.
    let good = pre_prepare(9, proposal(Hash([4; 32]), 1, vec![envelope(true)]));
    let invalid = |envelope| judge(Proof::InvalidProposal { pre_prepare: good.clone(), envelope });
    assert_eq!((invalid(0), invalid(1)), (NoProof::GoodEnvelope(0), NoProof::NoEnvelope(1)));
}

#[test]
fn a_certificate_convicts_only_whom_it_rules_out() {
    let world = World::new();
    let judge = |proof| world.judge(&against_2(proof)).unwrap_err();
    let (right, wrong) = (header(9, Hash([3; 32]), 1), header(9, Hash([3; 32]), 2));
    let commit = |view, header: &Header| vote(2, VoteKind::Commit, view, header.height, header.hash());
    let unfounded = |commit, kind, view| {
        judge(Proof::UnfoundedCommit { commit, certificate: world.certificate(kind, view, &right) })
    };
    // COMMITs for different headers in different views are no guilt (R1): a later certificate, or a prepare
    // certificate of another view.
    assert_eq!(unfounded(commit(3, &wrong), VoteKind::Commit, 4), NoProof::NotRuledOut);
    assert_eq!(unfounded(commit(3, &wrong), VoteKind::Prepare, 2), NoProof::NotRuledOut);
    assert_eq!(unfounded(commit(3, &right), VoteKind::Commit, 3), NoProof::SameHeader);
    assert_eq!(unfounded(commit(3, &header(8, Hash::ZERO, 1)), VoteKind::Commit, 3), NoProof::NotRuledOut);
    // A PREPARE for what the leader proposed to this replica alone.
    let prepare = vote(2, VoteKind::Prepare, 3, 9, wrong.hash());
    assert_eq!(unfounded(prepare, VoteKind::Commit, 3), NoProof::NotACommit);
    // The header of another proposal, and one that was not voted for.
    let bad = |vote, header: &Header, certified: &Header| {
        let certificate = world.certificate(VoteKind::Commit, 2, certified);
        let (header, certified) = (header.clone(), certified.clone());
        judge(Proof::BadExecution { vote, header, certified, certificate })
    };
    let other = header(9, Hash([9; 32]), 2);
    assert_eq!(bad(commit(2, &other), &other, &right), NoProof::OtherProposal);
    assert_eq!(bad(commit(2, &other), &wrong, &right), NoProof::Header);
    assert_eq!(bad(commit(2, &right), &right, &right), NoProof::SameHeader);
    // A certificate of too few.
    let mut few = world.certificate(VoteKind::Commit, 2, &right);
    few.signatures = few.signatures.as_slice()[..2].to_vec().try_into().unwrap();
    let refusal = judge(Proof::UnfoundedCommit { commit: commit(3, &wrong), certificate: few });
    assert!(matches!(refusal, NoProof::Certificate(_)));
}

#[test]
fn r6_two_heads_prove_guilt_only_of_one_size_with_two_roots_under_one_key() {
    let world = World::new();
    let judge = |size, one, other| world.judge(&against_2(Proof::conflicting_head(size, one, other)));
    assert_eq!(judge(10, signed_head(2, 10, 7), signed_head(2, 10, 8)), Ok(2));
    // One head twice, a log that grew, another replica's head, a cosignature's or a vote's key.
    let same = signed_head(2, 10, 7);
    assert_eq!(judge(10, same, same), Err(NoProof::NoContradiction));
    assert_eq!(judge(10, signed_head(2, 10, 7), signed_head(2, 11, 8)), Err(NoProof::HeadSignature(2)));
    assert_eq!(judge(10, signed_head(2, 10, 7), signed_head(1, 10, 8)), Err(NoProof::HeadSignature(2)));
    assert_eq!(judge(11, signed_head(2, 10, 7), signed_head(2, 10, 8)), Err(NoProof::HeadSignature(2)));
    let foreign = vote(2, VoteKind::Commit, 2, 9, Hash([8; 32]));
    let foreign = SignedDigest { digest: foreign.header, signature: foreign.signature };
    assert_eq!(judge(10, signed_head(2, 10, 7), foreign), Err(NoProof::HeadSignature(2)));
    // Both statements are shown with the bytes that anybody can check.
    let shown = statements(&against_2(Proof::conflicting_head(10, signed_head(2, 10, 8), same)));
    for (shown, root) in shown.iter().zip([7, 8]) {
        let key = world.members.members()[2].log_note.parse().unwrap();
        assert!(key.verify_bytes(&shown.signed_bytes().unwrap(), &shown.signature.unwrap()).is_ok());
        assert_eq!((shown.name(), shown.signer), (Some("LOG-HEAD"), Some(2)));
        assert!(shown.text.contains(&Hash([root; 32]).to_string()), "{}", shown.text);
    }
}
