//! How dirty ranges become writes, and how segments become bytes. Pure.
//!
//! Invariant: every planned write respects the bounds of one operation (pieces, rows, blocks) and of one
//! upload, and all together write exactly the bytes of the ranges, each at its offset.

use std::ops::Range;

use quorate_crypto::Hash;
use quorate_protocol::file::{Segment, SegmentSource};
use quorate_protocol::limits::{BLOCK_BYTES_MAX, BLOCKS_PER_RECEIPT_MAX, PIECES_PER_WRITE_MAX};

use super::DirtyRange;
use crate::options::PUT_BLOCKS_BYTES_MAX;

/// Content rows that one write may touch, by the rules of the state.
const ROWS_PER_WRITE_MAX: usize = quorate_metadata::WRITE_ROWS_MAX as usize;

/// A run of bytes of a planned write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Planned {
    /// Into the state.
    Inline(Vec<u8>),
    /// As a block of its own.
    Block(Vec<u8>),
}

impl Planned {
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Inline(bytes) | Self::Block(bytes) => bytes.len(),
        }
    }
}

/// One write operation: pieces without gaps from `offset` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlannedWrite {
    pub(crate) offset: u64,
    pub(crate) pieces: Vec<Planned>,
}

impl PlannedWrite {
    /// Bytes that must be uploaded for it.
    pub(crate) fn block_bytes(&self) -> usize {
        let blocks = self.pieces.iter().filter(|piece| matches!(piece, Planned::Block(_)));
        blocks.fold(0, |sum, piece| sum.saturating_add(piece.len()))
    }

    /// Blocks that must be uploaded for it.
    pub(crate) fn blocks(&self) -> usize {
        self.pieces.iter().filter(|piece| matches!(piece, Planned::Block(_))).count()
    }

    fn has_room(&self, piece: &Planned) -> bool {
        let most = PIECES_PER_WRITE_MAX.min(ROWS_PER_WRITE_MAX).min(BLOCKS_PER_RECEIPT_MAX);
        let bytes = self.block_bytes().saturating_add(piece.len());
        self.pieces.len() < most && bytes <= PUT_BLOCKS_BYTES_MAX
    }
}

/// Splits ranges at the ends of rows: pieces up to `inline_limit` inline, longer ones as blocks.
pub(crate) fn plan(ranges: Vec<DirtyRange>, block_log2: u8, inline_limit: usize) -> Vec<PlannedWrite> {
    let row_bytes = row_bytes(block_log2);
    let mut writes: Vec<PlannedWrite> = Vec::new();
    let mut end = None;
    for range in ranges.into_iter().filter(|range| !range.bytes.is_empty()) {
        let mut offset = range.offset;
        let mut rest = range.bytes;
        if end != Some(offset) {
            writes.push(PlannedWrite { offset, pieces: Vec::new() });
        }
        while !rest.is_empty() {
            let room = row_bytes.saturating_sub(offset.checked_rem(row_bytes).unwrap_or_default());
            let room = usize::try_from(room).unwrap_or(BLOCK_BYTES_MAX).min(BLOCK_BYTES_MAX);
            let later = if rest.len() > room { rest.split_off(room) } else { Vec::new() };
            let length = rest.len() as u64;
            let piece = if rest.len() <= inline_limit { Planned::Inline(rest) } else { Planned::Block(rest) };
            match writes.last_mut().filter(|write| write.has_room(&piece)) {
                Some(write) => write.pieces.push(piece),
                None => writes.push(PlannedWrite { offset, pieces: vec![piece] }),
            }
            offset = offset.saturating_add(length);
            rest = later;
        }
        end = Some(offset);
    }
    writes
}

/// Bytes of a content row.
pub(crate) fn row_bytes(block_log2: u8) -> u64 {
    1_u64.checked_shl(u32::from(block_log2)).unwrap_or(1 << 20)
}

/// A part of a block that goes to a place in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockPart {
    pub(crate) row: u64,
    pub(crate) id: Hash,
    /// Within the block.
    pub(crate) offset: usize,
    /// Within the buffer.
    pub(crate) target: Range<usize>,
}

/// Fills the buffer, which begins at byte `offset` of the file and is all zeros, with the inline segments
/// of rows; says which parts of blocks belong where.
pub(crate) fn fill(
    buffer: &mut [u8],
    offset: u64,
    block_log2: u8,
    rows: &[(u64, Vec<Segment>)],
) -> Vec<BlockPart> {
    let mut parts = Vec::new();
    let end = offset.saturating_add(buffer.len() as u64);
    for (row, segments) in rows {
        let base = row.saturating_mul(row_bytes(block_log2));
        for segment in segments {
            let start = base.saturating_add(u64::from(segment.start));
            let (from, to) = (start.max(offset), start.saturating_add(u64::from(segment.length)).min(end));
            if from >= to {
                continue;
            }
            // Both are within the buffer and within a segment, hence within 32 bits.
            let within =
                |position: u64, zero: u64| usize::try_from(position.saturating_sub(zero)).unwrap_or(0);
            let target = within(from, offset)..within(to, offset);
            let skipped = within(from, start);
            match &segment.source {
                SegmentSource::Inline(bytes) => {
                    let source = bytes.get(skipped..skipped.saturating_add(target.len()));
                    copy(buffer, &target, source.unwrap_or_default());
                }
                SegmentSource::Block { id, offset: first } => {
                    let first = usize::try_from(*first).unwrap_or(usize::MAX);
                    let part =
                        BlockPart { row: *row, id: *id, offset: first.saturating_add(skipped), target };
                    parts.push(part);
                }
            }
        }
    }
    parts
}

/// Copies a part of a block to its place. Whether the block is long enough.
pub(crate) fn place(buffer: &mut [u8], part: &BlockPart, block: &[u8]) -> bool {
    let end = part.offset.saturating_add(part.target.len());
    match block.get(part.offset..end) {
        Some(source) => {
            copy(buffer, &part.target, source);
            true
        }
        None => false,
    }
}

fn copy(buffer: &mut [u8], target: &Range<usize>, source: &[u8]) {
    if let Some(target) = buffer.get_mut(target.clone()).filter(|target| target.len() == source.len()) {
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests;
