//! Heads of replicas that run: of one chain, or of two, as when a cluster was rolled back and went on otherwise.

use crate::harness::{Cluster, PATIENCE, Ran, shell, wait_until};
use serde_json::Value;
use std::path::Path;

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr))
}

fn write(cluster: &Cluster, script: &str) -> u64 {
    let mount = cluster.mount("a");
    mount.shell(script);
    mount.unmount();
    cluster.settle()["height"].as_u64().unwrap()
}

/// Puts the directory of a replica that does not run in the place of another one.
fn copy(from: &Path, to: &Path) {
    shell(
        Path::new("/"),
        &format!("rm -rf {to} && cp -a {from} {to}", from = from.display(), to = to.display()),
    )
    .expect(0);
}

/// Keeps what all replicas have, which must not run, under a name; and puts it back, of these replicas.
pub fn keep(cluster: &Cluster, name: &str) {
    for replica in cluster.local.indices() {
        copy(&cluster.local.replica_directory(replica), &cluster.home().join(format!("{name}-{replica}")));
    }
}

pub fn put_back(cluster: &Cluster, name: &str, replicas: &[u8]) {
    for replica in replicas {
        copy(&cluster.home().join(format!("{name}-{replica}")), &cluster.local.replica_directory(*replica));
    }
}

#[test]
fn heads_of_one_chain_are_consistent_and_too_few_tell_nothing() {
    let cluster = Cluster::start();
    write(&cluster, "mkdir d; echo one > d/one");
    // One stays behind; what the others have done since is shown by them.
    cluster.local.stop(3).unwrap();
    let mount = cluster.mount("a");
    mount.shell("for i in {1..20}; do echo $i > d/$i; done");
    mount.unmount();
    let compare = || cluster.quorate(&["audit", "compare", "--output", "json"]);
    let shown = json(&compare().expect(0));
    assert_eq!(shown["verdict"], "consistent");
    let replicas = shown["replicas"].as_array().unwrap();
    assert!(
        replicas
            .iter()
            .all(|head| head["replica"] == 3 || head["certified_by"].as_array().unwrap().len() >= 3)
    );
    assert!(replicas[3]["error"].as_str().unwrap().contains("does not answer"), "{shown:#}");
    let text = cluster.quorate(&["audit", "compare"]).expect(0).stdout;
    assert!(text.contains("consistent: 3 of 4 replicas show heads of one chain, up to height "), "{text}");
    cluster.local.stop(2).unwrap();
    compare().expect(0);
    cluster.local.stop(1).unwrap();
    assert_eq!(json(&compare().expect(2))["verdict"], "cannot tell");
}

/// The keys of all replicas sign two histories, as after a restore from a copy: both heads are shown.
#[test]
fn two_histories_are_told_apart_whoever_shows_which() {
    let cluster = Cluster::start();
    write(&cluster, "mkdir d");
    cluster.local.stop_all();
    keep(&cluster, "early");
    cluster.local.start_all().unwrap();
    write(&cluster, "for i in {1..20}; do echo $i > d/$i; done");
    cluster.local.stop_all();
    keep(&cluster, "first");
    put_back(&cluster, "early", &[0, 1, 2, 3]);
    cluster.local.start_all().unwrap();
    write(&cluster, "echo other > d/other");
    cluster.local.stop_all();
    // Two of each.
    put_back(&cluster, "first", &[0, 1]);
    cluster.local.start_all().unwrap();
    let ran = cluster.quorate(&["audit", "compare", "--output", "json"]).expect(1);
    let shown = json(&ran);
    assert_eq!(shown["verdict"], "forked");
    let [one, other] = [0, 1].map(|which| &shown["conflict"]["heads"][which]);
    assert_ne!(one["header"], other["header"]);
    for head in [one, other] {
        assert!(head["certified_by"].as_array().unwrap().len() >= 3, "{shown:#}");
    }
    let text = cluster.quorate(&["audit", "compare"]).expect(1).stdout;
    assert!(
        text.contains("forked: ") && text.contains("one:   height ") && text.contains("other: height "),
        "{text}"
    );
}

/// A replica whose file of signed heads is damaged votes on, signs no heads, and says so to the operator.
#[test]
fn a_replica_that_signs_no_heads_says_so() {
    let cluster = Cluster::start();
    write(&cluster, "mkdir d; echo one > d/one");
    cluster.local.stop(2).unwrap();
    let heads = quorate_store::heads::heads_path(&cluster.local.replica_directory(2));
    std::fs::write(heads, [7; 8192]).unwrap();
    cluster.local.start(2).unwrap();
    write(&cluster, "echo two > d/two");
    let (code, status) = cluster.status();
    assert_eq!((code, status["verdict"].as_str()), (0, Some("healthy")), "{status:#}");
    for (index, replica) in status["replicas"].as_array().unwrap().iter().enumerate() {
        assert_eq!(replica["log_heads_halted"].as_bool(), Some(index == 2), "{status:#}");
    }
    wait_until("the others sign", PATIENCE, || {
        let (_, status) = cluster.status();
        let height = status["height"].as_u64().unwrap();
        let signed = |replica: &Value| replica["log_head"].as_u64() == Some(height + 1);
        status["replicas"].as_array().unwrap().iter().filter(|replica| signed(replica)).count() == 3
    });
    let text = cluster.quorate(&["status"]).expect(0).stdout;
    assert!(text.contains("replica 2 signs no heads of the log any more; its log says why"), "{text}");
    assert!(cluster.log(2).contains("this replica signs no heads"), "{}", cluster.log(2));
}
