//! The log of headers in the open formats of C2SP: signed-note, tlog-checkpoint, tlog-cosignature, tlog-tiles,
//! tlog-proof and tlog-policy (`docs/SPEC/log.md`).
//!
//! Invariants: whatever a parser here takes is written again to the same bytes (but for a policy, which people
//! write); every input is bounded; nothing here reads a clock or signs anything but a head of the log.

mod checkpoint;
mod heads;
mod note;
mod policy;
mod proof;
mod tiles;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use heads::{CheckedHead, HeadError, HeadSigner, KeyCollision, LogKeys, conflict};
pub use note::{
    KeyId, KeyKind, NOTE_BYTES_MAX, NOTE_NAME_BYTES_MAX, NOTE_SIGNATURES_MAX, NoteError, NoteSignature,
    SignedNote, VerifierKey,
};
pub use policy::{POLICY_BYTES_MAX, POLICY_NAMES_MAX, PolicyError, PolicyGroup, TrustPolicy};
pub use proof::{LOG_PROOF_MAGIC, LogProof, LogProofError, PROOF_EXTRA_BYTES_MAX, PROOF_FILE_BYTES_MAX};
pub use tiles::{
    ENTRY_BYTES_MAX, Resource, TILE_HASHES, TileBuilder, TileError, TilePath, TileRow, inclusion_path,
    parse_entries, parse_hashes, resources,
};

use quorate_crypto::Hash;
use quorate_protocol::ReplicaIndex;

/// The origin line of a cluster's checkpoints, and the name of the keys that sign them: `quorate/` and the cluster
/// id. A host without a dot is nobody's domain.
#[must_use]
pub fn origin(cluster: &Hash) -> String {
    format!("quorate/{cluster}")
}

/// The name of a replica as cosigner.
#[must_use]
pub fn cosigner_name(cluster: &Hash, replica: ReplicaIndex) -> String {
    format!("{}/replica-{replica}", origin(cluster))
}

/// A decimal number without a sign or leading zeros.
pub(crate) fn canonical_decimal(text: &str) -> Option<u64> {
    let plain = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain && digits { text.parse().ok() } else { None }
}
