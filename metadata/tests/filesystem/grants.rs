//! Open grants: counts, sessions, and inodes that live on without a name.

use quorate_metadata::rows::{GRANTS_PER_ROW_MAX, Grants, Row};
use quorate_metadata::{Answer, Errno, Progress, keys, release_session};
use quorate_protocol::operation::{Authority, OpenMode, WriteAt};
use quorate_protocol::query::Query;
use quorate_protocol::{OperationBody, Reply};

use crate::check;
use crate::support::{READ, READ_WRITE, ROOT, WRITE, World, inline, session_id};

#[test]
fn opening_checks_kind_then_permission() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o640).unwrap();
    let directory = world.mkdir(ROOT, "d", 0o700).unwrap();
    let link = world.symlink(ROOT, "s", b"f").unwrap();
    let nothing = OpenMode { read: false, write: false, truncate: false };
    assert_eq!(world.open(file, nothing), Err(Errno::EINVAL));
    assert_eq!(world.open(link, READ), Err(Errno::ELOOP));
    assert_eq!(world.open(99, READ), Err(Errno::ESTALE));
    world.as_user(1000, 1000);
    assert_eq!(world.open(directory, WRITE), Err(Errno::EISDIR));
    assert_eq!(world.open(directory, READ), Err(Errno::EACCES));
    assert_eq!(world.open(file, READ), Err(Errno::EACCES));
    world.as_user(1000, 0);
    world.open(file, READ).unwrap();
    assert_eq!(world.open(file, READ_WRITE), Err(Errno::EACCES));
    check::consistent(&world);
}

#[test]
fn grants_are_counted_by_mode_and_credential() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o666).unwrap();
    for _ in 0..3 {
        world.open(file, READ).unwrap();
    }
    world.as_user(1000, 1000).open(file, READ).unwrap();
    world.open(file, WRITE).unwrap();
    let row = |world: &World| Grants::from_value(&world.view.rows[&keys::grants(file, 1)]).unwrap().grants;
    let counts: Vec<_> = row(&world).iter().map(|grant| (grant.read, grant.uid, grant.count)).collect();
    assert_eq!(counts, [(false, 1000, 1), (true, 0, 3), (true, 1000, 1)]);
    assert_eq!(world.release(file, READ, 5), Err(Errno::EBADF));
    world.release(file, READ, 2).unwrap();
    let counts: Vec<_> = row(&world).iter().map(|grant| (grant.read, grant.uid, grant.count)).collect();
    assert_eq!(counts, [(false, 1000, 1), (true, 0, 2)], "one's own first");
    assert_eq!(world.release(file, READ_WRITE, 1), Err(Errno::EBADF));
    world.release(file, WRITE, 1).unwrap();
    world.release(file, READ, 2).unwrap();
    assert_eq!(world.release(file, READ, 1), Err(Errno::EBADF));
    check::consistent(&world);
}

#[test]
fn a_row_of_grants_is_bounded() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o666).unwrap();
    for uid in 0..u32::try_from(GRANTS_PER_ROW_MAX).unwrap() {
        world.as_user(uid, 1).open(file, READ).unwrap();
    }
    assert_eq!(world.as_user(9999, 1).open(file, READ), Err(Errno::EMFILE));
    world.session = 2;
    world.open(file, READ).unwrap();
    check::consistent(&world);
}

#[test]
fn the_creator_writes_to_a_file_that_nobody_may_write() {
    let mut world = World::new();
    world.as_user(1000, 1000);
    let file = world.open_create(ROOT, "f", 0o000, READ_WRITE).unwrap();
    world.as_root().chown(file, Some(7), None).unwrap();
    world.as_user(1000, 1000);
    let write = |world: &mut World, authority| {
        world.write_pieces(file, WriteAt::Append, vec![inline(b"x")], &[], authority)
    };
    assert_eq!(write(&mut world, Authority::Check), Err(Errno::EACCES));
    assert!(write(&mut world, Authority::Grant).is_ok());
    world.session = 2;
    assert_eq!(write(&mut world, Authority::Grant), Err(Errno::EBADF));
}

#[test]
fn a_grant_to_read_stands_in_for_the_mode() {
    let mut world = World::new();
    world.as_user(1000, 1000);
    let file = world.open_create(ROOT, "f", 0o000, READ).unwrap();
    world.as_root().chown(file, Some(7), None).unwrap();
    world.as_user(1000, 1000);
    let query = |session| Query::Content { ino: file, first: 0, count: 1, session };
    assert_eq!(world.read(&query(None)), Err(Errno::EACCES));
    assert!(matches!(world.read(&query(Some(session_id(1)))), Ok(Answer::Content(_))));
    world.session = 2;
    assert_eq!(world.read(&query(Some(session_id(2)))), Err(Errno::EACCES));
    world.as_user(7, 7);
    assert!(world.read(&query(None)).is_ok(), "the owner could have opened it before");
}

/// What was opened before a session was lost stays open under the next one, whatever its mode says by now.
#[test]
fn the_owner_takes_a_grant_again_that_went_with_a_session() {
    let mut world = World::new();
    world.as_user(1000, 1000);
    let file = world.open_create(ROOT, "f", 0o444, READ_WRITE).unwrap();
    world.session = 2;
    assert_eq!(world.open(file, READ_WRITE), Err(Errno::EACCES), "a first open asks the mode");
    let reopen = |mode| OperationBody::Reopen { ino: file, mode };
    assert!(matches!(world.apply(&reopen(READ_WRITE)), Ok(Reply::Inode { created: false, .. })));
    let write = vec![inline(b"x")];
    assert!(world.write_pieces(file, WriteAt::Append, write, &[], Authority::Grant).is_ok());
    world.release(file, READ_WRITE, 1).unwrap();
    // Nobody else passes, and nothing is truncated by it.
    let truncating = OpenMode { truncate: true, ..READ_WRITE };
    assert_eq!(world.apply(&reopen(truncating)), Err(Errno::EINVAL));
    world.as_user(7, 7);
    assert_eq!(world.apply(&reopen(READ_WRITE)), Err(Errno::EACCES));
    assert!(world.apply(&reopen(READ)).is_ok());
    let nothing = OpenMode { read: false, write: false, truncate: false };
    assert_eq!(world.apply(&reopen(nothing)), Err(Errno::EINVAL));
    let gone = OperationBody::Reopen { ino: 99, mode: READ };
    assert_eq!(world.apply(&gone), Err(Errno::ESTALE));
    check::consistent(&world);
}

#[test]
fn an_unlinked_file_lives_until_its_last_release() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o666).unwrap();
    world.write(file, 0, b"content").unwrap();
    world.open(file, READ).unwrap();
    world.session = 2;
    world.open(file, READ_WRITE).unwrap();
    world.unlink(ROOT, "f").unwrap();
    assert_eq!((world.stat(file).nlink, world.stat(file).ctime), (0, world.time()));
    world.write_pieces(file, WriteAt::Append, vec![inline(b"!")], &[], Authority::Grant).unwrap();
    assert_eq!(world.stat(file).size, 8);
    assert_eq!(world.release(file, READ_WRITE, 1), Ok(Reply::Empty));
    world.session = 1;
    check::consistent(&world);
    world.release(file, READ, 1).unwrap();
    assert_eq!(world.read(&Query::Attributes { ino: file }), Err(Errno::ESTALE));
    check::consistent(&world);
}

#[test]
fn an_ended_session_lets_go_in_bounded_steps() {
    let mut world = World::new();
    let mut files = Vec::new();
    for index in 0..10 {
        let file = world.open_create(ROOT, &format!("f{index}"), 0o600, WRITE).unwrap();
        world.write(file, 0, b"content").unwrap();
        files.push(file);
    }
    world.session = 2;
    world.open(files[3], READ).unwrap();
    for index in 0..5 {
        world.unlink(ROOT, &format!("f{index}")).unwrap();
    }
    let moment = world.moment();
    let mut steps = 0;
    while release_session(&mut world.view, moment, 1, 3).unwrap() == Progress::More {
        steps += 1;
        check::consistent(&world);
    }
    assert_eq!(steps, 3);
    check::consistent(&world);
    for (index, file) in files.iter().enumerate() {
        let gone = world.read(&Query::Attributes { ino: *file }) == Err(Errno::ESTALE);
        assert_eq!(gone, index < 5 && index != 3);
    }
    world.drain();
    check::consistent(&world);
    assert!(!world.view.rows.contains_key(&keys::inode(files[0])));
    assert_eq!(release_session(&mut world.view, moment, 1, 3), Ok(Progress::Done));
}
