//! The disk: synced log segments, RocksDB state, blocks, evidence, signed heads.
//!
//! Invariant: what a call here reported as durable is there after any crash, or its absence is reported
//! as a typed error; no other room touches a replica's files. All calls block and belong on a thread of
//! the disk's own. Formats are in `docs/SPEC/store.md`.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod directory;
pub mod error;
pub mod evidence;
mod fields;
pub mod heads;
pub mod log;
pub mod segment;
pub mod state;

pub use blocks::{BlockError, BlockOptions, Blocks, Deletion, OpenReport, Upload, Usage};
pub use directory::{Directory, DirectoryError, Identity, Marker, read_marker};
pub use error::{Fault, FileError};
pub use evidence::{EvidenceStore, StoredEvidenceError, read_evidence, read_evidence_file};
pub use heads::{HeadStore, HeadStoreError, read_heads};
pub use log::{Archive, Damage, Log, LogError, LogOptions, LogReader, Position};
pub use state::{Applied, Pin, PruneCursor, Pruned, Rows, State, StateError, StateOptions};
