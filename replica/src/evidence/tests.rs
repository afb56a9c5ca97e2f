//! Evidence of a replica: bounded, kept over restarts, and passed on from one to the next.

use super::*;
use quorate_crypto::{
    Address, Ed25519Signer, Ed25519Verifier, Member, MemberSet, NodeSeed, Role, Signature, Signer,
};
use quorate_protocol::evidence::{Contradiction, Proof, SignedDigest};
use quorate_protocol::{Header, Vote, VoteKind};
use quorate_store::directory::Identity;
use quorate_store::evidence::evidence_path;

const CLUSTER: Hash = Hash([1; 32]);

struct Place {
    home: tempfile::TempDir,
    members: MemberSet,
    genesis: Header,
    verifier: Ed25519Verifier,
}

impl Place {
    fn new() -> Self {
        let address = || Address::try_from("test:1").unwrap();
        let members = (0..4).map(|index| Member::from_seed(&seed(index), address())).collect();
        let members = MemberSet::new(0, members).unwrap();
        let genesis = Header {
            version: 1,
            cluster: Hash::ZERO,
            epoch: 0,
            height: 0,
            time: quorate_protocol::BatchTime(1),
            previous: Hash::ZERO,
            proposal: CLUSTER,
            state_root: Hash::ZERO,
            receipts_root: Hash::ZERO,
            first_operation: 0,
            operation_count: 0,
            log_root: Hash::ZERO,
            members: members.digest(),
            touched_root: Hash::ZERO,
            touched_count: 0,
        };
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("a");
        drop(Directory::create(&directory, Identity { cluster: CLUSTER, replica: 0 }).unwrap());
        Self { home, members, genesis, verifier: Ed25519Verifier::new() }
    }

    fn court(&self) -> Court<'_> {
        Court { cluster: CLUSTER, members: &self.members, genesis: &self.genesis, verifier: &self.verifier }
    }

    fn directory(&self) -> Directory {
        let identity = Identity { cluster: CLUSTER, replica: 0 };
        Directory::open(&self.home.path().join("a"), identity).unwrap()
    }

    fn keeper(&self) -> EvidenceKeeper {
        EvidenceKeeper::start(&self.directory(), &self.court()).unwrap()
    }

    /// One that stores nothing.
    fn other(&self) -> EvidenceKeeper {
        let mut keeper = self.keeper();
        keeper.saves = None;
        keeper.held.clear();
        keeper.places.clear();
        keeper
    }
}

fn seed(index: u8) -> NodeSeed {
    NodeSeed::from_bytes([index + 1; 32])
}

/// Two COMMITs of a replica at one place.
fn lie(replica: ReplicaIndex, height: u64) -> Evidence {
    let signer = Ed25519Signer::new(seed(replica).derive(Role::Consensus));
    let [one, other] = [7, 8].map(|byte| {
        let header = Hash([byte; 32]);
        let signature = Signature::ZERO;
        let vote = Vote { kind: VoteKind::Commit, epoch: 0, view: 2, height, header, replica, signature };
        SignedDigest { digest: header, signature: signer.sign(&vote.statement(CLUSTER)) }
    });
    let both = Contradiction::new(2, height, one, other);
    Evidence::new(CLUSTER, 0, replica, Proof::ConflictingCommit(both))
}

fn is_new(kept: &Kept) -> bool {
    matches!(kept, Kept::New(_))
}

#[test]
fn a12_evidence_is_bounded_and_survives_a_restart() {
    let place = Place::new();
    let mut keeper = place.keeper();
    for height in 1..=EVIDENCE_PER_KIND_MAX as u64 {
        assert!(is_new(&keeper.keep(lie(3, height), &place.court())));
        assert_eq!(keeper.keep(lie(3, height), &place.court()), Kept::Enough);
    }
    assert_eq!(keeper.keep(lie(3, 100), &place.court()), Kept::Enough, "one proves it");
    assert!(is_new(&keeper.keep(lie(2, 100), &place.court())), "and hides no other");
    let mut against_honest = lie(2, 101);
    against_honest.culprit = 1;
    assert!(matches!(keeper.keep(against_honest, &place.court()), Kept::Refused(_)));
    let page = keeper.page(Hash::ZERO);
    assert_eq!((page.pieces.len(), page.more), (EVIDENCE_PER_KIND_MAX + 1, false));
    let after = page.pieces.as_slice()[3].digest();
    assert_eq!(keeper.page(after).pieces.as_slice(), &page.pieces.as_slice()[4..]);
    drop(keeper);
    // One file is damaged, another proves nothing: both are skipped.
    let folder = evidence_path(&place.home.path().join("a"));
    let victim = page.pieces.as_slice()[0].digest();
    let path = folder.join(format!("{victim}.evidence"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[50] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut slander = lie(2, 102);
    slander.culprit = 0;
    std::fs::write(folder.join(format!("{}.evidence", slander.digest())), slander.to_file()).unwrap();
    let kept = place.keeper().page(Hash::ZERO);
    assert_eq!(kept.pieces.as_slice(), &page.pieces.as_slice()[1..]);
}

#[test]
fn a_disk_that_cannot_hold_evidence_costs_nothing_else() {
    let place = Place::new();
    std::fs::write(evidence_path(&place.home.path().join("a")), b"not a directory").unwrap();
    let mut keeper = place.keeper();
    assert!(is_new(&keeper.keep(lie(3, 1), &place.court())));
    assert_eq!(keeper.page(Hash::ZERO).pieces.len(), 1);
}

/// Lets two keepers talk until both are silent.
fn exchange(place: &Place, from: &mut EvidenceKeeper, to: &mut EvidenceKeeper, now: Instant) -> usize {
    let mut count = 0;
    let mut questions: Vec<PeerMessage> = from
        .offers()
        .into_iter()
        .filter_map(|message| match message {
            PeerMessage::OfferEvidence(offers) => to.offered(0, &offers, now),
            _ => None,
        })
        .collect();
    while let Some(PeerMessage::FetchEvidence { digest }) = questions.pop() {
        let Some(PeerMessage::Evidence(evidence)) = from.fetched(1, &digest) else { break };
        let (kept, question) = to.arrived(0, *evidence, &place.court(), now);
        count += usize::from(kept.is_some_and(|kept| is_new(&kept)));
        questions.extend(question);
    }
    count
}

#[test]
fn au9_what_one_replica_knows_all_come_to_know() {
    let place = Place::new();
    let (mut one, mut other, now) = (place.keeper(), place.other(), Instant::now());
    for height in 1..=3 {
        one.keep(lie(3, height), &place.court());
    }
    one.keep(lie(2, 9), &place.court());
    assert!(one.offers_are_due(now) && !one.offers_are_due(now) && !other.offers_are_due(now));
    assert_eq!(exchange(&place, &mut one, &mut other, now), 4);
    assert_eq!(one.page(Hash::ZERO), other.page(Hash::ZERO));
    assert_eq!(exchange(&place, &mut one, &mut other, now), 0, "what is held is not asked for");
}

#[test]
fn what_is_not_asked_for_or_proves_nothing_is_not_kept() {
    let place = Place::new();
    let (mut keeper, now) = (place.other(), Instant::now());
    assert_eq!(keeper.arrived(3, lie(2, 1), &place.court(), now), (None, None));
    // A liar slanders an honest replica.
    let mut slander = lie(3, 1);
    slander.culprit = 1;
    let kind = slander.kind();
    let offer = |evidence: &Evidence| EvidenceOffer { digest: evidence.digest(), culprit: 1, kind };
    let question = keeper.offered(3, &[offer(&slander), offer(&lie(2, 5))], now);
    assert!(question.is_some());
    assert_eq!(keeper.offered(3, &[offer(&slander)], now), None, "one at a time");
    let (kept, question) = keeper.arrived(3, slander.clone(), &place.court(), now);
    assert_eq!((kept, question), (None, None), "not the piece that was asked for");
    let later = now + FETCH_PATIENCE;
    assert!(keeper.offered(3, &[offer(&slander)], later).is_some());
    let (kept, question) = keeper.arrived(3, slander, &place.court(), later);
    assert!(matches!(kept, Some(Kept::Refused(_))) && question.is_none());
    assert_eq!(keeper.offered(3, &[offer(&lie(2, 6))], later), None, "it is not believed for a while");
    assert!(keeper.offered(3, &[offer(&lie(2, 6))], later + DISTRUST).is_some());
    assert!(keeper.page(Hash::ZERO).pieces.is_empty());
}

#[test]
fn a_peer_that_asks_without_end_is_served_a_bounded_amount() {
    let place = Place::new();
    let (mut keeper, now) = (place.keeper(), Instant::now());
    keeper.keep(lie(3, 1), &place.court());
    let (digest, bytes) = keeper.held.iter().map(|(digest, piece)| (*digest, piece.bytes)).next().unwrap();
    let served = (0..SERVED_BYTES_MAX).take_while(|_| keeper.fetched(2, &digest).is_some()).count();
    assert!(served * bytes <= SERVED_BYTES_MAX + bytes && served > 10);
    assert!(keeper.fetched(1, &digest).is_some(), "others are");
    assert!(keeper.offers_are_due(now) && keeper.fetched(2, &digest).is_some(), "until the next offer");
    assert!(keeper.fetched(1, &Hash::ZERO).is_none());
}
