//! `utimensat` and `truncate`, and what one operation may combine.

use quorate_metadata::{Errno, FILE_SIZE_MAX};
use quorate_protocol::operation::{Authority, SpecialFile};
use quorate_protocol::time::SetTime;
use quorate_protocol::{Reply, Timestamp};

use crate::check;
use crate::support::{READ, ROOT, Setattr, WRITE, World};

fn at(seconds: i64, nanoseconds: u32) -> SetTime {
    SetTime::To(Timestamp { seconds, nanoseconds })
}

#[test]
fn explicit_times_are_for_owners_and_now_is_for_writers() {
    let mut world = World::new();
    let file = world.as_user(1000, 1000).create(ROOT, "f", 0o666).unwrap();
    world.as_user(1001, 1001);
    assert_eq!(world.utimes(file, at(1, 2), SetTime::Omit), Err(Errno::EPERM));
    assert_eq!(world.utimes(file, SetTime::Omit, at(1, 2)), Err(Errno::EPERM));
    assert_eq!(world.utimes(file, SetTime::Now, at(1, 2)), Err(Errno::EPERM));
    assert_eq!(
        world.utimes(file, SetTime::Now, SetTime::Omit),
        Err(Errno::EPERM),
        "Linux asks for ownership"
    );
    let now = world.utimes(file, SetTime::Now, SetTime::Now).unwrap();
    assert_eq!([now.atime, now.mtime, now.ctime], [world.time(); 3]);
    world.as_user(1000, 1000).chmod(file, 0o444).unwrap();
    assert_eq!(world.as_user(1001, 1001).utimes(file, SetTime::Now, SetTime::Now), Err(Errno::EACCES));
    world.as_user(1000, 1000).utimes(file, SetTime::Now, SetTime::Now).unwrap();
    let set = world.utimes(file, at(-5, 7), at(1 << 40, 999_999_999)).unwrap();
    assert_eq!(set.atime, Timestamp { seconds: -5, nanoseconds: 7 });
    assert_eq!(set.mtime, Timestamp { seconds: 1 << 40, nanoseconds: 999_999_999 });
    assert_eq!(set.ctime, world.time());
}

#[test]
fn nothing_asked_for_is_nothing_done() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let rows = world.view.rows.clone();
    assert!(world.as_user(1001, 1001).apply(&Setattr::of(file).body()).is_ok());
    assert_eq!(world.view.rows, rows);
    assert_eq!(world.apply(&Setattr::of(99).body()), Err(Errno::ESTALE));
}

#[test]
fn what_is_checked_first_changes_nothing_when_something_else_fails() {
    let mut world = World::new();
    let file = world.as_user(1000, 1000).create(ROOT, "f", 0o644).unwrap();
    let rows = world.view.rows.clone();
    let both = Setattr { mode: Some(0o600), uid: Some(1001), ..Setattr::of(file) };
    assert_eq!(world.apply(&both.body()), Err(Errno::EPERM));
    let both = Setattr { size: Some(7), atime: at(1, 1), ..Setattr::of(file) };
    world.as_root().chmod(file, 0o666).unwrap();
    assert_eq!(world.as_user(1001, 1001).apply(&both.body()), Err(Errno::EPERM));
    world.as_root().change_row(file, |inode| inode.mode = 0o644);
    assert_eq!(world.stat(file).size, 0);
    assert_ne!(world.view.rows, rows, "chmod was the only change");
}

#[test]
fn truncating_sets_times_and_needs_a_regular_file() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    let fifo = world.mknod(ROOT, "p", SpecialFile::Fifo).unwrap();
    assert_eq!(world.truncate(directory, 0), Err(Errno::EISDIR));
    assert_eq!(world.truncate(fifo, 0), Err(Errno::EINVAL));
    assert_eq!(world.truncate(file, FILE_SIZE_MAX + 1), Err(Errno::EFBIG));
    let before = world.stat(file);
    world.truncate(file, 1_234_567).unwrap();
    let after = world.stat(file);
    assert_eq!((after.size, after.blocks, after.atime), (1_234_567, 0, before.atime));
    assert_eq!((after.mtime, after.ctime), (world.time(), world.time()));
    world.truncate(file, FILE_SIZE_MAX).unwrap();
    world.truncate(file, 3).unwrap();
    check::consistent(&world);
}

#[test]
fn truncate_by_a_writer_may_set_mtime_to_now() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o666).unwrap();
    world.as_user(1000, 1000);
    let body = Setattr { size: Some(1), mtime: SetTime::Now, ..Setattr::of(file) }.body();
    assert!(world.apply(&body).is_ok());
}

#[test]
fn a_grant_to_write_stands_in_for_the_mode() {
    let mut world = World::new();
    world.as_user(1000, 1000);
    let file = world.open_create(ROOT, "f", 0o400, WRITE).unwrap();
    let by_grant =
        |size| Setattr { size: Some(size), authority: Authority::Grant, ..Setattr::of(file) }.body();
    assert!(world.apply(&by_grant(5)).is_ok());
    assert_eq!(world.truncate(file, 6), Err(Errno::EACCES));
    world.session = 2;
    assert_eq!(world.apply(&by_grant(7)), Err(Errno::EBADF));
    world.open(file, READ).unwrap();
    assert_eq!(world.apply(&by_grant(7)), Err(Errno::EBADF), "a grant to read is none to write");
}

#[test]
fn no_token_is_valid_while_there_are_no_locks() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let body = Setattr { size: Some(1), token: Some(1), ..Setattr::of(file) }.body();
    assert_eq!(world.apply(&body), Err(Errno::ESTALE));
}

#[test]
fn opening_with_truncation() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    world.write(file, 0, b"some bytes").unwrap();
    let mode = quorate_protocol::operation::OpenMode { truncate: true, ..WRITE };
    let attributes = world.open(file, mode).unwrap();
    assert_eq!((attributes.size, attributes.blocks), (0, 0));
    assert_eq!((attributes.mtime, attributes.ctime), (world.time(), world.time()));
    assert!(matches!(world.release(file, WRITE, 1), Ok(Reply::Empty)));
    let read_truncate = quorate_protocol::operation::OpenMode { truncate: true, ..READ };
    world.chmod(file, 0o444).unwrap();
    world.as_user(1000, 1000);
    assert_eq!(world.open(file, read_truncate), Err(Errno::EACCES));
    check::consistent(&world);
}
