//! The oracle: `merkle/oracle/`, a second implementation in Python of `docs/SPEC/merkle.md`, and this crate say
//! the same of the committed vectors and of random maps, proofs and forgeries (hazards ST11, RD4).
//!
//! `QUORATE_BLESS=1` writes the vectors anew; `QUORATE_ORACLE_SEED=n` repeats a run of random requests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod proofs;
mod random;
mod respond;
mod vectors;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{fs, thread};

use respond::respond;
use serde_json::Value;
use vectors::{File, Vector};

const ORACLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/oracle");
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
const FILES: [&str; 4] = ["blake3.json", "maps.json", "proofs.json", "changes.json"];
/// Maps for each of the two seeds. Each comes with eight requests.
const MAPS: usize = 120;
const FIXED_SEED: u64 = 1;

fn python(oracle: &Path) -> Command {
    let mut command = Command::new("python3");
    // No byte code is left beside the sources.
    command.arg("-B").arg(oracle.join("oracle.py"));
    command
}

fn check(oracle: &Path, files: &[PathBuf]) -> Output {
    python(oracle).arg("check").args(files).output().unwrap()
}

fn committed(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| Path::new(VECTORS).join(name)).collect()
}

/// A fresh directory for what a test writes.
fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("oracle-{name}"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn text_of((_, about, vectors): &File) -> String {
    let lines: Vec<_> = vectors
        .iter()
        .map(|Vector { name, request, answer }| {
            let name = Value::from(name.as_str());
            format!("{{\"name\": {name}, \"request\": {request}, \"answer\": {answer}}}")
        })
        .collect();
    format!("{{\"about\": {}, \"vectors\": [\n{}\n]}}\n", Value::from(*about), lines.join(",\n"))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What the oracle answers, a line each. The requests are written from a thread of their own: neither side
/// waits for the other.
fn oracle_answers(requests: &[Value]) -> Vec<Value> {
    let mut child =
        python(Path::new(ORACLE)).arg("answer").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
    let writer = thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = BufReader::new(child.stdout.take().unwrap());
    let answers = output.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success(), "the oracle refused a request");
    answers
}

/// The requests that are not answered as expected.
fn disagreements<'a>(requests: &'a [Value], expected: &[Value], found: &[Value]) -> Vec<&'a Value> {
    assert_eq!((requests.len(), requests.len()), (expected.len(), found.len()));
    let differ = |index: &usize| expected[*index] != found[*index];
    (0..requests.len()).filter(differ).map(|index| &requests[index]).collect()
}

/// What the answers to proofs were, by their first words.
fn kinds(answers: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        let words = answer.as_array().map_or_else(
            || vec![answer.as_str().unwrap()],
            |each| each.iter().map(|answer| answer[0].as_str().unwrap()).collect(),
        );
        for word in words {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn the_committed_vectors_are_what_the_code_makes() {
    for file in vectors::files() {
        let path = Path::new(VECTORS).join(file.0);
        if std::env::var_os("QUORATE_BLESS").is_some() {
            fs::write(&path, text_of(&file)).unwrap();
        }
        let made: Value = serde_json::from_str(&text_of(&file)).unwrap();
        let committed = read(&path);
        let pairs = |value: &Value| value["vectors"].as_array().unwrap().clone();
        for (made, committed) in pairs(&made).iter().zip(&pairs(&committed)) {
            assert_eq!(made, committed, "{}: the format changed", file.0);
        }
        assert_eq!(made, committed, "{}", file.0);
    }
}

#[test]
fn this_crate_holds_to_the_vectors() {
    for path in committed(&FILES) {
        for vector in read(&path)["vectors"].as_array().unwrap() {
            assert_eq!(
                respond(&vector["request"]),
                vector["answer"],
                "{}: {}",
                path.display(),
                vector["name"]
            );
        }
    }
}

#[test]
fn the_oracle_holds_to_the_vectors() {
    let output = check(Path::new(ORACLE), &committed(&FILES));
    assert!(output.status.success(), "{output:?}");
}

/// RD4, ST11: random maps, copies for questions, copies of any part, damaged copies, and forged ones.
#[test]
fn rd4_st11_both_say_the_same_of_random_proofs() {
    let given = std::env::var("QUORATE_ORACLE_SEED").ok().and_then(|seed| seed.parse().ok());
    let fresh = given.unwrap_or_else(|| RandomState::new().hash_one("a seed"));
    println!("seeds {FIXED_SEED} and {fresh}; QUORATE_ORACLE_SEED={fresh} repeats this run");
    let requests = [random::requests(FIXED_SEED, MAPS), random::requests(fresh, MAPS)].concat();
    let expected: Vec<Value> = requests.iter().map(respond).collect();
    let found = oracle_answers(&requests);
    assert_eq!(disagreements(&requests, &expected, &found), Vec::<&Value>::new(), "seed {fresh}");

    // The requests reach every verdict and every answer.
    let fixed = requests.iter().zip(&found).take(requests.len() / 2);
    let proofs: Vec<Value> = fixed
        .filter(|(request, _)| request.get("copy").is_some())
        .map(|(_, answer)| answer.clone())
        .collect();
    let kinds = kinds(&proofs);
    println!("{kinds:?}");
    for kind in
        ["refused", "wrong root", "missing", "absent", "value", "value hash", "entries", "key", "left edge"]
    {
        assert!(kinds.get(kind).is_some_and(|count| *count >= 20), "{kind}: {kinds:?}");
    }
    // The comparison can fail: one answer doctored on either side is one disagreement.
    let mut doctored = expected.clone();
    doctored[3] = Value::from("another verdict");
    assert_eq!(disagreements(&requests, &doctored, &found), [&requests[3]]);
    assert_eq!(disagreements(&requests, &expected, &doctored), [&requests[3]]);
}

/// A doctored vector, and each rule of the specification broken in a copy of the oracle, is noticed.
#[test]
fn what_changes_on_either_side_is_noticed() {
    let directory = scratch("doctored");
    let text = fs::read_to_string(Path::new(VECTORS).join("proofs.json")).unwrap();
    let doctored = directory.join("proofs.json");
    fs::write(&doctored, text.replacen("\"absent\"", "\"missing\"", 1)).unwrap();
    let output = check(Path::new(ORACLE), &[doctored]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("1 do not hold"));

    for file in ["oracle.py", "plain_blake3.py", "trie.py"] {
        fs::copy(Path::new(ORACLE).join(file), directory.join(file)).unwrap();
    }
    let original = fs::read_to_string(directory.join("trie.py")).unwrap();
    for (rule, broken) in BREAKAGES {
        assert!(original.contains(rule), "the oracle has no longer: {rule}");
        fs::write(directory.join("trie.py"), original.replacen(rule, broken, 1)).unwrap();
        let output = check(&directory, &committed(&["proofs.json"]));
        assert_eq!(output.status.code(), Some(1), "nobody noticed: {broken}\n{output:?}");
    }
}

#[test]
fn the_oracle_reads_a_dump() {
    let dump = scratch("dump").join("map.txt");
    let run = |text: &str| {
        fs::write(&dump, text).unwrap();
        python(Path::new(ORACLE)).arg("root").arg(&dump).output().unwrap()
    };
    // Of the last two, of many hashes, the roots are checked with the vectors.
    for vector in &read(&Path::new(VECTORS).join("maps.json"))["vectors"].as_array().unwrap()[..8] {
        let pairs = vector["request"]["map"].as_array().unwrap();
        let line = |pair: &Value| format!("{} {}\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        let output = run(&pairs.iter().map(line).collect::<String>());
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), vector["answer"], "{}", vector["name"]);
    }
    let (low, high) = ("00".repeat(32), "ff".repeat(32));
    for bad in
        [format!("{high} \n{low} \n"), format!("{low} \n{low} \n"), format!("{low}\n"), format!("{low} 0\n")]
    {
        assert_eq!(run(&bad).status.code(), Some(2), "{bad}");
    }
}

/// What is not a request of section 3.5 ends the oracle with exit code 2; it never guesses.
#[test]
fn the_oracle_refuses_bad_requests() {
    let key = "00".repeat(32);
    let asked = |question: &str| format!(r#"{{"root":"{EMPTY}","copy":"0100","questions":[{question}]}}"#);
    let good = asked(&format!(r#"["get","{key}"]"#));
    let bad = [
        "no JSON".to_owned(),
        "[]".to_owned(),
        "[".repeat(100_000),
        r#"{"map":[],"more":1}"#.to_owned(),
        good.replace("0100", "010"),
        good.replace("0100", "01 00"),
        good.replace(EMPTY, &EMPTY.to_uppercase()),
        good.replace(EMPTY, &EMPTY[2..]),
        asked(&format!(r#"["get","{key}00"]"#)),
        asked(&format!(r#"["guess","{key}"]"#)),
        asked(&format!(r#"["scan","{key}",null,0]"#)),
        asked(&format!(r#"["scan","{key}",null,true]"#)),
    ];
    for (request, code) in std::iter::once((&good, 0)).chain(bad.iter().map(|bad| (bad, 2))) {
        let mut child = python(Path::new(ORACLE))
            .arg("answer")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{request}");
    }
}

/// The root of the empty trie.
const EMPTY: &str = "9aca464f771b8e4cb9ecbee7975af74881735bdb376cc87fca61b259683e6f7d";

/// Rules of the specification as the oracle has them, and the same broken.
const BREAKAGES: [(&str, &str); 19] = [
    ("\"quorate merkle v1 \"", "\"quorate merkle v2 \""),
    ("f\"inner {parent.bit}\"", "f\"inner {0}\""),
    ("(7 - bit % 8)", "(bit % 8)"),
    ("if self.take(1)[0] != FORMAT:", "if self.take(1)[0] == EMPTY:"),
    ("if self.at != len(data):", "if False:"),
    ("if count > len(self.data) - self.at:", "if False:"),
    ("if tag == EMPTY and count == 0:", "if tag == EMPTY:"),
    ("bit <= path[-1].bit", "bit < path[-1].bit"),
    ("if isinstance(left, Stub) and isinstance(node, Stub):", "if False:"),
    ("if isinstance(node, Stub):\n            raise Refused", "if False:\n            raise Refused"),
    ("if any(bit_of(key, above.bit)", "if any(False and bit_of(key, above.bit)"),
    ("if first_difference(last[0], key) != above_both[-1].bit:", "if False:"),
    ("raise Missing(\"the walk ends in a stub\")", "return None"),
    ("raise Missing(\"the value is pruned\")", "return None"),
    ("elif end.key < low:\n                hidden = False", "elif end.key < low:\n                pass"),
    ("            elif hidden:\n                break\n            elif high", "            elif high"),
    ("elif high is not None and end.key >= high:", "elif False:"),
    ("if len(entries) == limit:", "if False:"),
    ("last, hidden = end.key, False", "last = end.key"),
];
