//! Messages between clients and replicas.
//!
//! Invariant: a reply proves what it says by certificate, receipt path or pruned state; what cannot be
//! proven (status, errors) is never answered to a filesystem call.

use crate::blocks::{BlockDescriptor, BlockReceipt};
use crate::evidence::EvidencePage;
use crate::limits::{
    BLOCK_BYTES_MAX, BLOCKS_PER_RECEIPT_MAX, ERROR_TEXT_BYTES_MAX, OPERATIONS_PER_ENVELOPE_MAX,
    PATH_HASHES_MAX, PROOF_BYTES_MAX, REPLICAS_MAX,
};
use crate::log_head::SignedLogHeads;
use crate::peer::CommittedBatch;
use crate::query::ReadRequest;
use crate::{Credential, Envelope, Epoch, Header, Height, Ino, OperationResult, SessionId, View, Vote};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, BoundedBytes, Certificate, Hash, PublicKey, Signature};

/// What a client asks a replica, on a stream of its own unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ClientRequest {
    /// First on every connection: proves a principal (rule S6).
    Prove {
        /// The principal's key.
        key: PublicKey,
        /// Over cluster, replica and TLS exporter.
        signature: Signature,
    },
    /// Orders an envelope. COMMITs come on the connection's notice stream; from one replica, which the
    /// client chooses, the results as well.
    Submit {
        /// The envelope.
        envelope: Envelope,
        /// Whether this replica is the one to send the results.
        results: bool,
    },
    /// Reads with proof.
    Read(ReadRequest),
    /// The linearizable question: the highest height that the replica sent a COMMIT for (rule R4).
    Highest {
        /// What the client knows to be committed.
        known: Height,
    },
    /// A reader waits for this height, and shows the certificate that made it wait (rule R4).
    Await {
        /// The prepare or commit certificate.
        certificate: Certificate,
    },
    /// Fetches the results of an envelope by its first sequence number.
    Results {
        /// The session.
        session: SessionId,
        /// First sequence number of the envelope.
        first: u64,
    },
    /// Stores blocks; answered with one receipt when they are synced.
    PutBlocks {
        /// The session that will refer to them.
        session: SessionId,
        /// The blocks' contents.
        blocks: Bounded<BoundedBytes<BLOCK_BYTES_MAX>, BLOCKS_PER_RECEIPT_MAX>,
    },
    /// Fetches a block by the file that refers to it (rule S5).
    GetBlock {
        /// The inode.
        ino: Ino,
        /// The content row.
        index: u64,
        /// The block.
        id: Hash,
        /// Who asks.
        credential: Credential,
        /// The session whose open grant may stand in for the read permission.
        session: Option<SessionId>,
        /// The height at which the file refers to it; without one, the last committed height.
        at: Option<Height>,
    },
    /// How the replica is.
    Status,
    /// Committed heights from this one on, for audit.
    History {
        /// First height.
        from: Height,
    },
    /// Evidence against replicas, for audit; needs no quorum.
    Evidence {
        /// Digest after which the page begins; zeros for the first one.
        after: Hash,
    },
    /// The last heads of the log that the replica signed (rule R6).
    LogHeads,
    /// The header of a committed height, with its certificate.
    Header {
        /// The height.
        height: Height,
    },
}

/// The results of an envelope: its leaves of the receipts tree with paths, and the header.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EnvelopeResults {
    /// The header of the height that executed it.
    pub header: Header,
    /// Index of its first operation in the batch.
    pub first_index: u32,
    /// The results, in order.
    pub results: Bounded<OperationResult, OPERATIONS_PER_ENVELOPE_MAX>,
    /// Digest of the envelope.
    pub envelope: Hash,
    /// For each result its path in the receipts tree.
    pub paths: Bounded<Bounded<Hash, PATH_HASHES_MAX>, OPERATIONS_PER_ENVELOPE_MAX>,
    /// The commit certificate, when the replica holds it.
    pub certificate: Option<Certificate>,
}

/// The header of a committed height and what certifies it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CertifiedHeader {
    /// The header.
    pub header: Header,
    /// Its commit certificate; `None` for genesis.
    pub certificate: Option<Certificate>,
}

/// A read's answer.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReadAnswer {
    /// The header of the height that was read.
    pub header: Header,
    /// Its commit certificate; `None` for genesis.
    pub certificate: Option<Certificate>,
    /// The pruned copy of the state trie.
    pub proof: BoundedBytes<PROOF_BYTES_MAX>,
}

/// How a replica describes itself. Proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReplicaStatus {
    /// Its index.
    pub replica: u8,
    /// Epoch.
    pub epoch: Epoch,
    /// View.
    pub view: View,
    /// Whether it leads that view.
    pub leading: bool,
    /// Whether it takes part in voting.
    pub voting: bool,
    /// Last committed height.
    pub committed: Height,
    /// Header of that height.
    pub header: Header,
    /// Its commit certificate; `None` for genesis.
    pub certificate: Option<Certificate>,
    /// Peers that it is connected with, by index.
    pub peers: Bounded<u8, REPLICAS_MAX>,
    /// Envelopes waiting in its pool.
    pub pending: u32,
    /// Blocks that it stores, those of which it has yet to learn that nobody needs them included.
    pub stored_blocks: u64,
    /// Bytes of these blocks.
    pub block_bytes: u64,
    /// Rows of its state.
    pub state_rows: u64,
    /// Inodes in its state, those that are still being reclaimed included.
    pub inodes: u64,
    /// Blocks that its state names, those in their time of grace included.
    pub blocks: u64,
    /// The lowest height whose state can be read there.
    pub horizon: Height,
    /// Size of the last head of the log that it signed and shows; 0 before the first one, and when it was halted at
    /// its start.
    pub log_head: u64,
    /// Whether it signs none any more: something contradicts what it signed, or its disk failed (rule R6).
    pub log_heads_halted: bool,
}

/// Why a replica refuses a request.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Refusal {
    /// The request breaks a rule; retrying it is pointless.
    Invalid,
    /// The principal may not.
    Denied,
    /// The replica is behind what was asked for; ask another or wait.
    Behind,
    /// The replica is over a budget; wait.
    Busy,
    /// The replica does not have it.
    NotFound,
    /// The disk is full or failed.
    Storage,
    /// The replica does not keep the rows of that height, or has not reached it. Nothing proves these numbers.
    NotRetained {
        /// The lowest height whose state can be read there.
        horizon: Height,
        /// The highest one.
        applied: Height,
    },
}

/// What a replica answers.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ClientReply {
    /// Accepted, nothing to add.
    Accepted,
    /// A read's answer.
    Read(ReadAnswer),
    /// To the linearizable question.
    Highest {
        /// The height.
        height: Height,
        /// The PC or CC of that height, when it is above what the client knows (rule R4).
        certificate: Option<Certificate>,
    },
    /// An envelope's results.
    Results(EnvelopeResults),
    /// Blocks are stored and synced.
    Stored {
        /// Their descriptors, in order.
        descriptors: Bounded<BlockDescriptor, BLOCKS_PER_RECEIPT_MAX>,
        /// The promise.
        receipt: BlockReceipt,
    },
    /// A block.
    Block(BoundedBytes<BLOCK_BYTES_MAX>),
    /// Status.
    Status(ReplicaStatus),
    /// Committed heights, consecutive and ascending.
    History(Bounded<CommittedBatch, { crate::limits::BATCHES_PER_MESSAGE_MAX }>),
    /// No.
    Refused {
        /// Why.
        refusal: Refusal,
        /// In words.
        text: BoundedBytes<ERROR_TEXT_BYTES_MAX>,
    },
    /// Evidence, which whoever asked verifies.
    Evidence(EvidencePage),
    /// Signed heads of the log, which whoever asked verifies.
    LogHeads(SignedLogHeads),
    /// A header.
    Header(CertifiedHeader),
}

/// What a replica pushes to a client on its notice stream.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Notice {
    /// COMMITs of heights that hold envelopes of this client.
    Commits(Bounded<Vote, { crate::limits::VOTES_PER_MESSAGE_MAX }>),
    /// Results of an envelope that the client submitted.
    Results(EnvelopeResults),
    /// The commit certificate of a height that holds envelopes of this client, from a replica that has sent no COMMIT
    /// of that certificate's view, having learnt it before, or that has left that view since.
    Certified(Certificate),
}
