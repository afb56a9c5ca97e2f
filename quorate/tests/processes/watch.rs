//! The change stream: the same lines from wherever the history is read, resumable, and followed while it grows.

use crate::harness::{Cluster, PATIENCE, quorate, run, wait_until};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::Duration;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn every_operation_is_a_line_wherever_it_is_read() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    mount.shell(
        "mkdir d; echo hello > 'd/odd\nname'; mv 'd/odd\nname' d/b; chmod 600 d/b; mkdir d/b || true; rm d/b",
    );
    mount.unmount();
    cluster.settle();
    let bundle = cluster.home().join("history.bundle").to_str().unwrap().to_owned();
    cluster.quorate(&["audit", "export", &bundle]).expect(0);
    let live = lines(&cluster.quorate(&["audit", "watch"]).expect(0).stdout);
    cluster.local.stop_all();
    let directory = cluster.local.replica_directory(1).to_str().unwrap().to_owned();
    let stored = lines(&cluster.quorate_alone(&["audit", "watch", "--dir", &directory]).expect(0).stdout);
    let bundled = lines(&cluster.quorate_alone(&["audit", "watch", "--bundle", &bundle]).expect(0).stdout);
    assert_eq!(stored[..bundled.len()], bundled[..]);
    assert_eq!(live[..bundled.len()], bundled[..]);

    // Numbers without a gap, what was done, by whom, with names escaped.
    for (number, line) in (1..).zip(&stored) {
        assert_eq!(line["operation"], number);
        assert!(line["height"].as_u64().unwrap() > 0 && line["time_ns"].as_u64().unwrap() > 0, "{line}");
        assert_eq!(line["key"], stored[0]["key"]);
    }
    assert_eq!(stored[0]["kind"], "register");
    let of = |kind: &str| {
        stored.iter().find(|line| line["kind"] == kind).unwrap_or_else(|| panic!("no {kind}: {stored:#?}"))
    };
    assert_eq!((&of("mkdir")["arguments"]["name"], &of("mkdir")["uid"]), (&"d".into(), &0.into()));
    assert_eq!(of("rename")["arguments"]["name"], "odd\\nname");
    assert_eq!(of("set-attributes")["arguments"]["mode"], "0600");
    assert_eq!(of("write")["arguments"]["bytes"], 6);
    assert!(of("unlink").get("result").is_none());

    // From a height on, with what came of each.
    let after = of("rename")["height"].as_u64().unwrap();
    let arguments = ["audit", "watch", "--results", "--after", &after.to_string(), "--bundle", &bundle];
    let rest = lines(&cluster.quorate_alone(&arguments).expect(0).stdout);
    let wanted: Vec<&Value> =
        bundled.iter().filter(|line| line["height"].as_u64().unwrap() > after).collect();
    assert_eq!(rest.len(), wanted.len());
    for (line, wanted) in rest.iter().zip(wanted) {
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(&line[name], value);
        }
        assert_eq!(line["result"], "done", "{line}");
    }
    // What does not hold is not printed.
    let mut bytes = std::fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bundle, &bytes).unwrap();
    let ran = cluster.quorate_alone(&["audit", "watch", "--bundle", &bundle]).expect(1);
    assert!(ran.stderr.contains("broken: height "), "{}", ran.stderr);
    let before = lines(&ran.stdout);
    assert_eq!(before[..], bundled[..before.len()]);
    let mut command = quorate(["audit", "watch", "--follow", "--bundle", &bundle]);
    assert_eq!(run(command.args(cluster.arguments()), PATIENCE).code, 2);
}

#[test]
fn a_watch_goes_on_while_the_cluster_does_and_while_it_does_not() {
    let cluster = Cluster::start();
    cluster.settle();
    let mut command = quorate(["audit", "watch", "--follow", "--results", "--interval-ms", "100"]);
    command.args(cluster.arguments()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (sender, receiver) = channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in stdout.lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let _ = sender.send(line);
        }
    });
    let wait_for = |name: &str| loop {
        let line =
            receiver.recv_timeout(Duration::from_secs(40)).unwrap_or_else(|error| panic!("{name}: {error}"));
        if line["kind"] == "mkdir" && line["arguments"]["name"] == name {
            assert_eq!(line["result"], "done");
            return;
        }
    };
    let mkdir = |name: &str| {
        let mount = cluster.mount("a");
        std::fs::create_dir(mount.at(name)).unwrap();
        mount.unmount();
    };
    mkdir("one");
    wait_for("one");
    cluster.local.stop_all();
    std::thread::sleep(Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none(), "it waits for the cluster to come back");
    cluster.local.start_all().unwrap();
    mkdir("two");
    wait_for("two");
    // Nobody reads any more: it ends by itself with the next line, or is ended.
    child.kill().unwrap();
    wait_until("it has ended", PATIENCE, || child.try_wait().unwrap().is_some());
    reader.join().unwrap();
    let mut words = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut words).unwrap();
    assert_eq!(words.lines().filter(|line| line.contains("asking again")).count(), 1, "{words}");
}
