//! Ordinary users: a whole cluster and a mount without root by fusermount3, and who may enter a mount.

use crate::harness::{Cluster, PATIENCE, PROGRAM, mount_type, run, scratch};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

const NOBODY: u32 = 65_534;

fn as_nobody(home: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", home).env("TMPDIR", home);
    command
}

#[test]
fn a_user_without_privileges_runs_a_cluster_and_mounts_it() {
    let scratch = scratch();
    let home = scratch.path().join("home");
    std::fs::create_dir(&home).unwrap();
    chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    // The build directory may be closed to others.
    let program = scratch.path().join("quorate");
    std::fs::copy(PROGRAM, &program).unwrap();
    let script = "
        test $(id -u) = 65534
        mkdir d && echo mine > d/file && cat d/file
        stat -c %u:%g d/file
        chmod 600 d/file && mv d/file d/renamed && ln d/renamed d/second && rm d/renamed
        if chown 0:0 d/second 2>/dev/null; then echo 'gave a file away'; fi
        cp -r /usr/share/common-licenses copy && diff -r /usr/share/common-licenses copy && rm -r d copy
        ls -A | wc -l";
    let ran = run(as_nobody(&home).arg(&program).args(["dev", "--exec", script]), PATIENCE).expect(0);
    assert_eq!(ran.stdout, "mine\n65534:65534\n0\n", "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0, "nothing is left behind");

    // `allow_other` is for users only where the machine's owner says so, and fusermount3 says where.
    let allowed = std::fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"));
    let ran =
        run(as_nobody(&home).arg(&program).args(["dev", "-o", "allow_other", "--exec", "true"]), PATIENCE);
    if allowed {
        ran.expect(0);
    } else {
        assert!(ran.expect(125).stderr.contains("user_allow_other"));
    }
}

#[test]
fn others_enter_a_mount_only_with_allow_other_and_as_themselves() {
    let cluster = Cluster::start();
    let closed = cluster.mount("closed");
    std::fs::write(closed.at("public"), "read me").unwrap();
    std::fs::write(closed.at("secret"), "not you").unwrap();
    std::fs::set_permissions(closed.at("secret"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::create_dir(closed.at("drop")).unwrap();
    std::fs::set_permissions(closed.at("drop"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::write(closed.at("drop/of-root"), "x").unwrap();
    let open = cluster.mount_with("open", "allow_other");
    let shell = |script: &str| run(as_nobody(Path::new("/")).args(["sh", "-c", script]), PATIENCE);
    assert_ne!(shell(&format!("cat {}/public", closed.path.display())).code, 0);

    let there = open.path.display();
    assert_eq!(shell(&format!("cat {there}/public")).expect(0).stdout, "read me");
    assert_ne!(shell(&format!("cat {there}/secret")).code, 0);
    assert_ne!(shell(&format!("echo x > {there}/public")).code, 0);
    assert_ne!(shell(&format!("mkdir {there}/new")).code, 0);
    shell(&format!("echo mine > {there}/drop/mine")).expect(0);
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(closed.at("drop/mine")).unwrap()),
        NOBODY
    );
    // Sticky: not what belongs to others.
    assert_ne!(shell(&format!("rm -f {there}/drop/of-root")).code, 0);
    shell(&format!("rm {there}/drop/mine")).expect(0);
    assert_eq!(mount_type(&open.path).unwrap(), "fuse.quorate");
}
