//! What bends must bend, and only that.

use super::answers;
use super::equivocation::Side;
use super::junk;
use super::kind::{Fault, FaultError, KINDS};
use super::liar::Liar;
use crate::provision::{Plan, provision};
use quorate_crypto::{Bounded, Ed25519Signer, Ed25519Verifier, Hash, Role, Signature, Verifier as _};
use quorate_execution::{Environment, State};
use quorate_merkle::{Key, PartialTrie, Trie};
use quorate_protocol::client::{ClientReply, ReadAnswer};
use quorate_protocol::genesis::Parameters;
use quorate_protocol::{Header, PeerMessage, PrePrepare, Proposal, Vote, VoteKind};
use quorate_transport::faults::{Fate, Tamper as _};
use quorate_transport::frame::{decode_body, encode_frame};
use quorate_transport::{ClusterFile, KeyFile, ReplicaTransport, ReplicaTransportConfiguration};
use std::collections::BTreeSet;

#[test]
fn every_kind_is_listed_and_can_be_read_and_printed() {
    let mut seen = BTreeSet::new();
    for (name, what) in KINDS {
        let text = name.replace("=ID", "=2").replace("=MS", "=250");
        let fault: Fault = text.parse().unwrap();
        assert_eq!(fault.to_string(), text);
        assert!(!what.is_empty() && seen.insert(text));
    }
    for (text, words) in [
        ("slient", "no fault kind `slient`; the kinds are silent, crash-loop"),
        ("withhold-from", "needs a value: withhold-from=ID"),
        ("withhold-from=x", "`x` is not the number of a replica"),
        ("slow-leader=0", "`0` is not a number of milliseconds from 1 to 60000"),
        ("silent=1", "`silent` takes no value"),
    ] {
        let error: FaultError = text.parse::<Fault>().unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

struct Fixture {
    cluster: ClusterFile,
    liar: Liar,
    genesis: State,
    _place: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
    _transport: ReplicaTransport,
}

/// Replica 0 of four.
fn fixture(fault: Fault) -> Fixture {
    let place = tempfile::tempdir().unwrap();
    let addresses = (1..=4).map(|port| format!("127.0.0.1:{port}")).collect();
    let plan = Plan { addresses, parameters: Parameters::default(), owner: (0, 0) };
    let cluster = provision(place.path(), &plan).unwrap();
    let seed = KeyFile::read_node(&place.path().join("replica-0/node.key")).unwrap();
    let genesis = State::genesis(cluster.genesis()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let transport = {
        let _within = runtime.enter();
        ReplicaTransport::start(ReplicaTransportConfiguration {
            cluster: cluster.cluster(),
            members: cluster.members().clone(),
            me: 0,
            secret: seed.derive(Role::Transport),
            listen: "127.0.0.1:0".parse().unwrap(),
            addresses: cluster.addresses().to_vec(),
            limits: quorate_transport::ClientLimits::default(),
        })
        .unwrap()
    };
    let signer = Ed25519Signer::new(seed.derive(Role::Consensus));
    let hashes = (cluster.cluster(), genesis.hash());
    let liar = Liar::new(fault, hashes, cluster.members().clone(), 0, signer, transport.peers.clone());
    Fixture { cluster, liar, genesis, _place: place, _runtime: runtime, _transport: transport }
}

impl Fixture {
    fn sent(&self, to: u8, message: &PeerMessage) -> Vec<PeerMessage> {
        let mut sent = Vec::new();
        self.liar.to_peer(to, message, &mut |message| sent.push(message.clone()));
        sent
    }

    /// A proposal of replica 0 in view 0.
    fn proposal(&self, height: u64) -> PrePrepare {
        let parent = self.genesis.header().proposal;
        let proposal =
            Proposal { parent, time: self.genesis.minimum_time().plus(5), envelopes: Bounded::new() };
        let unsigned = PrePrepare { epoch: 0, view: 0, height, proposal, signature: Signature::ZERO };
        self.liar.proposal(&unsigned, unsigned.proposal.clone())
    }

    fn vote(&self, replica: u8, header: Hash) -> Vote {
        let vote = Vote {
            kind: VoteKind::Prepare,
            epoch: 0,
            view: 0,
            height: 1,
            header,
            replica,
            signature: Signature::ZERO,
        };
        if replica == 0 { self.liar.signed(vote) } else { vote }
    }

    fn holds(&self, vote: &Vote) -> bool {
        let key = &self.cluster.members().get(vote.replica).unwrap().consensus;
        let statement = vote.statement(self.cluster.cluster());
        Ed25519Verifier::new().verify(key, &statement, &vote.signature).is_ok()
    }
}

fn votes(message: &PeerMessage) -> &[Vote] {
    match message {
        PeerMessage::Votes(votes) => votes.as_slice(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_equivocating_leader_signs_two_valid_proposals_and_votes_for_both() {
    let fixture = fixture(Fault::Equivocate);
    let ours = fixture.proposal(1);
    let message = PeerMessage::PrePrepare(ours.clone());
    let mut proposals = BTreeSet::new();
    for to in 1..4 {
        for sent in fixture.sent(to, &message) {
            let PeerMessage::PrePrepare(sent) = sent else { panic!("{sent:?}") };
            let digest = sent.proposal.digest(&fixture.cluster.cluster(), 0, 1);
            let statement = PrePrepare::statement(fixture.cluster.cluster(), 0, 0, 1, digest);
            let key = &fixture.cluster.members().get(0).unwrap().consensus;
            Ed25519Verifier::new().verify(key, &statement, &sent.signature).unwrap();
            proposals.insert(digest);
        }
    }
    assert_eq!(proposals.len(), 2);
    // Its votes for the second one name the header that executing it gives.
    let verifier = Ed25519Verifier::new();
    let environment = Environment {
        cluster: fixture.cluster.cluster(),
        members: fixture.cluster.members(),
        verifier: &verifier,
    };
    fixture.liar.execute_second_face(&environment, (0, 1), &fixture.genesis);
    let headers: BTreeSet<Hash> = [0, 1]
        .map(|later| {
            let proposal = Proposal { time: ours.proposal.time.plus(later), ..ours.proposal.clone() };
            let digest = proposal.digest(&fixture.cluster.cluster(), 0, 1);
            fixture.genesis.execute(&environment, 1, &proposal, digest).unwrap().state.hash()
        })
        .into();
    let first = {
        let digest = ours.proposal.digest(&fixture.cluster.cluster(), 0, 1);
        fixture.genesis.execute(&environment, 1, &ours.proposal, digest).unwrap().state.hash()
    };
    let stranger = fixture.vote(2, first);
    let message = PeerMessage::Votes(vec![fixture.vote(0, first), stranger.clone()].try_into().unwrap());
    let mut voted = BTreeSet::new();
    for to in 1..4 {
        for sent in fixture.sent(to, &message) {
            for vote in votes(&sent) {
                assert!(vote.replica != 0 || fixture.holds(vote));
                assert!(vote.replica == 0 || *vote == stranger, "what it relays stays as it is");
                if vote.replica == 0 {
                    voted.insert(vote.header);
                }
            }
        }
    }
    assert_eq!(voted, headers);
}

#[test]
fn every_replica_is_shown_every_side() {
    let fixture = fixture(Fault::Equivocate);
    for to in 1..4 {
        for wanted in [Side::First, Side::Second, Side::Both] {
            assert!((1..32).any(|height| fixture.liar.side(height, to) == wanted), "{to} {wanted:?}");
        }
    }
    // At n = 4 two replicas and the leader are a quorum for the second face.
    assert_eq!((1..4).filter(|to| fixture.liar.side(2, *to) == Side::Second).count(), 2);
}

#[test]
fn wrong_roots_are_signed_and_bad_signatures_do_not_hold() {
    let header = Hash([7; 32]);
    for (fault, holds, same) in [(Fault::WrongRoot, true, false), (Fault::BadSignature, false, true)] {
        let fixture = fixture(fault);
        let message = PeerMessage::Votes(vec![fixture.vote(0, header)].try_into().unwrap());
        let sent = fixture.sent(1, &message);
        let [vote] = votes(&sent[0]) else { panic!("{sent:?}") };
        assert_eq!((fixture.holds(vote), vote.header == header), (holds, same), "{fault}");
    }
}

#[test]
fn withholding_silence_and_lies_about_time() {
    let message = |fixture: &Fixture| PeerMessage::PrePrepare(fixture.proposal(4));
    let withholding = fixture(Fault::WithholdFrom(2));
    let sent = |to| withholding.sent(to, &message(&withholding)).len();
    assert_eq!([sent(1), sent(2), sent(3)], [1, 0, 1]);
    let silent = fixture(Fault::Silent);
    assert!(silent.sent(1, &message(&silent)).is_empty());
    let liar = fixture(Fault::TimeLiar);
    let sent = liar.sent(1, &message(&liar));
    let [PeerMessage::PrePrepare(sent)] = sent.as_slice() else { panic!("{sent:?}") };
    assert!(sent.proposal.time < liar.genesis.minimum_time());
    let slow = fixture(Fault::SlowLeader(std::time::Duration::from_millis(5)));
    assert!(slow.sent(1, &message(&slow)).is_empty());
}

#[test]
fn corruption_reaches_every_byte_and_changes_nothing_else() {
    for length in [20, 30, 57, 61, 118] {
        let frame = encode_frame(&vec![9_u8; length]).unwrap();
        let mut reached = BTreeSet::new();
        for turn in 0..100 * length as u64 {
            let Fate::Instead(bent) = answers::corrupt(turn, &frame) else { continue };
            let different: Vec<usize> = (0..frame.len()).filter(|at| frame[*at] != bent[*at]).collect();
            let [at] = different[..] else { panic!("{different:?}") };
            assert_eq!(bent.len(), frame.len());
            reached.insert(at);
        }
        assert_eq!(reached, (4..frame.len()).collect(), "{length}");
    }
}

/// What is hidden leads to another root: a client that believed the copy would not see the name.
#[test]
fn a_hidden_entry_is_a_copy_of_another_state() {
    let liar = fixture(Fault::HideEntry);
    let mut trie = Trie::new();
    let entry = |ino: u64, byte: u8| {
        let mut key = [byte; 32];
        key[..8].copy_from_slice(&ino.to_be_bytes());
        key[8] = 0x20;
        Key(key)
    };
    for (ino, byte) in [(1, 3), (1, 7), (2, 5)] {
        trie.insert(entry(ino, byte), vec![byte].into()).unwrap();
    }
    let header = Header { state_root: trie.root(), ..liar.genesis.header().clone() };
    let proof = PartialTrie::encode(&trie).unwrap().try_into().unwrap();
    let reply = ClientReply::Read(ReadAnswer { header, certificate: None, proof });
    let Fate::Instead(frame) = answers::hide_entry(&reply) else { panic!("nothing is hidden") };
    let ClientReply::Read(bent) = decode_body(&frame[4..]).unwrap() else { panic!("another reply") };
    let copy = PartialTrie::decode(&bent.proof).unwrap();
    let there: Vec<bool> =
        [(1, 3), (1, 7), (2, 5)].map(|(ino, byte)| copy.contains(&entry(ino, byte)).unwrap()).into();
    assert_eq!(there, [false, true, true]);
    assert_ne!(copy.root(), bent.header.state_root);
    let nothing = ClientReply::Highest { height: 7, certificate: None };
    assert!(matches!(answers::hide_entry(&nothing), Fate::AsItIs));
}

#[test]
fn no_junk_decodes() {
    for turn in 0..12 {
        let frame = junk::piece(turn);
        let length = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
        let whole = length == frame.len() - 4;
        assert!(!whole || decode_body::<PeerMessage>(&frame[4..]).is_err(), "{turn}");
    }
}
