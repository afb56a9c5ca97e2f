//! Plans against a model: a file as a flat array of bytes.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use proptest::prelude::*;
use quorate_crypto::BoundedBytes;

use super::*;

fn range(offset: u64, length: usize) -> DirtyRange {
    DirtyRange { offset, bytes: (0..length).map(|index| (offset as usize + index) as u8 | 1).collect() }
}

fn model(ranges: &[DirtyRange]) -> Vec<u8> {
    let mut file = Vec::new();
    for range in ranges {
        let end = range.offset as usize + range.bytes.len();
        file.resize(file.len().max(end), 0);
        file[range.offset as usize..end].copy_from_slice(&range.bytes);
    }
    file
}

fn applied(writes: &[PlannedWrite]) -> Vec<u8> {
    let flat: Vec<_> = writes
        .iter()
        .map(|write| {
            let bytes = write.pieces.iter().flat_map(|piece| match piece {
                Planned::Inline(bytes) | Planned::Block(bytes) => bytes.clone(),
            });
            DirtyRange { offset: write.offset, bytes: bytes.collect() }
        })
        .collect();
    model(&flat)
}

#[test]
fn a_plan_writes_exactly_the_ranges_and_keeps_the_bounds() {
    let ranges =
        vec![range(0, 100), range(100, 5000), range(8000, 400_000), range(500_000, 1), range(4095, 0)];
    let writes = plan(ranges.clone(), 12, 1000);
    assert_eq!(applied(&writes), model(&ranges));
    for write in &writes {
        assert!(!write.pieces.is_empty() && write.pieces.len() <= PIECES_PER_WRITE_MAX);
        let mut at = write.offset;
        for piece in &write.pieces {
            assert_eq!(at >> 12, (at + piece.len() as u64 - 1) >> 12, "a piece stays within a row");
            assert_eq!(matches!(piece, Planned::Inline(_)), piece.len() <= 1000);
            at += piece.len() as u64;
        }
    }
}

#[test]
fn ranges_that_touch_share_a_write_and_large_ones_are_cut_for_upload() {
    assert_eq!(plan(vec![range(0, 10), range(10, 10), range(30, 10)], 20, 100).len(), 2);
    let writes = plan(vec![range(0, 20 << 20)], 20, 100);
    assert_eq!(writes.iter().map(PlannedWrite::block_bytes).collect::<Vec<_>>(), [8 << 20, 8 << 20, 4 << 20]);
}

#[test]
fn segments_fill_a_buffer_clipped_at_both_ends_and_holes_stay_zero() {
    let inline = |start: u32, bytes: &[u8]| Segment {
        start,
        length: bytes.len() as u32,
        source: SegmentSource::Inline(BoundedBytes::try_from(bytes).unwrap()),
    };
    let id = Hash([3; 32]);
    let block = Segment { start: 20, length: 30, source: SegmentSource::Block { id, offset: 7 } };
    let rows = vec![(0, vec![inline(2, b"abcdef"), block]), (1, vec![inline(0, b"xyz")])];
    let mut buffer = vec![0; 4096 - 4 + 2];
    let parts = fill(&mut buffer, 4, 12, &rows);
    assert_eq!(&buffer[..6], b"cdef\0\0");
    assert_eq!(&buffer[4092..], b"xy");
    assert_eq!(parts, [BlockPart { row: 0, id, offset: 7, target: 16..46 }]);
    let content: Vec<u8> = (0..40).collect();
    assert!(place(&mut buffer, &parts[0], &content));
    assert_eq!(buffer[16..46], content[7..37]);
    assert!(!place(&mut buffer, &parts[0], &content[..36]), "a block that is too short is noticed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the ranges, the plan writes exactly them, in order, within the bounds.
    #[test]
    fn any_ranges_are_planned_exactly(
        spans in prop::collection::vec((0_u64..200_000, 0_usize..60_000), 0..12),
        block_log2 in 12_u8..=16,
        inline_limit in 0_usize..5000,
    ) {
        let ranges: Vec<_> = spans.iter().map(|(offset, length)| range(*offset, *length)).collect();
        let writes = plan(ranges.clone(), block_log2, inline_limit);
        prop_assert_eq!(applied(&writes), model(&ranges.into_iter().filter(|one| !one.bytes.is_empty()).collect::<Vec<_>>()));
        for write in &writes {
            prop_assert!(!write.pieces.is_empty() && write.pieces.len() <= PIECES_PER_WRITE_MAX);
            prop_assert!(write.blocks() <= BLOCKS_PER_RECEIPT_MAX && write.block_bytes() <= PUT_BLOCKS_BYTES_MAX);
            let bytes: usize = write.pieces.iter().map(Planned::len).sum();
            let rows = ((write.offset + bytes as u64 - 1) >> block_log2) - (write.offset >> block_log2) + 1;
            prop_assert!(rows <= quorate_metadata::WRITE_ROWS_MAX);
        }
    }
}
