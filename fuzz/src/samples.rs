//! Seeds and fixed surroundings: clusters with known keys, and one honest value of each kind of message.
//!
//! Invariant: everything here is a function of constants.

use std::sync::OnceLock;

use quorate_consensus::{Configuration, Parameters};
use quorate_crypto::{
    Address, Bitmap, Bounded, BoundedBytes, Certificate, CertificateKind, Hash, KeyedHashSigner,
    KeyedHashVerifier, Member, MemberSet, NodeSeed, Role, SecretKey, Signature, Signer, Statement,
    derive_hash, encode,
};
use quorate_merkle::{InclusionPath, Key, LogFrontier, Touched, Trie};
use quorate_metadata::rows::{self as metadata, Row};
use quorate_protocol::blocks::{BlockDescriptor, BlockEvidence, BlockReceipt, BlockReceiptBody};
use quorate_protocol::client::*;
use quorate_protocol::file::{Attributes, FileKind, Name, Segment, SegmentSource};
use quorate_protocol::peer::{Announcement, Batch, CommittedBatch};
use quorate_protocol::query::{Query, ReadAt, ReadRequest};
use quorate_protocol::record::Record;
use quorate_protocol::view_change::*;
use quorate_protocol::*;
use quorate_transport::frame::encode_frame;

use crate::chain;
use crate::decoders::{CRYPTO, Named, ROWS, SIGNED};

/// A cluster of four whose replica 0 stands at the door.
pub struct Cluster {
    pub id: Hash,
    pub configuration: Configuration,
    pub verifier: KeyedHashVerifier,
}

/// A member set with its secrets.
pub struct Members {
    pub members: MemberSet,
    pub secrets: Vec<SecretKey>,
    pub verifier: KeyedHashVerifier,
}

fn node(index: u8) -> NodeSeed {
    let mut bytes = [1; 32];
    bytes[31] = index;
    NodeSeed::from_bytes(bytes)
}

/// The member set of this size, at most 31.
pub fn members(n: u8) -> &'static Members {
    static SETS: [OnceLock<Members>; 32] = [const { OnceLock::new() }; 32];
    SETS[usize::from(n)].get_or_init(|| {
        let address = Address::try_from("fuzz:1").expect("a short address");
        let members = (0..n).map(|index| Member::from_seed(&node(index), address.clone())).collect();
        let members = MemberSet::new_unchecked_keys(0, members).expect("distinct keys");
        let secrets: Vec<SecretKey> = (0..n).map(|index| node(index).derive(Role::Consensus)).collect();
        let verifier = KeyedHashVerifier::new(&secrets);
        Members { members, secrets, verifier }
    })
}

pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let id = derive_hash("quorate fuzz cluster", &[]);
        let members = members(4);
        let genesis = Header {
            cluster: Hash::ZERO,
            height: 0,
            proposal: id,
            members: members.members.digest(),
            ..header()
        };
        let configuration =
            Configuration::new(id, members.members.clone(), 0, genesis, 4, Parameters::default())
                .expect("a usable configuration");
        Cluster { id, configuration, verifier: members.verifier.clone() }
    })
}

pub fn sign(n: u8, replica: u8, statement: &Statement) -> Signature {
    KeyedHashSigner::new(&members(n).secrets[usize::from(replica)]).sign(statement)
}

/// A certificate of these signers, a quorum or not.
pub fn certificate(
    n: u8,
    kind: CertificateKind,
    (epoch, view, height): (u64, u64, u64),
    header_hash: Hash,
    signers: &[u8],
) -> Certificate {
    let statement = Statement {
        cluster: cluster().id,
        epoch,
        kind: kind.statement_kind(),
        view,
        height,
        digest: header_hash,
    };
    let mut bits = Bitmap::empty(usize::from(n));
    assert!(signers.iter().all(|index| bits.insert(*index)), "distinct members");
    let signatures = signers.iter().map(|index| sign(n, *index, &statement));
    let signatures = Bounded::try_collect(signatures).expect("few signatures");
    Certificate { kind, epoch, view, height, header_hash, signers: bits, signatures }
}

fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

pub fn header() -> Header {
    Header {
        version: 1,
        cluster: derive_hash("quorate fuzz cluster", &[]),
        epoch: 0,
        height: 7,
        time: BatchTime(1_700_000_000_000_000_000),
        previous: hash(1),
        proposal: hash(2),
        state_root: hash(3),
        receipts_root: hash(4),
        first_operation: 20,
        operation_count: 1,
        log_root: hash(5),
        members: hash(6),
        touched_root: hash(7),
        touched_count: 1,
    }
}

/// Bytes without any form, for targets that make their own structure out of choices.
pub fn noise() -> Vec<Vec<u8>> {
    let of = |(number, length): (u8, usize)| {
        let mut bytes = Vec::new();
        for part in 0_u8.. {
            bytes.extend_from_slice(&derive_hash("quorate fuzz noise", &[&[number, part]]).0);
            if bytes.len() >= length {
                break;
            }
        }
        bytes.truncate(length);
        bytes
    };
    (0..).zip([16, 48, 96, 160, 240, 400, 600, 900]).map(of).collect()
}

/// An input for one of several decoders.
fn choice(types: &[Named], name: &str, bytes: Vec<u8>) -> Vec<u8> {
    let index = types.iter().position(|(known, _)| *known == name);
    let index = index.unwrap_or_else(|| panic!("no decoder of {name}"));
    [vec![u8::try_from(index).expect("few decoders")], bytes].concat()
}

pub fn crypto() -> Vec<Vec<u8>> {
    let certificate = certificate(4, CertificateKind::Commit, (0, 1, 2), hash(9), &[0, 2, 3]);
    let set = &members(4).members;
    let of = |name, bytes| choice(CRYPTO, name, bytes);
    vec![
        of("Certificate", encode(&certificate)),
        of("Bitmap", encode(&certificate.signers)),
        of("MemberSet", encode(set)),
        of("Member", encode(&set.members()[0])),
        of("PublicKey", encode(&set.members()[1].consensus)),
        of("Signature", encode(&certificate.signatures[0])),
        of("Statement", encode(&certificate.statement(&hash(1)))),
        of("StatementKind", vec![11]),
        of("CertificateKind", vec![3]),
        of("Hash", vec![7; 32]),
        of("Address", encode(&set.members()[0].address)),
    ]
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a name")
}

pub fn credential() -> Credential {
    let groups = Groups::Listed(Bounded::try_from(vec![5, 9]).expect("few groups"));
    Credential { uid: 1000, gid: 100, groups }
}

fn receipt() -> BlockReceipt {
    let body = BlockReceiptBody { session: hash(1), expires: BatchTime(99), count: 1, root: hash(2) };
    BlockReceipt { epoch: 0, replica: 2, body, signature: Signature([3; 64]) }
}

/// Operations of every kind, from the golden file of the protocol.
fn operations() -> Vec<Operation> {
    golden("operation.").iter().map(|bytes| quorate_crypto::decode(bytes).expect("golden bytes")).collect()
}

/// What the protocol's golden file holds under labels that begin like this.
fn golden(prefix: &str) -> Vec<Vec<u8>> {
    let text = include_str!("../../protocol/tests/golden/encodings.txt");
    let found = text.lines().filter(|line| line.starts_with(prefix)).filter_map(|line| {
        // Long values are in the file by their hash alone.
        let digits = line.split_once(' ')?.1;
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
    });
    found.collect()
}

pub fn envelope() -> Envelope {
    let signer = KeyedHashSigner::new(&members(4).secrets[0]);
    EnvelopeBody {
        cluster: cluster().id,
        session: hash(1),
        key: signer.public(),
        first: 3,
        valid_until: BatchTime(u64::MAX),
        credentials: Bounded::try_from(vec![credential()]).expect("few credentials"),
        operations: Bounded::try_from(operations()).expect("few operations"),
    }
    .sign(&signer)
}

fn batch() -> Batch {
    let envelopes = Bounded::try_from(vec![envelope()]).expect("few envelopes");
    let proposal = Proposal { parent: hash(1), time: header().time, envelopes };
    let header = Header { proposal: proposal.digest(&cluster().id, 0, 7), ..header() };
    Batch { header, proposal }
}

pub fn committed() -> CommittedBatch {
    let batch = batch();
    let hash = batch.header.hash();
    CommittedBatch {
        certificate: certificate(4, CertificateKind::Commit, (0, 1, 7), hash, &[0, 1, 2]),
        batch,
    }
}

fn pre_prepare() -> PrePrepare {
    let Batch { header, proposal } = batch();
    let statement = PrePrepare::statement(cluster().id, 0, 1, 7, header.proposal);
    PrePrepare { epoch: 0, view: 1, height: 7, proposal, signature: sign(4, 1, &statement) }
}

fn vote() -> Vote {
    let (kind, signature) = (VoteKind::Commit, Signature::ZERO);
    let mut vote = Vote { kind, epoch: 0, view: 1, height: 7, header: hash(3), replica: 2, signature };
    vote.signature = sign(4, 2, &vote.statement(cluster().id));
    vote
}

fn view_change() -> ViewChange {
    let certificate = certificate(4, CertificateKind::Prepare, (0, 1, 7), hash(3), &[1, 2, 3]);
    let rank = Rank { view: 1, height: 7 };
    let body = ViewChangeBody { epoch: 0, view: 2, rank, header: hash(3), committed: 6, replica: 1 };
    let signature = sign(4, 1, &body.statement(cluster().id));
    ViewChange { claim: SignedClaim { body, signature }, certificate: Some(certificate) }
}

fn new_view() -> NewView {
    let ViewChange { claim, certificate } = view_change();
    let claim_of = |replica| {
        let body = ViewChangeBody { replica, ..claim.body.clone() };
        let signature = sign(4, replica, &body.statement(cluster().id));
        SignedClaim { body, signature }
    };
    let claims = Bounded::try_collect([0, 1, 3].map(claim_of)).expect("few claims");
    let statement = NewView::statement(cluster().id, 0, 2, &claims, &certificate);
    NewView { epoch: 0, view: 2, claims, base: certificate, signature: sign(4, 2, &statement) }
}

fn results() -> EnvelopeResults {
    let attributes = attributes();
    let results = vec![
        OperationResult::Done(Reply::Inode { attributes: attributes.clone(), created: true }),
        OperationResult::Done(Reply::Written { offset: 9, attributes }),
        OperationResult::Failed(2),
        OperationResult::Skipped(SkipReason::Duplicate { executed: Some((3, 1)) }),
    ];
    let paths = vec![Bounded::try_from(vec![hash(1)]).expect("a short path"); results.len()];
    EnvelopeResults {
        header: header(),
        first_index: 0,
        results: results.try_into().expect("few results"),
        envelope: hash(8),
        paths: paths.try_into().expect("few paths"),
        certificate: Some(committed().certificate),
    }
}

fn attributes() -> Attributes {
    let time = Timestamp { seconds: -1, nanoseconds: 999_999_999 };
    Attributes {
        ino: 5,
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 1,
        gid: 2,
        nlink: 1,
        rdev: 0,
        size: 10,
        blocks: 1,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 3,
        block_log2: 20,
    }
}

pub fn answer() -> ReadAnswer {
    let mut trie = Trie::new();
    for byte in [0, 1, 2, 128] {
        trie.insert(Key([byte; 32]), vec![byte; 5].into()).expect("a full trie");
    }
    let mut touched = Touched::new();
    touched.key(Key([1; 32]));
    touched.range(Key([2; 32]), Some(Key([3; 32])));
    let proof = trie.prove(&touched).expect("a small trie");
    let proof = BoundedBytes::try_from(proof).expect("a short proof");
    ReadAnswer { header: header(), certificate: Some(committed().certificate), proof }
}

fn status() -> ReplicaStatus {
    ReplicaStatus {
        replica: 1,
        epoch: 0,
        view: 2,
        leading: false,
        voting: true,
        committed: 7,
        header: header(),
        certificate: Some(committed().certificate),
        peers: Bounded::try_from(vec![0, 2, 3]).expect("few peers"),
        pending: 4,
        stored_blocks: 2,
        block_bytes: 5,
        state_rows: 6,
        inodes: 7,
        blocks: 8,
        horizon: 3,
        log_head: 6,
        log_heads_halted: true,
    }
}

pub fn signed() -> Vec<Vec<u8>> {
    let of = |name, bytes| choice(SIGNED, name, bytes);
    let rank_and_leaf = ReceiptLeaf {
        session: hash(1),
        sequence: 4,
        envelope: hash(2),
        index: 0,
        result: OperationResult::Skipped(SkipReason::Gap { next: 3 }),
    };
    let mut frontier = LogFrontier::new();
    for leaf in [b"one", b"two", b"six"] {
        frontier.append(leaf).expect("a short log");
    }
    let evidence = BlockEvidence { receipts: vec![receipt()].try_into().expect("few"), ..Default::default() };
    let path = InclusionPath { hashes: vec![hash(1)].try_into().expect("a short path") };
    let resign = Resign { epoch: 0, view: 1, signature: Signature([2; 64]) };
    let mut seeds = vec![
        of("Envelope", encode(&envelope())),
        of("Proposal", encode(&batch().proposal)),
        of("Header", encode(&header())),
        of("Genesis", encode(&chain::genesis())),
        of("PrePrepare", encode(&pre_prepare())),
        of("Vote", encode(&vote())),
        of("Resign", encode(&resign)),
        of("ViewChange", encode(&view_change())),
        of("NewView", encode(&new_view())),
        of("Suspect", encode(&Suspect { epoch: 0, view: 1, reason: Suspicion::Restarted })),
        of("Credential", encode(&credential())),
        of("ReceiptLeaf", encode(&rank_and_leaf)),
        of("BlockReceipt", encode(&receipt())),
        of("BlockDescriptor", encode(&BlockDescriptor::copies(b"content"))),
        of("BlockEvidence", encode(&evidence)),
        of("ReadRequest", encode(&read(Query::Totals))),
        of("Announcement", encode(&Announcement { epoch: 0, view: 1, entered: true, committed: 2 })),
        of("Batch", encode(&batch())),
        of("CommittedBatch", encode(&committed())),
        of("EnvelopeResults", encode(&results())),
        of("ReadAnswer", encode(&answer())),
        of("ReplicaStatus", encode(&status())),
        of("InclusionPath", encode(&path)),
        of("LogFrontier", encode(&frontier)),
        of("Timestamp", encode(&attributes().mtime)),
    ];
    seeds.extend(operations().iter().map(|operation| of("Operation", encode(operation))));
    seeds.extend(queries().iter().map(|query| of("Query", encode(query))));
    seeds
}

fn queries() -> Vec<Query> {
    let xattr = BoundedBytes::try_from(b"user.k".to_vec()).expect("a short name");
    vec![
        Query::Attributes { ino: 1 },
        Query::Lookup { parent: 1, name: name("a") },
        Query::Parent { ino: 2 },
        Query::Walk { start: 1, components: vec![name("a"), name("b")].try_into().expect("few") },
        Query::Directory { ino: 1, after: 3, limit: 100, attributes: true },
        Query::Symlink { ino: 3 },
        Query::Xattr { ino: 1, name: xattr },
        Query::Xattrs { ino: 1 },
        Query::Content { ino: 4, first: 0, count: 2, session: Some(hash(1)) },
        Query::Session { session: hash(1) },
        Query::Totals,
    ]
}

fn read(query: Query) -> ReadRequest {
    ReadRequest { at: ReadAt::Fresh(3), credential: credential(), query }
}

pub fn peer() -> Vec<Vec<u8>> {
    let content = BoundedBytes::try_from(b"x".to_vec()).expect("a short block");
    let messages = [
        PeerMessage::PrePrepare(pre_prepare()),
        PeerMessage::Votes(vec![vote()].try_into().expect("one vote")),
        PeerMessage::ViewChange(view_change()),
        PeerMessage::NewView(new_view()),
        PeerMessage::Certificate(committed().certificate),
        PeerMessage::Committed(vec![committed()].try_into().expect("one batch")),
        PeerMessage::Batches(vec![batch()].try_into().expect("one batch")),
        PeerMessage::Forward(envelope()),
        PeerMessage::Block { descriptor: BlockDescriptor::copies(b"x"), content },
    ];
    let mut seeds: Vec<Vec<u8>> = messages.iter().map(encode).collect();
    seeds.extend(golden("peer."));
    seeds
}

pub fn client_request() -> Vec<Vec<u8>> {
    let blocks = vec![BoundedBytes::try_from(b"block".to_vec()).expect("a short block")];
    let requests = [
        ClientRequest::Prove { key: envelope().body.key, signature: Signature([1; 64]) },
        ClientRequest::Submit { envelope: envelope(), results: true },
        ClientRequest::Highest { known: 4 },
        ClientRequest::Await { certificate: committed().certificate },
        ClientRequest::Results { session: hash(1), first: 3 },
        ClientRequest::PutBlocks { session: hash(1), blocks: blocks.try_into().expect("one block") },
        ClientRequest::GetBlock {
            ino: 5,
            index: 0,
            id: hash(1),
            credential: credential(),
            session: Some(hash(2)),
            at: Some(3),
        },
        ClientRequest::Status,
        ClientRequest::History { from: 3 },
        ClientRequest::Header { height: 3 },
    ];
    let mut seeds: Vec<Vec<u8>> = requests.iter().map(encode).collect();
    seeds.extend(golden("client.evidence "));
    seeds.extend(queries().into_iter().map(|query| encode(&ClientRequest::Read(read(query)))));
    seeds.extend(golden("client.log-heads "));
    seeds
}

pub fn client_reply() -> Vec<Vec<u8>> {
    let descriptors = vec![BlockDescriptor::copies(b"block")].try_into().expect("one block");
    let text = BoundedBytes::try_from(b"later".to_vec()).expect("a short text");
    let replies = [
        ClientReply::Accepted,
        ClientReply::Read(answer()),
        ClientReply::Highest { height: 7, certificate: Some(committed().certificate) },
        ClientReply::Results(results()),
        ClientReply::Stored { descriptors, receipt: receipt() },
        ClientReply::Block(BoundedBytes::try_from(b"block".to_vec()).expect("a short block")),
        ClientReply::Status(status()),
        ClientReply::History(vec![committed()].try_into().expect("one batch")),
        ClientReply::Refused { refusal: Refusal::Busy, text: text.clone() },
        ClientReply::Refused { refusal: Refusal::NotRetained { horizon: 3, applied: 7 }, text },
        ClientReply::Header(CertifiedHeader { header: header(), certificate: Some(committed().certificate) }),
    ];
    let mut seeds: Vec<Vec<u8>> = replies.iter().map(encode).collect();
    seeds.extend(golden("client.signed-log-heads "));
    seeds
}

/// One piece of each kind whose bytes the golden file spells out, and a file.
pub fn evidence() -> Vec<Vec<u8>> {
    let mut seeds = golden("evidence.");
    seeds.retain(|bytes| quorate_crypto::decode::<Evidence>(bytes).is_ok());
    let files: Vec<Vec<u8>> = seeds
        .iter()
        .map(|bytes| quorate_crypto::decode::<Evidence>(bytes).expect("golden bytes").to_file())
        .collect();
    seeds.extend(files);
    seeds
}

pub fn notice() -> Vec<Vec<u8>> {
    let commits = Notice::Commits(vec![vote(), vote()].try_into().expect("few votes"));
    let certified =
        Notice::Certified(certificate(4, CertificateKind::Commit, (0, 0, 7), hash(8), &[0, 1, 3]));
    vec![encode(&commits), encode(&Notice::Results(results())), encode(&certified)]
}

pub fn record() -> Vec<Vec<u8>> {
    let prepared = certificate(4, CertificateKind::Prepare, (0, 1, 7), hash(3), &[0, 1, 2]);
    let records = [
        Record::Entered { epoch: 0, view: 1 },
        Record::Proposed { height: 7, batch: batch() },
        Record::Voted(vote()),
        Record::Prepared(prepared),
        Record::Committed(committed().certificate),
        Record::ViewChange(view_change()),
        Record::NewView(new_view()),
    ];
    records.iter().map(encode).collect()
}

/// One row of each kind that a real state holds, and those that it holds seldom.
pub fn rows() -> Vec<Vec<u8>> {
    let of = |name: &str, row: Vec<u8>| choice(ROWS, name, row);
    let segment = |start, length, source| Segment { start, length, source };
    let inline = SegmentSource::Inline(BoundedBytes::try_from(b"abc".to_vec()).expect("a short piece"));
    let block = SegmentSource::Block { id: hash(1), offset: 4 };
    let segments = vec![segment(0, 3, inline), segment(5, 9, block)].try_into().expect("few segments");
    let content = metadata::Content { entropy: [1; 16], segments };
    let grant = metadata::Grant { read: true, write: false, uid: 1, gid: 2, count: 3 };
    let grants = metadata::Grants { grants: vec![grant].try_into().expect("one grant") };
    let mut seeds = vec![
        of("metadata::Content", content.to_value().to_vec()),
        of("metadata::Grants", grants.to_value().to_vec()),
        of("metadata::Released", metadata::Released { id: hash(3) }.to_value().to_vec()),
    ];
    for (_, value) in crate::answers::state().rows() {
        for (name, _) in ROWS {
            let decodes = match *name {
                "metadata::Inode" => metadata::Inode::from_value(&value).is_ok(),
                "metadata::Entry" => metadata::Entry::from_value(&value).is_ok(),
                "metadata::Link" => metadata::Link::from_value(&value).is_ok(),
                "metadata::Xattr" => metadata::Xattr::from_value(&value).is_ok(),
                "metadata::SymlinkTarget" => metadata::SymlinkTarget::from_value(&value).is_ok(),
                "metadata::ParametersRow" => metadata::ParametersRow::from_value(&value).is_ok(),
                "quorate_execution::rows::SessionRow" => {
                    quorate_execution::rows::SessionRow::from_value(&value).is_ok()
                }
                "quorate_execution::rows::PrincipalRow" => {
                    quorate_execution::rows::PrincipalRow::from_value(&value).is_ok()
                }
                "quorate_execution::rows::MembersRow" => {
                    quorate_execution::rows::MembersRow::from_value(&value).is_ok()
                }
                _ => false,
            };
            let seed = of(name, value.to_vec());
            let first = !seeds.iter().any(|known| known.first() == seed.first());
            if decodes && first {
                seeds.push(seed);
            }
        }
    }
    seeds
}

pub fn frames() -> Vec<Vec<u8>> {
    let frame = |message: &PeerMessage| encode_frame(message).expect("a short frame").to_vec();
    let one = frame(&PeerMessage::FetchNewView { view: 2 });
    let two = frame(&PeerMessage::Forward(envelope()));
    let lying = [vec![0xff, 0xff, 0xff, 0x7f], one.clone()].concat();
    let settings = [1, 0, 3, 0, 200, 3, 6];
    [one.clone(), [one.clone(), two.clone(), one].concat(), lying, vec![0; 12], two[..50].to_vec()]
        .into_iter()
        .map(|bytes| [settings.to_vec(), bytes].concat())
        .collect()
}

pub fn trie_bytes() -> Vec<Vec<u8>> {
    vec![vec![1, 0], answer().proof.into_inner()]
}

/// Honest proofs of a state, behind the choices that the target reads first.
pub fn answer_garbage() -> Vec<Vec<u8>> {
    crate::answers::honest_proofs().into_iter().map(|proof| [vec![0; 24], proof].concat()).collect()
}
