//! What was seen of a cluster is remembered: one that was rolled back, or went on otherwise, is noticed by everybody
//! who looks at it, with both heads.

use crate::harness::{Cluster, PATIENCE, Ran, quorate, run};
use crate::heads::{keep, put_back};
use serde_json::Value;
use std::process::Command;

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr))
}

/// A user of a cluster who remembers.
struct User<'a> {
    cluster: &'a Cluster,
}

impl User<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = quorate(arguments);
        command.args(self.cluster.arguments()).env("QUORATE_STATE", self.cluster.home().join("state"));
        command
    }

    fn quorate(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments), PATIENCE)
    }

    /// The height that is remembered.
    fn seen(&self) -> Option<u64> {
        let mut command = quorate(["audit", "seen", "--output", "json", "--cluster"]);
        command
            .arg(self.cluster.local.cluster_path())
            .env("QUORATE_STATE", self.cluster.home().join("state"));
        json(&run(&mut command, PATIENCE).expect(0))["seen"]["height"].as_u64()
    }

    fn status(&self) -> (i32, Value) {
        let ran = self.quorate(&["status", "--output", "json"]);
        (ran.code, json(&ran))
    }

    fn forget(&self) {
        let mut command = quorate(["audit", "seen", "--forget", "--cluster"]);
        command
            .arg(self.cluster.local.cluster_path())
            .env("QUORATE_STATE", self.cluster.home().join("state"));
        run(&mut command, PATIENCE).expect(0);
        assert_eq!(self.seen(), None);
    }

    /// Why a mount is refused, in one line.
    fn refused_mount(&self) -> String {
        let path = self.cluster.home().join("refused");
        std::fs::create_dir_all(&path).unwrap();
        let ran = self.quorate(&["mount", path.to_str().unwrap()]).expect(1);
        assert_eq!(ran.stderr.trim_end().lines().count(), 1, "{}", ran.stderr);
        ran.stderr
    }
}

fn write(cluster: &Cluster, script: &str) -> u64 {
    let mount = cluster.mount("a");
    mount.shell(script);
    mount.unmount();
    cluster.settle()["height"].as_u64().unwrap()
}

/// A cluster that has gone on after a copy of it was kept, and stands still.
fn with_a_past() -> (Cluster, u64) {
    let cluster = Cluster::start();
    let early = write(&cluster, "mkdir d");
    cluster.local.stop_all();
    keep(&cluster, "early");
    cluster.local.start_all().unwrap();
    write(&cluster, "for i in {1..20}; do echo $i > d/$i; done");
    (cluster, early)
}

#[test]
fn a9_a_cluster_that_was_rolled_back_is_noticed() {
    let (cluster, early) = with_a_past();
    let user = User { cluster: &cluster };
    assert_eq!(user.seen(), None);
    assert_eq!(user.status().0, 0);
    let seen = user.seen().unwrap();
    assert!(seen > early);
    // It goes on: what was seen is a part of it, whoever looks.
    let later = write(&cluster, "echo more > d/more");
    for arguments in [&["audit", "verify"][..], &["audit", "compare"], &["status"]] {
        user.quorate(arguments).expect(0);
    }
    assert!(user.seen().unwrap() >= later);
    let seen = user.seen().unwrap();
    // One replica that lags is no roll-back, live or in its directory.
    cluster.local.stop_all();
    put_back(&cluster, "early", &[0]);
    let directory = cluster.local.replica_directory(0).to_str().unwrap().to_owned();
    let stored = json(&user.quorate(&["audit", "verify", "--dir", &directory, "--output", "json"]).expect(0));
    assert_eq!((&stored["verdict"], &stored["seen"]["verdict"]), (&"holds".into(), &"ends below".into()));
    // Two of them, which is one too many for those that have voted for more to be heard: it cannot be told.
    put_back(&cluster, "early", &[1, 2, 3]);
    for replica in [0, 1] {
        cluster.local.start(replica).unwrap();
    }
    let (code, status) = user.status();
    assert_eq!((code, &status["seen"]["verdict"]), (2, &"cannot tell".into()), "{status:#}");
    // All of them: those who voted for what was seen have forgotten it.
    for replica in [2, 3] {
        cluster.local.start(replica).unwrap();
    }
    cluster.settle();
    let told = |shown: &Value| {
        assert_eq!(shown["verdict"], "rolled back", "{shown:#}");
        assert_eq!(shown["seen"]["height"], seen);
        assert!(shown["shown"]["height"].as_u64().unwrap() < seen);
        assert_ne!(shown["shown"]["header"], shown["seen"]["header"]);
    };
    let (code, status) = user.status();
    assert_eq!((code, &status["verdict"]), (1, &"another history".into()));
    told(&status["seen"]);
    told(&json(&user.quorate(&["audit", "verify", "--output", "json"]).expect(1))["seen"]);
    told(&json(&user.quorate(&["audit", "compare", "--output", "json"]).expect(1))["seen"]);
    let text = user.quorate(&["status"]).expect(1).stdout;
    assert!(
        text.contains("rolled back: ")
            && text.contains("\nseen:  height ")
            && text.contains("\nshown: height "),
        "{text}"
    );
    let refusal = user.refused_mount();
    assert!(refusal.contains("rolled back: ") && refusal.contains("seen --forget"), "{refusal}");
    assert_eq!(user.seen(), Some(seen), "what was seen stays");
    // On purpose.
    user.forget();
    assert_eq!(user.status().0, 0);
    assert!(user.seen().unwrap() < seen);
}

#[test]
fn a_second_history_is_noticed_and_both_heads_are_printed() {
    let (cluster, early) = with_a_past();
    let user = User { cluster: &cluster };
    // What a mount sees is remembered, too.
    let mount = cluster.home().join("mount-user");
    std::fs::create_dir_all(&mount).unwrap();
    user.quorate(&["mount", mount.to_str().unwrap()]).expect(0);
    run(quorate(["umount"]).arg(&mount), PATIENCE).expect(0);
    let seen = user.seen().unwrap();
    assert!(seen > early);
    cluster.local.stop_all();
    put_back(&cluster, "early", &[0, 1, 2, 3]);
    cluster.local.start_all().unwrap();
    // The same keys sign another history, beyond what was seen.
    let other = write(&cluster, "for i in {1..60}; do mkdir d/other-$i; done");
    assert!(other > seen, "{other} {seen}");
    let told = |shown: &Value| {
        assert_eq!(shown["verdict"], "forked", "{shown:#}");
        let [one, other] = [0, 1].map(|which| &shown["conflict"]["heads"][which]);
        assert_eq!((&one["height"], &other["height"]), (&seen.into(), &seen.into()));
        assert_ne!(one["header"], other["header"]);
        for head in [one, other] {
            assert!(head["certified_by"].as_array().unwrap().len() >= 3, "{shown:#}");
        }
        assert!(shown["conflict"]["signed_both"].as_array().unwrap().len() >= 2, "{shown:#}");
    };
    let (code, status) = user.status();
    assert_eq!(code, 1);
    told(&status["seen"]);
    let verified = json(&user.quorate(&["audit", "verify", "--output", "json"]).expect(1));
    assert_eq!(verified["verdict"], "broken");
    told(&verified["seen"]);
    told(&json(&user.quorate(&["audit", "compare", "--output", "json"]).expect(1))["seen"]);
    let directory = cluster.local.replica_directory(2).to_str().unwrap().to_owned();
    told(
        &json(&user.quorate(&["audit", "verify", "--dir", &directory, "--output", "json"]).expect(1))["seen"],
    );
    let text = user.quorate(&["audit", "verify"]).expect(1).stdout;
    assert!(
        text.contains("forked: ") && text.contains("\none:   height ") && text.contains("\nother: height "),
        "{text}"
    );
    assert!(user.refused_mount().contains("forked: "));
    assert_eq!(user.seen(), Some(seen));
    // Damage to what is remembered is an error, never nothing.
    let file = std::fs::read_dir(cluster.home().join("state")).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|name| name == "anchor")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    user.quorate(&["audit", "compare"]).expect_one_line(2, &["damaged", "seen --forget"]);
    user.quorate(&["status"]).expect_one_line(1, &["damaged", "seen --forget"]);
    user.forget();
    assert_eq!(user.status().0, 0);
}

#[test]
fn an_audit_starts_from_an_anchor_that_it_is_given() {
    let cluster = Cluster::start();
    write(&cluster, "mkdir d");
    let at = |name: &str| cluster.home().join(name).to_str().unwrap().to_owned();
    let (anchor, bundle) = (at("anchor"), at("bundle"));
    let kept = json(&cluster.quorate(&["audit", "verify", "--keep", &anchor, "--output", "json"]).expect(0));
    let height = kept["verified_height"].as_u64().unwrap();
    write(&cluster, "for i in {1..20}; do echo $i > d/$i; done");
    let whole = json(&cluster.quorate(&["audit", "verify", "--output", "json"]).expect(0));
    let rest = json(&cluster.quorate(&["audit", "verify", "--from", &anchor, "--output", "json"]).expect(0));
    assert!(rest["verified_height"].as_u64().unwrap() >= whole["verified_height"].as_u64().unwrap());
    assert!(rest["signatures"].as_u64().unwrap() < whole["signatures"].as_u64().unwrap());
    let lines = cluster.quorate(&["audit", "watch", "--from", &anchor]).expect(0).stdout;
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(first["height"].as_u64().unwrap() > height);
    cluster.quorate(&["audit", "export", &bundle]).expect(0);
    cluster.local.stop_all();
    let directory = cluster.local.replica_directory(1).to_str().unwrap().to_owned();
    for place in [["--dir", &directory], ["--bundle", &bundle]] {
        let mut arguments = vec!["audit", "verify", "--output", "json", "--from", &anchor];
        arguments.extend(place);
        let stored = json(&cluster.quorate_alone(&arguments).expect(0));
        assert!(stored["verified_height"].as_u64().unwrap() >= whole["verified_height"].as_u64().unwrap());
    }
    // It is checked itself, is of this cluster, and does not replace the state.
    cluster
        .quorate(&["audit", "verify", "--from", &anchor, "--keep", &anchor])
        .expect_one_line(2, &["exists"]);
    let ran = cluster.quorate_alone(&["audit", "verify", "--full", "--from", &anchor, "--bundle", &bundle]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let other = Cluster::create();
    other
        .quorate_alone(&["audit", "verify", "--from", &anchor, "--dir", &directory])
        .expect_one_line(2, &["cluster"]);
    let mut bytes = std::fs::read(&anchor).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&anchor, &bytes).unwrap();
    cluster
        .quorate_alone(&["audit", "verify", "--from", &anchor, "--bundle", &bundle])
        .expect_one_line(2, &["anchor", "damaged"]);
}
