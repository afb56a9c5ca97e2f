//! `renameat2`: order of checks, times, links and parents.

use quorate_metadata::{ANCESTORS_MAX, Errno, keys};
use quorate_protocol::Reply;
use quorate_protocol::operation::RenameMode::{Exchange, NoReplace, Replace};

use crate::check;
use crate::support::{READ, ROOT, World, rows_of_kind};

#[test]
fn times_and_counts_of_all_that_take_part() {
    let mut world = World::new();
    let (from, to) = (world.mkdir(ROOT, "from", 0o755).unwrap(), world.mkdir(ROOT, "to", 0o755).unwrap());
    let moved = world.mkdir(from, "m", 0o755).unwrap();
    let before = world.stat(moved);
    assert_eq!(world.rename((from, "m"), (to, "n"), Replace), Ok(Reply::Empty));
    let now = world.time();
    for directory in [from, to] {
        assert_eq!((world.stat(directory).mtime, world.stat(directory).ctime), (now, now));
        assert_eq!(world.stat(directory).version, world.operation);
    }
    let after = world.stat(moved);
    assert_eq!((after.ctime, after.mtime, after.version), (now, before.mtime, world.operation));
    assert_eq!((world.stat(from).nlink, world.stat(from).size), (2, 0));
    assert_eq!((world.stat(to).nlink, world.stat(to).size), (3, 1));
    assert_eq!(world.row(moved).parent, to);
    check::consistent(&world);
}

#[test]
fn a_replaced_file_loses_a_link_and_a_replaced_directory_goes() {
    let mut world = World::new();
    world.create(ROOT, "a", 0o644).unwrap();
    let target = world.create(ROOT, "b", 0o644).unwrap();
    world.link(target, ROOT, "c").unwrap();
    world.rename((ROOT, "a"), (ROOT, "b"), Replace).unwrap();
    assert_eq!((world.stat(target).nlink, world.stat(target).ctime), (1, world.time()));
    let (one, two) = (world.mkdir(ROOT, "one", 0o755).unwrap(), world.mkdir(ROOT, "two", 0o755).unwrap());
    world.rename((ROOT, "one"), (ROOT, "two"), Replace).unwrap();
    assert_eq!(world.lookup(ROOT, "two").unwrap().ino, one);
    assert_eq!(world.stat(ROOT).nlink, 3);
    assert!(!world.view.rows.contains_key(&keys::inode(two)));
    check::consistent(&world);
}

#[test]
fn an_open_file_survives_being_replaced() {
    let mut world = World::new();
    world.create(ROOT, "a", 0o644).unwrap();
    let target = world.create(ROOT, "b", 0o644).unwrap();
    world.write(target, 0, b"still here").unwrap();
    world.open(target, READ).unwrap();
    world.rename((ROOT, "a"), (ROOT, "b"), Replace).unwrap();
    assert_eq!((world.stat(target).nlink, world.stat(target).size), (0, 10));
    check::consistent(&world);
    world.release(target, READ, 1).unwrap();
    assert!(!world.view.rows.contains_key(&keys::inode(target)));
    check::consistent(&world);
}

#[test]
fn two_links_of_one_inode_stay_as_they_are() {
    let mut world = World::new();
    let file = world.create(ROOT, "a", 0o644).unwrap();
    world.link(file, ROOT, "b").unwrap();
    let rows = world.view.rows.clone();
    for mode in [Replace, Exchange] {
        assert_eq!(world.rename((ROOT, "a"), (ROOT, "b"), mode), Ok(Reply::Empty));
        assert_eq!(world.rename((ROOT, "a"), (ROOT, "a"), mode), Ok(Reply::Empty));
        assert_eq!(world.view.rows, rows);
    }
    assert_eq!(world.rename((ROOT, "a"), (ROOT, "b"), NoReplace), Err(Errno::EEXIST));
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    world.rename((ROOT, "b"), (directory, "c"), Replace).unwrap();
    assert_eq!(rows_of_kind(&world, file, keys::KIND_LINK), 2);
    check::consistent(&world);
}

#[test]
fn kinds_must_match() {
    let mut world = World::new();
    world.create(ROOT, "f", 0o644).unwrap();
    world.mkdir(ROOT, "d", 0o755).unwrap();
    let full = world.mkdir(ROOT, "full", 0o755).unwrap();
    world.create(full, "x", 0o644).unwrap();
    assert_eq!(world.rename((ROOT, "f"), (ROOT, "d"), Replace), Err(Errno::EISDIR));
    assert_eq!(world.rename((ROOT, "f"), (ROOT, "full"), Replace), Err(Errno::EISDIR));
    assert_eq!(world.rename((ROOT, "d"), (ROOT, "f"), Replace), Err(Errno::ENOTDIR));
    assert_eq!(world.rename((ROOT, "d"), (ROOT, "full"), Replace), Err(Errno::ENOTEMPTY));
    assert_eq!(world.rename((ROOT, "none"), (ROOT, "f"), Replace), Err(Errno::ENOENT));
    assert_eq!(world.rename((ROOT, "f"), (ROOT, "d"), NoReplace), Err(Errno::EEXIST));
    assert_eq!(world.rename((ROOT, "f"), (ROOT, "none"), Exchange), Err(Errno::ENOENT));
    world.rename((ROOT, "f"), (ROOT, "new"), NoReplace).unwrap();
    check::consistent(&world);
}

#[test]
fn no_directory_goes_below_itself() {
    let mut world = World::new();
    let a = world.mkdir(ROOT, "a", 0o755).unwrap();
    let b = world.mkdir(a, "b", 0o755).unwrap();
    let c = world.mkdir(b, "c", 0o755).unwrap();
    world.create(ROOT, "f", 0o644).unwrap();
    assert_eq!(world.rename((ROOT, "a"), (a, "x"), Replace), Err(Errno::EINVAL));
    assert_eq!(world.rename((ROOT, "a"), (c, "x"), Replace), Err(Errno::EINVAL));
    assert_eq!(world.rename((ROOT, "a"), (b, "c"), Replace), Err(Errno::EINVAL));
    assert_eq!(world.rename((b, "c"), (ROOT, "a"), Replace), Err(Errno::ENOTEMPTY));
    assert_eq!(world.rename((b, "c"), (ROOT, "a"), Exchange), Err(Errno::EINVAL));
    assert_eq!(world.rename((ROOT, "a"), (b, "c"), Exchange), Err(Errno::EINVAL));
    check::consistent(&world);
}

#[test]
fn the_walk_to_the_root_is_bounded() {
    let mut world = World::new();
    let mut deepest = ROOT;
    for _ in 0..=ANCESTORS_MAX {
        deepest = world.mkdir(deepest, "d", 0o755).unwrap();
    }
    world.mkdir(ROOT, "x", 0o755).unwrap();
    world.create(ROOT, "f", 0o644).unwrap();
    assert_eq!(world.rename((ROOT, "x"), (deepest, "x"), Replace), Err(Errno::ELOOP));
    world.rename((ROOT, "f"), (deepest, "f"), Replace).unwrap();
}

#[test]
fn exchange_swaps_kinds_parents_and_counts() {
    let mut world = World::new();
    let (left, right) = (world.mkdir(ROOT, "l", 0o755).unwrap(), world.mkdir(ROOT, "r", 0o755).unwrap());
    let file = world.create(left, "x", 0o644).unwrap();
    world.link(file, ROOT, "second").unwrap();
    let directory = world.mkdir(right, "y", 0o755).unwrap();
    world.create(directory, "inside", 0o644).unwrap();
    world.rename((left, "x"), (right, "y"), Exchange).unwrap();
    assert_eq!(world.lookup(left, "x").unwrap().ino, directory);
    assert_eq!(world.lookup(right, "y").unwrap().ino, file);
    assert_eq!((world.stat(left).nlink, world.stat(right).nlink), (3, 2));
    assert_eq!((world.stat(left).size, world.stat(right).size), (1, 1));
    for ino in [left, right, file, directory] {
        assert_eq!(world.stat(ino).ctime, world.time());
    }
    check::consistent(&world);
    world.rename((left, "x"), (ROOT, "second"), Exchange).unwrap();
    check::consistent(&world);
}

#[test]
fn a_directory_must_be_writable_to_get_another_parent() {
    let mut world = World::new();
    world.as_user(1000, 1000);
    let (one, two) = (world.mkdir(ROOT, "one", 0o777).unwrap(), world.mkdir(ROOT, "two", 0o777).unwrap());
    world.mkdir(one, "sub", 0o755).unwrap();
    world.mkdir(two, "sub", 0o777).unwrap();
    world.as_user(1001, 1001);
    assert_eq!(world.rename((one, "sub"), (one, "bus"), Replace), Ok(Reply::Empty), "not within its parent");
    assert_eq!(world.rename((one, "bus"), (two, "bus"), Replace), Err(Errno::EACCES));
    assert_eq!(world.rename((two, "sub"), (one, "bus"), Exchange), Err(Errno::EACCES), "the other one");
    world.rename((two, "sub"), (one, "sub"), Replace).unwrap();
    check::consistent(&world);
}

#[test]
fn both_directories_must_let_the_caller_in() {
    let mut world = World::new();
    let open = world.mkdir(ROOT, "open", 0o777).unwrap();
    let shut = world.mkdir(ROOT, "shut", 0o755).unwrap();
    let dark = world.mkdir(ROOT, "dark", 0o766).unwrap();
    world.as_user(1000, 1000).create(open, "f", 0o644).unwrap();
    world.as_root().create(shut, "g", 0o644).unwrap();
    world.as_user(1000, 1000);
    assert_eq!(world.rename((open, "f"), (shut, "f"), Replace), Err(Errno::EACCES));
    assert_eq!(world.rename((open, "f"), (shut, "g"), Replace), Err(Errno::EACCES));
    assert_eq!(world.rename((open, "f"), (shut, "g"), NoReplace), Err(Errno::EEXIST));
    assert_eq!(world.rename((open, "none"), (dark, "f"), Replace), Err(Errno::EACCES));
    assert_eq!(world.rename((shut, "g"), (open, "g"), Replace), Err(Errno::EACCES));
    check::consistent(&world);
}
