//! A cluster within the test: real execution, keys and certificates, no network and no consensus.
//!
//! Invariant: there is one truth, the chain of states; each replica tells it unless a test makes that
//! replica lie, lag or fall silent.
#![allow(dead_code, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use quorate_client::replicas::{Boxed, Event, Replicas, Unreachable};
use quorate_client::{Client, ClientOptions};
use quorate_crypto::{
    Address, Bounded, BoundedBytes, Certificate, CertificateKind, Ed25519Signer, Ed25519Verifier, Hash,
    Member, MemberSet, NodeSeed, Role, SecretKey, Signature, Signer,
};
use quorate_execution::{Environment, Receipts, State};
use quorate_merkle::ReceiptsTree;
use quorate_protocol::blocks::{BlockDescriptor, BlockReceipt, BlockReceiptBody, receipt_leaf};
use quorate_protocol::client::{CertifiedHeader, ClientReply, ClientRequest, Notice, ReadAnswer, Refusal};
use quorate_protocol::genesis::{GENESIS_VERSION, Genesis, Parameters};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::query::ReadAt;
use quorate_protocol::{
    BatchTime, Credential, Envelope, Groups, Height, Proposal, ReplicaIndex, SessionId, Vote, VoteKind,
};
use quorate_transport::ClusterFile;
use tokio::sync::mpsc;

/// Changes or replaces a reply; `None` means that the reply cannot be read.
pub type Lie = Box<dyn FnMut(&ClientRequest, ClientReply) -> Option<ClientReply> + Send>;

/// How a replica behaves.
#[derive(Default)]
pub struct Behaviour {
    pub silent: bool,
    /// Never sends COMMITs or results.
    pub withholds_notices: bool,
    /// Sends the certificate, changed like that, in place of its COMMITs.
    pub certifies: Option<fn(&mut Certificate)>,
    /// Sends no COMMITs, but results.
    pub withholds_commits: bool,
    /// Never sends results.
    pub withholds_results: bool,
    /// Shows no height above this one.
    pub stuck_at: Option<Height>,
    /// Keeps no height below this one.
    pub horizon: Height,
    pub lie: Option<Lie>,
    /// How long a request takes.
    pub delay: std::time::Duration,
    pub asked: u64,
    /// Bytes of blocks that were sent to it while it was silent.
    pub unanswered: usize,
}

struct Committed {
    state: State,
    receipts: Receipts,
    proposal: Proposal,
    certificate: Option<Certificate>,
}

pub struct Inner {
    pub cluster: Hash,
    pub members: MemberSet,
    votes: Vec<Ed25519Signer>,
    blocks: Vec<Ed25519Signer>,
    chain: Vec<Committed>,
    pub behaviour: Vec<Behaviour>,
    links: Vec<mpsc::Sender<Event>>,
    submitted: HashMap<Hash, Vec<(usize, ReplicaIndex, bool)>>,
    /// While set, envelopes are kept instead of executed.
    pub hold: bool,
    pub held: Vec<Envelope>,
    /// Envelopes that are thrown away before one is taken.
    pub lose: usize,
    stored: BTreeMap<Hash, Vec<u8>>,
    /// Added to the clock of the batches, in nanoseconds.
    pub ahead: u64,
    pub executed: Vec<Hash>,
}

/// The cluster; every client gets its own link to it.
#[derive(Clone)]
pub struct Fake(Arc<Mutex<Inner>>, Genesis);

pub fn principal() -> SecretKey {
    NodeSeed::from_bytes([77; 32]).derive(Role::Principal)
}

pub fn root() -> Credential {
    Credential { uid: 0, gid: 0, groups: Groups::Listed(Bounded::new()) }
}

fn wall() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

impl Fake {
    pub fn new() -> Self {
        let seeds: Vec<_> = (1..=4_u8).map(|byte| NodeSeed::from_bytes([byte; 32])).collect();
        let address = |index: usize| Address::try_from(format!("127.0.0.1:{}", 1000 + index)).unwrap();
        let members = seeds.iter().enumerate();
        let members = members.map(|(index, seed)| Member::from_seed(seed, address(index))).collect();
        let members = MemberSet::new(0, members).unwrap();
        let rights = PrincipalRights {
            anyone: true,
            administrator: true,
            auditor: true,
            uids: Bounded::new(),
            gids: Bounded::new(),
            squash_root: None,
            realms: Bounded::new(),
        };
        let genesis = Genesis {
            version: GENESIS_VERSION,
            nonce: [5; 32],
            time: BatchTime(wall()),
            members: members.clone(),
            principal: principal().public(),
            rights,
            parameters: Parameters { block_log2: 16, ..Parameters::default() },
            root: (0, 0, 0o755),
            entropy: [6; 16],
        };
        let state = State::genesis(&genesis).unwrap();
        let proposal = Proposal { parent: Hash::ZERO, time: genesis.time, envelopes: Bounded::new() };
        let receipts = Receipts::new(Vec::new()).unwrap();
        let signers = |role| seeds.iter().map(|seed| Ed25519Signer::new(seed.derive(role))).collect();
        let inner = Inner {
            cluster: genesis.cluster(),
            members,
            votes: signers(Role::Consensus),
            blocks: signers(Role::Blocks),
            chain: vec![Committed { state, receipts, proposal, certificate: None }],
            behaviour: (0..4).map(|_| Behaviour::default()).collect(),
            links: Vec::new(),
            submitted: HashMap::new(),
            hold: false,
            held: Vec::new(),
            lose: 0,
            stored: BTreeMap::new(),
            ahead: 0,
            executed: Vec::new(),
        };
        Self(Arc::new(Mutex::new(inner)), genesis)
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn cluster_file(&self) -> ClusterFile {
        ClusterFile::new(self.1.clone())
    }

    pub async fn client(&self, options: ClientOptions) -> Client {
        self.try_client(options, principal()).await.unwrap()
    }

    pub async fn try_client(
        &self,
        options: ClientOptions,
        principal: SecretKey,
    ) -> Result<Client, quorate_client::ClientError> {
        let key = principal.public();
        let link = Link { fake: self.clone(), number: Mutex::new(None), key };
        Client::with_replicas(self.cluster_file(), principal, options, Arc::new(link)).await
    }

    /// Who is to send the results of what is held.
    pub fn chosen(&self) -> usize {
        let inner = self.lock();
        let digest = inner.held.last().expect("something is held").body.digest();
        let chosen = inner.submitted[&digest].iter().rev().find(|(.., results)| *results);
        usize::from(chosen.expect("somebody is to send them").1)
    }

    /// The links to a replica break, and it answers nothing more.
    pub fn disconnect(&self, replica: usize) {
        let mut inner = self.lock();
        inner.behaviour[replica].silent = true;
        let index = ReplicaIndex::try_from(replica).unwrap();
        inner.links.iter().for_each(|link| _ = link.try_send(Event::Disconnected(index)));
    }

    /// Executes what was held, in the order given by `order`.
    pub fn release(&self, order: impl FnOnce(&mut Vec<Envelope>)) {
        let mut inner = self.lock();
        inner.hold = false;
        let mut held = std::mem::take(&mut inner.held);
        order(&mut held);
        for envelope in held {
            inner.commit(vec![envelope]);
        }
    }
}

impl Inner {
    pub fn height(&self) -> Height {
        self.chain.len() as u64 - 1
    }

    /// Executes a batch and tells the clients.
    pub fn commit(&mut self, envelopes: Vec<Envelope>) {
        let parent = &self.chain.last().unwrap().state;
        let height = parent.height() + 1;
        let time = parent.minimum_time().max(BatchTime(wall() + self.ahead));
        let digests: Vec<_> = envelopes.iter().map(|envelope| envelope.body.digest()).collect();
        let envelopes = Bounded::try_from(envelopes).unwrap();
        let proposal = Proposal { parent: parent.header().proposal, time, envelopes };
        let digest = proposal.digest(&self.cluster, 0, height);
        let verifier = Ed25519Verifier::new();
        let environment = Environment { cluster: self.cluster, members: &self.members, verifier: &verifier };
        let executed = parent.execute(&environment, height, &proposal, digest).unwrap();
        let votes = self.votes(height, executed.state.hash());
        let signatures = votes.iter().take(3).map(|vote| (vote.replica, vote.signature));
        let hash = executed.state.hash();
        let certificate =
            Certificate::assemble(CertificateKind::Commit, &self.members, 0, height, hash, signatures)
                .unwrap();
        let receipts = executed.receipts;
        let state = executed.state;
        self.chain.push(Committed { state, receipts, proposal, certificate: Some(certificate) });
        self.notify(&digests, &votes);
        let leaves = self.chain.last().unwrap().receipts.leaves();
        let skipped = |digest: &Hash| {
            let skipped = |leaf: &quorate_protocol::ReceiptLeaf| {
                matches!(leaf.result, quorate_protocol::OperationResult::Skipped(_))
            };
            leaves.iter().any(|leaf| leaf.envelope == *digest && skipped(leaf))
        };
        let executed: Vec<Hash> = digests.into_iter().filter(|digest| !skipped(digest)).collect();
        self.executed.extend(executed);
    }

    fn votes(&self, height: Height, header: Hash) -> Vec<Vote> {
        let vote = |replica: ReplicaIndex| {
            let kind = VoteKind::Commit;
            let signature = Signature([0; 64]);
            let mut vote = Vote { kind, epoch: 0, view: 0, height, header, replica, signature };
            vote.signature = self.votes[usize::from(replica)].sign(&vote.statement(self.cluster));
            vote
        };
        (0..4).map(vote).collect()
    }

    /// COMMITs and results, for the clients that submitted these envelopes.
    fn notify(&mut self, digests: &[Hash], votes: &[Vote]) {
        let committed = self.chain.last().unwrap();
        let leaves = committed.receipts.leaves();
        let mut told = std::collections::BTreeSet::new();
        for digest in digests {
            for (link, replica, results) in self.submitted.get(digest).into_iter().flatten() {
                let behaviour = &self.behaviour[usize::from(*replica)];
                if behaviour.silent || behaviour.withholds_notices || behaviour.stuck_at.is_some() {
                    continue;
                }
                let sender = &self.links[*link];
                if *results && !behaviour.withholds_results {
                    let first = leaves.iter().position(|leaf| leaf.envelope == *digest).unwrap();
                    let first = u32::try_from(first).unwrap();
                    let results = committed.receipts.results(committed.state.header(), first, None).unwrap();
                    let _ = sender.try_send(Event::Notice(*replica, Box::new(Notice::Results(results))));
                }
                if !behaviour.withholds_commits && told.insert((*link, *replica)) {
                    let notice = match behaviour.certifies {
                        None => {
                            Notice::Commits(vec![votes[usize::from(*replica)].clone()].try_into().unwrap())
                        }
                        Some(change) => {
                            let mut certificate = committed.certificate.clone().unwrap();
                            change(&mut certificate);
                            Notice::Certified(certificate)
                        }
                    };
                    let _ = sender.try_send(Event::Notice(*replica, Box::new(notice)));
                }
            }
        }
    }

    fn take(&mut self, envelope: &Envelope) {
        let digest = envelope.body.digest();
        let known = self.executed.contains(&digest) || self.held.contains(envelope);
        if known {
            return;
        }
        if self.lose > 0 {
            self.lose -= 1;
        } else if self.hold {
            self.held.push(envelope.clone());
        } else {
            self.commit(vec![envelope.clone()]);
        }
    }

    /// The height that a replica shows.
    fn shown(&self, replica: ReplicaIndex) -> usize {
        let stuck = self.behaviour[usize::from(replica)].stuck_at.unwrap_or(u64::MAX);
        usize::try_from(self.height().min(stuck)).unwrap()
    }

    fn answer(&mut self, replica: ReplicaIndex, link: &Link, request: &ClientRequest) -> ClientReply {
        let shown = self.shown(replica);
        match request {
            ClientRequest::Read(read) => {
                let horizon = self.behaviour[usize::from(replica)].horizon;
                let height = match read.at {
                    ReadAt::Exactly(height) if height < horizon || height > shown as u64 => {
                        return refused(Refusal::NotRetained { horizon, applied: shown as u64 });
                    }
                    ReadAt::Exactly(height) => usize::try_from(height).unwrap(),
                    at if at.admits(shown as u64) => shown,
                    _ => return refused(Refusal::Behind),
                };
                let Committed { state, certificate, .. } = &self.chain[height];
                let answered = state.answer(&link.key, &read.credential, &read.query).unwrap();
                ClientReply::Read(ReadAnswer {
                    header: state.header().clone(),
                    certificate: certificate.clone(),
                    proof: BoundedBytes::try_from(answered.proof).unwrap(),
                })
            }
            ClientRequest::Highest { known } => {
                let height = shown as u64;
                let certificate = self.chain[shown].certificate.clone().filter(|_| height > *known);
                ClientReply::Highest { height, certificate }
            }
            ClientRequest::Results { session, first } => self.results(shown, session, *first),
            ClientRequest::PutBlocks { session, blocks } => {
                let blocks: Vec<Vec<u8>> = blocks.iter().map(|block| block.to_vec()).collect();
                self.store(replica, *session, blocks)
            }
            ClientRequest::GetBlock { id, .. } => match self.stored.get(id) {
                Some(block) => ClientReply::Block(BoundedBytes::try_from(block.clone()).unwrap()),
                None => refused(Refusal::NotFound),
            },
            ClientRequest::History { from } => {
                let chain = self.chain.iter().skip(usize::try_from(*from).unwrap().max(1));
                let batches = chain.take(64).map(|committed| CommittedBatch {
                    batch: Batch {
                        header: committed.state.header().clone(),
                        proposal: committed.proposal.clone(),
                    },
                    certificate: committed.certificate.clone().unwrap(),
                });
                ClientReply::History(Bounded::try_collect(batches).unwrap())
            }
            ClientRequest::Header { height } => match self.chain.get(usize::try_from(*height).unwrap()) {
                Some(Committed { state, certificate, .. }) => ClientReply::Header(CertifiedHeader {
                    header: state.header().clone(),
                    certificate: certificate.clone(),
                }),
                None => refused(Refusal::Behind),
            },
            _ => ClientReply::Accepted,
        }
    }

    fn results(&self, shown: usize, session: &SessionId, first: u64) -> ClientReply {
        for committed in self.chain[..=shown].iter().rev() {
            let Some(index) = committed.receipts.find(session, first) else { continue };
            let leaf = &committed.receipts.leaves()[index as usize];
            if matches!(leaf.result, quorate_protocol::OperationResult::Skipped(_)) {
                continue;
            }
            let certificate = committed.certificate.clone();
            let header = committed.state.header();
            return ClientReply::Results(committed.receipts.results(header, index, certificate).unwrap());
        }
        refused(Refusal::NotFound)
    }

    fn store(&mut self, replica: ReplicaIndex, session: SessionId, blocks: Vec<Vec<u8>>) -> ClientReply {
        if self.chain.last().unwrap().state.session_next(&session).is_none() {
            return refused(Refusal::Denied);
        }
        let descriptors: Vec<_> = blocks.iter().map(|block| BlockDescriptor::copies(block)).collect();
        let leaves = descriptors.iter().map(|one| receipt_leaf(&one.id(), one.length));
        let root = ReceiptsTree::from_leaves(leaves).unwrap().root();
        let body = BlockReceiptBody {
            session,
            expires: BatchTime(wall() + 600_000_000_000),
            count: u32::try_from(blocks.len()).unwrap(),
            root,
        };
        let statement = BlockReceipt::statement(self.cluster, 0, &body);
        let signature = self.blocks[usize::from(replica)].sign(&statement);
        for (descriptor, block) in descriptors.iter().zip(blocks) {
            self.stored.insert(descriptor.id(), block);
        }
        let receipt = BlockReceipt { epoch: 0, replica, body, signature };
        ClientReply::Stored { descriptors: Bounded::try_from(descriptors).unwrap(), receipt }
    }
}

pub fn refused(refusal: Refusal) -> ClientReply {
    ClientReply::Refused { refusal, text: BoundedBytes::new() }
}

struct Link {
    fake: Fake,
    number: Mutex<Option<usize>>,
    key: quorate_crypto::PublicKey,
}

impl Link {
    fn take(&self, replica: ReplicaIndex, envelope: &Envelope, results: bool) {
        let mut inner = self.fake.lock();
        if inner.behaviour[usize::from(replica)].silent {
            return;
        }
        if let Some(number) = *self.number.lock().unwrap() {
            let digest = envelope.body.digest();
            inner.submitted.entry(digest).or_default().push((number, replica, results));
        }
        // Ordered when all have had the time to get it, so that all know who asked.
        let (fake, envelope) = (self.fake.clone(), envelope.clone());
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            fake.lock().take(&envelope);
        });
    }
}

impl Replicas for Link {
    fn connected(&self, replica: ReplicaIndex) -> bool {
        !self.fake.lock().behaviour[usize::from(replica)].silent
    }

    fn last_error(&self, _: ReplicaIndex) -> Option<String> {
        None
    }

    fn submit(&self, replica: ReplicaIndex, envelope: &Envelope, results: bool) -> Result<(), Unreachable> {
        // After the client's own turn, so that all replicas have it before it is executed.
        let (fake, number, key) = (self.fake.clone(), *self.number.lock().unwrap(), self.key);
        let envelope = envelope.clone();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            Link { fake, number: Mutex::new(number), key }.take(replica, &envelope, results);
        });
        Ok(())
    }

    fn request(
        &self,
        replica: ReplicaIndex,
        request: Arc<ClientRequest>,
    ) -> Boxed<Result<ClientReply, Unreachable>> {
        let (fake, number, key) = (self.fake.clone(), *self.number.lock().unwrap(), self.key);
        Box::pin(async move {
            tokio::task::yield_now().await;
            let link = Link { fake, number: Mutex::new(number), key };
            let delay = link.fake.lock().behaviour[usize::from(replica)].delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if link.fake.lock().behaviour[usize::from(replica)].silent {
                if let ClientRequest::PutBlocks { blocks, .. } = &*request {
                    let bytes: usize = blocks.iter().map(|block| block.len()).sum();
                    link.fake.lock().behaviour[usize::from(replica)].unanswered += bytes;
                }
                std::future::pending::<()>().await;
            }
            if let ClientRequest::Submit { envelope, results } = &*request {
                link.take(replica, envelope, *results);
            }
            let mut inner = link.fake.lock();
            let reply = inner.answer(replica, &link, &request);
            let behaviour = &mut inner.behaviour[usize::from(replica)];
            behaviour.asked += 1;
            match behaviour.lie.as_mut() {
                None => Ok(reply),
                Some(lie) => {
                    lie(&request, reply).ok_or_else(|| Unreachable::Broken("does not decode".to_owned()))
                }
            }
        })
    }

    fn events(&self) -> Option<mpsc::Receiver<Event>> {
        let mut number = self.number.lock().unwrap();
        if number.is_some() {
            return None;
        }
        let (sender, receiver) = mpsc::channel(1024);
        let mut inner = self.fake.lock();
        *number = Some(inner.links.len());
        inner.links.push(sender);
        Some(receiver)
    }
}
