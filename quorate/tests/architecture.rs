//! The architecture's invariants that a program can check: who may depend on whom, what a source file looks
//! like, and what must not be in one (docs/ARCHITECTURE.md).
#![allow(missing_docs)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines that a source file may have.
const FILE_LINES_MAX: usize = 600;

/// The rooms without clock, randomness, threads and I/O.
const DETERMINISTIC: [&str; 7] =
    ["crypto", "merkle", "protocol", "metadata", "execution", "consensus", "audit"];

/// Which rooms each room may know.
const ARROWS: [(&str, &[&str]); 19] = [
    ("crypto", &[]),
    ("merkle", &["crypto"]),
    ("protocol", &["crypto"]),
    ("metadata", &["crypto", "protocol"]),
    ("execution", &["crypto", "merkle", "protocol", "metadata"]),
    ("consensus", &["crypto", "protocol"]),
    ("audit", &["crypto", "merkle", "protocol", "metadata", "execution"]),
    ("history", &[]),
    ("store", &["crypto", "protocol"]),
    ("transport", &["crypto", "protocol"]),
    (
        "replica",
        &[
            "crypto",
            "merkle",
            "protocol",
            "metadata",
            "execution",
            "consensus",
            "audit",
            "store",
            "transport",
        ],
    ),
    ("client", &["crypto", "merkle", "protocol", "metadata", "execution", "transport"]),
    ("client-fuse", &["crypto", "protocol", "metadata", "client"]),
    ("cluster", &["crypto", "protocol", "history", "transport", "replica", "client"]),
    ("sim", &["crypto", "merkle", "protocol", "metadata", "execution", "consensus", "audit", "history"]),
    ("model", &[]),
    ("bench", &["crypto", "protocol", "execution", "history", "transport", "client", "cluster"]),
    (
        "fuzz",
        &[
            "crypto",
            "merkle",
            "protocol",
            "metadata",
            "execution",
            "consensus",
            "audit",
            "store",
            "transport",
        ],
    ),
    (
        "quorate",
        &[
            "crypto",
            "merkle",
            "protocol",
            "metadata",
            "execution",
            "audit",
            "history",
            "store",
            "transport",
            "replica",
            "client",
            "client-fuse",
            "cluster",
            "bench",
        ],
    ),
];

/// Packages that one room alone may depend on directly.
const OWNED: [(&str, &str); 4] =
    [("rocksdb", "store"), ("quinn", "transport"), ("rustls", "transport"), ("fuser", "client-fuse")];

/// What no deterministic room may reach, through whomever.
const FORBIDDEN: [&str; 10] =
    ["tokio", "quinn", "rocksdb", "fuser", "rustls", "nix", "libc", "rand", "getrandom", "rayon"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn manifest(room: &str) -> toml::Table {
    std::fs::read_to_string(workspace().join(room).join("Cargo.toml")).unwrap().parse().unwrap()
}

fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    manifest
        .get("dependencies")
        .and_then(toml::Value::as_table)
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn arrows_point_one_way() {
    let known: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let root: toml::Table = std::fs::read_to_string(workspace().join("Cargo.toml")).unwrap().parse().unwrap();
    for room in root["workspace"]["members"].as_array().unwrap() {
        let room = room.as_str().unwrap();
        let allowed = known.get(room).unwrap_or_else(|| panic!("{room} has no place in the architecture"));
        for dependency in dependencies(&manifest(room)) {
            if let Some(other) = dependency.strip_prefix("quorate-") {
                assert!(allowed.contains(&other), "{room} must not know {other}");
            }
            for (package, owner) in OWNED {
                assert!(
                    dependency != package || room == owner,
                    "only {owner} may depend on {package}, not {room}"
                );
            }
        }
    }
}

/// Everything that each package of this workspace is built with, through whomever, build scripts left out.
fn reachable(metadata: &Value, from: &str) -> BTreeSet<String> {
    let name_of = |id: &Value| {
        let packages = metadata["packages"].as_array().unwrap();
        packages.iter().find(|package| package["id"] == *id).unwrap()["name"].as_str().unwrap().to_owned()
    };
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let start =
        metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == from).unwrap();
    let mut waiting = vec![start["id"].as_str().unwrap()];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let normal =
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            let next = dependency["pkg"].as_str().unwrap();
            if normal && seen.insert(next) {
                waiting.push(next);
            }
        }
    }
    seen.into_iter().map(|id| name_of(&Value::from(id))).collect()
}

#[test]
fn deterministic_rooms_reach_nothing_of_the_outside_world() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    for room in DETERMINISTIC {
        let reached = reachable(&metadata, &format!("quorate-{room}"));
        for package in FORBIDDEN {
            // blake3 and sha2 ask the processor for its features by libc or cpufeatures, and do no more.
            let harmless = package == "libc";
            assert!(harmless || !reached.contains(package), "{room} reaches {package}");
        }
    }
}

#[test]
fn deterministic_rooms_deny_what_can_panic() {
    for room in DETERMINISTIC {
        let manifest = manifest(room);
        let lint = |tool: &str, name: &str| {
            let level = manifest.get("lints")?.get(tool)?.get(name)?;
            level.as_str().or_else(|| level.get("level")?.as_str()).map(str::to_owned)
        };
        assert_eq!(lint("rust", "unsafe_code").as_deref(), Some("forbid"), "{room}");
        for name in ["unwrap_used", "expect_used", "panic", "indexing_slicing", "arithmetic_side_effects"] {
            let level = lint("clippy", name);
            assert!(
                matches!(level.as_deref(), Some("deny" | "forbid")),
                "{room}: clippy::{name} is {level:?}"
            );
        }
    }
}

#[test]
fn fault_injection_is_never_a_default() {
    for (room, _) in ARROWS {
        let manifest = manifest(room);
        let default = manifest.get("features").and_then(|features| features.get("default"));
        let names: Vec<&str> = default
            .and_then(toml::Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(toml::Value::as_str)
            .collect();
        assert!(!names.iter().any(|name| name.contains("faults")), "{room}: {names:?}");
        for dependency in dependencies(&manifest) {
            let features = manifest["dependencies"][&dependency].get("features");
            let features = features.and_then(toml::Value::as_array).into_iter().flatten();
            for feature in features {
                assert_ne!(feature.as_str(), Some("faults"), "{room} switches on the faults of {dependency}");
            }
        }
    }
}

/// All files of ours with one of these endings.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![workspace()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !["target", "vendor", ".git"].contains(&name) {
                    waiting.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn source_files_are_short_and_say_what_they_hold() {
    let sources = files(&[".rs"]);
    assert!(sources.len() > 100);
    let mut faults = Vec::new();
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{} has {lines} lines", path.display()));
        }
        if !text.starts_with("//! ") {
            faults.push(format!("{} does not open with what it holds", path.display()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn nothing_unfinished_and_no_path_of_one_machine_is_in_the_tree() {
    // Put together here, so that this file is not what is found.
    let in_sources = [
        ["#[ig", "nore"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
        ["dbg", "!("].concat(),
    ];
    let anywhere = [["/wo", "rk/main"].concat(), ["/wo", "rk/shared"].concat(), ["/ro", "ot/"].concat()];
    let mut faults = Vec::new();
    for path in files(&[".rs", ".sh", ".md", ".toml", ".txt", "run"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let source = path.extension().is_some_and(|ending| ending == "rs");
        let words = anywhere.iter().chain(in_sources.iter().filter(|_| source));
        for word in words.filter(|word| text.contains(word.as_str())) {
            faults.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
