//! Wrong clocks, by libfaketime: an hour ahead, an hour behind, and jumps while the replica runs.

use super::small_tree;
use crate::harness::{Cluster, Mount, PATIENCE, shell_within, wait_until};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where Debian puts the library.
fn libfaketime() -> PathBuf {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| PathBuf::from(format!("/usr/lib/{machine}/faketime/libfaketime.so.1")));
    found
        .into_iter()
        .find(|path| path.exists())
        .expect("these tests need libfaketime (Debian package faketime; deploy/setup.sh installs it)")
}

/// A clock that can be set while its replica runs.
struct Clock(PathBuf);

impl Clock {
    /// The wall clock of a replica; the others are left alone, as is its monotonic clock.
    fn of(cluster: &mut Cluster, replica: u8) -> Self {
        let file = cluster.home().join(format!("clock-{replica}"));
        let clock = Self(file.clone());
        clock.set("+0");
        let variables = [
            ("LD_PRELOAD", libfaketime().into_os_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.into_os_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value)).collect();
        cluster.local.set_environment(replica, variables);
        clock
    }

    /// Off by so much from now on; it takes a second to be noticed.
    fn set(&self, offset: &str) {
        let next = self.0.with_extension("next");
        std::fs::write(&next, format!("{offset}\n")).unwrap();
        std::fs::rename(next, &self.0).unwrap();
    }
}

const NOTICED: Duration = Duration::from_millis(2500);

#[track_caller]
fn copy(mount: &Mount, source: &Path, name: &str) {
    let script = format!("cp -a {0}/docs {name} && diff -r {0}/docs {name}", source.display());
    shell_within(&mount.path, &script, Duration::from_secs(45)).expect(0);
}

#[test]
fn a_clock_that_is_an_hour_off_or_jumps_stops_nothing() {
    let mut cluster = Cluster::create();
    // The first leader's, and a follower's.
    let clocks = [Clock::of(&mut cluster, 0), Clock::of(&mut cluster, 2)];
    clocks[0].set("+1h");
    cluster.local.start_all().unwrap();
    let mount = cluster.mount("a");
    let source = cluster.home().join("source");
    small_tree(&source);
    copy(&mount, &source, "leader-an-hour-ahead");
    let leader = || cluster.status().1["replicas"][0]["leading"] == true;
    assert!(!leader(), "who proposes in the future leads nobody");
    let off = |path: &str| {
        let modified = std::fs::metadata(mount.at(path)).unwrap().modified().unwrap();
        let now = std::time::SystemTime::now();
        now.duration_since(modified).unwrap_or_else(|error| error.duration())
    };
    // Times in the filesystem are those of the others' clocks.
    std::fs::write(mount.at("now"), "").unwrap();
    assert!(off("now") < Duration::from_secs(60), "{:?}", off("now"));
    // One fault at a time is what four replicas survive.
    clocks[0].set("+0");
    std::thread::sleep(NOTICED);
    clocks[1].set("-1h");
    std::thread::sleep(NOTICED);
    copy(&mount, &source, "follower-an-hour-behind");
    for jump in ["+3h", "+0"] {
        clocks[1].set(jump);
        std::thread::sleep(NOTICED);
        shell_within(&mount.path, "date > jumped && cat jumped", PATIENCE).expect(0);
    }
    std::fs::write(mount.at("now"), "again").unwrap();
    assert!(off("now") < Duration::from_secs(60), "{:?}", off("now"));
    wait_until("all vote", PATIENCE, || cluster.status().0 == 0);
    cluster.settle();
    for replica in cluster.local.indices() {
        cluster.audit(&cluster.local.replica_directory(replica)).expect(0);
    }
}
