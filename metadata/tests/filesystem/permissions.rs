//! Mode bits, groups, setgid directories, and what chmod, chown and writing do to setuid and setgid.

use quorate_metadata::Errno;
use quorate_protocol::operation::{Authority, WriteAt};

use crate::support::{ROOT, Setattr, World, inline, user};

#[test]
fn a_setgid_directory_hands_down_its_group() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o777).unwrap();
    world.chown(directory, None, Some(500)).unwrap();
    world.chmod(directory, 0o2777).unwrap();
    world.as_user(1000, 1000);
    let file = world.create(directory, "f", 0o644).unwrap();
    assert_eq!((world.stat(file).gid, world.stat(file).mode), (500, 0o644));
    let below = world.mkdir(directory, "s", 0o755).unwrap();
    assert_eq!((world.stat(below).gid, world.stat(below).mode), (500, 0o2755));
    let link = world.symlink(directory, "l", b"f").unwrap();
    assert_eq!(world.stat(link).gid, 500);
    let outsider = world.create(directory, "x", 0o2755).unwrap();
    assert_eq!(world.stat(outsider).mode, 0o755, "an executable of an outsider loses the bit");
    let plain = world.create(directory, "y", 0o2644).unwrap();
    assert_eq!(world.stat(plain).mode, 0o2644, "without group execution it means something else");
    world.caller = user(1000, 1000, &[500]);
    let member = world.create(directory, "z", 0o2755).unwrap();
    assert_eq!(world.stat(member).mode, 0o2755);
}

#[test]
fn chmod_is_for_owners_and_drops_setgid_outside_the_group() {
    let mut world = World::new();
    let file = world.as_user(1000, 1000).create(ROOT, "f", 0o644).unwrap();
    let before = world.stat(file);
    assert_eq!(world.as_user(1001, 1000).chmod(file, 0o777), Err(Errno::EPERM));
    assert_eq!(world.stat(file), before);
    world.as_root().chown(file, None, Some(500)).unwrap();
    let changed = world.as_user(1000, 1000).chmod(file, 0o6755).unwrap();
    assert_eq!((changed.mode, changed.ctime), (0o4755, world.time()));
    assert_eq!(changed.mtime, before.mtime);
    world.caller = user(1000, 1000, &[500]);
    assert_eq!(world.chmod(file, 0o6755).unwrap().mode, 0o6755);
    assert_eq!(world.as_root().chmod(file, 0o7777).unwrap().mode, 0o7777);
    assert_eq!(world.chmod(file, 0xFFFF).unwrap().mode, 0o7777, "kinds of files are no permissions");
    let link = world.symlink(ROOT, "s", b"f").unwrap();
    assert_eq!(world.chmod(link, 0o600), Err(Errno::EOPNOTSUPP));
}

#[test]
fn chown_is_for_root_and_chgrp_for_owners_within_their_groups() {
    let mut world = World::new();
    let file = world.as_user(1000, 1000).create(ROOT, "f", 0o644).unwrap();
    world.caller = user(1000, 1000, &[500]);
    assert_eq!(world.chown(file, Some(1001), None), Err(Errno::EPERM));
    assert_eq!(world.chown(file, None, Some(501)), Err(Errno::EPERM));
    assert_eq!(world.chown(file, Some(1000), Some(500)).unwrap().gid, 500);
    assert_eq!(world.chown(file, Some(u32::MAX), None), Err(Errno::EINVAL));
    world.caller = user(1001, 1001, &[500]);
    assert_eq!(world.chown(file, None, Some(500)), Err(Errno::EPERM), "not even to what it is");
    assert_eq!(world.chown(file, Some(1000), None), Err(Errno::EPERM));
    let given = world.as_root().chown(file, Some(7), Some(8)).unwrap();
    assert_eq!((given.uid, given.gid, given.ctime), (7, 8, world.time()));
}

#[test]
fn chown_kills_setuid_and_setgid_of_files_even_for_root() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o6755).unwrap();
    assert_eq!(world.chown(file, Some(5), None).unwrap().mode, 0o755);
    world.chmod(file, 0o6745).unwrap();
    assert_eq!(world.chown(file, None, Some(6)).unwrap().mode, 0o2745, "setgid without execution stays");
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    world.chmod(directory, 0o6755).unwrap();
    assert_eq!(world.chown(directory, Some(5), Some(5)).unwrap().mode, 0o6755);
    let both = Setattr { mode: Some(0o4711), uid: Some(9), ..Setattr::of(file) };
    assert_eq!(world.inode(&both.body()).unwrap().mode, 0o4711, "an explicit mode has the last word");
}

#[test]
fn writing_and_truncating_kill_setuid_and_setgid_but_not_for_root() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o6777).unwrap();
    world.write(file, 0, b"x").unwrap();
    world.truncate(file, 0).unwrap();
    assert_eq!(world.stat(file).mode, 0o6777);
    world.as_user(1000, 1000).write(file, 0, b"x").unwrap();
    assert_eq!(world.stat(file).mode, 0o777);
    world.as_root().chmod(file, 0o6777).unwrap();
    world.as_user(1000, 1000).truncate(file, 0).unwrap();
    assert_eq!(world.stat(file).mode, 0o777);
    world.as_root().chmod(file, 0o6777).unwrap();
    let nothing = world.as_user(1000, 1000).write_pieces(
        file,
        WriteAt::Append,
        vec![inline(b"")],
        &[],
        Authority::Check,
    );
    assert!(nothing.is_ok());
    assert_eq!(world.stat(file).mode, 0o6777, "no byte, no change");
}

#[test]
fn writing_needs_permission_or_ownership() {
    let mut world = World::new();
    let file = world.as_user(1000, 1000).create(ROOT, "f", 0o444).unwrap();
    assert!(world.write(file, 0, b"x").is_ok(), "the owner could have opened it before");
    assert_eq!(world.truncate(file, 0), Err(Errno::EACCES), "truncate asks for the mode now");
    world.as_user(1001, 1001);
    assert_eq!(world.write(file, 0, b"x"), Err(Errno::EACCES));
    assert_eq!(world.truncate(file, 0), Err(Errno::EACCES));
    world.as_root().write(file, 0, b"x").unwrap();
    world.truncate(file, 0).unwrap();
}
