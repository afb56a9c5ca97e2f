//! The state before the first batch: the root directory, counters, parameters and totals.
//!
//! Invariant: a pure function of the genesis. Principals and members are the executor's to add.

use quorate_protocol::Genesis;
use quorate_protocol::file::FileKind;

use crate::directory;
use crate::inodes;
use crate::keys::{self, Counter, KEY_HASH_BYTES, ROOT_INO};
use crate::permission::MODE_MASK;
use crate::rows::{self, BLOCK_LOG2_MAX, CounterRow, Inode, ParametersRow, Totals};
use crate::view::View;

/// Writes the first rows into an empty state.
pub fn genesis(view: &mut dyn View, genesis: &Genesis) {
    let (uid, gid, mode) = genesis.root;
    let time = genesis.time.timestamp();
    let root = Inode {
        kind: FileKind::Directory,
        mode: mode & MODE_MASK,
        uid,
        gid,
        nlink: 2,
        rdev: 0,
        size: 0,
        allocated: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        flags: 0,
        realm: 0,
        parent: ROOT_INO,
        name: [0; KEY_HASH_BYTES],
        version: 0,
        block_log2: genesis.parameters.block_log2.min(BLOCK_LOG2_MAX),
        reclaim_from: None,
        xattr_count: 0,
        xattr_bytes: 0,
    };
    inodes::store(view, ROOT_INO, &root);
    rows::put(view, keys::directory_key(ROOT_INO), &directory::new_key(&genesis.entropy, ROOT_INO));
    let counters = [
        (Counter::Ino, ROOT_INO.saturating_add(1)),
        (Counter::Session, 1),
        (Counter::Principal, 1),
        (Counter::Fence, 1),
    ];
    for (counter, next) in counters {
        rows::put(view, keys::counter(counter), &CounterRow { next });
    }
    rows::put(view, keys::parameters(), &ParametersRow { parameters: genesis.parameters.clone() });
    rows::put(view, keys::totals(), &Totals { inodes: 1, ..Totals::default() });
}
