//! One rule for envelopes, wherever they come in: at any replica, from a client, from a peer, in a proposal, and
//! in execution (hazards A1, A14, CL2).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use quorate_consensus::door;
use quorate_consensus::{Configuration, NoEnvelopes, Parameters as ConsensusParameters};
use quorate_crypto::{
    Bounded, Ed25519Signer, Ed25519Verifier, Hash, PublicKey, Role, SecretKey, Signature, Signer as _,
};
use quorate_execution::{State, check_envelope};
use quorate_protocol::envelope::session_id;
use quorate_protocol::genesis::Parameters;
use quorate_protocol::operation::{Operation, OperationBody};
use quorate_protocol::{BatchTime, Envelope, EnvelopeBody, PeerMessage, PrePrepare, Proposal};
use quorate_replica::layout::{NODE_KEY, replica_directory};
use quorate_replica::provision::{Plan, provision};
use quorate_transport::{ClusterFile, KeyFile};

struct Cluster {
    file: ClusterFile,
    genesis: State,
    leader: Ed25519Signer,
    _place: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let addresses = (1..=4).map(|port| format!("127.0.0.1:{port}")).collect();
        let plan = Plan { addresses, parameters: Parameters::default(), owner: (0, 0) };
        let file = provision(place.path(), &plan).unwrap();
        let genesis = State::genesis(file.genesis()).unwrap();
        let seed = KeyFile::read_node(&replica_directory(place.path(), 0).join(NODE_KEY)).unwrap();
        Self { file, genesis, leader: Ed25519Signer::new(seed.derive(Role::Consensus)), _place: place }
    }

    fn configuration(&self, me: u8) -> Configuration {
        let (cluster, members) = (self.file.cluster(), self.file.members().clone());
        let header = self.genesis.header().clone();
        Configuration::new(cluster, members, me, header, 8, ConsensusParameters::default()).unwrap()
    }

    fn verifier(&self, me: u8) -> Ed25519Verifier {
        // Replicas keep other keys parsed: their verdicts must not depend on it.
        let members = self.file.members().members().iter().map(|member| member.consensus);
        Ed25519Verifier::with_keys(members.take(usize::from(me)))
    }

    /// As it comes from a client or from a peer that forwards it.
    fn lets_in(&self, me: u8, envelope: &Envelope) -> bool {
        let configuration = self.configuration(me);
        let verified =
            door::verify_envelope(&configuration, &self.verifier(me), &NoEnvelopes, envelope.clone());
        check_envelope(&self.file.cluster(), envelope).is_ok() && verified.is_ok()
    }

    /// As it comes in a proposal of the leader, which is correctly signed whatever it holds.
    fn proposal_passes(&self, me: u8, envelope: &Envelope) -> bool {
        let cluster = self.file.cluster();
        let proposal = Proposal {
            parent: self.genesis.header().proposal,
            time: self.genesis.minimum_time(),
            envelopes: vec![envelope.clone()].try_into().unwrap(),
        };
        let statement = PrePrepare::statement(cluster, 0, 0, 1, proposal.digest(&cluster, 0, 1));
        let signature = self.leader.sign(&statement);
        let message =
            PeerMessage::PrePrepare(PrePrepare { epoch: 0, view: 0, height: 1, proposal, signature });
        door::verify(&self.configuration(me), &self.verifier(me), &NoEnvelopes, 0, message).is_ok()
    }
}

fn envelope(cluster: &Hash, secret: &Ed25519Signer, change: impl FnOnce(&mut EnvelopeBody)) -> Envelope {
    let nonce = [7; 32];
    let body = OperationBody::Register { nonce };
    let operation = Operation { credential: 0, requires: 0, at: None, body };
    let mut body = EnvelopeBody {
        cluster: *cluster,
        session: session_id(cluster, &secret.public(), &nonce),
        key: secret.public(),
        first: 0,
        valid_until: BatchTime(u64::MAX >> 2),
        credentials: Bounded::new(),
        operations: vec![operation].try_into().unwrap(),
    };
    change(&mut body);
    body.sign(secret)
}

#[test]
fn a1_an_envelope_that_one_replica_takes_all_take_wherever_it_comes_from() {
    let cluster = Cluster::new();
    let id = cluster.file.cluster();
    let client = Ed25519Signer::new(SecretKey::from_bytes(&[5; 32]));
    let other = Ed25519Signer::new(SecretKey::from_bytes(&[6; 32]));
    let good = envelope(&id, &client, |_| {});
    let mut cases = vec![
        ("as it should be", good.clone(), true),
        ("of an unknown session", envelope(&id, &client, |body| body.session = Hash([9; 32])), true),
        ("that has expired", envelope(&id, &client, |body| body.valid_until = BatchTime(0)), true),
        ("far ahead", envelope(&id, &client, |body| body.first = 1 << 40), true),
        ("of another cluster", envelope(&Hash([1; 32]), &client, |_| {}), false),
        ("without operations", envelope(&id, &client, |body| body.operations = Bounded::new()), false),
        ("that runs over", envelope(&id, &client, |body| body.first = u64::MAX), false),
        (
            "signed by another",
            Envelope { signature: envelope(&id, &other, |_| {}).signature, ..good.clone() },
            false,
        ),
        ("unsigned", Envelope { signature: Signature::ZERO, ..good.clone() }, false),
    ];
    // A key of small order, under which more than one signature might hold somewhere (hazard CR2).
    let mut weak = good.clone();
    weak.body.key = PublicKey([0; 32]);
    cases.push(("under a weak key", weak, false));
    // Every byte of the signature, and the body under a signature of another one (hazard CL2).
    for byte in 0..64 {
        let mut flipped = good.clone();
        flipped.signature.0[byte] ^= 1;
        cases.push(("with another signature", flipped, false));
    }
    let mut body = good.clone();
    body.body.valid_until = BatchTime(1);
    cases.push(("with another body", body, false));
    for (name, envelope, expected) in cases {
        for me in 0..4 {
            assert_eq!(cluster.lets_in(me, &envelope), expected, "an envelope {name} at replica {me}");
            if me > 0 {
                let passes = cluster.proposal_passes(me, &envelope);
                assert_eq!(passes, expected, "a proposal with an envelope {name} at replica {me}");
            }
        }
    }
}

/// Hazard A14: what the door of one correct leader lets in, execution at no replica calls a fault of the leader.
#[test]
fn a14_what_passes_the_door_is_no_static_fault_in_execution() {
    let cluster = Cluster::new();
    let id = cluster.file.cluster();
    let client = Ed25519Signer::new(SecretKey::from_bytes(&[5; 32]));
    let verifier = Ed25519Verifier::new();
    let environment =
        quorate_execution::Environment { cluster: id, members: cluster.file.members(), verifier: &verifier };
    for first in [0, 1, 1 << 40, u64::MAX - 1] {
        let envelope = envelope(&id, &client, |body| body.first = first);
        assert!(cluster.lets_in(1, &envelope));
        let proposal = Proposal {
            parent: cluster.genesis.header().proposal,
            time: cluster.genesis.minimum_time(),
            envelopes: vec![envelope].try_into().unwrap(),
        };
        let digest = proposal.digest(&id, 0, 1);
        assert!(cluster.genesis.execute(&environment, 1, &proposal, digest).is_ok(), "first {first}");
    }
}
