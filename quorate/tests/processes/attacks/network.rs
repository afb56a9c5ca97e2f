//! `quorate dev --network`: a network that is worse on purpose, as a user asks for it.

use super::attack_over;
use crate::harness::{PATIENCE, quorate, run};

/// Copies again and again for some time, and compares each copy.
const COPIES: &str = r#"
    copies() {
        local until=$((SECONDS + $1)) number=0
        while [ "$SECONDS" -lt "$until" ] || [ "$number" -lt 2 ]; do
            cp -a "$SOURCE/docs/adr" "copy-$number"
            diff -r "$SOURCE/docs/adr" "copy-$number"
            number=$((number + 1))
        done
        echo "$number copies"
    }"#;

/// The first leader is cut off from everybody for some seconds.
#[test]
fn a_partition_heals() {
    let rules = ["delay=1ms", "0-*:cut,after=3s,for=4s"];
    let attacked = attack_over(4, &[], &rules, &format!("{COPIES}\ncopies 9"));
    attacked.stood();
    let told = (1..4).any(|replica| attacked.log(replica).contains("cannot reach a peer"));
    assert!(told || attacked.ran.stdout.contains("copies"), "{}", attacked.ran.stdout);
    // The cluster file names again where the replicas are.
    let file = std::fs::read_to_string(attacked.directory.join("cluster.toml")).unwrap();
    let own = std::fs::read_to_string(attacked.directory.join("replica-0/cluster.toml")).unwrap();
    assert_eq!(file, own);
}

#[test]
fn five_of_a_hundred_datagrams_are_lost_and_some_arrive_twice() {
    let rules = ["loss=5%,duplicate=2%", "0-1:loss=5%,delay=5ms"];
    attack_over(4, &[], &rules, &format!("{COPIES}\ncopies 1")).stood();
}

#[test]
fn rules_that_mean_nothing_are_named() {
    for (rule, part) in [("0-1:delay=x", "delay=x"), ("0+1:cut", "0+1"), ("7", "7")] {
        let ran = run(&mut quorate(["dev", "--network", rule, "--exec", "true"]), PATIENCE).expect(2);
        assert!(ran.stderr.contains(&format!("`{part}` in `{rule}` is no ")), "{}", ran.stderr);
    }
}
