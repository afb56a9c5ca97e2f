//! What a fold keeps and merges.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use quorate_crypto::{BoundedBytes, Hash};

use super::*;

fn inline(start: u32, length: u32) -> Segment {
    let bytes = BoundedBytes::try_from(vec![1; length as usize]).unwrap();
    Segment { start, length, source: SegmentSource::Inline(bytes) }
}

fn block(start: u32, length: u32) -> Segment {
    Segment { start, length, source: SegmentSource::Block { id: Hash([start as u8; 32]), offset: 0 } }
}

fn covered(segments: &[Segment], size: u32) -> Vec<bool> {
    let mut covered = vec![false; size as usize];
    for segment in segments {
        let end = (segment.start + segment.length).min(size);
        for byte in segment.start.min(size)..end {
            covered[byte as usize] = true;
        }
    }
    covered
}

fn check(segments: &[Segment], size: u32) -> Vec<Segment> {
    let merge = plan(segments, size).expect("something to merge");
    let folded = merge.folded(Hash([255; 32]));
    assert!(folded.len() <= FOLDED_SEGMENTS_MAX);
    assert!(folded.iter().all(|segment| matches!(segment.source, SegmentSource::Block { .. })));
    assert!(folded.windows(2).all(|pair| pair[0].start + pair[0].length <= pair[1].start));
    assert!(folded.last().is_none_or(|last| last.start + last.length <= size));
    for (was, is) in covered(segments, size).into_iter().zip(covered(&folded, size)) {
        assert!(is || !was, "no byte is lost");
    }
    folded
}

#[test]
fn what_was_appended_is_merged_and_large_blocks_in_front_stay() {
    let mut row = vec![block(0, 100_000), block(100_000, 20_000)];
    row.extend((0..16).map(|index| inline(120_000 + index * 1000, 1000)));
    let folded = check(&row, 136_000);
    assert_eq!(folded[..2], row[..2]);
    assert_eq!((folded.len(), folded[2].start, folded[2].length), (3, 120_000, 16_000));
}

#[test]
fn inline_bytes_in_front_of_a_large_block_are_merged_with_it() {
    let folded = check(&[block(0, 500), inline(500, 10), block(510, 500)], 1010);
    assert_eq!((folded.len(), folded[0].length), (1, 1010));
}

#[test]
fn holes_stay_holes_as_long_as_there_is_room() {
    let folded = check(&[inline(0, 10), inline(20, 10), inline(30, 5)], 100);
    assert_eq!(folded.iter().map(|one| (one.start, one.length)).collect::<Vec<_>>(), [(0, 10), (20, 15)]);
    let many: Vec<_> = (0..32).map(|index| inline(index * 20, 10)).collect();
    assert_eq!(check(&many, 1000).len(), 1, "too many holes become zeros");
}

#[test]
fn what_lies_beyond_the_size_is_left_out() {
    let folded = check(&[inline(0, 10), inline(10, 10), block(50, 10)], 15);
    assert_eq!(folded.iter().map(|one| (one.start, one.length)).collect::<Vec<_>>(), [(0, 15)]);
}

#[test]
fn a_row_of_one_block_needs_no_fold() {
    assert_eq!(plan(&[block(0, 100)], 100), None);
    assert_eq!(plan(&[], 100), None);
    assert!(plan(&[inline(0, 100)], 100).is_some());
}
