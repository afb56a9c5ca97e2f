//! Two mounts of one cluster: what one has done, the other sees when the call has returned; file data
//! when close has returned.

use crate::harness::{Cluster, copy_sources, shell_within};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn each_sees_what_the_other_has_done_at_once() {
    let cluster = Cluster::start();
    let (a, b) = (cluster.mount("a"), cluster.mount("b"));
    for round in 0..30 {
        let name = format!("file-{round}");
        // The other one has just looked and found nothing.
        assert_eq!(std::fs::metadata(b.at(&name)).unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::write(a.at(&name), format!("content {round}")).unwrap();
        assert_eq!(std::fs::read_to_string(b.at(&name)).unwrap(), format!("content {round}"));
        std::fs::write(b.at(&name), "longer content than before").unwrap();
        assert_eq!(std::fs::read_to_string(a.at(&name)).unwrap(), "longer content than before");
        std::fs::set_permissions(a.at(&name), Permissions::from_mode(0o640)).unwrap();
        assert_eq!(std::fs::metadata(b.at(&name)).unwrap().permissions().mode() & 0o777, 0o640);
        std::fs::rename(b.at(&name), b.at("renamed")).unwrap();
        assert_eq!(std::fs::metadata(a.at(&name)).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(a.at("renamed").exists());
        std::fs::remove_file(a.at("renamed")).unwrap();
        assert!(!b.at("renamed").exists());
        assert_eq!(std::fs::read_dir(&b.path).unwrap().count(), 0);
    }
    std::fs::create_dir(a.at("d")).unwrap();
    assert_eq!(std::fs::create_dir(b.at("d")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    std::fs::remove_dir(b.at("d")).unwrap();
    assert_eq!(std::fs::remove_dir(a.at("d")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn writes_to_one_file_do_not_harm_each_other() {
    let cluster = Cluster::start();
    let (a, b) = (cluster.mount("a"), cluster.mount("b"));
    std::fs::write(a.at("log"), "").unwrap();
    // Appends land at the committed end, whole, whoever was first.
    let appender = |path: std::path::PathBuf, mark: char| {
        std::thread::spawn(move || {
            for number in 0..60 {
                let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                file.write_all(format!("{mark}{number:03}\n").as_bytes()).unwrap();
            }
        })
    };
    let (one, other) = (appender(a.at("log"), 'a'), appender(b.at("log"), 'b'));
    one.join().unwrap();
    other.join().unwrap();
    let text = std::fs::read_to_string(b.at("log")).unwrap();
    assert_eq!(text, std::fs::read_to_string(a.at("log")).unwrap());
    for mark in ['a', 'b'] {
        let numbers: Vec<String> =
            text.lines().filter(|line| line.starts_with(mark)).map(|line| line[1..].to_owned()).collect();
        assert_eq!(numbers, (0..60).map(|number| format!("{number:03}")).collect::<Vec<_>>());
    }
    assert_eq!(text.lines().count(), 120);

    // Different ranges of one block, written through both mounts, are both there.
    std::fs::write(a.at("ranges"), vec![0; 10_000]).unwrap();
    let (left, right) = (
        OpenOptions::new().write(true).open(a.at("ranges")).unwrap(),
        OpenOptions::new().write(true).open(b.at("ranges")).unwrap(),
    );
    left.write_all_at(&[1; 3_000], 0).unwrap();
    right.write_all_at(&[2; 3_000], 5_000).unwrap();
    drop(left);
    drop(right);
    let wanted = [vec![1; 3_000], vec![0; 2_000], vec![2; 3_000], vec![0; 2_000]].concat();
    assert!(std::fs::read(a.at("ranges")).unwrap() == wanted);
    assert!(std::fs::read(b.at("ranges")).unwrap() == wanted);
}

#[test]
fn a_file_that_the_other_mount_removes_stays_readable_while_it_is_open() {
    let cluster = Cluster::start();
    let (a, b) = (cluster.mount("a"), cluster.mount("b"));
    let content = crate::harness::noise(5, 2_500_000);
    std::fs::write(a.at("file"), &content).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(a.at("file")).unwrap();
    std::fs::remove_file(b.at("file")).unwrap();
    // Well beyond the time that removed blocks are kept.
    std::thread::sleep(Duration::from_secs(4));
    std::fs::write(b.at("other"), "makes another batch").unwrap();
    let mut bytes = vec![0; content.len()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == content);
    file.write_all_at(b"still writable", 0).unwrap();
    file.sync_all().unwrap();
    assert!(File::open(a.at("file")).is_err());
}

#[test]
fn listing_storms_on_one_do_not_disturb_a_copy_on_the_other() {
    let cluster = Cluster::start();
    let (a, b) = (cluster.mount("a"), cluster.mount("b"));
    let source = cluster.home().join("source");
    copy_sources(&source);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                // ls says nothing of what goes away between reading the directory and looking at the file.
                let ran = shell_within(&b.path, "ls -lR . > ../listing", Duration::from_secs(60));
                assert_eq!(ran.code, 0, "{}", ran.stderr);
                rounds += 1;
            }
            rounds
        });
        let script = format!("cp -a {0} copy && diff -r {0} copy", source.display());
        let copied = shell_within(&a.path, &script, Duration::from_secs(100));
        over.store(true, Ordering::Relaxed);
        assert!(storm.join().unwrap() > 0);
        copied.expect(0);
    });
    shell_within(&b.path, &format!("diff -r {} copy", source.display()), Duration::from_secs(60)).expect(0);
}

/// As on a local filesystem, whoever removed it and wherever.
#[test]
fn a_removed_directory_that_is_open_is_empty_and_has_no_links() {
    let cluster = Cluster::start();
    let (one, other) = (cluster.mount("a"), cluster.mount("b"));
    for remover in [&one, &other] {
        let script = format!(
            "python3 - <<'END'
import errno, os
os.makedirs('gone/inner')
os.rmdir('gone/inner')
f = os.open('gone', os.O_RDONLY | os.O_DIRECTORY)
assert os.fstat(f).st_nlink == 2
os.chdir('gone')
os.rmdir('{}')
assert os.fstat(f).st_nlink == 0, os.fstat(f)
assert os.stat('.').st_nlink == 0
assert os.listdir(f) == [] and os.listdir('.') == []
def fails(call):
    try:
        call()
    except OSError as error:
        assert error.errno == errno.ENOENT, error
    else:
        raise AssertionError('no error')
fails(lambda: os.stat('x', dir_fd=f))
fails(lambda: os.open('x', os.O_CREAT | os.O_WRONLY, dir_fd=f))
fails(lambda: os.mkdir('x', dir_fd=f))
fails(lambda: os.symlink('y', 'x', dir_fd=f))
os.close(f)
END",
            remover.at("gone").display()
        );
        one.shell(&script);
        assert!(!one.at("gone").exists());
    }
}
