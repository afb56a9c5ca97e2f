//! The state trie and its pruned-copy proofs; RFC 6962 trees: receipts and the commit log.
//!
//! - [`Trie`] maps [`Key`]s to bytes. Its root is a pure function of the map (rule S2).
//! - [`Touched`] collects what a computation asked a trie; [`Trie::prove`] answers it as a pruned copy, which
//!   [`PartialTrie::verify`] turns back into a [`Trie`] that was checked against a certified root.
//! - [`ReceiptsTree`] is the tree over the receipts of one batch, with strict inclusion proofs.
//! - [`LogFrontier`] is the commit log as an incremental RFC 6962 tree.
//!
//! Nothing here knows clocks, threads, randomness or I/O. The bytes are written down in
//! `docs/SPEC/merkle.md`.

mod diff;
mod error;
mod hash;
mod key;
pub mod log;
mod node;
mod proof;
pub mod receipts;
pub mod rfc6962;
mod scan;
mod touched;
mod trie;

pub use diff::{Change, Diff, diff};
pub use error::{Missing, ProofError, ProveError};
pub use hash::{empty_root, inner_hash, leaf_hash, value_hash};
pub use key::{KEY_BYTES, Key};
pub use log::{LOG_SIZE_MAX, LogError, LogFrontier};
pub use node::DEPTH_MAX;
pub use proof::{PROOF_BYTES_MAX, PROOF_FORMAT, PROOF_NODES_MAX, PartialTrie};
pub use receipts::{
    InclusionPath, PATH_HASHES_MAX, PATH_INDICES_MAX, RECEIPTS_MAX, ReceiptsError, ReceiptsTree,
    verify_inclusion, verify_inclusion_of_many,
};
pub use scan::Scan;
pub use touched::Touched;
pub use trie::{Row, Trie};
