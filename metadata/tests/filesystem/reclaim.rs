//! Lazy reclaiming: constant work for huge files, nothing visible that should be gone, grace of blocks.

use quorate_metadata::rows::{Block, Totals};
use quorate_metadata::{Errno, Moment, Progress, View, keys, reclaim};
use quorate_protocol::query::Query;
use quorate_protocol::{BatchTime, Reply};

use crate::check;
use crate::support::{READ, ROOT, World, rows_of_kind};

/// A file of this many rows of one segment each.
fn huge(world: &mut World, rows: u64) -> u64 {
    let file = world.create(ROOT, "huge", 0o644).unwrap();
    world.write_rows(file, 0, rows);
    file
}

#[test]
fn unlinking_a_huge_file_is_bounded_and_the_queue_does_the_rest() {
    let mut world = World::new();
    world.parameters.reclaim_rows_per_batch = 50;
    let file = huge(&mut world, 200);
    world.unlink(ROOT, "huge").unwrap();
    let left = rows_of_kind(&world, file, keys::KIND_CONTENT);
    assert!((150..200).contains(&left), "{left} rows are left");
    assert_eq!(world.read(&Query::Attributes { ino: file }), Err(Errno::ESTALE));
    check::consistent(&world);
    let mut batches = 0;
    while world.reclaim() == Progress::More {
        batches += 1;
        check::consistent(&world);
    }
    assert!((5..12).contains(&batches), "{batches} batches");
    assert!(!world.view.rows.contains_key(&keys::inode(file)));
}

#[test]
fn truncating_a_huge_file_hides_rows_at_once() {
    let mut world = World::new();
    let file = huge(&mut world, 200);
    world.truncate(file, 70).unwrap();
    assert_eq!(world.row(file).reclaim_from.map(|from| from > 2), Some(true));
    check::consistent(&world);
    world.truncate(file, 64 * 3).unwrap();
    let content = world.read(&Query::Content { ino: file, first: 0, count: 64, session: None }).unwrap();
    let quorate_metadata::Answer::Content(content) = content else { panic!("no content") };
    assert_eq!(content.rows.len(), 2, "the third row is a hole");
    assert_eq!(content.rows[1].1[0].length, 6);
    check::consistent(&world);
    world.drain();
    check::consistent(&world);
    assert_eq!(world.row(file).reclaim_from, None);
    assert_eq!(world.stat(file).blocks, 1);
}

#[test]
fn what_would_expose_hidden_rows_reclaims_them_or_answers_continue() {
    let mut world = World::new();
    let file = huge(&mut world, 1500);
    world.truncate(file, 0).unwrap();
    assert!(rows_of_kind(&world, file, keys::KIND_CONTENT) > 1400);
    // Nearby rows cost little.
    assert!(matches!(world.write(file, 64 * 40, b"near"), Ok(Reply::Written { .. })));
    check::consistent(&world);
    assert_eq!(world.truncate(file, 64 * 1500), Ok(Reply::Continue));
    assert_eq!(world.stat(file).size, 64 * 40 + 4, "nothing but reclaiming happened");
    check::consistent(&world);
    let mut attempts = 1;
    while world.write(file, 64 * 1499, b"far").unwrap() == Reply::Continue {
        attempts += 1;
        check::consistent(&world);
    }
    assert!((2..5).contains(&attempts), "{attempts} attempts");
    assert_eq!(world.stat(file).blocks, 1);
    assert_eq!(rows_of_kind(&world, file, keys::KIND_CONTENT), 2);
    check::consistent(&world);
}

#[test]
fn a_file_that_waits_for_reclaiming_may_be_unlinked_and_truncated_again() {
    let mut world = World::new();
    let file = huge(&mut world, 300);
    world.truncate(file, 64 * 200).unwrap();
    world.truncate(file, 64 * 10).unwrap();
    check::consistent(&world);
    world.open(file, READ).unwrap();
    world.unlink(ROOT, "huge").unwrap();
    check::consistent(&world);
    world.reclaim();
    check::consistent(&world);
    world.release(file, READ, 1).unwrap();
    check::consistent(&world);
    world.drain();
    check::consistent(&world);
    assert!(!world.view.rows.contains_key(&keys::inode(file)));
}

#[test]
fn released_blocks_keep_their_row_through_their_grace() {
    let mut world = World::new();
    let file = huge(&mut world, 3);
    let blocks = |world: &World| world.view.rows.keys().filter(|key| key[0] == 0xFE).count();
    assert_eq!(blocks(&world), 3);
    world.unlink(ROOT, "huge").unwrap();
    let released_at = world.now;
    assert!(!world.view.rows.contains_key(&keys::inode(file)));
    let at = |world: &mut World, time| {
        let moment = Moment { height: 1, time: BatchTime(time) };
        reclaim(&mut world.view, moment, &world.parameters.clone()).unwrap()
    };
    let waiting = at(&mut world, released_at + 999);
    assert_eq!((waiting.progress, waiting.next_at), (Progress::Done, Some(BatchTime(released_at + 1000))));
    assert_eq!(blocks(&world), 3);
    let done = at(&mut world, released_at + 1000);
    assert_eq!((done.progress, done.next_at), (Progress::Done, None));
    assert_eq!(blocks(&world), 0);
    check::consistent(&world);
}

#[test]
fn a_block_knows_when_it_was_born_and_released() {
    let mut world = World::new();
    let file = huge(&mut world, 1);
    let key = *world.view.rows.keys().find(|key| key[0] == 0xFE).unwrap();
    let row = |world: &World| quorate_metadata::rows::get::<Block>(&world.view, &key).unwrap().unwrap();
    let born = row(&world).born;
    assert_eq!((born.height, born.time), (world.height, BatchTime(world.now)));
    world.truncate(file, 0).unwrap();
    let released = row(&world).released.unwrap();
    assert_eq!((released.height, released.time), (world.height, BatchTime(world.now)));
    world.write_rows(file, 0, 1);
    assert_eq!((row(&world).born, row(&world).released), (born, None));
    check::consistent(&world);
}

#[test]
fn everything_of_an_inode_goes_with_it() {
    let mut world = World::new();
    let empty = world.view.rows.clone();
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    world.symlink(directory, "s", b"x").unwrap();
    let file = world.create(directory, "f", 0o644).unwrap();
    world.link(file, ROOT, "g").unwrap();
    world.write(file, 0, b"abc").unwrap();
    let name = quorate_crypto::BoundedBytes::try_from(b"user.a".as_slice()).unwrap();
    let set = quorate_protocol::OperationBody::SetXattr {
        ino: file,
        name,
        value: quorate_crypto::BoundedBytes::new(),
        mode: quorate_protocol::operation::SetXattrMode::Any,
        entropy: [0; 16],
    };
    world.apply(&set).unwrap();
    for (parent, text) in [(directory, "s"), (directory, "f"), (ROOT, "g")] {
        world.unlink(parent, text).unwrap();
    }
    world.rmdir(ROOT, "d").unwrap();
    let left: Vec<_> = world.view.rows.keys().filter(|key| !empty.contains_key(*key)).collect();
    assert!(left.is_empty(), "{left:?}");
    let totals = world.view.get(&keys::totals()).unwrap();
    assert_eq!(
        totals,
        Some(quorate_metadata::rows::Row::to_value(&Totals { inodes: 1, ..Totals::default() }))
    );
}
