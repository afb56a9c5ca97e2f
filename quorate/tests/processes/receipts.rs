//! Receipts and policies: what an operation was and what came of it, shown where there is no cluster.

use crate::harness::{Cluster, PATIENCE, Ran, quorate, run};
use serde_json::Value;
use std::path::Path;

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr))
}

/// `quorate audit check` with nothing but a file and a policy.
fn check(policy: &Path, file: &str) -> Ran {
    let mut command = quorate(["audit", "check", "--output", "json", file, "--policy"]);
    run(command.arg(policy), PATIENCE)
}

#[test]
fn an_operation_is_proven_to_whoever_has_the_policy() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    mount.shell(
        "mkdir d; echo hello > d/one; chmod 640 d/one; mkdir \"d/odd\nname\"; rmdir d/nothing || true",
    );
    mount.unmount();
    cluster.settle();
    let at = |name: &str| cluster.home().join(name).to_str().unwrap().to_owned();
    let policy = cluster.home().join("policy");
    std::fs::write(&policy, cluster.quorate_alone(&["audit", "policy"]).expect(0).stdout).unwrap();

    // From the live cluster: who made the mode what it is.
    let live = at("live.receipt");
    let text = cluster.quorate(&["audit", "receipt", "/d/one", "--out", &live]).expect(0).stdout;
    assert!(text.contains(": set-attributes ino=") && text.contains(" mode=0640"), "{text}");
    assert!(text.contains("done ino=") && text.contains("vouched for by replicas"), "{text}");
    let bundle = at("history.bundle");
    cluster.quorate(&["audit", "export", &bundle]).expect(0);
    cluster.local.stop_all();

    let shown = json(&check(&policy, &live).expect(0));
    assert_eq!(
        (&shown["type"], &shown["kind"], &shown["result"]),
        (&"receipt".into(), &"set-attributes".into(), &"done".into())
    );
    assert_eq!((&shown["arguments"]["mode"], &shown["uid"]), (&"0640".into(), &0.into()));
    // The same operation from a stopped replica's directory and from a bundle, by session and number: one receipt.
    let of = format!("{}:{}", shown["session"].as_str().unwrap(), shown["sequence"]);
    let directory = cluster.local.replica_directory(2).to_str().unwrap().to_owned();
    let (stored, bundled) = (at("stored.receipt"), at("bundled.receipt"));
    cluster.quorate(&["audit", "receipt", "/d/one", "--dir", &directory, "--out", &stored]).expect(0);
    let ran = cluster
        .quorate(&["audit", "receipt", &of, "--bundle", &bundle, "--out", &bundled, "--output", "json"]);
    assert_eq!(json(&ran.expect(0))["operation"], shown["operation"]);
    for file in [&stored, &bundled] {
        let again = json(&check(&policy, file).expect(0));
        for field in ["operation", "arguments", "about", "session", "sequence", "height", "index", "header"] {
            assert_eq!(again[field], shown[field], "{field}");
        }
    }
    // Names are escaped; an earlier height has an earlier last change.
    let odd = at("odd.receipt");
    let ran =
        cluster.quorate(&["audit", "receipt", "/d/odd\nname", "--bundle", &bundle, "--out", &odd]).expect(0);
    assert!(
        ran.stdout.contains(": mkdir parent=") && ran.stdout.contains(" name=odd\\nname "),
        "{}",
        ran.stdout
    );
    let (before, earlier) = (shown["height"].as_u64().unwrap() - 1, at("earlier.receipt"));
    let arguments =
        ["audit", "receipt", "/d/one", "--at", &before.to_string(), "--bundle", &bundle, "--out", &earlier];
    cluster.quorate(&arguments).expect(0);
    let operation = |shown: &Value| shown["operation"].as_u64().unwrap();
    assert!(operation(&json(&check(&policy, &earlier).expect(0))) < operation(&shown));

    // What is not there has no receipt.
    let other_session = of.replacen(|digit: char| digit.is_ascii_digit(), "a", 9);
    for (of, words) in
        [("/d/nothing", "ENOENT"), (other_session.as_str(), "no operation"), ("d/one", "neither a path")]
    {
        let none = at("none");
        let ran = cluster.quorate(&["audit", "receipt", of, "--bundle", &bundle, "--out", &none]);
        ran.expect_one_line(2, &[words]);
    }
    // Nor does damage, another cluster's policy, or a cluster file in the place of one.
    let mut bytes = std::fs::read(&live).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&live, &bytes).unwrap();
    assert_eq!(json(&check(&policy, &live).expect(1))["verdict"], "broken");
    std::fs::write(&live, "something else").unwrap();
    assert_eq!(json(&check(&policy, &live).expect(1))["verdict"], "broken");
    check(&cluster.local.cluster_path(), &stored).expect_one_line(2, &["not a Quorate policy"]);
    let other = Cluster::create();
    let foreign = other.home().join("policy");
    std::fs::write(&foreign, other.quorate_alone(&["audit", "policy"]).expect(0).stdout).unwrap();
    check(&foreign, &stored).expect_one_line(2, &["stored.receipt", "cluster"]);
    // Nothing at all is trusted without one.
    let ran = run(&mut quorate(["audit", "check", &stored]), PATIENCE);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}
