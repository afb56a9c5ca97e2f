//! Key files: round trip, golden text, and every way to be wrong.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::*;

fn keys() -> [KeyFile; 2] {
    [KeyFile::Node(NodeSeed::from_bytes([1; 32])), KeyFile::Principal(SecretKey::from_bytes(&[2; 32]))]
}

#[test]
fn round_trip_and_kinds() {
    let directory = tempfile::tempdir().unwrap();
    let [node, principal] = ["node", "principal"].map(|name| directory.path().join(name));
    for (key, path) in keys().iter().zip([&node, &principal]) {
        key.write(path).unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o7777, KEY_FILE_MODE);
        let read = KeyFile::read(path).unwrap();
        assert_eq!((read.kind(), read.public(), read.secret()), (key.kind(), key.public(), key.secret()));
        assert!(matches!(key.write(path), Err(KeyFileError::Io { .. })), "never overwritten");
    }
    assert_eq!(*KeyFile::read_node(&node).unwrap().to_bytes(), [1; 32]);
    assert_eq!(*KeyFile::read_principal(&principal).unwrap().to_bytes(), [2; 32]);
    assert!(matches!(
        KeyFile::read_node(&principal),
        Err(KeyFileError::WrongKind { found: KeyKind::Principal, wanted: KeyKind::Node, .. })
    ));
    assert!(matches!(KeyFile::read_principal(&node), Err(KeyFileError::WrongKind { .. })));
    assert!(matches!(KeyFile::read(&directory.path().join("none")), Err(KeyFileError::Io { .. })));
}

#[test]
fn golden_text() {
    let [_, principal] = keys();
    let text = principal.to_text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "quorate principal key v1");
    assert_eq!(lines[1], "public 8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394");
    assert_eq!(lines[2], format!("secret {}", "02".repeat(32)));
    assert_eq!(lines[3], "check cec445edcfbf6e82");
    assert_eq!(lines.len(), 4);
}

#[test]
fn exposed_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    keys()[0].write(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = KeyFile::read(&path).unwrap_err();
    assert!(matches!(error, KeyFileError::Exposed { mode: 0o640, .. }));
    assert!(error.to_string().contains("chmod 600"));
}

#[test]
fn damaged_foreign_and_newer_files_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let text = keys()[0].to_text();
    let read = |changed: String| {
        let _ = std::fs::remove_file(&path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(changed.as_bytes()).unwrap();
        KeyFile::read(&path)
    };
    for foreign in ["", "-----BEGIN KEY-----\n", "quorate node\n", "quorate node key 1\n"] {
        assert!(matches!(read(foreign.to_owned()), Err(KeyFileError::NotAKeyFile { .. })), "{foreign}");
    }
    assert!(matches!(read(text.replace("v1", "v2")), Err(KeyFileError::Newer { .. })));
    assert!(matches!(read(text.replace("node", "toad")), Err(KeyFileError::Damaged { .. })));
    assert!(matches!(read(text.replace("node", "principal")), Err(KeyFileError::Damaged { .. })));
    let first = text.find("public").unwrap();
    for position in first..text.len() - 1 {
        let mut bytes = text.as_bytes().to_vec();
        bytes[position] ^= 1;
        let changed = String::from_utf8(bytes).unwrap();
        assert!(matches!(read(changed), Err(KeyFileError::Damaged { .. })), "position {position}");
    }
    assert!(read(text.to_string()).is_ok());
}

#[test]
fn secrets_are_not_printed() {
    for key in keys() {
        let printed = format!("{key:?}");
        assert!(!printed.contains("0101") && !printed.contains("0202"), "{printed}");
    }
}
