//! Extended attributes: namespaces, permissions, bounds, and file capabilities.

use quorate_crypto::BoundedBytes;
use quorate_metadata::{Answer, Errno, XATTR_BYTES_PER_INODE_MAX, XATTRS_PER_INODE_MAX};
use quorate_protocol::operation::{SetXattrMode, SpecialFile};
use quorate_protocol::query::Query;
use quorate_protocol::{Ino, OperationBody};

use crate::check;
use crate::support::{ROOT, World};

fn set(world: &mut World, ino: Ino, name: &str, value: &[u8], mode: SetXattrMode) -> Result<(), Errno> {
    let entropy = world.entropy();
    let name = BoundedBytes::try_from(name.as_bytes()).unwrap();
    let value = BoundedBytes::try_from(value).unwrap();
    world.inode(&OperationBody::SetXattr { ino, name, value, mode, entropy }).map(drop)
}

fn put(world: &mut World, ino: Ino, name: &str, value: &[u8]) -> Result<(), Errno> {
    set(world, ino, name, value, SetXattrMode::Any)
}

fn remove(world: &mut World, ino: Ino, name: &str) -> Result<(), Errno> {
    let name = BoundedBytes::try_from(name.as_bytes()).unwrap();
    world.inode(&OperationBody::RemoveXattr { ino, name }).map(drop)
}

fn get(world: &World, ino: Ino, name: &str) -> Result<Vec<u8>, Errno> {
    match world.read(&Query::Xattr { ino, name: BoundedBytes::try_from(name.as_bytes()).unwrap() })? {
        Answer::Xattr(value) => Ok(value),
        answer => panic!("{answer:?}"),
    }
}

fn list(world: &World, ino: Ino) -> Vec<String> {
    let Ok(Answer::Xattrs(names)) = world.read(&Query::Xattrs { ino }) else { panic!("no list") };
    let mut names: Vec<_> = names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect();
    names.sort();
    names
}

#[test]
fn setting_replacing_reading_removing() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let mtime = world.stat(file).mtime;
    put(&mut world, file, "user.a", b"one").unwrap();
    assert_eq!((world.stat(file).ctime, world.stat(file).mtime), (world.time(), mtime));
    put(&mut world, file, "user.a", b"").unwrap();
    assert_eq!(get(&world, file, "user.a"), Ok(vec![]));
    assert_eq!(set(&mut world, file, "user.a", b"x", SetXattrMode::Create), Err(Errno::EEXIST));
    assert_eq!(set(&mut world, file, "user.b", b"x", SetXattrMode::Replace), Err(Errno::ENODATA));
    set(&mut world, file, "user.a", b"two", SetXattrMode::Replace).unwrap();
    set(&mut world, file, "user.b", b"three", SetXattrMode::Create).unwrap();
    assert_eq!(list(&world, file), ["user.a", "user.b"]);
    assert_eq!(get(&world, file, "user.c"), Err(Errno::ENODATA));
    check::consistent(&world);
    remove(&mut world, file, "user.a").unwrap();
    assert_eq!(remove(&mut world, file, "user.a"), Err(Errno::ENODATA));
    assert_eq!(list(&world, file), ["user.b"]);
    world.unlink(ROOT, "f").unwrap();
    check::consistent(&world);
}

#[test]
fn names_and_namespaces() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    for (name, errno) in [
        ("", Errno::ERANGE),
        ("user.", Errno::EINVAL),
        ("trusted.", Errno::EINVAL),
        ("user.a\0b", Errno::EINVAL),
        ("users.a", Errno::EOPNOTSUPP),
        ("nothing", Errno::EOPNOTSUPP),
        ("system.posix_acl_access", Errno::EOPNOTSUPP),
        ("system.posix_acl_default", Errno::EOPNOTSUPP),
    ] {
        assert_eq!(put(&mut world, file, name, b"x"), Err(errno), "{name}");
        assert_eq!(remove(&mut world, file, name), Err(errno), "{name}");
        assert_eq!(get(&world, file, name), Err(errno), "{name}");
    }
    assert_eq!(put(&mut world, 99, "user.a", b"x"), Err(Errno::ESTALE));
}

#[test]
fn trusted_and_security_are_for_root() {
    let mut world = World::new();
    let file = world.as_user(1000, 1000).create(ROOT, "f", 0o644).unwrap();
    for name in ["trusted.t", "security.s"] {
        assert_eq!(put(&mut world, file, name, b"x"), Err(Errno::EPERM));
        put(world.as_root(), file, name, b"x").unwrap();
        assert_eq!(remove(world.as_user(1000, 1000), file, name), Err(Errno::EPERM));
    }
    assert_eq!(get(&world, file, "trusted.t"), Err(Errno::ENODATA));
    assert_eq!(get(&world, file, "security.s"), Ok(b"x".to_vec()));
    assert_eq!(list(&world, file), ["security.s"]);
    assert_eq!(list(world.as_root(), file), ["security.s", "trusted.t"]);
}

#[test]
fn user_attributes_follow_the_mode_and_exist_on_files_and_directories_only() {
    let mut world = World::new();
    let file = world.as_user(1000, 1000).create(ROOT, "f", 0o640).unwrap();
    put(&mut world, file, "user.a", b"x").unwrap();
    world.as_user(1001, 1000);
    assert_eq!(put(&mut world, file, "user.a", b"y"), Err(Errno::EACCES));
    assert_eq!(get(&world, file, "user.a"), Ok(b"x".to_vec()));
    world.as_user(1001, 1001);
    assert_eq!(get(&world, file, "user.a"), Err(Errno::EACCES));
    assert_eq!(list(&world, file), ["user.a"], "names need no permission");
    world.as_root();
    let link = world.symlink(ROOT, "s", b"f").unwrap();
    let fifo = world.mknod(ROOT, "p", SpecialFile::Fifo).unwrap();
    for ino in [link, fifo] {
        assert_eq!(put(&mut world, ino, "user.a", b"x"), Err(Errno::EPERM));
        assert_eq!(get(&world, ino, "user.a"), Err(Errno::ENODATA));
        put(&mut world, ino, "trusted.a", b"x").unwrap();
    }
    let sticky = world.mkdir(ROOT, "d", 0o1777).unwrap();
    assert_eq!(put(world.as_user(1000, 1000), sticky, "user.a", b"x"), Err(Errno::EPERM));
    world.as_root().chmod(sticky, 0o777).unwrap();
    put(world.as_user(1000, 1000), sticky, "user.a", b"x").unwrap();
    check::consistent(&world);
}

#[test]
fn number_and_bytes_are_bounded() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    for index in 0..XATTRS_PER_INODE_MAX {
        put(&mut world, file, &format!("user.{index}"), b"x").unwrap();
    }
    assert_eq!(put(&mut world, file, "user.more", b"x"), Err(Errno::ENOSPC));
    put(&mut world, file, "user.7", b"y").unwrap();
    check::consistent(&world);
    let large = world.create(ROOT, "g", 0o644).unwrap();
    let value = vec![1; 65_536];
    for index in 0..3 {
        put(&mut world, large, &format!("user.{index}"), &value).unwrap();
    }
    assert_eq!(put(&mut world, large, "user.3", &value), Err(Errno::ENOSPC), "names count too");
    put(&mut world, large, "user.0", b"small").unwrap();
    put(&mut world, large, "user.3", &value).unwrap();
    assert!(world.row(large).xattr_bytes <= XATTR_BYTES_PER_INODE_MAX);
}

#[test]
fn capabilities_go_with_any_change_of_content_or_owner() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o755).unwrap();
    let name = "security.capability";
    put(&mut world, file, name, b"cap").unwrap();
    put(&mut world, file, "user.a", b"stays").unwrap();
    world.chmod(file, 0o711).unwrap();
    assert!(get(&world, file, name).is_ok());
    world.write(file, 0, b"x").unwrap();
    assert_eq!(get(&world, file, name), Err(Errno::ENODATA), "even by root");
    put(&mut world, file, name, b"cap").unwrap();
    world.truncate(file, 0).unwrap();
    assert_eq!(get(&world, file, name), Err(Errno::ENODATA));
    put(&mut world, file, name, b"cap").unwrap();
    world.chown(file, Some(3), None).unwrap();
    assert_eq!(list(&world, file), ["user.a"]);
    check::consistent(&world);
}
