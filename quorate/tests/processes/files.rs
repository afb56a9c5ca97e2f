//! Single system calls on a mount: links, attributes, names, holes, appends, maps, open files that have
//! no name any more, and that nothing is left of what was removed.

use crate::harness::{Cluster, noise, shell_within, wait_until};
use rustix::fs::XattrFlags;
use serde_json::Value;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

#[test]
fn links_attributes_and_names() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    std::fs::write(mount.at("file"), "one").unwrap();

    std::fs::hard_link(mount.at("file"), mount.at("other")).unwrap();
    let (file, other) =
        (std::fs::metadata(mount.at("file")).unwrap(), std::fs::metadata(mount.at("other")).unwrap());
    assert_eq!((file.ino(), file.nlink()), (other.ino(), 2));
    std::fs::remove_file(mount.at("file")).unwrap();
    assert_eq!(std::fs::read_to_string(mount.at("other")).unwrap(), "one");
    assert_eq!(std::fs::metadata(mount.at("other")).unwrap().nlink(), 1);

    let long = "t".repeat(4000);
    symlink(&long, mount.at("link")).unwrap();
    assert_eq!(std::fs::read_link(mount.at("link")).unwrap().to_str().unwrap(), long);
    symlink("loop", mount.at("loop")).unwrap();
    assert_eq!(File::open(mount.at("loop")).unwrap_err().raw_os_error(), Some(40));

    std::fs::set_permissions(mount.at("other"), Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(mount.at("other"), Some(1000), Some(1001)).unwrap();
    // To change the owner takes the set-user-id bit away.
    let metadata = std::fs::metadata(mount.at("other")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o751, 1000, 1001));
    let then = SystemTime::UNIX_EPOCH + Duration::new(4_102_444_800, 123_456_789);
    let file = OpenOptions::new().write(true).open(mount.at("other")).unwrap();
    file.set_times(std::fs::FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    drop(file);
    assert_eq!(std::fs::metadata(mount.at("other")).unwrap().modified().unwrap(), then);

    // Names are bytes, up to 255 of them.
    let name = std::ffi::OsString::from_vec(vec![0xFF; 255]);
    std::fs::write(mount.path.join(&name), "bytes").unwrap();
    assert!(std::fs::read_dir(&mount.path).unwrap().any(|entry| entry.unwrap().file_name() == name));
    let error = std::fs::write(mount.at(&"x".repeat(256)), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(36));

    mount.shell(
        "mkfifo fifo && mknod null c 1 3 && test -p fifo && test -c null && [ $(stat -c %t,%T null) = 1,3 ]",
    );
}

#[test]
fn times_before_1970_and_the_earliest_of_all() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let path = mount.at("old");
    std::fs::write(&path, "x").unwrap();
    // More often than the mount has threads that take requests: none of them may fall to it.
    let times =
        [(i64::MIN, 0); 4].into_iter().chain([(-1, 500_000_000), (-1, 0), (-86_400, 1), (i64::MAX, 0)]);
    for (tv_sec, tv_nsec) in times {
        let time = rustix::fs::Timespec { tv_sec, tv_nsec };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (tv_sec, tv_nsec));
        assert_eq!((found.atime(), found.atime_nsec()), (tv_sec, tv_nsec));
    }
}

#[test]
fn extended_attributes() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let path = mount.at("file");
    std::fs::write(&path, "").unwrap();
    let mut buffer = vec![0; 70_000];
    rustix::fs::setxattr(&path, "user.colour", b"green", XattrFlags::CREATE).unwrap();
    let error = rustix::fs::setxattr(&path, "user.colour", b"red", XattrFlags::CREATE).unwrap_err();
    assert_eq!(error, rustix::io::Errno::EXIST);
    rustix::fs::setxattr(&path, "user.colour", b"red", XattrFlags::REPLACE).unwrap();
    let large = noise(1, 4000);
    rustix::fs::setxattr(&path, "user.large", &large, XattrFlags::empty()).unwrap();
    let length = rustix::fs::getxattr(&path, "user.colour", &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"red");
    assert_eq!(rustix::fs::getxattr(&path, "user.large", &mut buffer).unwrap(), 4000);
    assert_eq!(buffer[..4000], large);
    assert_eq!(
        rustix::fs::getxattr(&path, "user.large", &mut buffer[..10]).unwrap_err(),
        rustix::io::Errno::RANGE
    );
    let length = rustix::fs::listxattr(&path, &mut buffer).unwrap();
    let mut names: Vec<&[u8]> =
        buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    assert_eq!(names, [b"user.colour".as_slice(), b"user.large"]);
    rustix::fs::removexattr(&path, "user.colour").unwrap();
    assert_eq!(
        rustix::fs::getxattr(&path, "user.colour", &mut buffer).unwrap_err(),
        rustix::io::Errno::NODATA
    );
}

#[test]
fn rename_over_and_files_without_a_name() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    // As an editor saves: a new file is renamed over the old one, which somebody still reads.
    std::fs::write(mount.at("text"), "old").unwrap();
    let mut reader = File::open(mount.at("text")).unwrap();
    std::fs::write(mount.at("text.new"), "new").unwrap();
    std::fs::rename(mount.at("text.new"), mount.at("text")).unwrap();
    assert_eq!(std::fs::read_to_string(mount.at("text")).unwrap(), "new");
    let mut old = String::new();
    reader.read_to_string(&mut old).unwrap();
    assert_eq!(old, "old");

    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).open(mount.at("scratch")).unwrap();
    file.write_all(b"first ").unwrap();
    std::fs::remove_file(mount.at("scratch")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all(&noise(3, 300_000)).unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(content, [b"first ".as_slice(), &noise(3, 300_000)].concat());

    std::fs::create_dir_all(mount.at("a/b")).unwrap();
    std::fs::create_dir_all(mount.at("c/full")).unwrap();
    assert_eq!(std::fs::rename(mount.at("a"), mount.at("a/b/a")).unwrap_err().raw_os_error(), Some(22));
    assert_eq!(
        std::fs::rename(mount.at("a"), mount.at("c")).unwrap_err().kind(),
        ErrorKind::DirectoryNotEmpty
    );
    std::fs::rename(mount.at("a"), mount.at("c/full")).unwrap();
    assert!(mount.at("c/full/b").is_dir());
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, mount.at("text"), rustix::fs::CWD, mount.at("c"), flags)
        .unwrap();
    assert!(mount.at("text").is_dir() && mount.at("c").is_file());
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    let kept =
        rustix::fs::renameat_with(rustix::fs::CWD, mount.at("text"), rustix::fs::CWD, mount.at("c"), flags);
    assert_eq!(kept.unwrap_err(), rustix::io::Errno::EXIST);
}

#[test]
fn holes_truncation_and_large_files() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let path = mount.at("sparse");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all_at(b"end", 5 << 30).unwrap();
    file.write_all_at(&noise(1, 10_000), (1 << 20) - 5_000).unwrap();
    drop(file);
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), (5 << 30) + 3);
    assert!(
        metadata.blocks() * 512 < 1 << 20,
        "a hole takes no space, this takes {}",
        metadata.blocks() * 512
    );
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut bytes = vec![1; 12_000];
    file.read_exact_at(&mut bytes, (1 << 20) - 6_000).unwrap();
    let wanted = [vec![0; 1000], noise(1, 10_000), vec![0; 1000]].concat();
    assert_eq!(bytes, wanted);
    // What was cut off is gone, also where the file grows again.
    file.set_len(1 << 20).unwrap();
    file.set_len(2 << 20).unwrap();
    drop(file);
    let content = std::fs::read(&path).unwrap();
    assert_eq!(content.len(), 2 << 20);
    assert_eq!(content[(1 << 20) - 5_000..1 << 20], noise(1, 10_000)[..5_000]);
    assert!(content[1 << 20..].iter().all(|byte| *byte == 0));

    let large = noise(7, 40 << 20);
    std::fs::write(mount.at("large"), &large).unwrap();
    assert!(std::fs::read(mount.at("large")).unwrap() == large);
    // Parts of it are overwritten, also over the border of two blocks.
    let file = OpenOptions::new().write(true).open(mount.at("large")).unwrap();
    file.write_all_at(&noise(8, 3 << 20), (10 << 20) - 77).unwrap();
    file.write_all_at(b"x", 123).unwrap();
    drop(file);
    let mut wanted = large;
    wanted[(10 << 20) - 77..(13 << 20) - 77].copy_from_slice(&noise(8, 3 << 20));
    wanted[123] = b'x';
    mount.unmount();
    let mount = cluster.mount("a");
    assert!(std::fs::read(mount.at("large")).unwrap() == wanted, "the same after a fresh mount");
}

#[test]
fn parts_by_dd_and_a_shared_map() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    std::fs::write(mount.at("file"), noise(1, 200_000)).unwrap();
    mount.shell("printf PART | dd of=file bs=1 seek=100000 conv=notrunc status=none && [ $(stat -c %s file) = 200000 ]");
    let mut wanted = noise(1, 200_000);
    wanted[100_000..100_004].copy_from_slice(b"PART");
    assert!(std::fs::read(mount.at("file")).unwrap() == wanted);
    let script = r#"python3 - <<'END'
import mmap
with open("file", "r+b") as file:
    with mmap.mmap(file.fileno(), 0) as shared:
        assert shared[100000:100004] == b"PART"
        shared[4094:4098] = b"MMAP"
        shared.flush()
END"#;
    mount.shell(script);
    wanted[4094..4098].copy_from_slice(b"MMAP");
    assert!(std::fs::read(mount.at("file")).unwrap() == wanted);
}

/// What `status` counts, the largest number that any replica has of each.
fn counts(status: &Value) -> [u64; 5] {
    let replicas = status["replicas"].as_array().unwrap();
    ["inodes", "state_rows", "blocks", "stored_blocks", "block_bytes"]
        .map(|field| replicas.iter().map(|replica| replica[field].as_u64().unwrap()).max().unwrap())
}

/// Small files, larger ones whose content lies in blocks, and links.
const TREE: &str = r#"python3 - <<'END'
import os
for number in range(2000):
    directory = f"d/{number % 20}/{number % 100}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/file-{number}", "wb") as file:
        # Every third is longer than what is kept inline.
        file.write(os.urandom(6000 if number % 3 == 0 else number % 3000))
for number in range(12):
    with open(f"d/large-{number}", "wb") as file:
        file.write(os.urandom(3_000_000))
os.link("d/large-1", "d/again")
os.symlink("d/large-2", "d/link")
os.truncate("d/large-3", 1_000_000)
END"#;

#[test]
fn nothing_is_left_of_what_was_removed() {
    // What can be read of the past keeps its content.
    let cluster = Cluster::start_keeping(1, 0);
    let mount = cluster.mount("a");
    // The first write of a session brings rows that stay: they are no orphans.
    mount.shell("mkdir first && echo x > first/x && rm -r first");
    let before = counts(&cluster.settle());
    let script = TREE;
    shell_within(&mount.path, script, Duration::from_secs(90)).expect(0);
    // A file that is open when it loses its name, and one whose only holder is killed with its mount.
    let held = File::open(mount.at("d/large-4")).unwrap();
    let full = counts(&cluster.settle());
    let least = [2100, 6000, 690, 690, 38_000_000];
    assert!(
        full.iter().zip(before).zip(least).all(|((full, before), least)| *full >= before + least),
        "{full:?}"
    );
    shell_within(&mount.path, "rm -r d && [ -z \"$(ls -A)\" ]", Duration::from_secs(90)).expect(0);
    drop(held);
    // Rows go a few with each batch; blocks after their grace period, at the next batch.
    let mut last = [0; 5];
    let mut tick = 0;
    wait_until("no orphaned row or block is left", Duration::from_secs(40), || {
        tick += 1;
        std::fs::write(mount.at("tick"), tick.to_string()).unwrap();
        std::fs::remove_file(mount.at("tick")).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        last = counts(&cluster.settle());
        last.iter().zip(before).all(|(last, before)| *last <= before)
    });
}
