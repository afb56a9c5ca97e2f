//! Policies: round trip, and every way to be wrong.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use quorate_crypto::NodeSeed;

use super::*;
use crate::ClusterFile;
use crate::tests::common::genesis;

fn policy() -> PolicyFile {
    let seeds: Vec<NodeSeed> = (1..=4).map(|byte| NodeSeed::from_bytes([byte; 32])).collect();
    let addresses: Vec<String> = (0..4).map(|port| format!("127.0.0.1:{}", 7000 + port)).collect();
    PolicyFile::new(genesis(&seeds, &addresses))
}

#[test]
fn round_trip() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy");
    std::fs::write(&path, policy().to_toml()).unwrap();
    assert_eq!(PolicyFile::read(&path).unwrap(), policy());
    assert!(policy().to_toml().contains("\nquorum = 3\n"));
    // Comments and empty lines are nobody's business.
    let text = format!("# of the auditors\n\n{}", policy().to_toml());
    assert_eq!(PolicyFile::parse(&text).unwrap(), policy());
    let missing = PolicyFile::read(&directory.path().join("none"));
    assert!(matches!(missing, Err(PolicyFileError::Io { .. })));
    std::fs::write(&path, vec![b'#'; POLICY_FILE_BYTES_MAX as usize + 1]).unwrap();
    assert!(matches!(PolicyFile::read(&path), Err(PolicyFileError::NotAPolicy(_))));
}

#[test]
fn what_is_not_said_by_the_genesis_is_refused() {
    let text = policy().to_toml();
    let parse = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        PolicyFile::parse(&text.replacen(from, to, 1)).unwrap_err()
    };
    let of = policy().genesis().cluster();
    let contradicts =
        |error| assert!(matches!(error, PolicyFileError::Contradiction(cluster) if cluster == of));
    contradicts(parse("quorum = 3", "quorum = 1"));
    contradicts(parse("epoch = 0", "epoch = 1"));
    contradicts(parse("index = 1", "index = 2"));
    contradicts(parse(&of.to_string(), &Hash([7; 32]).to_string()));
    contradicts(parse("quorum = 3\n", ""));
    contradicts(parse("quorum = 3\n", "quorum = 3\nothers = \"trusted, too\"\n"));
    let key = policy().genesis().members.members()[2].consensus;
    contradicts(parse(&format!("consensus = \"{key}"), "consensus = \"00"));
    assert!(matches!(parse("version = 1", "version = 2"), PolicyFileError::Newer(2)));
    assert!(matches!(parse("version = 1", "version = 0"), PolicyFileError::NotAPolicy(_)));
    assert!(matches!(parse("genesis = \"01", "genesis = \"xx"), PolicyFileError::NotAPolicy(_)));
    assert!(matches!(parse("genesis = \"01", "genesis = \""), PolicyFileError::Genesis(_)));
    // A cluster file is none: it says where to call, too.
    let cluster = ClusterFile::new(policy().genesis().clone()).to_toml();
    for foreign in ["", "not toml at all {", cluster.as_str()] {
        assert!(matches!(PolicyFile::parse(foreign), Err(PolicyFileError::NotAPolicy(_))));
    }
}

#[test]
fn a_changed_byte_changes_nothing_that_is_trusted_or_is_refused() {
    let text = policy().to_toml().into_bytes();
    for at in 0..text.len() {
        for bit in [0x01, 0x20] {
            let mut changed = text.clone();
            changed[at] ^= bit;
            let parsed = std::str::from_utf8(&changed).ok().and_then(|text| PolicyFile::parse(text).ok());
            // In a comment, or white space.
            assert!(parsed.is_none_or(|parsed| parsed == policy()), "byte {at}");
        }
    }
}

/// The layout is bound: policies that were handed out must be read for ever.
#[test]
fn golden_layout() {
    let text = policy().to_toml();
    let keys: Vec<&str> = text.lines().filter_map(|line| line.split([' ', '=']).next()).collect();
    let mut wanted = vec!["#", "#", "format", "version", "cluster", "genesis", "epoch", "quorum"];
    let table = ["", "[[replica]]", "index", "consensus"];
    wanted.extend(table.iter().cycle().take(4 * table.len()));
    assert_eq!(keys, wanted);
}
