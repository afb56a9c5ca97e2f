//! A cluster in memory for the tests of execution: genesis, members, principals, and a chain of states.
#![allow(dead_code, clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]
#![allow(clippy::expect_used, clippy::panic)]

use quorate_crypto::{
    Address, Bounded, Hash, KeyedHashSigner, KeyedHashVerifier, Member, MemberSet, NodeSeed, PublicKey, Role,
    SecretKey, Signature,
};
use quorate_execution::{Environment, Executed, State};
use quorate_protocol::envelope::session_id;
use quorate_protocol::file::Name;
use quorate_protocol::genesis::{GENESIS_VERSION, Parameters};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::{
    BatchTime, Credential, Envelope, EnvelopeBody, Genesis, Groups, Operation, OperationBody,
    OperationResult, Proposal, SessionId,
};

pub const SECOND: u64 = 1_000_000_000;
pub const START: u64 = 1_700_000_000 * SECOND;

pub fn seed(number: u8) -> NodeSeed {
    NodeSeed::from_bytes([number; 32])
}

pub fn principal_secret(number: u8) -> SecretKey {
    seed(100 + number).derive(Role::Principal)
}

pub fn members() -> MemberSet {
    let address = |index: u8| Address::try_from(format!("127.0.0.1:{}", 7000 + u16::from(index))).unwrap();
    MemberSet::new(0, (0..4).map(|index| Member::from_seed(&seed(index), address(index))).collect()).unwrap()
}

pub fn anyone() -> PrincipalRights {
    PrincipalRights {
        anyone: true,
        administrator: true,
        auditor: true,
        uids: Bounded::new(),
        gids: Bounded::new(),
        squash_root: None,
        realms: Bounded::new(),
    }
}

pub fn genesis() -> Genesis {
    Genesis {
        version: GENESIS_VERSION,
        nonce: [7; 32],
        time: BatchTime(START),
        members: members(),
        principal: principal_secret(0).public(),
        rights: anyone(),
        parameters: Parameters::default(),
        root: (0, 0, 0o755),
        entropy: [9; 16],
    }
}

/// A chain of states, each the parent of the next.
pub struct Chain {
    pub genesis: Genesis,
    pub members: MemberSet,
    pub verifier: KeyedHashVerifier,
    pub states: Vec<State>,
    pub proposals: Vec<Proposal>,
}

impl Chain {
    pub fn new() -> Self {
        Self::with(genesis())
    }

    pub fn with(genesis: Genesis) -> Self {
        let secrets: Vec<SecretKey> = (0..4).map(|index| seed(index).derive(Role::Blocks)).collect();
        let verifier = KeyedHashVerifier::new(&secrets);
        let state = State::genesis(&genesis).unwrap();
        Chain {
            members: genesis.members.clone(),
            genesis,
            verifier,
            states: vec![state],
            proposals: Vec::new(),
        }
    }

    pub fn state(&self) -> &State {
        self.states.last().unwrap()
    }

    pub fn cluster(&self) -> Hash {
        self.genesis.cluster()
    }

    pub fn environment(&self) -> Environment<'_> {
        Environment { cluster: self.cluster(), members: &self.members, verifier: &self.verifier }
    }

    pub fn proposal(&self, after: u64, envelopes: Vec<Envelope>) -> Proposal {
        let time = BatchTime(self.state().header().time.0 + after).max(self.state().minimum_time());
        Proposal {
            parent: self.state().header().proposal,
            time,
            envelopes: Bounded::try_from(envelopes).unwrap(),
        }
    }

    pub fn execute_on(&self, state: &State, proposal: &Proposal) -> Executed {
        let height = state.height() + 1;
        let digest = proposal.digest(&self.cluster(), self.members.epoch(), height);
        state.execute(&self.environment(), height, proposal, digest).unwrap()
    }

    /// Executes a batch `after` nanoseconds after the last one.
    pub fn step(&mut self, after: u64, envelopes: Vec<Envelope>) -> Executed {
        let proposal = self.proposal(after, envelopes);
        let executed = self.execute_on(self.state(), &proposal);
        self.states.push(executed.state.clone());
        self.proposals.push(proposal);
        executed
    }

    /// Executes one envelope and returns the results of its operations.
    pub fn run(&mut self, envelope: Envelope) -> Vec<OperationResult> {
        let executed = self.step(1000, vec![envelope]);
        executed.receipts.leaves().iter().map(|leaf| leaf.result.clone()).collect()
    }

    /// A client of principal 0 with a registered session.
    pub fn client(&mut self, nonce: u8) -> Client {
        self.client_of(0, nonce)
    }

    pub fn client_of(&mut self, principal: u8, nonce: u8) -> Client {
        let mut client = Client::new(self.cluster(), principal, nonce);
        let register = client.register(self.state().header().time.plus(60 * SECOND));
        let results = self.run(register);
        assert!(matches!(results[..], [OperationResult::Done(_)]), "{results:?}");
        client
    }
}

pub fn root() -> Credential {
    Credential { uid: 0, gid: 0, groups: Groups::Listed(Bounded::new()) }
}

pub fn user(uid: u32, gid: u32, groups: &[u32]) -> Credential {
    Credential { uid, gid, groups: Groups::Listed(Bounded::try_from(groups.to_vec()).unwrap()) }
}

pub fn operation(body: OperationBody) -> Operation {
    Operation { credential: 0, requires: 0, at: None, body }
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub fn mkdir(parent: u64, text: &str, mode: u16) -> OperationBody {
    OperationBody::Mkdir { parent, name: name(text), mode, umask: 0, ino: None, entropy: [3; 16] }
}

pub fn create(parent: u64, text: &str, mode: u16) -> OperationBody {
    let (name, exclusive, open, ino) = (name(text), true, None, None);
    OperationBody::Create { parent, name, mode, umask: 0, exclusive, open, ino, entropy: [4; 16] }
}

/// A client: makes envelopes with consecutive numbers.
#[derive(Clone)]
pub struct Client {
    pub cluster: Hash,
    pub secret: SecretKey,
    pub nonce: [u8; 32],
    pub session: SessionId,
    pub next: u64,
    pub credentials: Vec<Credential>,
}

impl Client {
    pub fn new(cluster: Hash, principal: u8, nonce: u8) -> Self {
        let secret = principal_secret(principal);
        let session = session_id(&cluster, &secret.public(), &[nonce; 32]);
        Client { cluster, secret, nonce: [nonce; 32], session, next: 0, credentials: vec![root()] }
    }

    pub fn key(&self) -> PublicKey {
        self.secret.public()
    }

    pub fn register(&mut self, valid_until: BatchTime) -> Envelope {
        self.next = 1;
        let register = operation(OperationBody::Register { nonce: self.nonce });
        Envelope {
            body: EnvelopeBody { valid_until, ..self.body(0, vec![register]) },
            signature: Signature::ZERO,
        }
    }

    pub fn body(&self, first: u64, operations: Vec<Operation>) -> EnvelopeBody {
        EnvelopeBody {
            cluster: self.cluster,
            session: self.session,
            key: self.key(),
            first,
            valid_until: BatchTime(u64::MAX),
            credentials: Bounded::try_from(self.credentials.clone()).unwrap(),
            operations: Bounded::try_from(operations).unwrap(),
        }
    }

    pub fn envelope_at(&self, first: u64, operations: Vec<Operation>) -> Envelope {
        Envelope { body: self.body(first, operations), signature: Signature::ZERO }
    }

    /// The next envelope.
    pub fn envelope(&mut self, bodies: Vec<OperationBody>) -> Envelope {
        self.operations(bodies.into_iter().map(operation).collect())
    }

    pub fn operations(&mut self, operations: Vec<Operation>) -> Envelope {
        let envelope = self.envelope_at(self.next, operations);
        self.next = envelope.next();
        envelope
    }

    pub fn sign(&self, envelope: Envelope) -> Envelope {
        envelope.body.sign(&KeyedHashSigner::new(&self.secret))
    }
}

pub fn errno(result: &OperationResult) -> Option<u16> {
    match result {
        OperationResult::Failed(errno) => Some(*errno),
        _ => None,
    }
}
