//! What an open file shows and reports while it is written: times, listings, maps of appended files,
//! programs, and the errors of a write-back.

use crate::harness::Cluster;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

/// Two looks at a file that nobody writes in between agree, though its bytes are still on their way.
#[test]
fn a_dirty_file_that_nobody_writes_keeps_its_times() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let mut file = File::create(mount.at("file")).unwrap();
    file.write_all(b"not yet in the cluster").unwrap();
    let first = std::fs::metadata(mount.at("file")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let second = std::fs::metadata(mount.at("file")).unwrap();
    let times = |m: &std::fs::Metadata| (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), m.size());
    assert_eq!(times(&first), times(&second));
    assert_eq!(first.size(), 22);
}

/// Bytes that stay in an open file reach the cluster by age: another mount sees them, also those that were
/// written while older ones were on their way.
#[test]
fn what_is_written_to_a_file_that_stays_open_reaches_others_by_age() {
    let cluster = Cluster::start();
    let (one, other) = (cluster.mount("a"), cluster.mount("b"));
    let mut log = File::create(one.at("log")).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(7);
    let mut written = 0;
    while std::time::Instant::now() < deadline {
        log.write_all(b"line\n").unwrap();
        written += 5;
        std::thread::sleep(Duration::from_millis(50));
    }
    crate::harness::wait_until("the other mount to see the last line", Duration::from_secs(10), || {
        std::fs::metadata(other.at("log")).unwrap().size() == written
    });
    drop(log);
}

/// A page that was changed through a mapping goes to its place, though the file was opened to append.
#[test]
fn a_map_of_a_file_that_appends_writes_in_place() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    mount.shell(
        "python3 - <<'END'
import mmap, os
f = os.open('file', os.O_RDWR | os.O_CREAT | os.O_APPEND)
os.write(f, b'0123456789')
os.fsync(f)
m = mmap.mmap(f, 10)
m[2:5] = b'abc'
m.flush()
os.write(f, b'end')
os.close(f)
m.close()
assert open('file', 'rb').read() == b'01abc56789end', open('file', 'rb').read()
END",
    );
}

#[test]
fn a_listing_from_the_start_shows_the_present() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    mount.shell(
        "python3 - <<'END'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.c_void_p
libc.readdir.argtypes = libc.rewinddir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
def names(d):
    found = set()
    while entry := libc.readdir(d):
        found.add(ctypes.string_at(entry + 19).decode())
    return found - {'.', '..'}
for name in 'abc':
    open(name, 'w').close()
d = libc.opendir(b'.')
assert names(d) == set('abc')
os.unlink('a')
open('d', 'w').close()
libc.rewinddir(d)
assert names(d) == set('bcd'), names(d)
libc.closedir(d)
END",
    );
}

/// Which of the three bits lets somebody execute is for the filesystem to say.
#[test]
fn a_program_runs_for_whom_its_mode_says() {
    let cluster = Cluster::start();
    let mount = cluster.mount_with("a", "allow_other");
    std::fs::write(mount.at("program"), "#!/bin/sh\necho it runs\n").unwrap();
    std::fs::set_permissions(&mount.path, Permissions::from_mode(0o755)).unwrap();
    let path = mount.at("program").to_str().unwrap().to_owned();
    let run = |mode: u32, uid: &str| {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let user = ["--reuid", uid, "--regid", uid, "--clear-groups", &path];
        std::process::Command::new("setpriv").args(user).output().unwrap().status.success()
    };
    assert!(run(0o755, "12345"));
    assert!(!run(0o744, "12345"), "only its owner may execute it");
    assert!(run(0o744, "0"));
}

/// A program that may be executed and not read: the kernel fetches it, and nobody else does.
#[test]
fn a_program_that_may_only_be_executed_runs() {
    let cluster = Cluster::start();
    let mount = cluster.mount_with("a", "allow_other");
    std::fs::set_permissions(&mount.path, Permissions::from_mode(0o755)).unwrap();
    mount.shell("cp \"$(type -P true)\" program && chmod 711 program");
    let path = mount.at("program").to_str().unwrap().to_owned();
    let run = |command: &[&str]| {
        let user = ["--reuid", "12345", "--regid", "12345", "--clear-groups", "--"];
        std::process::Command::new("setpriv").args(user).args(command).output().unwrap()
    };
    let ran = run(&[&path]);
    assert!(ran.status.success(), "{ran:?}");
    assert!(!run(&["cat", &path]).status.success(), "it may not be read");
    std::fs::set_permissions(&path, Permissions::from_mode(0o744)).unwrap();
    assert!(!run(&[&path]).status.success(), "it may be read and not executed");
    assert!(run(&["cat", &path]).status.success());
}

/// Owning a file is no right to open it, but what is open stays readable.
#[test]
fn an_owner_opens_only_what_the_mode_permits() {
    let cluster = Cluster::start();
    let mount = cluster.mount_with("a", "allow_other");
    std::fs::set_permissions(&mount.path, Permissions::from_mode(0o777)).unwrap();
    let script = "cd '{}' && echo text > own && exec 3< own && chmod 0 own && read line <&3 \\
        && [ \"$line\" = text ] && ! cat own 2>/dev/null && chmod 400 own && cat own";
    let script = script.replace("{}", mount.path.to_str().unwrap());
    let user = ["--reuid", "12345", "--regid", "12345", "--clear-groups", "sh", "-c", &script];
    let ran = std::process::Command::new("setpriv").args(user).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(ran.stdout, b"text\n");
}

/// The write-back fails for want of a quorum; somebody else's chmod asked for it, and the writer is told.
#[test]
fn the_writer_hears_of_a_write_back_that_another_call_asked_for() {
    let cluster = Cluster::start();
    let mount = cluster.mount_with("a", "timeo=2");
    let mut file =
        OpenOptions::new().create(true).truncate(true).read(true).write(true).open(mount.at("file"));
    let file = file.as_mut().unwrap();
    file.write_all(b"lost").unwrap();
    [0, 1].iter().for_each(|replica| cluster.local.pause(*replica).unwrap());
    std::fs::set_permissions(mount.at("file"), Permissions::from_mode(0o600)).unwrap_err();
    let error = file.sync_all().unwrap_err();
    assert!(error.raw_os_error().is_some(), "{error}");
    [0, 1].iter().for_each(|replica| cluster.local.resume(*replica).unwrap());
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    crate::harness::wait_until("the cluster to answer again", Duration::from_secs(20), || {
        std::fs::metadata(mount.at("file")).is_ok()
    });
    file.read_to_string(&mut text).unwrap();
    assert!(text.is_empty() || text == "lost", "never anything else: {text:?}");
}
