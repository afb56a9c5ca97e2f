//! Making and removing names: `create`, `mkdir`, `symlink`, `mknod`, `link`, `unlink`, `rmdir`.

use quorate_metadata::rows::{Entry, Row};
use quorate_metadata::{Errno, LINK_MAX, View, keys, rows};
use quorate_protocol::file::FileKind;
use quorate_protocol::operation::{RenameMode, SpecialFile};
use quorate_protocol::{OperationBody, Reply};

use crate::check;
use crate::support::{READ, ROOT, World, create_body, name, rows_of_kind};

#[test]
fn a_new_file_has_everything_as_linux_gives_it() {
    let mut world = World::new();
    let file = world.as_user(1000, 1001).create(ROOT, "f", 0o7640).unwrap();
    let attributes = world.stat(file);
    let now = world.time();
    assert_eq!((attributes.kind, attributes.mode), (FileKind::Regular, 0o7640));
    assert_eq!((attributes.uid, attributes.gid, attributes.nlink), (1000, 1001, 1));
    assert_eq!((attributes.size, attributes.blocks, attributes.rdev), (0, 0, 0));
    assert_eq!([attributes.atime, attributes.mtime, attributes.ctime, attributes.btime], [now; 4]);
    assert_eq!(attributes.version, world.operation);
    let root = world.stat(ROOT);
    assert_eq!((root.mtime, root.ctime, root.size, root.nlink), (now, now, 1, 2));
    assert_ne!(root.atime, now);
    check::consistent(&world);
}

#[test]
fn inode_numbers_are_dense_and_never_return() {
    let mut world = World::new();
    assert_eq!(world.create(ROOT, "a", 0o644), Ok(2));
    world.unlink(ROOT, "a").unwrap();
    assert_eq!(world.create(ROOT, "a", 0o644), Ok(3));
    assert_eq!(world.create(ROOT, "a", 0o644), Err(Errno::EEXIST));
    assert_eq!(world.create(ROOT, "b", 0o644), Ok(4), "a failure costs no number");
}

#[test]
fn a_number_of_ones_own_needs_a_range() {
    let mut world = World::new();
    let mut body = create_body(ROOT, "a", 0o644, true, None, [0; 16]);
    if let OperationBody::Create { ino, .. } = &mut body {
        *ino = Some(77);
    }
    assert_eq!(world.apply(&body), Err(Errno::EINVAL));
}

#[test]
fn the_end_of_inode_numbers_is_enospc() {
    let mut world = World::new();
    let end = rows::CounterRow { next: keys::INO_END };
    rows::put(&mut world.view, keys::counter(keys::Counter::Ino), &end);
    assert_eq!(world.create(ROOT, "a", 0o644), Err(Errno::ENOSPC));
}

#[test]
fn parents_must_be_directories_that_exist() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o777).unwrap();
    assert_eq!(world.create(file, "a", 0o644), Err(Errno::ENOTDIR));
    assert_eq!(world.mkdir(file, "a", 0o755), Err(Errno::ENOTDIR));
    assert_eq!(world.unlink(file, "a"), Err(Errno::ENOTDIR));
    assert_eq!(world.rmdir(file, "a"), Err(Errno::ENOTDIR));
    assert_eq!(world.create(99, "a", 0o644), Err(Errno::ESTALE));
    assert_eq!(world.create(0, "a", 0o644), Err(Errno::ESTALE));
    assert_eq!(world.create(u64::MAX, "a", 0o644), Err(Errno::ESTALE));
}

#[test]
fn an_existing_name_comes_before_write_permission() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    world.create(directory, "there", 0o644).unwrap();
    world.as_user(1000, 1000);
    assert_eq!(world.create(directory, "there", 0o644), Err(Errno::EEXIST));
    assert_eq!(world.mkdir(directory, "there", 0o755), Err(Errno::EEXIST));
    assert_eq!(world.create(directory, "new", 0o644), Err(Errno::EACCES));
    assert_eq!(world.unlink(directory, "none"), Err(Errno::ENOENT));
    assert_eq!(world.unlink(directory, "there"), Err(Errno::EACCES));
    world.as_root().chmod(directory, 0o766).unwrap();
    world.as_user(1000, 1000);
    assert_eq!(world.create(directory, "there", 0o644), Err(Errno::EACCES), "no search, no answer");
    assert_eq!(world.unlink(directory, "none"), Err(Errno::EACCES));
}

#[test]
fn create_without_exclusive_opens_what_is_there() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o400).unwrap();
    world.mkdir(ROOT, "d", 0o777).unwrap();
    world.symlink(ROOT, "s", b"f").unwrap();
    let body = create_body(ROOT, "f", 0o777, false, Some(READ), [0; 16]);
    match world.apply(&body).unwrap() {
        Reply::Inode { attributes, created } => {
            assert_eq!((attributes.ino, attributes.mode, created), (file, 0o400, false));
        }
        reply => panic!("{reply:?}"),
    }
    world.as_user(1000, 1000);
    assert_eq!(world.apply(&body), Err(Errno::EACCES));
    assert_eq!(world.open_create(ROOT, "d", 0o777, READ), Err(Errno::EISDIR));
    assert_eq!(world.open_create(ROOT, "s", 0o777, READ), Err(Errno::ELOOP));
    world.as_root().chmod(ROOT, 0o555).unwrap();
    world.chmod(file, 0o444).unwrap();
    world.as_user(1000, 1000);
    assert_eq!(world.open_create(ROOT, "f", 0o777, READ), Ok(file), "no write permission on the directory");
    check::consistent(&world);
}

#[test]
fn directories_count_their_subdirectories_and_entries() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o7777).unwrap();
    assert_eq!(world.stat(directory).mode, 0o1777, "mkdir takes no setuid or setgid");
    world.mkdir(directory, "x", 0o755).unwrap();
    world.mkdir(directory, "y", 0o755).unwrap();
    world.create(directory, "z", 0o644).unwrap();
    let attributes = world.stat(directory);
    assert_eq!((attributes.nlink, attributes.size), (4, 3));
    assert_eq!(world.stat(ROOT).nlink, 3);
    assert_eq!(world.rmdir(ROOT, "d"), Err(Errno::ENOTEMPTY));
    assert_eq!(world.rmdir(directory, "z"), Err(Errno::ENOTDIR));
    assert_eq!(world.unlink(directory, "x"), Err(Errno::EISDIR));
    world.rmdir(directory, "x").unwrap();
    assert_eq!(world.stat(directory).nlink, 3);
    check::consistent(&world);
}

#[test]
fn too_many_links_are_emlink() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    world.link(file, ROOT, "g").unwrap();
    world.change_row(file, |inode| inode.nlink = LINK_MAX);
    assert_eq!(world.link(file, ROOT, "h"), Err(Errno::EMLINK));
    let (one, two) = (world.mkdir(ROOT, "one", 0o755).unwrap(), world.mkdir(ROOT, "two", 0o755).unwrap());
    world.mkdir(two, "sub", 0o755).unwrap();
    world.change_row(one, |inode| inode.nlink = LINK_MAX);
    assert_eq!(world.mkdir(one, "sub", 0o755), Err(Errno::EMLINK));
    assert_eq!(world.create(one, "file", 0o755).err(), None, "files are no links of their directory");
    assert_eq!(world.rename((two, "sub"), (one, "sub"), RenameMode::Replace), Err(Errno::EMLINK));
}

#[test]
fn links_move_between_the_inode_row_and_rows_of_their_own() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    let file = world.create(ROOT, "a", 0o644).unwrap();
    assert_eq!((world.row(file).parent, rows_of_kind(&world, file, keys::KIND_LINK)), (ROOT, 0));
    let before = world.stat(file);
    let attributes = world.link(file, directory, "b").unwrap();
    assert_eq!((attributes.nlink, attributes.ctime), (2, world.time()));
    assert_eq!(attributes.mtime, before.mtime);
    assert_eq!((world.row(file).parent, rows_of_kind(&world, file, keys::KIND_LINK)), (0, 2));
    check::consistent(&world);
    world.unlink(ROOT, "a").unwrap();
    assert_eq!(world.stat(file).ctime, world.time());
    assert_eq!((world.row(file).parent, rows_of_kind(&world, file, keys::KIND_LINK)), (directory, 0));
    check::consistent(&world);
    world.unlink(directory, "b").unwrap();
    assert!(world.view.get(&keys::inode(file)).unwrap().is_none());
    check::consistent(&world);
}

#[test]
fn link_refuses_directories_existing_names_and_the_dead() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    assert_eq!(world.link(directory, ROOT, "e"), Err(Errno::EPERM));
    assert_eq!(world.link(directory, ROOT, "f"), Err(Errno::EEXIST), "the name comes first");
    assert_eq!(world.link(file, ROOT, "d"), Err(Errno::EEXIST));
    assert_eq!(world.link(99, ROOT, "x"), Err(Errno::ESTALE));
    assert_eq!(world.link(file, file, "x"), Err(Errno::ENOTDIR));
    world.open(file, READ).unwrap();
    world.unlink(ROOT, "f").unwrap();
    assert_eq!(world.link(file, ROOT, "x"), Err(Errno::ENOENT));
    let link = world.symlink(ROOT, "s", b"f").unwrap();
    assert_eq!(world.link(link, directory, "t").unwrap().nlink, 2, "symbolic links have links too");
    check::consistent(&world);
}

#[test]
fn realms_are_devices() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    world.change_row(directory, |inode| inode.realm = 7);
    let inside = world.create(directory, "f", 0o644).unwrap();
    assert_eq!(world.row(inside).realm, 7, "a realm is inherited");
    assert_eq!(world.link(inside, ROOT, "f"), Err(Errno::EXDEV));
    assert_eq!(world.rename((directory, "f"), (ROOT, "f"), RenameMode::Replace), Err(Errno::EXDEV));
}

#[test]
fn only_root_makes_devices() {
    let mut world = World::new();
    let device = world.mknod(ROOT, "c", SpecialFile::CharacterDevice(0x0103)).unwrap();
    assert_eq!((world.stat(device).kind, world.stat(device).rdev), (FileKind::CharacterDevice, 0x0103));
    world.as_user(1000, 1000);
    assert_eq!(world.mknod(ROOT, "b", SpecialFile::BlockDevice(1)), Err(Errno::EPERM));
    assert_eq!(world.mknod(ROOT, "c", SpecialFile::BlockDevice(1)), Err(Errno::EEXIST));
    for (text, node, kind) in [
        ("p", SpecialFile::Fifo, FileKind::Fifo),
        ("s", SpecialFile::Socket, FileKind::Socket),
        ("r", SpecialFile::Regular, FileKind::Regular),
    ] {
        let ino = world.mknod(ROOT, text, node).unwrap();
        assert_eq!(world.stat(ino).kind, kind);
    }
    check::consistent(&world);
}

#[test]
fn symbolic_links_are_as_long_as_their_target() {
    let mut world = World::new();
    let link = world.symlink(ROOT, "s", b"to/somewhere").unwrap();
    let attributes = world.stat(link);
    assert_eq!((attributes.kind, attributes.mode, attributes.size), (FileKind::Symlink, 0o777, 12));
    assert_eq!(world.symlink(ROOT, "t", b""), Err(Errno::ENOENT));
    assert_eq!(world.symlink(ROOT, "t", b"nul\0"), Err(Errno::EINVAL));
    assert_eq!(world.symlink(ROOT, "s", b"x"), Err(Errno::EEXIST));
    world.unlink(ROOT, "s").unwrap();
    check::consistent(&world);
}

#[test]
fn sticky_directories_protect_what_belongs_to_others() {
    let mut world = World::new();
    let directory = world.as_user(1000, 1000).mkdir(ROOT, "d", 0o1777).unwrap();
    world.as_user(1001, 1001).create(directory, "f", 0o666).unwrap();
    world.mkdir(directory, "s", 0o777).unwrap();
    world.as_user(1002, 1002);
    assert_eq!(world.unlink(directory, "f"), Err(Errno::EPERM));
    assert_eq!(world.rmdir(directory, "s"), Err(Errno::EPERM));
    assert_eq!(world.rename((directory, "f"), (ROOT, "f"), RenameMode::Replace), Err(Errno::EPERM));
    world.create(ROOT, "mine", 0o644).unwrap();
    assert_eq!(world.rename((ROOT, "mine"), (directory, "f"), RenameMode::Replace), Err(Errno::EPERM));
    world.as_user(1001, 1001).unlink(directory, "f").unwrap();
    world.as_user(1000, 1000).rmdir(directory, "s").unwrap();
    check::consistent(&world);
}

/// Rule S7: a cookie that another entry has is no place for a name; in any operation.
#[test]
fn a_taken_cookie_is_enospc_in_create_link_and_rename() {
    let mut world = World::new();
    let file = world.create(ROOT, "a", 0o644).unwrap();
    let other = world.create(ROOT, "b", 0o644).unwrap();
    // Where "a" belongs stands another name with the same first 8 bytes of hash.
    let (key, entry) = world
        .view
        .rows
        .range(keys::kind_start(ROOT, keys::KIND_ENTRY)..keys::kind_end(ROOT, keys::KIND_ENTRY))
        .map(|(key, value)| (*key, Entry::from_value(value).unwrap()))
        .find(|(_, entry)| entry.ino == file)
        .unwrap();
    world.view.delete(key);
    let mut planted = key;
    planted[31] ^= 1;
    rows::put(&mut world.view, planted, &Entry { name: name("planted"), ..entry.clone() });
    world.view.commit();
    assert_eq!(world.create(ROOT, "a", 0o644), Err(Errno::ENOSPC));
    assert_eq!(world.mkdir(ROOT, "a", 0o644), Err(Errno::ENOSPC));
    assert_eq!(world.link(other, ROOT, "a"), Err(Errno::ENOSPC));
    assert_eq!(world.rename((ROOT, "b"), (ROOT, "a"), RenameMode::Replace), Err(Errno::ENOSPC));
    assert_eq!(world.rename((ROOT, "b"), (ROOT, "a"), RenameMode::NoReplace), Err(Errno::ENOSPC));
    assert_eq!(world.rename((ROOT, "b"), (ROOT, "a"), RenameMode::Exchange), Err(Errno::ENOENT));
    assert_eq!(world.lookup(ROOT, "a"), Err(Errno::ENOENT));
    // The very key, with another full name: absent for lookups, taken for new names.
    world.view.delete(planted);
    rows::put(&mut world.view, key, &Entry { name: name("planted"), ..entry });
    world.view.commit();
    assert_eq!(world.lookup(ROOT, "a"), Err(Errno::ENOENT));
    assert_eq!(world.unlink(ROOT, "a"), Err(Errno::ENOENT));
    assert_eq!(world.create(ROOT, "a", 0o644), Err(Errno::ENOSPC));
}

#[test]
fn a_removed_directory_that_is_open_takes_no_names() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o777).unwrap();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    world.open(directory, READ).unwrap();
    world.rmdir(ROOT, "d").unwrap();
    assert_eq!(world.stat(directory).nlink, 0);
    assert_eq!(world.create(directory, "x", 0o644), Err(Errno::ENOENT));
    assert_eq!(world.mkdir(directory, "x", 0o755), Err(Errno::ENOENT));
    assert_eq!(world.link(file, directory, "x"), Err(Errno::ENOENT));
    assert_eq!(world.rename((ROOT, "f"), (directory, "x"), RenameMode::Replace), Err(Errno::ENOENT));
    let other = world.mkdir(ROOT, "o", 0o777).unwrap();
    assert_eq!(world.rename((ROOT, "o"), (directory, "x"), RenameMode::Replace), Err(Errno::ENOENT));
    assert_eq!(world.lookup(directory, "x"), Err(Errno::ENOENT));
    world.release(directory, READ, 1).unwrap();
    assert_eq!(world.create(directory, "x", 0o644), Err(Errno::ESTALE));
    assert_eq!(world.stat(other).nlink, 2);
    check::consistent(&world);
}
