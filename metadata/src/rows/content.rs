//! The content row: the covered ranges of one block size of a file (rule S4).
//!
//! Invariant: segments are sorted, disjoint and not empty; an inline segment is as long as its bytes; a row
//! without segments is not stored.

use std::sync::OnceLock;

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, Hash};
use quorate_protocol::file::{Entropy, Segment, SegmentSource};
use quorate_protocol::limits::SEGMENTS_PER_ROW_MAX;

use super::Row;

/// A content row.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Content {
    /// Of the last write; hides inline bytes (rule S3).
    pub entropy: Entropy,
    /// What is covered; the rest is a hole.
    pub segments: Bounded<Segment, SEGMENTS_PER_ROW_MAX>,
}

impl Row for Content {
    const DAMAGED: &'static str = "a content row does not decode";

    fn valid(&self) -> bool {
        !self.segments.is_empty() && well_formed(&self.segments)
    }
}

/// Whether segments are sorted, disjoint and not empty, with lengths that match, ending within u32.
pub(crate) fn well_formed(segments: &[Segment]) -> bool {
    let mut covered = 0_u32;
    for segment in segments {
        let Some(end) = segment.start.checked_add(segment.length) else { return false };
        let fits = match &segment.source {
            SegmentSource::Inline(bytes) => u32::try_from(bytes.len()) == Ok(segment.length),
            SegmentSource::Block { offset, .. } => offset.checked_add(segment.length).is_some(),
        };
        if segment.start < covered || segment.length == 0 || !fits {
            return false;
        }
        covered = end;
    }
    true
}

/// The hash of a row's value as the trie takes it (rule S2), which a fold names.
#[must_use]
pub fn value_hash(value: &[u8]) -> Hash {
    static KEY: OnceLock<[u8; 32]> = OnceLock::new();
    let key = KEY.get_or_init(|| blake3::derive_key("quorate merkle v1 value", &[]));
    Hash(*blake3::keyed_hash(key, value).as_bytes())
}
