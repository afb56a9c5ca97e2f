//! What `metadata/tests/filesystem/check.rs` expects of its surroundings: a world that has rows.

use std::collections::BTreeMap;

use quorate_metadata::{Key, Value};

/// The rows of a state that belong to the filesystem.
pub struct World {
    pub view: Rows,
}

pub struct Rows {
    pub rows: BTreeMap<Key, Value>,
}
