//! Seeds of what lies in files that people handle: cluster and key files, policies, bundles, proofs, receipts,
//! anchors.
//!
//! Invariant: everything here is a function of constants.

use quorate_audit::{ANCHOR_MAGIC, Anchor, BundleWriter, Head, Judgement, ProvenAnswer, Receipt, Transition};
use quorate_crypto::{
    Address, Certificate, CertificateKind, Ed25519Signer, Ed25519Verifier, NodeSeed, Role, SecretKey, Signer,
    Statement, encode,
};
use quorate_execution::Environment;
use quorate_merkle::LogFrontier;
use quorate_protocol::Header;
use quorate_protocol::client::ReadAnswer;
use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::query::Query;
use quorate_transport::{ClusterFile, KeyFile, PolicyFile};

use crate::chain;
use crate::samples::{answer, cluster, committed, credential, name};

pub fn cluster_file() -> Vec<Vec<u8>> {
    let file = ClusterFile::new(chain::genesis());
    let moved = file.clone().with_address(1, Address::try_from("[::1]:7").expect("a short address"));
    vec![
        file.to_toml().into_bytes(),
        moved.to_toml().into_bytes(),
        b"format = \"quorate-cluster\"\n".to_vec(),
    ]
}

pub fn policy_file() -> Vec<Vec<u8>> {
    let policy = PolicyFile::new(chain::genesis()).to_toml();
    let more = format!("# of the auditors\n{policy}").replacen("quorum = 3", "quorum = 1", 1);
    vec![policy.into_bytes(), more.into_bytes(), b"format = \"quorate-policy\"\n".to_vec()]
}

pub fn bundle() -> Vec<Vec<u8>> {
    let mut writer = BundleWriter::new(Vec::new(), &cluster().id).expect("memory takes bytes");
    let empty = BundleWriter::new(Vec::new(), &cluster().id).and_then(BundleWriter::finish);
    (0..2).for_each(|_| writer.add(&committed()).expect("a small height"));
    vec![writer.finish().expect("memory takes bytes"), empty.expect("memory takes bytes")]
}

pub fn proven() -> Vec<Vec<u8>> {
    let query = Query::Walk { start: 1, components: vec![name("a")].try_into().expect("few") };
    let key = SecretKey::from_bytes(&[3; 32]);
    let key = Ed25519Signer::new(key).public();
    let answered = |answer| ProvenAnswer {
        cluster: chain::genesis().cluster(),
        key,
        credential: credential(),
        query: query.clone(),
        answer,
    };
    let uncertified = ReadAnswer { certificate: None, ..answer() };
    [answer(), uncertified].map(|answer| answered(answer).to_file()).into()
}

/// The COMMITs of three members of the chain's genesis.
fn certify(header: &Header) -> Certificate {
    let (members, kind) = (chain::members(), CertificateKind::Commit);
    let statement = Statement {
        cluster: header.cluster,
        epoch: 0,
        kind: kind.statement_kind(),
        view: 0,
        height: header.height,
        digest: header.hash(),
    };
    let vote = |index: u8| {
        let signer = Ed25519Signer::new(chain::seed(index).derive(Role::Consensus));
        (index, signer.sign(&statement))
    };
    let votes: Vec<_> = [0, 1, 3].map(vote).into();
    Certificate::assemble(kind, &members, 0, header.height, header.hash(), votes).expect("a quorum")
}

/// Receipts that hold: of a registration, and of the second operation of an envelope.
pub fn receipt() -> Vec<Vec<u8>> {
    let mut chain = chain::Chain::new();
    let mut client = chain::Client::new(chain.cluster(), 0, 1);
    let signer = Ed25519Signer::new(chain::principal_secret(0));
    let until = chain.state().header().time.plus(chain::SECOND);
    let bodies = vec![chain::mkdir(1, "a", 0o755), chain::mkdir(1, "a", 0o700)];
    let envelopes = [client.register(until), client.envelope(bodies)];
    let mut files = Vec::new();
    for (position, envelope) in (0..).zip(envelopes) {
        let executed = chain.step(1000, vec![envelope.body.sign(&signer)]);
        let header = executed.state.header().clone();
        let proposal = chain.proposals.last().expect("a step").clone();
        let certificate = certify(&header);
        let committed = CommittedBatch { batch: Batch { header, proposal }, certificate };
        let receipt = Receipt::of(&committed, &executed.receipts, position).expect("an operation");
        receipt.check(&chain.genesis, &Ed25519Verifier::new()).expect("a receipt that holds");
        files.push(receipt.to_file());
    }
    files
}

/// The first two heights of a chain, each with the copy that its execution needs.
pub fn transition() -> Vec<Vec<u8>> {
    let mut chain = chain::Chain::new();
    let mut client = chain::Client::new(chain.cluster(), 0, 1);
    let signer = Ed25519Signer::new(chain::principal_secret(0));
    let until = chain.state().header().time.plus(chain::SECOND);
    let envelopes = [client.register(until), client.envelope(vec![chain::mkdir(1, "a", 0o755)])];
    let verifier = Ed25519Verifier::new();
    let mut files = Vec::new();
    for envelope in envelopes {
        let below = chain.state().clone();
        let header = chain.step(1000, vec![envelope.body.sign(&signer)]).state.header().clone();
        let proposal = chain.proposals.last().expect("a step").clone();
        let environment =
            Environment { cluster: chain.cluster(), members: &chain.genesis.members, verifier: &verifier };
        let (copy, _) = below
            .witness(&environment, header.height, &proposal, header.proposal)
            .expect("a small batch has a small copy");
        let certificate = certify(&header);
        let made = Transition {
            cluster: chain.cluster(),
            below: below.header().clone(),
            log: below.log().clone(),
            copy: copy.try_into().expect("a small copy"),
            committed: CommittedBatch { batch: Batch { header, proposal }, certificate },
        };
        assert_eq!(made.judge(&chain.genesis, &verifier), Ok(Judgement::Holds));
        files.push(made.to_file());
    }
    files
}

/// Anchors that hold, with and without their log, as files and without a checksum; and the genesis.
pub fn anchor() -> Vec<Vec<u8>> {
    let mut chain = chain::Chain::new();
    let genesis = chain.state().header().clone();
    let mut log = LogFrontier::new();
    log.append(&encode(&genesis)).expect("room");
    let header = chain.step(1000, Vec::new()).state.header().clone();
    let certificate = Some(certify(&header));
    let cluster = chain.cluster();
    let anchors = [
        Anchor {
            cluster,
            head: Head { header: header.clone(), certificate: certificate.clone() },
            log: Some(log),
        },
        Anchor { cluster, head: Head { header, certificate }, log: None },
        Anchor { cluster, head: Head { header: genesis, certificate: None }, log: Some(LogFrontier::new()) },
    ];
    for anchor in &anchors {
        anchor.check(&chain.genesis, &Ed25519Verifier::new()).expect("an anchor that holds");
    }
    let bare = |anchor: &Anchor| [ANCHOR_MAGIC.as_slice(), &encode(anchor)].concat();
    anchors.iter().map(Anchor::to_file).chain(anchors.iter().map(bare)).collect()
}

pub fn key_file() -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let written = |file: &KeyFile, name: &str| {
        let path = directory.path().join(name);
        file.write(&path).expect("writing to a temporary directory");
        std::fs::read(path).expect("reading what was written")
    };
    let principal = SecretKey::from_bytes(&[3; 32]);
    vec![
        written(&KeyFile::Node(NodeSeed::from_bytes([2; 32])), "node"),
        written(&KeyFile::Principal(principal), "principal"),
        b"quorate node key v2\n".to_vec(),
    ]
}
