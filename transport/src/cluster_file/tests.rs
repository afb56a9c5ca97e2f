//! Cluster files: round trip, and every way to be wrong.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use quorate_crypto::NodeSeed;

use super::*;
use crate::tests::common::genesis;

fn file() -> ClusterFile {
    let seeds: Vec<NodeSeed> = (1..=4).map(|byte| NodeSeed::from_bytes([byte; 32])).collect();
    let addresses: Vec<String> = (0..4).map(|port| format!("127.0.0.1:{}", 7000 + port)).collect();
    ClusterFile::new(genesis(&seeds, &addresses))
}

#[test]
fn round_trip_with_moved_addresses() {
    let file = file();
    assert_eq!(ClusterFile::parse(&file.to_toml()).unwrap(), file);
    let moved = file.clone().with_address(2, Address::try_from("[::1]:9").unwrap());
    let read = ClusterFile::parse(&moved.to_toml()).unwrap();
    assert_eq!(read, moved);
    assert_eq!(read.cluster(), file.cluster());
    assert_eq!(read.target(2).unwrap().address.as_str(), "[::1]:9");
    assert_eq!(read.target(2).unwrap().key, file.members().get(2).unwrap().transport);
    assert!(read.target(4).is_none());
}

#[test]
fn written_files_are_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    file().write(&path).unwrap();
    file().with_address(0, Address::try_from("host:1").unwrap()).write(&path).unwrap();
    assert_eq!(ClusterFile::read(&path).unwrap().addresses()[0].as_str(), "host:1");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let missing = ClusterFile::read(&directory.path().join("none"));
    assert!(matches!(missing, Err(ClusterFileError::Io { .. })));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(ClusterFile::read(&path), Err(ClusterFileError::NotAClusterFile(_))));
    std::fs::write(&path, vec![b'#'; CLUSTER_FILE_BYTES_MAX as usize + 1]).unwrap();
    assert!(matches!(ClusterFile::read(&path), Err(ClusterFileError::NotAClusterFile(_))));
}

#[test]
fn foreign_newer_and_damaged_files_are_told_apart() {
    let text = file().to_toml();
    let parse = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        ClusterFile::parse(&text.replacen(from, to, 1)).unwrap_err()
    };
    for foreign in ["", "not toml at all {", "[package]\nname = \"x\"\n"] {
        assert!(matches!(ClusterFile::parse(foreign), Err(ClusterFileError::NotAClusterFile(_))));
    }
    assert!(matches!(parse("version = 1", "version = 2"), ClusterFileError::Newer(2)));
    assert!(matches!(parse("version = 1", "version = 0"), ClusterFileError::Damaged(_)));
    assert!(matches!(parse("genesis = \"01", "genesis = \"xx"), ClusterFileError::Damaged(_)));
    assert!(matches!(parse("genesis = \"01", "genesis = \""), ClusterFileError::Genesis(_)));
    assert!(matches!(parse("index = 1", "index = 2"), ClusterFileError::Damaged(_)));
    assert!(matches!(parse("index = 1\n", ""), ClusterFileError::Damaged(_)));
    assert!(matches!(parse("127.0.0.1:7001", "127.0.0.1"), ClusterFileError::Damaged(_)));
    assert!(matches!(parse("address = \"127.0.0.1:7001\"", "address = 5"), ClusterFileError::Damaged(_)));
    let last = text.rfind("[[replica]]").unwrap();
    assert!(matches!(ClusterFile::parse(&text[..last]), Err(ClusterFileError::Damaged(_))));
    let other = ClusterFileError::OtherKey { index: 0, key: "transport" };
    let transport = file().members().get(0).unwrap().transport.to_string();
    let swapped = file().members().get(1).unwrap().transport.to_string();
    assert_eq!(
        parse(&format!("transport = \"{transport}"), &format!("transport = \"{swapped}")).to_string(),
        other.to_string()
    );
}

#[test]
fn golden_layout() {
    let text = file().to_toml();
    let keys: Vec<&str> = text.lines().filter_map(|line| line.split([' ', '=']).next()).collect();
    let table = [
        "",
        "[[replica]]",
        "index",
        "address",
        "consensus",
        "transport",
        "blocks",
        "log_note",
        "log_cosignature",
    ];
    let mut wanted = vec!["#", "#", "format", "version", "cluster", "genesis"];
    wanted.extend(table.iter().cycle().take(4 * table.len()));
    assert_eq!(keys, wanted);
    assert!(text.contains("\nformat = \"quorate-cluster\"\nversion = 1\ncluster = \""));
    assert!(text.contains("\nindex = 3\naddress = \"127.0.0.1:7003\"\nconsensus = \""));
}

#[test]
fn another_clusters_genesis_is_named() {
    let file = file();
    let mut other = file.genesis().clone();
    other.nonce = [8; 32];
    let other = ClusterFile::new(other);
    let mixed = file.to_toml().replace(&file.cluster().to_string(), &other.cluster().to_string());
    match ClusterFile::parse(&mixed) {
        Err(ClusterFileError::OtherGenesis { named, actual }) => {
            assert_eq!((named, actual), (other.cluster(), file.cluster()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn any_changed_byte_of_the_essential_lines_is_noticed() {
    let text = file().to_toml();
    let essential = text.find("format =").unwrap();
    for position in essential..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[position] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        if let Ok(parsed) = ClusterFile::parse(&changed) {
            // What may change are addresses, case and white space, never who the cluster is.
            assert_eq!(parsed.genesis(), file().genesis(), "position {position}");
        }
    }
}
