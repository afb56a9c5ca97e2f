//! Writes, folds, evidence for blocks, and their bounds.

use quorate_crypto::{Bounded, Hash};
use quorate_metadata::rows::{Block, Row, value_hash};
use quorate_metadata::{Answer, Errno, FILE_SIZE_MAX, WRITE_ROWS_MAX, WRITE_SEGMENTS_PER_ROW_MAX, keys};
use quorate_protocol::blocks::{BlockDescriptor, BlockEvidence};
use quorate_protocol::file::{Segment, SegmentSource};
use quorate_protocol::operation::{Authority, Piece, SpecialFile, WriteAt};
use quorate_protocol::query::Query;
use quorate_protocol::{BatchTime, Ino, OperationBody, Reply};

use crate::check;
use crate::support::{ROOT, START, World, block, evidence, inline, session_id};

fn segments(world: &World, ino: Ino, index: u64) -> Vec<Segment> {
    let query = Query::Content { ino, first: index, count: 1, session: None };
    match world.read(&query) {
        Ok(Answer::Content(content)) => content.rows.into_iter().next().map_or_else(Vec::new, |(_, row)| row),
        other => panic!("{other:?}"),
    }
}

fn references(world: &World, content: &[u8]) -> (u64, bool) {
    let id = BlockDescriptor::copies(content).id();
    let block = Block::from_value(&world.view.rows[&keys::block(&id)]).unwrap();
    (block.count, block.released.is_some())
}

fn write_body(ino: Ino, offset: u64, pieces: Vec<Piece>, evidence: BlockEvidence) -> OperationBody {
    OperationBody::Write {
        ino,
        at: WriteAt::Offset(offset),
        pieces: Bounded::try_from(pieces).unwrap(),
        evidence,
        authority: Authority::Check,
        token: None,
        entropy: [1; 16],
    }
}

#[test]
fn bytes_holes_and_blocks_are_counted_exactly() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    match world.write(file, 100, b"hello").unwrap() {
        Reply::Written { offset, attributes } => {
            assert_eq!((offset, attributes.size, attributes.blocks), (100, 105, 1));
            assert_eq!((attributes.mtime, attributes.ctime), (world.time(), world.time()));
        }
        reply => panic!("{reply:?}"),
    }
    assert!(segments(&world, file, 0).is_empty());
    let large = vec![7; 1000];
    let pieces = vec![block(&large, 0, 1000)];
    world.write_pieces(file, WriteAt::Append, pieces, &[&large], Authority::Check).unwrap();
    let attributes = world.stat(file);
    assert_eq!((attributes.size, attributes.blocks), (1105, 2));
    let punch = vec![Piece::Zero(1105)];
    world.write_pieces(file, WriteAt::Offset(0), punch, &[], Authority::Check).unwrap();
    assert_eq!((world.stat(file).size, world.stat(file).blocks), (1105, 0));
    assert_eq!(references(&world, &large), (0, true));
    check::consistent(&world);
}

#[test]
fn append_lands_at_the_committed_size() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    for (index, expected) in [0, 3, 6].into_iter().enumerate() {
        let reply =
            world.write_pieces(file, WriteAt::Append, vec![inline(b"abc")], &[], Authority::Check).unwrap();
        assert!(matches!(reply, Reply::Written { offset, .. } if offset == expected), "append {index}");
    }
    assert_eq!(segments(&world, file, 0).len(), 1, "appended bytes join");
}

#[test]
fn only_regular_files_have_content() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    let fifo = world.mknod(ROOT, "p", SpecialFile::Fifo).unwrap();
    let link = world.symlink(ROOT, "s", b"x").unwrap();
    assert_eq!(world.write(directory, 0, b"x"), Err(Errno::EISDIR));
    assert_eq!(world.write(fifo, 0, b"x"), Err(Errno::EINVAL));
    assert_eq!(world.write(link, 0, b"x"), Err(Errno::EINVAL));
    assert_eq!(world.write(99, 0, b"x"), Err(Errno::ESTALE));
}

#[test]
fn bounds_of_a_write() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    assert_eq!(world.write(file, FILE_SIZE_MAX, b"x"), Err(Errno::EFBIG));
    assert_eq!(world.write(file, u64::MAX, b"x"), Err(Errno::EFBIG));
    world.write(file, FILE_SIZE_MAX - 1, b"x").unwrap();
    let most = 64 * WRITE_ROWS_MAX;
    let zeros = |world: &mut World, offset, length| {
        let pieces = vec![Piece::Zero(length)];
        world.write_pieces(file, WriteAt::Offset(offset), pieces, &[], Authority::Check)
    };
    assert!(zeros(&mut world, 0, most).is_ok());
    assert_eq!(zeros(&mut world, 0, most + 1), Err(Errno::EINVAL));
    assert_eq!(zeros(&mut world, 1, most), Err(Errno::EINVAL));
    assert_eq!(zeros(&mut world, 0, u64::MAX), Err(Errno::EFBIG));
    assert_eq!(world.write(file, 0, &[1; 49]), Err(Errno::EINVAL), "more inline bytes than a row may hold");
    assert!(world.write(file, 40, &[1; 72]).is_ok(), "24 in one row and 48 in the next");
    check::consistent(&world);
}

#[test]
fn too_many_segments_of_ones_own_are_refused_not_folded() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let dotted =
        |count: usize| -> Vec<Piece> { (0..count).flat_map(|_| [inline(b"x"), Piece::Zero(1)]).collect() };
    let most = dotted(WRITE_SEGMENTS_PER_ROW_MAX);
    assert!(world.write_pieces(file, WriteAt::Offset(0), most, &[], Authority::Check).is_ok());
    let more = dotted(WRITE_SEGMENTS_PER_ROW_MAX + 1);
    assert_eq!(world.write_pieces(file, WriteAt::Offset(0), more, &[], Authority::Check), Err(Errno::EINVAL));
}

#[test]
fn a_full_row_answers_needs_fold_and_changes_nothing() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    world.write(file, 0, &[1; 48]).unwrap();
    world.write(file, 64, b"next row").unwrap();
    let rows = world.view.rows.clone();
    assert_eq!(world.write(file, 50, b"x"), Ok(Reply::NeedsFold { ino: file, index: 0 }));
    assert_eq!(world.write(file, 60, &[1; 12]), Ok(Reply::NeedsFold { ino: file, index: 0 }));
    assert_eq!(world.view.rows, rows);
    world.write(file, 0, b"overwrites").unwrap();
}

fn fold_body(
    world: &World,
    ino: Ino,
    index: u64,
    segments: Vec<Segment>,
    evidence: BlockEvidence,
) -> OperationBody {
    let value = world.view.rows.get(&keys::content(ino, index));
    OperationBody::Fold {
        ino,
        index,
        expected: value.map_or(Hash::ZERO, |value| value_hash(value)),
        segments: Bounded::try_from(segments).unwrap(),
        evidence,
        authority: Authority::Check,
        entropy: [2; 16],
    }
}

fn block_segment(content: &[u8], start: u32, length: u32, offset: u32) -> Segment {
    let source = SegmentSource::Block { id: BlockDescriptor::copies(content).id(), offset };
    Segment { start, length, source }
}

#[test]
fn a_fold_replaces_the_row_that_it_names_only() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    world.write(file, 0, b"inline bytes").unwrap();
    let merged = b"inline bytes";
    let proof = evidence(session_id(1), &[merged]);
    let good = fold_body(&world, file, 0, vec![block_segment(merged, 0, 12, 0)], proof.clone());
    assert_eq!(world.as_user(1000, 1000).apply(&good), Err(Errno::EACCES));
    let without = fold_body(&world, file, 0, vec![block_segment(merged, 0, 12, 0)], BlockEvidence::default());
    assert_eq!(world.as_root().apply(&without), Err(Errno::EBADMSG));
    let beyond = fold_body(&world, file, 0, vec![block_segment(merged, 1, 12, 0)], proof.clone());
    assert_eq!(world.apply(&beyond), Err(Errno::EINVAL), "beyond the end of the file");
    let empty = fold_body(&world, file, 0, vec![], proof.clone());
    assert_eq!(world.apply(&empty), Err(Errno::EINVAL));
    let overlapping = vec![block_segment(merged, 0, 6, 0), block_segment(merged, 5, 6, 5)];
    let overlapping = fold_body(&world, file, 0, overlapping, proof.clone());
    assert_eq!(world.apply(&overlapping), Err(Errno::EINVAL));
    let nowhere = fold_body(&world, file, 9, vec![block_segment(merged, 0, 12, 0)], proof.clone());
    assert_eq!(world.apply(&nowhere), Err(Errno::ESTALE));
    let folded = world.inode(&good).unwrap();
    assert_eq!((folded.blocks, folded.mtime), (1, world.time()));
    assert_eq!(segments(&world, file, 0), [block_segment(merged, 0, 12, 0)]);
    assert_eq!(world.apply(&good), Err(Errno::ESTALE), "the row is another one now");
    assert_eq!(references(&world, merged), (1, false));
    check::consistent(&world);
}

/// A block's parts that were overwritten do not come back by naming them.
#[test]
fn a_fold_keeps_no_more_of_a_block_than_the_row_shows() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let secret = [9; 64];
    let pieces = vec![block(&secret, 0, 64)];
    world.write_pieces(file, WriteAt::Offset(0), pieces, &[&secret], Authority::Check).unwrap();
    world.write(file, 0, &[0; 32]).unwrap();
    let nothing = BlockEvidence::default;
    for (start, length, offset) in [(0, 64, 0), (31, 33, 31), (32, 32, 0), (0, 32, 32)] {
        let segments = vec![block_segment(&secret, start, length, offset)];
        let body = fold_body(&world, file, 0, segments, nothing());
        assert_eq!(world.apply(&body), Err(Errno::EBADMSG), "{start} {length} {offset}");
    }
    let kept = fold_body(&world, file, 0, vec![block_segment(&secret, 33, 31, 33)], nothing());
    world.apply(&kept).unwrap();
    check::consistent(&world);
}

#[test]
fn evidence_must_hold_in_every_part() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let content = [5; 20];
    let good = || evidence(session_id(1), &[&content]);
    let mut attempt = |change: &dyn Fn(&mut BlockEvidence)| {
        let mut evidence = good();
        change(&mut evidence);
        world.apply(&write_body(file, 0, vec![block(&content, 0, 20)], evidence))
    };
    let refused = Err(Errno::EBADMSG);
    assert_eq!(attempt(&|e| e.blocks = Bounded::new()), refused, "no block");
    assert_eq!(attempt(&|e| e.receipts = Bounded::new()), refused, "no receipts");
    assert_eq!(attempt(&|e| e.receipts = Bounded::try_from(e.receipts[..2].to_vec()).unwrap()), refused);
    assert_eq!(attempt(&|e| e.receipts.as_mut_slice()[1].replica = 0), refused, "one member twice");
    assert_eq!(attempt(&|e| e.receipts.as_mut_slice()[1].replica = 9), refused, "no member");
    assert_eq!(attempt(&|e| e.receipts.as_mut_slice()[1].epoch = 2), refused, "another epoch");
    assert_eq!(attempt(&|e| e.receipts.as_mut_slice()[2].signature.0[0] = 0), refused, "a bad signature");
    assert_eq!(attempt(&|e| e.receipts.as_mut_slice()[0].body.session = session_id(2)), refused);
    assert_eq!(
        attempt(&|e| e.receipts.as_mut_slice()[0].body.expires = BatchTime(START)),
        refused,
        "expired"
    );
    assert_eq!(attempt(&|e| e.receipts.as_mut_slice()[0].body.root = Hash([1; 32])), refused, "two roots");
    assert_eq!(attempt(&|e| e.receipts.as_mut_slice()[0].body.count = 2), refused, "two counts");
    assert_eq!(attempt(&|e| e.blocks.as_mut_slice()[0].index = 1), refused, "another place");
    assert_eq!(attempt(&|e| e.blocks.as_mut_slice()[0].descriptor.length = 21), refused, "another length");
    assert_eq!(attempt(&|e| e.blocks.as_mut_slice()[0].descriptor.transform = 1), refused, "unknown coding");
    assert!(attempt(&|_| {}).is_ok());
    let beyond = write_body(file, 0, vec![block(&content, 1, 20)], good());
    assert_eq!(world.apply(&beyond), Err(Errno::EINVAL), "beyond the end of the block");
    let wrapping = write_body(file, 0, vec![block(&content, u32::MAX, 20)], good());
    assert_eq!(world.apply(&wrapping), Err(Errno::EINVAL));
    check::consistent(&world);
}

#[test]
fn receipts_hold_to_the_last_nanosecond() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let content = [5; 20];
    let mut proof = evidence(session_id(1), &[&content]);
    let next = BatchTime(world.now + 1_000_001);
    for receipt in proof.receipts.as_mut_slice() {
        receipt.body.expires = next;
    }
    let body = write_body(file, 0, vec![block(&content, 0, 20)], proof);
    assert!(world.apply(&body).is_ok());
    assert_eq!(world.apply(&body), Err(Errno::EBADMSG));
}

#[test]
fn references_count_segments() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let content = [5; 100];
    let pieces = vec![block(&content, 0, 100)];
    world.write_pieces(file, WriteAt::Offset(0), pieces, &[&content], Authority::Check).unwrap();
    assert_eq!(references(&world, &content), (2, false), "one for each row");
    world.write(file, 10, b"splits").unwrap();
    assert_eq!(references(&world, &content), (3, false));
    world.truncate(file, 12).unwrap();
    assert_eq!(references(&world, &content), (1, false));
    world.truncate(file, 0).unwrap();
    assert_eq!(references(&world, &content), (0, true));
    let pieces = vec![block(&content, 50, 10)];
    world.write_pieces(file, WriteAt::Offset(0), pieces, &[&content], Authority::Check).unwrap();
    assert_eq!(references(&world, &content), (1, false), "it lives again");
    check::consistent(&world);
}

#[test]
fn another_block_under_the_same_key_is_refused() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let content = [5; 20];
    let pieces = || vec![block(&content, 0, 20)];
    world.write_pieces(file, WriteAt::Offset(0), pieces(), &[&content], Authority::Check).unwrap();
    let key = keys::block(&BlockDescriptor::copies(&content).id());
    let mut row = Block::from_value(&world.view.rows[&key]).unwrap();
    row.id.0[31] ^= 1;
    quorate_metadata::rows::put(&mut world.view, key, &row);
    let again = world.write_pieces(file, WriteAt::Offset(64), pieces(), &[&content], Authority::Check);
    assert_eq!(again, Err(Errno::ENOSPC));
}

#[test]
fn extending_after_a_cut_reads_zeros() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    world.write(file, 0, b"visible and hidden").unwrap();
    world.truncate(file, 7).unwrap();
    world.truncate(file, 60).unwrap();
    let row = segments(&world, file, 0);
    assert_eq!((row.len(), row[0].length), (1, 7));
    assert_eq!(world.stat(file).size, 60);
    check::consistent(&world);
}
