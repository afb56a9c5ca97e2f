//! Keys and values of the column families.
//!
//! Invariant: the versions of a row are neighbours, the newest first, so that the version at a height is
//! one seek away; and what a height changed is one range, so that pruning reads nothing else.

use quorate_protocol::Height;

use super::{Key, Row};
use crate::directory::Identity;
use crate::fields::{array, u64_at};

/// Version of the layout of all column families.
pub const STATE_VERSION: u8 = 1;
/// Versions of rows.
pub const ROWS: &str = "rows";
/// What each height changed.
pub const CHANGES: &str = "changes";
/// Applied height and what belongs to it, retention, identity.
pub const META: &str = "meta";
/// Row of [`META`]: whose state it is.
pub const META_IDENTITY: &[u8] = b"identity";
/// Row of [`META`]: applied height, header and log frontier.
pub const META_APPLIED: &[u8] = b"applied";
/// Row of [`META`]: horizon and snapshots.
pub const META_RETAINED: &[u8] = b"retained";

/// Bytes of a row's key in [`ROWS`] and of an entry in [`CHANGES`].
pub const VERSION_KEY_BYTES: usize = 40;
const TOMBSTONE: u8 = 0;
const VALUE: u8 = 1;

/// The key of a row's version: the row's key, then the height with all bits inverted.
pub fn version_key(key: &Key, height: Height) -> [u8; VERSION_KEY_BYTES] {
    join(key, &(!height).to_be_bytes())
}

/// Row and height of a version's key.
pub fn split_version_key(bytes: &[u8]) -> Option<(Key, Height)> {
    (bytes.len() == VERSION_KEY_BYTES).then(|| (array(bytes, 0), !u64::from_be_bytes(array(bytes, 32))))
}

/// The key of a change: the height, then the row's key.
pub fn change_key(height: Height, key: &Key) -> [u8; VERSION_KEY_BYTES] {
    join(&height.to_be_bytes(), key)
}

/// Height and row of a change's key.
pub fn split_change_key(bytes: &[u8]) -> Option<(Height, Key)> {
    (bytes.len() == VERSION_KEY_BYTES).then(|| (u64::from_be_bytes(array(bytes, 0)), array(bytes, 8)))
}

fn join(first: &[u8], second: &[u8]) -> [u8; VERSION_KEY_BYTES] {
    let mut bytes = [0; VERSION_KEY_BYTES];
    for (to, from) in bytes.iter_mut().zip(first.iter().chain(second)) {
        *to = *from;
    }
    bytes
}

/// The stored form of a row's value, or of its absence.
pub fn encode_value(value: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.map_or(0, <[u8]>::len) + 1);
    bytes.push(if value.is_some() { VALUE } else { TOMBSTONE });
    bytes.extend_from_slice(value.unwrap_or_default());
    bytes
}

/// A row's value, or its absence; `None` for bytes that are neither.
pub fn decode_value(bytes: &[u8]) -> Option<Option<Row>> {
    match bytes.split_first()? {
        (&VALUE, value) => Some(Some(value.into())),
        (&TOMBSTONE, []) => Some(None),
        _ => None,
    }
}

/// Whether a stored value is a tombstone.
pub fn is_tombstone(bytes: &[u8]) -> bool {
    bytes.first() == Some(&TOMBSTONE)
}

/// The identity row.
pub fn encode_identity(identity: Identity) -> Vec<u8> {
    let mut bytes = vec![STATE_VERSION, identity.replica];
    bytes.extend_from_slice(&identity.cluster.0);
    bytes
}

/// The applied row: height, then header and frontier, each after its length.
pub fn encode_applied(height: Height, header: &[u8], frontier: &[u8]) -> Vec<u8> {
    let mut bytes = vec![STATE_VERSION];
    bytes.extend_from_slice(&height.to_le_bytes());
    for part in [header, frontier] {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Height, header and frontier of the applied row.
pub fn decode_applied(bytes: &[u8]) -> Option<(Height, Vec<u8>, Vec<u8>)> {
    let rest = bytes.strip_prefix(&[STATE_VERSION])?;
    let (height, rest) = (u64_at(rest, 0), rest.get(8..)?);
    let (header, rest) = take(rest)?;
    let (frontier, rest) = take(rest)?;
    rest.is_empty().then(|| (height, header.to_vec(), frontier.to_vec()))
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.get(8..)?;
    rest.split_at_checked(usize::try_from(u64_at(bytes, 0)).ok()?)
}

/// The retention row: the horizon, then the snapshots below it.
pub fn encode_retained(horizon: Height, snapshots: impl IntoIterator<Item = Height>) -> Vec<u8> {
    let mut bytes = vec![STATE_VERSION];
    for height in std::iter::once(horizon).chain(snapshots) {
        bytes.extend_from_slice(&height.to_le_bytes());
    }
    bytes
}

/// Horizon and snapshots of the retention row.
pub fn decode_retained(bytes: &[u8]) -> Option<(Height, Vec<Height>)> {
    let rest = bytes.strip_prefix(&[STATE_VERSION])?;
    let heights: Vec<Height> = rest.chunks_exact(8).map(|chunk| u64_at(chunk, 0)).collect();
    let (horizon, snapshots) = heights.split_first()?;
    rest.len().is_multiple_of(8).then(|| (*horizon, snapshots.to_vec()))
}

/// The key of a height's receipts in the family [`META`]: `receipts`, then the height, big-endian.
pub(super) fn receipts_key(height: Height) -> [u8; 16] {
    let mut key = *b"receipts\0\0\0\0\0\0\0\0";
    for (place, byte) in key.iter_mut().skip(8).zip(height.to_be_bytes()) {
        *place = byte;
    }
    key
}
