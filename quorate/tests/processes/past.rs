//! `quorate audit who`, `log`, `diff` and `transition`: what auditors ask first, answered from the signed history.

use crate::harness::{Cluster, PATIENCE, Ran, quorate, run};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(json).collect()
}

/// The value under `what` in the operations that `who` lists.
fn told<'a>(who: &'a Value, what: &str) -> &'a Value {
    let operations = who["operations"].as_array().unwrap();
    operations.iter().find(|operation| operation["what"] == what).unwrap_or_else(|| panic!("{what}: {who}"))
}

#[test]
fn who_made_changed_and_removed_a_file_is_told_with_receipts() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    mount.shell(
        "mkdir d; echo hello > d/draft; mv d/draft d/file; chmod 600 d/file; chown 7:8 d/file; ls -lR",
    );
    cluster.settle();
    let height = || {
        let status = json(&cluster.quorate(&["status", "--output", "json"]).expect(0).stdout);
        let replicas = status["replicas"].as_array().unwrap().iter();
        replicas.filter_map(|replica| replica["height"].as_u64()).max().unwrap().to_string()
    };
    let before = height();
    mount.shell("rm d/file; mkdir e; echo new > e/file; chmod 711 d; mv e f");
    mount.unmount();
    cluster.settle();
    let after = height();

    // From the live cluster: a file that is gone, made under another name.
    let who = json(&cluster.quorate(&["audit", "who", "/d/file", "--output", "json"]).expect(0).stdout);
    assert_eq!(who["there"], false);
    assert_eq!(told(&who, "made")["arguments"]["name"], "draft");
    assert_eq!(told(&who, "put here")["kind"], "rename");
    assert_eq!(told(&who, "mode")["arguments"]["mode"], "0600");
    assert_eq!(told(&who, "owner")["arguments"]["uid"], 7);
    assert_eq!(told(&who, "taken away")["kind"], "unlink");
    let text = cluster.quorate(&["audit", "who", "/d/file"]).expect(0).stdout;
    assert!(text.starts_with("/d/file is not there any more; it was inode "), "{text}");
    let text = cluster.quorate(&["audit", "who", "/f/file"]).expect(0).stdout;
    assert!(text.contains("is inode") && text.contains("put here") && text.contains("made"), "{text}");
    assert!(cluster.quorate(&["audit", "who", "/never"]).expect(2).stderr.contains("has never been there"));

    // From the directory of a stopped replica, with receipts, each of which holds by itself.
    cluster.local.stop_all();
    let directory = cluster.local.replica_directory(1).to_str().unwrap().to_owned();
    let receipts = cluster.home().join("receipts");
    let from = ["--dir", &directory, "--output", "json"];
    let audit = |arguments: &[&str]| cluster.quorate(&[&["audit"], arguments, &from].concat());
    let removed =
        audit(&["log", "/d/file", "--only", "vanished", "--receipts", receipts.to_str().unwrap()]).expect(0);
    let [removal] = &lines(&removed)[..] else { panic!("{}", removed.stdout) };
    assert_eq!((&removal["kind"], &removal["aspects"][0]), (&"unlink".into(), &"vanished".into()));
    let files: Vec<_> = std::fs::read_dir(&receipts).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [receipt] = &files[..] else { panic!("{files:?}") };
    let mut check = quorate(["audit", "check", "--output", "json", "--cluster"]);
    check.arg(cluster.local.cluster_path()).arg(receipt);
    assert_eq!(json(&run(&mut check, PATIENCE).expect(0).stdout)["operation"], removal["operation"]);

    // What one principal did between two times and heights, and what nobody else did.
    let key = removal["key"].as_str().unwrap();
    let all = lines(&audit(&["log"]).expect(0)).len();
    assert_eq!(lines(&audit(&["log", "--principal", key]).expect(0)).len(), all);
    let early = lines(&audit(&["log", "--until", &before]).expect(0)).len();
    let next = (before.parse::<u64>().unwrap() + 1).to_string();
    let late = lines(&audit(&["log", "--since", &next]).expect(0)).len();
    assert_eq!(early + late, all);
    assert!(early > 0 && late > 0);
    assert_eq!(lines(&audit(&["log", "--since", "@4000000000"]).expect(0)).len(), 0);
    assert_eq!(lines(&audit(&["log", "--uid", "12345"]).expect(0)).len(), 0);

    // In what the tree differs.
    let diff = json(&audit(&["diff", &before, &after]).expect(0).stdout);
    let said: Vec<String> = diff["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| {
            format!("{} {}", difference["what"].as_str().unwrap(), difference["path"].as_str().unwrap())
        })
        .collect();
    assert_eq!(said, ["modified /d", "removed /d/file", "added /f", "added /f/file"]);
    let below = json(&audit(&["diff", &before, &after, "/f/file"]).expect(0).stdout);
    assert_eq!(below["differences"].as_array().unwrap().len(), 1);
    assert!(audit(&["diff", "1", "99999999"]).expect(2).stderr.contains("has no height 99999999"));
}

/// One height, executed again where there is neither a cluster nor its state.
#[test]
fn a_transition_is_executed_again_without_the_state() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    mount.shell("mkdir d; for file in $(seq 1 50); do echo $file > d/$file; done; rm d/17");
    mount.unmount();
    cluster.settle();
    let at = |name: &str| cluster.home().join(name).to_str().unwrap().to_owned();
    let policy = at("policy");
    std::fs::write(&policy, cluster.quorate_alone(&["audit", "policy"]).expect(0).stdout).unwrap();
    let live = at("live.transition");
    let text = cluster.quorate(&["audit", "transition", "20", "--out", &live]).expect(0).stdout;
    assert!(text.starts_with("holds: executing the "), "{text}");
    cluster.local.stop_all();
    let directory = cluster.local.replica_directory(2).to_str().unwrap().to_owned();
    let stored = at("stored.transition");
    cluster.quorate(&["audit", "transition", "20", "--dir", &directory, "--out", &stored]).expect(0);
    for file in [&live, &stored] {
        let mut check = quorate(["audit", "check", "--output", "json", "--policy", &policy]);
        let shown = json(&run(check.arg(file), PATIENCE).expect(0).stdout);
        assert_eq!((&shown["verdict"], &shown["height"]), (&"holds".into(), &20.into()));
        // Not the state: what one batch of a few operations touches of it.
        assert!(shown["state_bytes"].as_u64().unwrap() < 20_000, "{shown}");
    }
    let mut bytes = std::fs::read(&live).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = at("damaged.transition");
    std::fs::write(&damaged, bytes).unwrap();
    let mut check = quorate(["audit", "check", "--policy", &policy]);
    assert!(run(check.arg(&damaged), PATIENCE).expect(1).stdout.starts_with("proves nothing"));
    let none = at("none.transition");
    let ran = cluster.quorate(&["audit", "transition", "99999999", "--dir", &directory, "--out", &none]);
    assert!(ran.expect(2).stderr.contains("has no height 99999999"));
}
