//! `docs/hazards.md` against the tree: every hazard has its row, and what a row claims is there.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Families of hazards, and how many each one has.
const FAMILIES: [(&str, usize); 11] = [
    ("A", 16),
    ("VC", 22),
    ("AU", 11),
    ("PR", 12),
    ("ST", 11),
    ("CL", 7),
    ("RD", 5),
    ("DT", 3),
    ("RX", 9),
    ("RC", 7),
    ("CR", 6),
];

/// Hazards whose tests are being written elsewhere at this moment. To be empty before a release.
const PENDING: [&str; 0] = [];

/// What a hazard may be open for.
const OPEN: [&str; 2] = ["open: state transfer", "open: reconfiguration"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn identifiers() -> Vec<String> {
    FAMILIES
        .iter()
        .flat_map(|(family, count)| (1..=*count).map(move |number| format!("{family}{number}")))
        .collect()
}

/// The last cell of each row by its identifier.
fn rows() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(workspace().join("docs/hazards.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| hazard ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [identifier, what, covered] = cells[..] else { panic!("three cells: {line}") };
        assert!(!what.is_empty() && !covered.is_empty(), "an empty cell: {line}");
        assert!(
            rows.insert(identifier.to_owned(), covered.to_owned()).is_none(),
            "{identifier} stands twice"
        );
    }
    rows
}

/// The tests that a cell names.
fn tests(cell: &str) -> Vec<(&str, &str)> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(|test| test.split_once("::").unwrap_or_else(|| panic!("no `path::name`: {test}"))).collect()
}

/// What a file says about a test of this name: its name and the comment above it. `None` if it has none. A
/// test that a macro makes stands in a list of names.
fn found(text: &str, name: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let words = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
    let defines = |line: &str| line.contains(&format!("fn {name}("));
    let listed = |line: &str| {
        let line = line.trim();
        words(line) && line.ends_with(',') && !line.starts_with("//") && text.contains("macro_rules!")
    };
    let at =
        lines.iter().position(|line| defines(line)).or_else(|| lines.iter().position(|line| listed(line)))?;
    let above = lines[..at].iter().rev().map(|line| line.trim());
    let comment: Vec<&str> =
        above.take_while(|line| line.starts_with("#[") || line.starts_with("//")).collect();
    Some(format!("{name}\n{}", comment.join("\n")))
}

/// Whether a name like `au4_au5_what` or a comment names the hazard.
fn names(said: &str, identifier: &str) -> bool {
    let lower = identifier.to_lowercase();
    said.split(|c: char| !c.is_alphanumeric()).any(|word| word == identifier || word == lower)
}

#[test]
fn every_hazard_has_one_row() {
    let rows = rows();
    let known = identifiers();
    assert_eq!(known.len(), 109);
    for identifier in &known {
        assert!(rows.contains_key(identifier), "{identifier} has no row");
    }
    for identifier in rows.keys() {
        assert!(known.contains(identifier), "{identifier} is no hazard");
    }
}

#[test]
fn every_row_is_true() {
    let mut faults = Vec::new();
    for (identifier, cell) in rows() {
        if cell.starts_with("pending") {
            assert!(PENDING.contains(&identifier.as_str()), "{identifier} is pending for ever");
            continue;
        }
        assert!(
            !PENDING.contains(&identifier.as_str()),
            "{identifier} is pending no more: take it off the list"
        );
        let says_why = |prefix: &str| cell.strip_prefix(prefix).is_some_and(|why| why.len() > 20);
        if OPEN.iter().any(|open| cell.starts_with(open)) || says_why("does not apply: ") {
            continue;
        }
        let tests = tests(&cell);
        if tests.is_empty() {
            faults.push(format!("{identifier} names no test: {cell}"));
        }
        // A replay of a corpus covers what its target says; `docs/FUZZING.md` names the hazards.
        for (path, name) in tests.into_iter().filter(|(path, _)| !path.starts_with("fuzz/")) {
            let text = std::fs::read_to_string(workspace().join(path)).unwrap_or_default();
            match found(&text, name) {
                None => faults.push(format!("{identifier}: no test {name} in {path}")),
                Some(said) if !names(&said, &identifier) => {
                    faults.push(format!("{identifier}: {path}::{name} does not name it"));
                }
                Some(_) => {}
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn targets_that_are_named_exist_and_say_what_they_cover() {
    let fuzzing = std::fs::read_to_string(workspace().join("docs/FUZZING.md")).unwrap();
    for (identifier, cell) in rows() {
        for (path, name) in tests(&cell).into_iter().filter(|(path, _)| path.starts_with("fuzz/")) {
            let text = std::fs::read_to_string(workspace().join(path)).unwrap();
            assert!(found(&text, name).is_some(), "{identifier}: no test {name} in {path}");
            let row = fuzzing.lines().find(|line| line.starts_with(&format!("| `{name}` ")));
            assert!(
                row.is_some_and(|row| names(row, &identifier)),
                "{name} does not say that it covers {identifier}"
            );
        }
    }
}

#[test]
fn the_check_can_fail() {
    let text = "/// VC3: a story.\n#[test]\nfn a_story() {}\n#[test]\nfn au4_au5_both() {}\n";
    assert!(names(&found(text, "a_story").unwrap(), "VC3"));
    assert!(!names(&found(text, "a_story").unwrap(), "VC33"));
    assert!(names(&found(text, "au4_au5_both").unwrap(), "AU5"));
    assert!(!names(&found(text, "au4_au5_both").unwrap(), "VC3"), "the comment is another test's");
    assert_eq!(found(text, "a_stor"), None);
    assert_eq!(tests("`a.rs::b`, `c.rs::d`"), [("a.rs", "b"), ("c.rs", "d")]);
}
