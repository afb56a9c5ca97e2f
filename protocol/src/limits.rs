//! The bounds of everything that is sent, stored or kept in memory.
//!
//! Invariant: a message that respects these bounds can be held whole by a replica; one that does not
//! is refused while it is decoded, before anything of its claimed size is allocated.

/// Bytes of a file name (POSIX `NAME_MAX` on Linux).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a symbolic link's target (Linux `PATH_MAX` - 1).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Bytes of an extended attribute's name (Linux `XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Bytes of an extended attribute's value (Linux `XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// Supplementary groups in one credential (rule S6).
pub const GROUPS_MAX: usize = 64;
/// Credentials in one envelope (rule S6).
pub const CREDENTIALS_MAX: usize = 16;
/// Operations in one envelope.
pub const OPERATIONS_PER_ENVELOPE_MAX: usize = 512;
/// Encoded bytes of one envelope; it always fits one batch (rule R8).
pub const ENVELOPE_BYTES_MAX: usize = 1 << 20;
/// Envelopes in one proposal.
pub const ENVELOPES_PER_PROPOSAL_MAX: usize = 1024;
/// Operations in one proposal, over all its envelopes.
pub const OPERATIONS_PER_PROPOSAL_MAX: usize = 8192;
/// Encoded bytes of one proposal.
pub const PROPOSAL_BYTES_MAX: usize = 4 << 20;
/// Bytes of one inline piece of file content.
pub const INLINE_PIECE_BYTES_MAX: usize = 65_536;
/// Pieces in one write.
pub const PIECES_PER_WRITE_MAX: usize = 64;
/// Segments in one content row (rule S4).
pub const SEGMENTS_PER_ROW_MAX: usize = 32;
/// Bytes of one block's original content.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Blocks named by one block receipt.
pub const BLOCKS_PER_RECEIPT_MAX: usize = 64;
/// Block receipts attached to one write.
pub const RECEIPTS_PER_WRITE_MAX: usize = 128;
/// Hashes in an inclusion path of a receipts tree or of a block receipt's tree.
pub const PATH_HASHES_MAX: usize = 64;
/// Votes in one message.
pub const VOTES_PER_MESSAGE_MAX: usize = 128;
/// Replicas of an epoch.
pub const REPLICAS_MAX: usize = 32;
/// Batches in one catch-up message.
pub const BATCHES_PER_MESSAGE_MAX: usize = 64;
/// Bytes of batches that a catch-up message aims at; one batch is always sent.
pub const CATCH_UP_BYTES_TARGET: usize = 4 << 20;
/// Bytes of any one frame between replicas or with a client.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Entries that one directory page may hold.
pub const PAGE_ENTRIES_MAX: usize = 512;
/// Content rows that one read may name.
pub const CONTENT_ROWS_PER_READ_MAX: usize = 64;
/// Components of one path walk.
pub const WALK_COMPONENTS_MAX: usize = 64;
/// Encoded bytes of a proof.
pub const PROOF_BYTES_MAX: usize = 8 << 20;
/// Bytes of a text message in an error reply.
pub const ERROR_TEXT_BYTES_MAX: usize = 512;
/// Names of a principal's uid or gid table.
pub const IDENTITIES_PER_PRINCIPAL_MAX: usize = 64;
/// Symbolic lower bound of the window of heights in flight beyond the committed one (W).
pub const WINDOW_MAX: u64 = 64;
/// Encoded bytes of one piece of evidence: two proposals and what goes with them.
pub const EVIDENCE_BYTES_MAX: usize = 9 << 20;
/// Pieces of evidence of one kind against one replica that anybody makes, keeps or hands on: one proves it.
pub const EVIDENCE_PER_KIND_MAX: usize = 8;
/// Pieces of evidence in one page of an answer.
pub const EVIDENCE_PER_PAGE_MAX: usize = 32;
/// Bytes that a page of evidence aims at; one piece is always sent.
pub const EVIDENCE_PAGE_BYTES_TARGET: usize = 4 << 20;
/// Pieces of evidence that one message offers.
pub const EVIDENCE_OFFERS_MAX: usize = 256;
/// Heads of the log that a replica keeps after it signed them, and shows.
pub const LOG_HEADS_MAX: usize = 16;
