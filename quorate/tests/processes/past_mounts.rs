//! The past: trees mounted and proven as they were at a height that is over.
//!
//! Rules S5 and S10: what a height that is kept refers to can be read, whatever was removed since; what is not kept is
//! an error and never another tree.

use crate::harness::{Cluster, Mount, PATIENCE, noise, run, shell, shell_within, wait_until};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Everything that `find` can say of a tree but what reading it changes.
const LISTING: &str = r"find . -printf '%p %y %m %U %G %s %n %T@ %C@ %i %l\n' | LC_ALL=C sort";
/// A tree of everything: inline content, blocks, links, and other kinds.
const TREE: &str = r#"python3 - <<'END'
import os
for number in range(60):
    directory = f"d/{number % 4}/{number % 12}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/file-{number}", "wb") as file:
        file.write(os.urandom(20_000 if number % 3 == 0 else number * 40))
for number in range(4):
    with open(f"d/large-{number}", "wb") as file:
        file.write(os.urandom(3_000_000))
os.link("d/large-1", "d/again")
os.symlink("large-2", "d/link")
os.truncate("d/large-3", 1_000_000)
os.mkfifo("d/fifo")
os.chmod("d/0", 0o750)
os.chown("d/large-0", 1000, 1001)
os.setxattr("d/large-0", "user.colour", b"blue")
END"#;
/// What becomes of it: nothing stays as it was.
const CHANGES: &str = r#"rm -r d/0 d/1 d/link d/fifo d/again
printf changed > d/large-0
mv d/large-1 d/moved
dd if=/dev/urandom of=d/large-2 bs=1000 count=2000 conv=notrunc status=none
chmod 700 d/2
setfattr -x user.colour d/large-0 2>/dev/null || python3 -c 'import os; os.removexattr("d/large-0", "user.colour")'
mkdir new && touch new/file
rm d/large-3"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The largest number that any replica has of this.
fn largest(status: &Value, field: &str) -> u64 {
    let replicas = status["replicas"].as_array().unwrap();
    replicas.iter().map(|replica| replica[field].as_u64().unwrap()).max().unwrap()
}

/// Commits a height, so that time passes for the cluster as well.
fn tick(mount: &Mount) {
    std::fs::write(mount.at("tick"), "").unwrap();
    std::fs::remove_file(mount.at("tick")).unwrap();
}

/// A tree as it was, kept beside the cluster.
struct Then {
    height: u64,
    /// The time of that height.
    time: String,
    listing: String,
}

/// Writes a tree, copies it, changes and removes it, and waits until the present state has no trace of it.
fn some_past(cluster: &Cluster, mount: &Mount) -> Then {
    mount.shell(TREE);
    let copy = cluster.home().join("then");
    shell(&mount.path, &format!("cp -a . {}", copy.display())).expect(0);
    let listing = mount.shell(LISTING);
    let status = cluster.settle();
    let height = status["height"].as_u64().unwrap();
    let heights = json(&cluster.quorate(&["audit", "heights", "--output", "json"]).expect(0).stdout);
    assert_eq!(heights["to"]["height"], height, "{heights:#}");
    let time = heights["to"]["time"].as_str().unwrap().to_owned();
    let stored = largest(&status, "stored_blocks");
    assert!(stored >= 30, "{status:#}");

    mount.shell(CHANGES);
    // The grace of what was released passes, and the sweeps that follow it.
    let few = |cluster: &Cluster| {
        tick(mount);
        std::thread::sleep(Duration::from_millis(300));
        largest(&cluster.settle(), "blocks") + 10 < stored
    };
    wait_until("the released blocks have left the state", Duration::from_secs(30), || few(cluster));
    for _ in 0..12 {
        tick(mount);
        std::thread::sleep(Duration::from_millis(500));
    }
    let now = cluster.settle();
    assert!(largest(&now, "stored_blocks") >= stored, "S5: content of a height that is kept stays: {now:#}");
    Then { height, time, listing }
}

/// Compares a mount of the past with what was.
#[track_caller]
fn compare(cluster: &Cluster, past: &Mount, then: &Then) {
    let copy = cluster.home().join("then");
    let script = format!("diff -r --no-dereference --exclude=fifo {} .", copy.display());
    shell_within(&past.path, &script, PATIENCE).expect(0);
    // A directory's size counts its entries, its times are its own: everything is as it was.
    assert_eq!(past.shell(LISTING), then.listing);
    let colour =
        past.shell("python3 -c 'import os; print(os.getxattr(\"d/large-0\", \"user.colour\").decode())'");
    assert_eq!(colour.trim(), "blue");
}

/// The options of a mount in the kernel's table.
fn mount_options(path: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == path.to_str()).unwrap();
    line.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect()
}

#[test]
fn a_past_height_is_mounted_as_it_was_and_read_only() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let then = some_past(&cluster, &mount);
    let past = cluster.mount_by("past", &["--at", &then.height.to_string()]);
    compare(&cluster, &past, &then);
    assert!(mount_options(&past.path).iter().any(|option| option == "ro"));
    // Nothing can be changed, by nobody.
    let read_only = Some(libc_erofs());
    let large = past.at("d/large-0");
    for outcome in [
        std::fs::write(past.at("new"), "x"),
        std::fs::remove_file(&large),
        std::fs::create_dir(past.at("new")),
        std::fs::rename(&large, past.at("other")),
        std::fs::hard_link(&large, past.at("other")),
        std::fs::set_permissions(&large, std::os::unix::fs::PermissionsExt::from_mode(0o600)),
        std::fs::OpenOptions::new().append(true).open(&large).map(drop),
        std::os::unix::fs::symlink("a", past.at("other")),
    ] {
        assert_eq!(outcome.unwrap_err().raw_os_error(), read_only);
    }
    past.unmount();
    // By time: of the height itself, and of seconds in which it was the last one.
    let past = cluster.mount_by("past", &["--at", &then.time]);
    compare(&cluster, &past, &then);
    past.unmount();
    mount.shell("echo one > one");
    std::thread::sleep(Duration::from_millis(1100));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    std::thread::sleep(Duration::from_millis(1000));
    mount.shell("echo two > one && touch two");
    // In the background, with the other options as ever.
    let path = cluster.home().join("mount-seconds");
    std::fs::create_dir(&path).unwrap();
    let at = format!("@{now}");
    cluster.quorate(&["mount", path.to_str().unwrap(), "--at", &at, "-o", "nosuid"]).expect(0);
    let ran = shell(&path, "cat one && ! test -e two");
    let unmounted = run(crate::harness::quorate(["umount"]).arg(&path), PATIENCE);
    assert_eq!(ran.expect(0).stdout, "one\n");
    unmounted.expect(0);
}

fn libc_erofs() -> i32 {
    rustix::io::Errno::ROFS.raw_os_error()
}

/// RD4: one liar among the replicas changes nothing of what was.
#[cfg(feature = "faults")]
#[test]
fn a_past_height_is_what_it_was_whoever_lies() {
    let mut cluster = Cluster::create();
    cluster.local.set_arguments(1, vec!["--fault".into(), "corrupt-proof".into()]);
    cluster.local.start_all().unwrap();
    let mount = cluster.mount("a");
    let then = some_past(&cluster, &mount);
    let past = cluster.mount_by("past", &["--at", &then.height.to_string()]);
    compare(&cluster, &past, &then);
}

#[test]
fn a_path_is_proven_as_it_was() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    mount.shell("mkdir d && echo then > d/file");
    let then = cluster.settle()["height"].as_u64().unwrap().to_string();
    mount.shell("rm d/file && rmdir d && mkdir new");
    let file = |name: &str| cluster.home().join(name).to_str().unwrap().to_owned();
    let (was, now, lacked) = (file("was"), file("now"), file("lacked"));
    cluster.quorate(&["audit", "prove", "/d/file", "--at", &then, "--out", &was]).expect(0);
    cluster.quorate(&["audit", "prove", "/d/file", "--out", &now]).expect(0);
    cluster.quorate(&["audit", "prove", "/new", "--at", &then, "--out", &lacked]).expect(0);
    let check =
        |file: &str| json(&cluster.quorate_alone(&["audit", "check", "--output", "json", file]).stdout);
    let found = check(&was);
    assert_eq!(
        (&found["found"]["size"], &found["height"]),
        (&5.into(), &then.parse::<u64>().unwrap().into())
    );
    assert_eq!(check(&now)["errno"], "ENOENT");
    assert_eq!((&check(&lacked)["errno"], &check(&lacked)["height"]), (&"ENOENT".into(), &found["height"]));
}

/// What is not kept, or not there yet, is said in one line; a mount whose height goes fails and shows nothing else.
#[test]
fn a_height_that_cannot_be_read_is_an_error_that_says_why() {
    let cluster = Cluster::start_keeping(20, 1);
    let mount = cluster.mount("a");
    std::fs::write(mount.at("file"), noise(1, 50_000)).unwrap();
    let then = cluster.settle()["height"].as_u64().unwrap();
    let past = cluster.mount_by("past", &["--at", &then.to_string()]);
    assert_eq!(std::fs::metadata(past.at("file")).unwrap().len(), 50_000);
    std::fs::remove_file(mount.at("file")).unwrap();
    let from = |cluster: &Cluster| {
        let heights = json(&cluster.quorate(&["audit", "heights", "--output", "json"]).expect(0).stdout);
        assert!(heights["from"]["time"].as_str() < heights["to"]["time"].as_str(), "{heights:#}");
        heights["from"]["height"].as_u64().unwrap()
    };
    wait_until("the height is not kept any more", Duration::from_secs(60), || {
        (0..40).for_each(|_| tick(&mount));
        from(&cluster) > then
    });
    let path = cluster.home().join("none");
    std::fs::create_dir(&path).unwrap();
    let path = path.to_str().unwrap();
    let height = then.to_string();
    let horizon = ["below the horizon", "--keep-seconds", height.as_str()];
    cluster.quorate(&["mount", path, "--at", &height]).expect_one_line(1, &horizon);
    let out = cluster.home().join("proof");
    let out = out.to_str().unwrap();
    cluster.quorate(&["audit", "prove", "/", "--at", &height, "--out", out]).expect_one_line(2, &horizon);
    // What is open there fails; it never looks as if nothing had been there.
    let listed = std::fs::read_dir(&past.path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    assert_eq!(listed.unwrap_err().raw_os_error(), Some(5));
    assert_eq!(std::fs::metadata(past.at("file")).unwrap_err().raw_os_error(), Some(5));
    for (at, words) in [
        ("1000000000", ["above the head", "1000000000"]),
        ("2099-01-01T00:00:00Z", ["lies in the future", "2099"]),
        ("1999-01-01T00:00:00Z", ["before the genesis", "time"]),
    ] {
        cluster.quorate(&["mount", path, "--at", at]).expect_one_line(1, &words);
    }
    let refused = cluster.quorate(&["mount", path, "--at", "yesterday"]).expect(2);
    assert!(refused.stderr.contains("neither a height"), "{}", refused.stderr);
    // The first second of the cluster is committed, and not kept.
    let text = cluster.quorate(&["audit", "heights"]).expect(0).stdout;
    assert!(text.lines().count() == 5 && text.contains("replica 3 keeps "), "{text}");
}
