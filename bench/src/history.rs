//! A certified history made by one process that holds every key, to measure audits of any length by.
//!
//! Invariant: it is a function of its constants and of what is asked for: heights that a real cluster could have
//! committed, with real signatures of three of its four replicas.

use quorate_crypto::{
    Address, Bounded, Certificate, CertificateKind, Ed25519Signer, Ed25519Verifier, Hash, Member, MemberSet,
    NodeSeed, Role, Signer as _, Statement,
};
use quorate_execution::{Changes, Environment, State};
use quorate_protocol::envelope::session_id;
use quorate_protocol::file::Name;
use quorate_protocol::genesis::{GENESIS_VERSION, Parameters};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::{
    BatchTime, Credential, Envelope, EnvelopeBody, Genesis, Groups, Header, Operation, OperationBody,
    Proposal, SessionId,
};

const SECOND: u64 = 1_000_000_000;
/// Between two heights; a session outlives any history of them, since each envelope renews it.
const PAUSE: u64 = SECOND / 1000;
/// How long envelopes are valid.
const VALID: u64 = 60 * SECOND;
const NONCE: [u8; 32] = [5; 32];
/// Files of a directory, before the next one is made.
const DIRECTORY_FILES: u64 = 10_000;
/// Who signs.
const SIGNERS: [u8; 3] = [0, 1, 2];

/// A history that grows by one height at a time.
pub struct History {
    genesis: Genesis,
    cluster: Hash,
    principal: Ed25519Signer,
    signers: Vec<Ed25519Signer>,
    verifier: Ed25519Verifier,
    session: SessionId,
    state: State,
    changes: Changes,
    sequence: u64,
    files: u64,
    /// Where the next files are made, and the next inode number.
    directory: u64,
    inode: u64,
}

fn seed(number: u8) -> NodeSeed {
    NodeSeed::from_bytes([number; 32])
}

fn genesis(principal: &Ed25519Signer) -> Genesis {
    let address = || Address::try_from("127.0.0.1:7000".to_owned()).expect("a short address");
    let members = (0..4).map(|index| Member::from_seed(&seed(index), address())).collect();
    Genesis {
        version: GENESIS_VERSION,
        nonce: [1; 32],
        time: BatchTime(1_700_000_000 * SECOND),
        members: MemberSet::new(0, members).expect("four members with keys of their own"),
        principal: principal.public(),
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

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    /// The genesis alone.
    #[must_use]
    pub fn new() -> Self {
        let principal = Ed25519Signer::new(seed(100).derive(Role::Principal));
        let genesis = genesis(&principal);
        let cluster = genesis.cluster();
        let signer = |index: u8| Ed25519Signer::new(seed(index).derive(Role::Consensus));
        let members = genesis.members.members().iter().map(|member| member.consensus);
        Self {
            cluster,
            signers: SIGNERS.map(signer).into(),
            verifier: Ed25519Verifier::with_keys(members),
            session: session_id(&cluster, &principal.public(), &NONCE),
            state: State::genesis(&genesis).expect("a genesis that a cluster can start from"),
            changes: Changes::new(),
            principal,
            genesis,
            sequence: 0,
            files: 0,
            directory: 1,
            inode: 2,
        }
    }

    /// What it starts from.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The state after the last height.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The rows that the last height changed.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The next height: one envelope that makes `files` files, or the session's registration.
    ///
    /// # Panics
    /// When the execution refuses what was made here: a defect.
    pub fn next_height(&mut self, files: u64) -> CommittedBatch {
        let bodies = if self.sequence == 0 {
            vec![OperationBody::Register { nonce: NONCE }]
        } else {
            (0..files).map(|_| self.next_operation()).collect()
        };
        let time = self.state.header().time.plus(PAUSE).max(self.state.minimum_time());
        let envelope = self.envelope(time, bodies);
        let proposal = Proposal {
            parent: self.state.header().proposal,
            time,
            envelopes: Bounded::try_from(vec![envelope]).expect("one envelope"),
        };
        let height = self.state.height() + 1;
        let digest = proposal.digest(&self.cluster, 0, height);
        let environment =
            Environment { cluster: self.cluster, members: &self.genesis.members, verifier: &self.verifier };
        let executed = self.state.execute(&environment, height, &proposal, digest);
        let executed = executed.expect("a proposal without a static fault");
        self.state = executed.state;
        self.changes = executed.changes;
        let header = self.state.header().clone();
        let certificate = self.certify(&header);
        CommittedBatch { batch: Batch { header, proposal }, certificate }
    }

    fn next_operation(&mut self) -> OperationBody {
        let in_directory = self.files % (DIRECTORY_FILES + 1);
        let number = self.files;
        self.files += 1;
        let inode = self.inode;
        self.inode += 1;
        let mut entropy = [7; 16];
        entropy.iter_mut().zip(number.to_le_bytes()).for_each(|(byte, of)| *byte = of);
        let name = Name::new(format!("n{number}").as_bytes()).expect("a short name");
        if in_directory == 0 {
            self.directory = inode;
            return OperationBody::Mkdir { parent: 1, name, mode: 0o755, umask: 0, ino: None, entropy };
        }
        OperationBody::Create {
            parent: self.directory,
            name,
            mode: 0o644,
            umask: 0,
            exclusive: true,
            open: None,
            ino: None,
            entropy,
        }
    }

    fn envelope(&mut self, time: BatchTime, bodies: Vec<OperationBody>) -> Envelope {
        let operation = |body| Operation { credential: 0, requires: 0, at: None, body };
        let root = Credential { uid: 0, gid: 0, groups: Groups::Listed(Bounded::new()) };
        let first = self.sequence;
        self.sequence += bodies.len() as u64;
        let body = EnvelopeBody {
            cluster: self.cluster,
            session: self.session,
            key: self.principal.public(),
            first,
            valid_until: time.plus(VALID),
            credentials: Bounded::try_from(vec![root]).expect("one credential"),
            operations: Bounded::try_collect(bodies.into_iter().map(operation)).expect("few operations"),
        };
        body.sign(&self.principal)
    }

    /// The COMMITs of a quorum.
    fn certify(&self, header: &Header) -> Certificate {
        let kind = CertificateKind::Commit;
        let statement = commit(self.cluster, header.height, header.hash());
        let votes: Vec<_> = SIGNERS
            .iter()
            .zip(&self.signers)
            .map(|(index, signer)| (*index, signer.sign(&statement)))
            .collect();
        Certificate::assemble(kind, &self.genesis.members, 0, header.height, header.hash(), votes)
            .expect("a quorum")
    }
}

/// What a COMMIT of view 0 says.
#[must_use]
pub fn commit(cluster: Hash, height: u64, digest: Hash) -> Statement {
    let kind = CertificateKind::Commit.statement_kind();
    Statement { cluster, epoch: 0, kind, view: 0, height, digest }
}
