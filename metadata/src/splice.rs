//! The algebra of segments: cutting ranges out of a content row and putting others in (rule S4).
//!
//! Invariant: a sorted, disjoint list stays one; bytes outside the range of an operation do not change;
//! neighbours that continue each other are joined, so that appending does not use up segments.

use std::collections::BTreeMap;

use quorate_crypto::{BoundedBytes, Hash};
use quorate_protocol::file::{Segment, SegmentSource};
use quorate_protocol::limits::INLINE_PIECE_BYTES_MAX;

use crate::view::Error;

const DAMAGED: Error = Error::Corrupt("a segment's ends do not add up");

/// The part of a segment in `[from, to)` of the row, if any.
pub(crate) fn part(segment: &Segment, from: u32, to: u32) -> Result<Option<Segment>, Error> {
    let end = end(segment)?;
    let (start, stop) = (segment.start.max(from), end.min(to));
    let Some(length) = stop.checked_sub(start).filter(|length| *length > 0) else { return Ok(None) };
    if length == segment.length {
        return Ok(Some(segment.clone()));
    }
    let skipped = start.checked_sub(segment.start).ok_or(DAMAGED)?;
    let source = match &segment.source {
        SegmentSource::Inline(bytes) => SegmentSource::Inline(slice(bytes, skipped, length)?),
        SegmentSource::Block { id, offset } => {
            SegmentSource::Block { id: *id, offset: offset.checked_add(skipped).ok_or(DAMAGED)? }
        }
    };
    Ok(Some(Segment { start, length, source }))
}

/// The row offset after a segment.
pub(crate) fn end(segment: &Segment) -> Result<u32, Error> {
    segment.start.checked_add(segment.length).ok_or(DAMAGED)
}

/// `length` bytes from `skipped` on.
pub(crate) fn slice(
    bytes: &[u8],
    skipped: u32,
    length: u32,
) -> Result<BoundedBytes<INLINE_PIECE_BYTES_MAX>, Error> {
    let start = skipped as usize;
    let stop = start.checked_add(length as usize).ok_or(DAMAGED)?;
    let part = bytes.get(start..stop).ok_or(DAMAGED)?;
    BoundedBytes::try_from(part).map_err(|_| DAMAGED)
}

/// What is outside of `[from, to)`.
pub(crate) fn cut(segments: &[Segment], from: u32, to: u32) -> Result<Vec<Segment>, Error> {
    let mut kept = Vec::with_capacity(segments.len().saturating_add(1));
    for segment in segments {
        kept.extend(part(segment, 0, from)?);
        kept.extend(part(segment, to, u32::MAX)?);
    }
    Ok(kept)
}

/// Replaces `[from, to)` by `inserted`, which is sorted and lies inside it.
pub(crate) fn splice(
    segments: &[Segment],
    from: u32,
    to: u32,
    inserted: Vec<Segment>,
) -> Result<Vec<Segment>, Error> {
    let mut all = cut(segments, from, to)?;
    all.extend(inserted);
    all.sort_by_key(|segment| segment.start);
    join(all)
}

/// Joins neighbours that continue each other: inline bytes, and parts of one block.
pub(crate) fn join(segments: Vec<Segment>) -> Result<Vec<Segment>, Error> {
    let mut joined: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments {
        let continued = match joined.last_mut() {
            Some(last) => join_two(last, &segment)?,
            None => false,
        };
        if !continued {
            joined.push(segment);
        }
    }
    Ok(joined)
}

/// Lengthens `last` by `next` if that continues it.
fn join_two(last: &mut Segment, next: &Segment) -> Result<bool, Error> {
    if end(last)? != next.start {
        return Ok(false);
    }
    let length = last.length.checked_add(next.length).ok_or(DAMAGED)?;
    match (&mut last.source, &next.source) {
        (SegmentSource::Inline(bytes), SegmentSource::Inline(more)) => {
            let mut all = bytes.as_slice().to_vec();
            all.extend_from_slice(more);
            let Ok(all) = BoundedBytes::try_from(all) else { return Ok(false) };
            *bytes = all;
        }
        (SegmentSource::Block { id, offset }, SegmentSource::Block { id: next_id, offset: next_offset })
            if id == next_id && offset.checked_add(last.length) == Some(*next_offset) => {}
        _ => return Ok(false),
    }
    last.length = length;
    Ok(true)
}

/// Bytes that segments cover.
pub(crate) fn covered(segments: &[Segment]) -> u64 {
    segments.iter().fold(0, |sum, segment| sum.saturating_add(u64::from(segment.length)))
}

/// Bytes that segments hold inline.
pub(crate) fn inline(segments: &[Segment]) -> u64 {
    let inline = segments.iter().filter(|segment| matches!(segment.source, SegmentSource::Inline(_)));
    inline.fold(0, |sum, segment| sum.saturating_add(u64::from(segment.length)))
}

/// Changes of the number of segments that name each block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct References(BTreeMap<Hash, i64>);

impl References {
    /// Counts segments that appear.
    pub(crate) fn add(&mut self, segments: &[Segment]) {
        self.change(segments, 1);
    }

    /// Counts segments that disappear.
    pub(crate) fn remove(&mut self, segments: &[Segment]) {
        self.change(segments, -1);
    }

    fn change(&mut self, segments: &[Segment], by: i64) {
        for segment in segments {
            if let SegmentSource::Block { id, .. } = &segment.source {
                let count = self.0.entry(*id).or_insert(0);
                *count = count.saturating_add(by);
            }
        }
    }

    /// The blocks whose number changed, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Hash, i64)> {
        self.0.iter().map(|(id, change)| (id, *change)).filter(|(_, change)| *change != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline_at(start: u32, bytes: &[u8]) -> Segment {
        let source = SegmentSource::Inline(BoundedBytes::try_from(bytes).unwrap());
        Segment { start, length: u32::try_from(bytes.len()).unwrap(), source }
    }

    fn block_at(start: u32, length: u32, offset: u32) -> Segment {
        Segment { start, length, source: SegmentSource::Block { id: Hash([7; 32]), offset } }
    }

    #[test]
    fn a_cut_in_the_middle_keeps_both_sides() {
        let kept = cut(&[inline_at(10, b"abcdef"), block_at(20, 100, 5)], 12, 30).unwrap();
        assert_eq!(kept, [inline_at(10, b"ab"), block_at(30, 90, 15)]);
        let kept = cut(&[block_at(20, 100, 5)], 30, 40).unwrap();
        assert_eq!(kept, [block_at(20, 10, 5), block_at(40, 80, 25)]);
    }

    #[test]
    fn neighbours_that_continue_each_other_are_joined() {
        let row = splice(&[inline_at(0, b"ab")], 2, 4, vec![inline_at(2, b"cd")]).unwrap();
        assert_eq!(row, [inline_at(0, b"abcd")]);
        let row = splice(&[block_at(0, 10, 0)], 10, 20, vec![block_at(10, 10, 10)]).unwrap();
        assert_eq!(row, [block_at(0, 20, 0)]);
        let row = splice(&[block_at(0, 10, 0)], 10, 20, vec![block_at(10, 10, 11)]).unwrap();
        assert_eq!(row.len(), 2, "another part of the block does not continue it");
    }

    #[test]
    fn references_are_net() {
        let mut references = References::default();
        references.remove(&[block_at(0, 10, 0), inline_at(20, b"x")]);
        references.add(&[block_at(0, 4, 0), block_at(6, 4, 6)]);
        assert_eq!(references.iter().collect::<Vec<_>>(), [(&Hash([7; 32]), 1)]);
    }
}
