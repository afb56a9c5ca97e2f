//! A chain of six heights, made from constants, for the tests of the verifier.
//!
//! Invariant: the same bytes in every run.
#![allow(missing_docs, dead_code, clippy::arithmetic_side_effects, clippy::unwrap_used)]

use quorate_crypto::{
    Address, Bounded, Certificate, CertificateKind, Ed25519Signer, Ed25519Verifier, Hash, Member, MemberSet,
    NodeSeed, Role, Signature, Signer,
};
use quorate_execution::{Environment, State};
use quorate_protocol::envelope::session_id;
use quorate_protocol::file::Name;
use quorate_protocol::genesis::{GENESIS_VERSION, Parameters};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::{
    BatchTime, Credential, Envelope, EnvelopeBody, Genesis, Groups, Header, Operation, OperationBody,
    Proposal, Vote, VoteKind,
};

pub const SECOND: u64 = 1_000_000_000;

pub fn seed(number: u8) -> NodeSeed {
    NodeSeed::from_bytes([number; 32])
}

pub fn member(index: u8) -> Member {
    Member::from_seed(&seed(index), Address::try_from("127.0.0.1:7000".to_owned()).unwrap())
}

pub fn principal() -> Ed25519Signer {
    Ed25519Signer::new(seed(100).derive(Role::Principal))
}

pub fn genesis() -> Genesis {
    Genesis {
        version: GENESIS_VERSION,
        nonce: [1; 32],
        time: BatchTime(1_700_000_000 * SECOND),
        members: MemberSet::new(0, (0..4).map(member).collect()).unwrap(),
        principal: principal().public(),
        rights: PrincipalRights {
            anyone: true,
            administrator: true,
            auditor: true,
            uids: Bounded::new(),
            gids: Bounded::new(),
            squash_root: None,
            realms: Bounded::new(),
        },
        parameters: Parameters::default(),
        root: (0, 0, 0o755),
        entropy: [2; 16],
    }
}

/// The COMMITs of replicas for a header, as a certificate.
pub fn certify(genesis: &Genesis, header: &Header, view: u64, replicas: &[u8]) -> Certificate {
    let votes = replicas.iter().map(|replica| {
        let mut vote = Vote {
            kind: VoteKind::Commit,
            epoch: 0,
            view,
            height: header.height,
            header: header.hash(),
            replica: *replica,
            signature: Signature::ZERO,
        };
        let signer = Ed25519Signer::new(seed(*replica).derive(Role::Consensus));
        vote.signature = signer.sign(&vote.statement(genesis.cluster()));
        (vote.replica, vote.signature)
    });
    let kind = CertificateKind::Commit;
    Certificate::assemble(
        kind,
        &genesis.members,
        view,
        header.height,
        header.hash(),
        votes.collect::<Vec<_>>(),
    )
    .unwrap()
}

pub fn envelope(cluster: Hash, first: u64, bodies: Vec<OperationBody>) -> Envelope {
    let key = principal().public();
    let operation = |body| Operation { credential: 0, requires: 0, at: None, body };
    let body = EnvelopeBody {
        cluster,
        session: session_id(&cluster, &key, &[5; 32]),
        key,
        first,
        valid_until: BatchTime(1_700_000_900 * SECOND),
        credentials: Bounded::try_from(vec![Credential {
            uid: 0,
            gid: 0,
            groups: Groups::Listed(Bounded::new()),
        }])
        .unwrap(),
        operations: Bounded::try_collect(bodies.into_iter().map(operation)).unwrap(),
    };
    body.sign(&principal())
}

pub fn chain() -> (Genesis, Vec<CommittedBatch>) {
    let (genesis, committed, _) = chain_and_state();
    (genesis, committed)
}

/// Six heights: a registration, changes, an empty batch; and the state after them.
pub fn chain_and_state() -> (Genesis, Vec<CommittedBatch>, State) {
    let cluster = genesis().cluster();
    let (genesis, committed, mut states) = run(vec![
        vec![envelope(cluster, 0, vec![OperationBody::Register { nonce: [5; 32] }])],
        vec![envelope(cluster, 1, vec![mkdir("a"), mkdir("b")])],
        vec![],
        vec![envelope(cluster, 3, vec![mkdir("c")]), envelope(cluster, 4, vec![mkdir("c")])],
        vec![envelope(cluster, 4, vec![mkdir("d")])],
        vec![envelope(cluster, 5, vec![OperationBody::CloseSession])],
    ]);
    (genesis, committed, states.pop().unwrap())
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// A directory in the root.
pub fn mkdir(text: &str) -> OperationBody {
    OperationBody::Mkdir { parent: 1, name: name(text), mode: 0o755, umask: 0, ino: None, entropy: [7; 16] }
}

/// The heights of these batches, and the states from genesis on.
pub fn run(batches: Vec<Vec<Envelope>>) -> (Genesis, Vec<CommittedBatch>, Vec<State>) {
    let genesis = genesis();
    let cluster = genesis.cluster();
    let verifier = Ed25519Verifier::new();
    let mut states = vec![State::genesis(&genesis).unwrap()];
    let mut committed = Vec::new();
    for (index, envelopes) in batches.into_iter().enumerate() {
        let state = states.last().unwrap();
        let time = state.header().time.plus(SECOND);
        let proposal =
            Proposal { parent: state.header().proposal, time, envelopes: envelopes.try_into().unwrap() };
        let height = state.height() + 1;
        let digest = proposal.digest(&cluster, 0, height);
        let environment = Environment { cluster, members: &genesis.members, verifier: &verifier };
        let state = state.execute(&environment, height, &proposal, digest).unwrap().state;
        let signers: &[u8] = if index % 2 == 0 { &[0, 1, 3] } else { &[0, 1, 2, 3] };
        let certificate = certify(&genesis, state.header(), index as u64, signers);
        committed
            .push(CommittedBatch { batch: Batch { header: state.header().clone(), proposal }, certificate });
        states.push(state);
    }
    (genesis, committed, states)
}
