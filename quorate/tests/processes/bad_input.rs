//! Bad input: each gives one clear line that says what is wrong and what to do, and the rest goes on.

use crate::harness::{Cluster, PATIENCE, Ran, mount_type, noise, quorate, run, scratch, shell, wait_until};
use std::io::Write as _;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[test]
fn options_and_arguments() {
    let scratch = scratch();
    let ran = run(&mut quorate(["mount", "/mnt", "--frobnicate"]), PATIENCE).expect(2);
    assert!(ran.stderr.contains("--frobnicate"), "{}", ran.stderr);
    let ran = run(&mut quorate(["status"]), PATIENCE).expect(2);
    assert!(ran.stderr.contains("--cluster") && ran.stderr.contains("--key"), "{}", ran.stderr);
    let out = scratch.path().join("out");
    let init = |replicas: &str| run(quorate(["init", "--replicas", replicas, "--out"]).arg(&out), PATIENCE);
    init("a:1,b:2,c:3").expect_one_line(1, &["3 replicas"]);
    init("a:1,b:2,c:3,nowhere").expect_one_line(1, &["`nowhere` is not HOST:PORT"]);
    init("a:1,b:2,c:3,d:0").expect_one_line(1, &["`d:0` is not HOST:PORT"]);
    run(quorate(["key", "show"]).arg(scratch.path().join("no.key")), PATIENCE)
        .expect_one_line(1, &["no.key"]);
    let ran = run(quorate(["dev", "start", "0", "--dir"]).arg(scratch.path()), PATIENCE);
    ran.expect_one_line(1, &["holds no cluster"]);
}

#[track_caller]
fn mount(cluster: &Path, key: &Path, path: &Path, options: &str) -> Ran {
    let mut command = quorate(["mount"]);
    command.arg(path).arg("--cluster").arg(cluster).arg("--key").arg(key);
    if !options.is_empty() {
        command.args(["-o", options]);
    }
    let ran = run(&mut command, PATIENCE);
    assert_eq!(mount_type(path), None);
    ran
}

#[test]
fn cluster_files_keys_and_mount_points() {
    let cluster = Cluster::start();
    let (file, key) = (cluster.local.cluster_path(), cluster.local.key_path());
    let home = cluster.home();
    let empty = home.join("empty");
    std::fs::create_dir(&empty).unwrap();

    mount(&home.join("no.toml"), &key, &empty, "").expect_one_line(1, &["no.toml"]);
    let garbage = home.join("garbage.toml");
    std::fs::write(&garbage, "replicas = [").unwrap();
    mount(&garbage, &key, &empty, "").expect_one_line(1, &["garbage.toml"]);
    let changed = home.join("changed.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.starts_with("genesis")).unwrap();
    std::fs::write(&changed, text.replace(line, &line.replace(['0', '1'], "2"))).unwrap();
    mount(&changed, &key, &empty, "").expect_one_line(1, &["changed.toml"]);
    // The file of another cluster, which does not run; and of another one at the same addresses.
    let other = Cluster::create();
    let ran = mount(&other.local.cluster_path(), &key, &empty, "timeo=2");
    ran.expect_one_line(1, &[]);

    mount(&file, &home.join("no.key"), &empty, "").expect_one_line(1, &["no.key"]);
    mount(&file, &garbage, &empty, "").expect_one_line(1, &["garbage.toml"]);
    let node = cluster.local.replica_directory(0).join("node.key");
    mount(&file, &node, &empty, "").expect_one_line(1, &["node.key"]);
    let stranger = home.join("stranger.key");
    run(quorate(["key", "new"]).arg(&stranger), PATIENCE).expect(0);
    mount(&file, &stranger, &empty, "timeo=5").expect_one_line(1, &["principal"]);

    mount(&file, &key, &home.join("missing"), "").expect_one_line(1, &["missing", "directory"]);
    mount(&file, &key, &file, "").expect_one_line(1, &["cluster.toml", "directory"]);
    mount(&file, &key, cluster.local.directory(), "").expect_one_line(1, &["not empty"]);
    mount(&file, &key, &empty, "frob").expect_one_line(1, &["`frob`", "allow_other"]);
    mount(&file, &key, &empty, "timeo=0").expect_one_line(1, &["timeo"]);

    // No /dev/fuse, as in a container that was not given it.
    let script = format!(
        "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec {} mount --foreground {} {}",
        crate::harness::PROGRAM,
        empty.display(),
        cluster.arguments().join(" ")
    );
    let ran = run(Command::new("unshare").args(["-m", "sh", "-c", &script]), PATIENCE);
    ran.expect_one_line(1, &["/dev/fuse"]);
    // After all this the right one works.
    let right = cluster.mount_with("right", "ro");
    let error = std::fs::write(right.at("x"), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(30), "EROFS, not {error}");
}

#[track_caller]
fn replica(directory: &Path) -> Ran {
    run(quorate(["replica", "--dir"]).arg(directory), PATIENCE)
}

#[test]
fn replicas_refuse_what_is_not_theirs() {
    let cluster = Cluster::start();
    let directory = |number| cluster.local.replica_directory(number);
    let mount = cluster.mount("a");
    mount.shell("for i in {1..20}; do echo $i > before-$i; done");
    cluster.settle();
    replica(&directory(0)).expect_one_line(1, &["replica-0", "in use"]);
    replica(&cluster.home().join("nowhere")).expect_one_line(1, &["nowhere"]);
    let foreign = cluster.home().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letter.txt"), "not yours").unwrap();
    replica(&foreign).expect_one_line(1, &["foreign"]);
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1, "nothing is written there");

    // A port that somebody else holds.
    cluster.local.stop(1).unwrap();
    let address = cluster.local.file().addresses().get(1).unwrap().to_string();
    let holder = UdpSocket::bind(&address).unwrap();
    replica(&directory(1)).expect_one_line(1, &[address.as_str(), "use"]);
    drop(holder);

    // The directory of another cluster, and a directory with another replica's key.
    let other = Cluster::create();
    let stolen = cluster.home().join("stolen");
    let copy = |from: &Path| {
        shell(Path::new("/"), &format!("rm -rf {1} && cp -a {0} {1}", from.display(), stolen.display()))
            .expect(0)
    };
    copy(&directory(1));
    std::fs::copy(other.local.cluster_path(), stolen.join("cluster.toml")).unwrap();
    replica(&stolen).expect_one_line(1, &["stolen"]);
    copy(&directory(1));
    std::fs::copy(directory(2).join("node.key"), stolen.join("node.key")).unwrap();
    replica(&stolen).expect_one_line(1, &[]);

    // Damage, each kind in a fresh copy: the marker, a later format, the log, a part that is gone.
    copy(&directory(1));
    flip(&stolen.join("FORMAT"), 40);
    replica(&stolen).expect_one_line(1, &["stolen"]);
    copy(&directory(1));
    std::fs::write(stolen.join("FORMAT"), "").unwrap();
    replica(&stolen).expect_one_line(1, &["stolen"]);
    copy(&directory(1));
    flip(&stolen.join("log/0000000000.log"), 128 + 64 + 20);
    replica(&stolen).expect_one_line(1, &["segment 0"]);
    copy(&directory(1));
    std::fs::remove_dir_all(stolen.join("log")).unwrap();
    replica(&stolen).expect_one_line(1, &["stolen"]);

    // The others have gone on, and the one that was stopped comes back.
    std::fs::write(mount.at("x"), "x").unwrap();
    cluster.local.start(1).unwrap();
    cluster.settle();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A small filesystem of its own, taken away at the end.
struct Small<'a>(&'a Path);

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Puts a replica's directory on a filesystem of so many megabytes.
fn on_small_disk(cluster: &Cluster, replica: u8, megabytes: u32) {
    let directory = cluster.local.replica_directory(replica);
    let script = format!(
        "cp -a {0} {0}.made && mount -t tmpfs -o size={megabytes}m none {0} && cp -a {0}.made/. {0}/",
        directory.display()
    );
    shell(Path::new("/"), &script).expect(0);
}

/// Writes a file and syncs it, so that what becomes of it is known.
fn write_synced(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[test]
fn a4_blocks_leave_room_for_log_and_state_so_that_a_full_cluster_can_be_cleared() {
    // What can be read of the past keeps its content.
    let cluster = Cluster::create_keeping(1, 0);
    let directories: Vec<_> = (0..4).map(|replica| cluster.local.replica_directory(replica)).collect();
    let _small: Vec<_> = directories.iter().map(|directory| Small(directory)).collect();
    // 256 MiB of them are the reserve.
    (0..4).for_each(|replica| on_small_disk(&cluster, replica, 330));
    cluster.local.start_all().unwrap();
    let mount = cluster.mount("a");
    let name = |number: u64| mount.at(&format!("file-{number}"));
    let full = (0..60).find(|number| match write_synced(&name(*number), &noise(*number, 3 << 20)) {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
            true
        }
    });
    let full = full.expect("no file was refused");
    assert!(full > 1, "there was room for some files");
    // Whatever needs no block goes on, and what is there stays readable.
    std::fs::create_dir(mount.at("directory")).unwrap();
    std::fs::rename(name(0), mount.at("directory/file-0")).unwrap();
    write_synced(&mount.at("small"), b"some bytes").unwrap();
    assert!(std::fs::read(mount.at("directory/file-0")).unwrap() == noise(0, 3 << 20));
    let (code, status) = cluster.status();
    assert_eq!(code, 0, "{status:#}");
    // So room can be made, and is used again.
    (0..=full).for_each(|number| drop(std::fs::remove_file(name(number))));
    let again = || write_synced(&mount.at("again"), &noise(99, 3 << 20)).is_ok();
    wait_until("there is room again", Duration::from_secs(60), again);
    cluster.local.kill_all();
}

#[test]
fn a_full_disk_of_one_replica_stops_that_one_alone() {
    let cluster = Cluster::create();
    let directory = cluster.local.replica_directory(3);
    on_small_disk(&cluster, 3, 64);
    let _small = Small(&directory);
    cluster.local.start_all().unwrap();
    let mount = cluster.mount("a");
    for number in 0..30 {
        std::fs::write(mount.at(&format!("file-{number}")), noise(number, 3 << 20)).unwrap();
    }
    for number in 0..30 {
        assert!(std::fs::read(mount.at(&format!("file-{number}"))).unwrap() == noise(number, 3 << 20));
    }
    // It said why in its log, in a line.
    let told = || cluster.log(3).lines().any(|line| line.to_lowercase().contains("no space"));
    wait_until("replica 3 says that its disk is full", Duration::from_secs(10), told);
    let (code, status) = cluster.status();
    assert!(code <= 1, "{status:#}");
    cluster.local.kill_all();
}
