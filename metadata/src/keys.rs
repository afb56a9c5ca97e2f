//! The keys of all rows, by rule S1.
//!
//! Invariant: 32 bytes, `inode number u64 BE, kind u8, 23 bytes` with unused bytes zero; inode numbers are
//! below 2^53, so `0xFE..` (blocks) and `0xFF..` (system tables) meet no inode. `docs/SPEC/state.md` says the
//! layout byte by byte.

use quorate_crypto::{Hash, PublicKey, derive_hash};
use quorate_protocol::{BatchTime, Ino, PrincipalNumber, SessionId, SessionNumber};

use crate::view::Key;

/// The first inode number that is never given out.
pub const INO_END: Ino = 1 << 53;
/// The inode number of the root directory.
pub const ROOT_INO: Ino = 1;
/// Bytes of a hash that a key holds.
pub const KEY_HASH_BYTES: usize = 23;

/// The part of a hash that a key holds.
pub type KeyHash = [u8; KEY_HASH_BYTES];

/// The inode itself.
pub const KIND_INODE: u8 = 0x00;
/// The key that hashes a directory's names.
pub const KIND_DIRECTORY_KEY: u8 = 0x01;
/// A content row.
pub const KIND_CONTENT: u8 = 0x08;
/// An extended attribute.
pub const KIND_XATTR: u8 = 0x10;
/// A directory entry.
pub const KIND_ENTRY: u8 = 0x20;
/// A hard link of a file that has several.
pub const KIND_LINK: u8 = 0x30;
/// A symbolic link's target.
pub const KIND_SYMLINK: u8 = 0x40;
/// Lock ranges *(reserved)*.
pub const KIND_LOCK: u8 = 0x50;
/// A waiter for a lock *(reserved)*.
pub const KIND_WAITER: u8 = 0x51;
/// The open grants of a session.
pub const KIND_GRANTS: u8 = 0x60;

/// First byte of a block's key.
pub const BLOCK_PREFIX: u8 = 0xFE;

/// System table: counters, by [`Counter`].
pub const TABLE_COUNTERS: u8 = 0x01;
/// System table: the replicated parameters, one row.
pub const TABLE_PARAMETERS: u8 = 0x02;
/// System table: totals of the filesystem, one row.
pub const TABLE_TOTALS: u8 = 0x03;
/// System table: sessions by number.
pub const TABLE_SESSIONS: u8 = 0x10;
/// System table: session numbers by identifier.
pub const TABLE_SESSION_IDS: u8 = 0x11;
/// System table: principals by number.
pub const TABLE_PRINCIPALS: u8 = 0x12;
/// System table: principal numbers by key.
pub const TABLE_PRINCIPAL_KEYS: u8 = 0x13;
/// System table: deadlines, by time, then session number.
pub const TABLE_DEADLINES: u8 = 0x14;
/// System table: what a session holds.
pub const TABLE_HELD: u8 = 0x15;
/// System table: inodes with rows to reclaim.
pub const TABLE_RECLAIM: u8 = 0x20;
/// System table: released blocks by time of release.
pub const TABLE_RELEASED: u8 = 0x21;
/// System table: realms *(reserved)*.
pub const TABLE_REALMS: u8 = 0x30;
/// System table: member sets, by epoch.
pub const TABLE_MEMBERS: u8 = 0x31;
/// System table: inode number ranges of sessions *(reserved)*.
pub const TABLE_RANGES: u8 = 0x32;

/// What a session holds on an inode: the kind in a held-by-session key.
pub const HELD_GRANTS: u8 = 0x60;

/// The counters of the system, each a row of its own; their numbers never return.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Counter {
    /// The next inode number.
    Ino = 1,
    /// The next session number.
    Session = 2,
    /// The next principal number.
    Principal = 3,
    /// The next fencing token (rule S8).
    Fence = 4,
}

/// Builds a key from its parts, in order; what they do not fill is zero, what does not fit is cut off.
fn build(parts: &[&[u8]]) -> Key {
    let mut key = [0; 32];
    for (target, source) in key.iter_mut().zip(parts.iter().copied().flatten()) {
        *target = *source;
    }
    key
}

fn of_inode(ino: Ino, kind: u8, rest: &[u8]) -> Key {
    build(&[&ino.to_be_bytes(), &[kind], rest])
}

fn of_system(table: u8, parts: &[&[u8]]) -> Key {
    let mut key = build(&[&[0xFF; 8], &[table]]);
    for (target, source) in key.iter_mut().skip(9).zip(parts.iter().copied().flatten()) {
        *target = *source;
    }
    key
}

/// The u64 at `offset` of a key, big-endian.
fn number_at(key: &Key, offset: usize) -> u64 {
    let mut bytes = [0; 8];
    for (target, source) in bytes.iter_mut().zip(key.iter().skip(offset)) {
        *target = *source;
    }
    u64::from_be_bytes(bytes)
}

/// The next key in order; a key of all ones, which nothing has, is its own successor.
#[must_use]
pub fn successor(key: &Key) -> Key {
    let mut next = *key;
    for byte in next.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return next;
        }
    }
    *key
}

/// The first [`KEY_HASH_BYTES`] of a hash.
#[must_use]
pub fn key_hash(hash: &Hash) -> KeyHash {
    let mut short = [0; KEY_HASH_BYTES];
    for (target, source) in short.iter_mut().zip(hash.0) {
        *target = source;
    }
    short
}

/// `ino, 0x00`: the inode.
#[must_use]
pub fn inode(ino: Ino) -> Key {
    of_inode(ino, KIND_INODE, &[])
}

/// `ino, 0x01`: the directory's key.
#[must_use]
pub fn directory_key(ino: Ino) -> Key {
    of_inode(ino, KIND_DIRECTORY_KEY, &[])
}

/// `ino, 0x08, index u64`: a content row.
#[must_use]
pub fn content(ino: Ino, index: u64) -> Key {
    of_inode(ino, KIND_CONTENT, &index.to_be_bytes())
}

/// `ino, 0x10, H(name)`: an extended attribute. The name is hashed with the inode number, without a secret.
#[must_use]
pub fn xattr(ino: Ino, name: &[u8]) -> Key {
    let hash = derive_hash("quorate metadata v1 xattr name", &[&ino.to_be_bytes(), name]);
    of_inode(ino, KIND_XATTR, &key_hash(&hash))
}

/// `ino, 0x20, H(name)`: a directory entry, `hash` under the directory's key.
#[must_use]
pub fn entry(ino: Ino, hash: &KeyHash) -> Key {
    of_inode(ino, KIND_ENTRY, hash)
}

/// The lowest key that an entry with this cookie, or a later one, can have.
#[must_use]
pub fn entry_cookie(ino: Ino, cookie: u64) -> Key {
    of_inode(ino, KIND_ENTRY, &cookie.to_be_bytes())
}

/// `ino, 0x30, H(parent, name)`: a hard link, where the name stands as its hash under the parent's key, so
/// that the key says nothing about the name to who may not search the parent.
#[must_use]
pub fn link(ino: Ino, parent: Ino, name: &KeyHash) -> Key {
    let hash = derive_hash("quorate metadata v1 link", &[&parent.to_be_bytes(), name]);
    of_inode(ino, KIND_LINK, &key_hash(&hash))
}

/// `ino, 0x40`: a symbolic link's target.
#[must_use]
pub fn symlink(ino: Ino) -> Key {
    of_inode(ino, KIND_SYMLINK, &[])
}

/// `ino, 0x60, sno`: the open grants of a session.
#[must_use]
pub fn grants(ino: Ino, session: SessionNumber) -> Key {
    of_inode(ino, KIND_GRANTS, &session.to_be_bytes())
}

/// The first key of a kind of row of an inode; the end of the kind before it.
#[must_use]
pub fn kind_start(ino: Ino, kind: u8) -> Key {
    of_inode(ino, kind, &[])
}

/// The first key above all rows of a kind of an inode.
#[must_use]
pub fn kind_end(ino: Ino, kind: u8) -> Key {
    of_inode(ino, kind.saturating_add(1), &[])
}

/// The first key above all rows of an inode.
#[must_use]
pub fn inode_end(ino: Ino) -> Key {
    of_inode(ino.saturating_add(1), 0, &[])
}

/// The kind byte of an inode's row.
#[must_use]
pub fn kind_of(key: &Key) -> u8 {
    number_at(key, 1).to_be_bytes().last().copied().unwrap_or(0)
}

/// The inode that a row belongs to; at or above [`INO_END`] for rows of blocks and of the system.
#[must_use]
pub fn ino_of(key: &Key) -> Ino {
    number_at(key, 0)
}

/// The index of a content row.
#[must_use]
pub fn content_index(key: &Key) -> u64 {
    number_at(key, 9)
}

/// The readdir cookie of an entry: bytes 9 to 17 of its key (rule S7).
#[must_use]
pub fn cookie_of(key: &Key) -> u64 {
    number_at(key, 9)
}

/// `0xFE, id[..31]`: a block.
#[must_use]
pub fn block(id: &Hash) -> Key {
    build(&[&[BLOCK_PREFIX], &id.0])
}

/// System: a counter.
#[must_use]
pub fn counter(counter: Counter) -> Key {
    of_system(TABLE_COUNTERS, &[&[counter as u8]])
}

/// System: the replicated parameters.
#[must_use]
pub fn parameters() -> Key {
    of_system(TABLE_PARAMETERS, &[])
}

/// System: totals of the filesystem.
#[must_use]
pub fn totals() -> Key {
    of_system(TABLE_TOTALS, &[])
}

/// System: a session by number.
#[must_use]
pub fn session(session: SessionNumber) -> Key {
    of_system(TABLE_SESSIONS, &[&session.to_be_bytes()])
}

/// System: a session's number by identifier; the full identifier is in the value.
#[must_use]
pub fn session_id(id: &SessionId) -> Key {
    of_system(TABLE_SESSION_IDS, &[&id.0])
}

/// System: a principal by number.
#[must_use]
pub fn principal(principal: PrincipalNumber) -> Key {
    of_system(TABLE_PRINCIPALS, &[&principal.to_be_bytes()])
}

/// System: a principal's number by key; the full key is in the value.
#[must_use]
pub fn principal_key(key: &PublicKey) -> Key {
    of_system(TABLE_PRINCIPAL_KEYS, &[&key.0])
}

/// System: a deadline of a session.
#[must_use]
pub fn deadline(time: BatchTime, session: SessionNumber) -> Key {
    of_system(TABLE_DEADLINES, &[&time.0.to_be_bytes(), &session.to_be_bytes()])
}

/// The time and session of a deadline's key.
#[must_use]
pub fn deadline_of(key: &Key) -> (BatchTime, SessionNumber) {
    (BatchTime(number_at(key, 9)), number_at(key, 17))
}

/// System: a session holds something of this kind on an inode.
#[must_use]
pub fn held(session: SessionNumber, kind: u8, ino: Ino) -> Key {
    of_system(TABLE_HELD, &[&session.to_be_bytes(), &[kind], &ino.to_be_bytes()])
}

/// The first key above all that a session holds of this kind.
#[must_use]
pub fn held_end(session: SessionNumber, kind: u8) -> Key {
    of_system(TABLE_HELD, &[&session.to_be_bytes(), &[kind.saturating_add(1)]])
}

/// The inode of a held-by-session key.
#[must_use]
pub fn held_ino(key: &Key) -> Ino {
    number_at(key, 18)
}

/// System: an inode with rows to reclaim.
#[must_use]
pub fn reclaim(ino: Ino) -> Key {
    of_system(TABLE_RECLAIM, &[&ino.to_be_bytes()])
}

/// The inode of a reclaim queue's key.
#[must_use]
pub fn reclaim_ino(key: &Key) -> Ino {
    number_at(key, 9)
}

/// System: a block without references, by the time of its release and the start of its identifier.
#[must_use]
pub fn released(time: BatchTime, id: &Hash) -> Key {
    of_system(TABLE_RELEASED, &[&time.0.to_be_bytes(), &id.0])
}

/// The time of a released block's key.
#[must_use]
pub fn released_time(key: &Key) -> BatchTime {
    BatchTime(number_at(key, 9))
}

/// System: a realm *(reserved)*.
#[must_use]
pub fn realm(realm: u32) -> Key {
    of_system(TABLE_REALMS, &[&realm.to_be_bytes()])
}

/// System: the member set of an epoch.
#[must_use]
pub fn members(epoch: u64) -> Key {
    of_system(TABLE_MEMBERS, &[&epoch.to_be_bytes()])
}

/// System: the inode numbers that a session may give out *(reserved)*.
#[must_use]
pub fn range(session: SessionNumber) -> Key {
    of_system(TABLE_RANGES, &[&session.to_be_bytes()])
}

/// The first key of a system table.
#[must_use]
pub fn table_start(table: u8) -> Key {
    of_system(table, &[])
}

/// The first key above a system table.
#[must_use]
pub fn table_end(table: u8) -> Key {
    of_system(table.saturating_add(1), &[])
}
