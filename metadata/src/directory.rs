//! Names in directories: hashing, looking up, inserting and removing entries.
//!
//! Invariant: no two entries of a directory share a cookie, none has a reserved one, and an entry counts
//! only when its full name is the one asked for (rules S1 and S7).

use quorate_crypto::derive_hash;
use quorate_protocol::Ino;
use quorate_protocol::file::{Entropy, FileKind, Name};

use crate::errno::Errno;
use crate::inodes;
use crate::keys::{self, KEY_HASH_BYTES, KeyHash};
use crate::rows::{self, DirectoryKey, Entry, Inode, Row};
use crate::view::{Error, View};

/// The cookie of `.`.
pub(crate) const COOKIE_SELF: u64 = 1;
/// The cookie of `..`.
pub(crate) const COOKIE_PARENT: u64 = 2;
/// The last number that a cookie could be; no entry has it, so that a cookie plus one is a cookie.
pub(crate) const COOKIE_LAST: u64 = (1 << 63) - 1;
/// Clears the top bit of a name's hash, so that the order of keys is that of cookies.
const COOKIE_TOP_BYTE: u8 = 0x7F;

/// A name under its directory's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameHash {
    /// The rest of the entry's key; its first 8 bytes are the cookie.
    pub key: KeyHash,
    /// Hides the entry's value.
    pub salt: Entropy,
}

impl NameHash {
    /// The readdir cookie.
    pub(crate) fn cookie(&self) -> u64 {
        keys::cookie_of(&keys::entry(0, &self.key))
    }
}

/// What stands where a name belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The name's entry.
    Found(Entry),
    /// Nothing.
    Free,
    /// The name can have no entry: its cookie is reserved or taken (rule S7).
    Taken,
}

/// The key of a new directory (rule S3).
pub(crate) fn new_key(entropy: &Entropy, ino: Ino) -> DirectoryKey {
    let hash = derive_hash("quorate metadata v1 directory key", &[entropy, &ino.to_be_bytes()]);
    DirectoryKey { key: hash.0 }
}

/// Hashes a name under a directory's key: 48 bytes of keyed BLAKE3, of which bytes 0 to 22 with the top bit
/// cleared go into the key, and bytes 32 to 47 into the value.
pub(crate) fn hash_under(directory: &DirectoryKey, name: &Name) -> NameHash {
    let mut output = [0; 48];
    blake3::Hasher::new_keyed(&directory.key).update(name.as_bytes()).finalize_xof().fill(&mut output);
    let mut key = [0; KEY_HASH_BYTES];
    let mut salt = [0; 16];
    for (target, source) in key.iter_mut().zip(output) {
        *target = source;
    }
    for (target, source) in salt.iter_mut().zip(output.into_iter().skip(32)) {
        *target = source;
    }
    if let Some(top) = key.first_mut() {
        *top &= COOKIE_TOP_BYTE;
    }
    NameHash { key, salt }
}

/// Hashes a name in a directory. The caller has been allowed to search it: this reveals its key.
pub(crate) fn hash(view: &dyn View, directory: Ino, name: &Name) -> Result<NameHash, Error> {
    let key: DirectoryKey =
        rows::get(view, &keys::directory_key(directory))?.ok_or(Error::Corrupt("a directory has no key"))?;
    Ok(hash_under(&key, name))
}

/// The entry of a name, by a lookup of its key alone.
pub(crate) fn find(view: &dyn View, directory: Ino, name: &Name) -> Result<Option<(NameHash, Entry)>, Error> {
    let hash = hash(view, directory, name)?;
    let entry: Option<Entry> = rows::get(view, &keys::entry(directory, &hash.key))?;
    Ok(entry.filter(|entry| entry.name == *name).map(|entry| (hash, entry)))
}

/// What stands where a name belongs, for an operation that may put an entry there. `leaving` is the key of
/// an entry of this directory that the operation removes.
pub(crate) fn probe(
    view: &dyn View,
    directory: Ino,
    name: &Name,
    leaving: Option<&KeyHash>,
) -> Result<(NameHash, Slot), Error> {
    let hash = hash(view, directory, name)?;
    let cookie = hash.cookie();
    if cookie <= COOKIE_PARENT || cookie >= COOKIE_LAST {
        return Ok((hash, Slot::Taken));
    }
    let from = keys::entry_cookie(directory, cookie);
    let end = keys::entry_cookie(directory, cookie.saturating_add(1));
    let slot = match view.next(&from, Some(&end))? {
        None => Slot::Free,
        Some((key, value)) => {
            let entry = Entry::from_value(&value)?;
            if entry.name == *name {
                Slot::Found(entry)
            } else if leaving.is_some_and(|leaving| keys::entry(directory, leaving) == key) {
                Slot::Free
            } else {
                Slot::Taken
            }
        }
    };
    Ok((hash, slot))
}

/// Writes an entry. The caller keeps the directory's counts and times.
pub(crate) fn insert(
    view: &mut dyn View,
    directory: Ino,
    hash: &NameHash,
    name: &Name,
    ino: Ino,
    kind: FileKind,
) {
    let entry = Entry { salt: hash.salt, name: name.clone(), ino, kind };
    rows::put(view, keys::entry(directory, &hash.key), &entry);
}

/// Removes an entry. The caller keeps the directory's counts and times.
pub(crate) fn remove(view: &mut dyn View, directory: Ino, hash: &NameHash) {
    view.delete(keys::entry(directory, &hash.key));
}

/// Adds one to a directory's entries, and to its links when the new one is a directory.
pub(crate) fn grow(directory: &mut Inode, kind: FileKind) -> Result<(), Errno> {
    directory.size = directory.size.checked_add(1).ok_or(Errno::ENOSPC)?;
    if kind == FileKind::Directory {
        directory.nlink = directory.nlink.checked_add(1).ok_or(Errno::EMLINK)?;
    }
    Ok(())
}

/// Takes one from a directory's entries, and from its links when the one that left is a directory.
pub(crate) fn shrink(directory: &mut Inode, kind: FileKind) -> Result<(), Error> {
    let damaged = Error::Corrupt("a directory's counts do not add up");
    directory.size = directory.size.checked_sub(1).ok_or(damaged)?;
    if kind == FileKind::Directory {
        directory.nlink = directory.nlink.checked_sub(1).ok_or(damaged)?;
    }
    Ok(())
}

/// Directories that a rename walks towards the root at most, to see that none becomes its own ancestor.
pub const ANCESTORS_MAX: usize = 4096;

/// Whether `candidate` is `start` or one of its ancestors. ELOOP beyond the bound.
pub(crate) fn is_ancestor(view: &dyn View, candidate: Ino, start: Ino) -> Result<bool, Error> {
    let mut current = start;
    for _ in 0..ANCESTORS_MAX {
        if current == candidate {
            return Ok(true);
        }
        if current == keys::ROOT_INO {
            return Ok(false);
        }
        current = inodes::named(view, current)?.parent;
    }
    Err(Errno::ELOOP.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::view::{Key, Missing, Value};

    #[derive(Default)]
    struct Map(BTreeMap<Key, Value>);

    impl View for Map {
        fn get(&self, key: &Key) -> Result<Option<Value>, Missing> {
            Ok(self.0.get(key).cloned())
        }

        fn next(&self, from: &Key, end: Option<&Key>) -> Result<Option<(Key, Value)>, Missing> {
            let first = self.0.range(*from..).next().filter(|(key, _)| end.is_none_or(|end| *key < end));
            Ok(first.map(|(key, value)| (*key, value.clone())))
        }

        fn put(&mut self, key: Key, value: Value) {
            self.0.insert(key, value);
        }

        fn delete(&mut self, key: Key) {
            self.0.remove(&key);
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    /// A directory in which an entry of another name has the cookie of "wanted".
    fn with_collision() -> (Map, KeyHash) {
        let mut map = Map::default();
        let key = new_key(&[1; 16], 5);
        rows::put(&mut map, keys::directory_key(5), &key);
        let mut hash = hash_under(&key, &name("wanted"));
        hash.key[KEY_HASH_BYTES - 1] ^= 1;
        insert(&mut map, 5, &hash, &name("other"), 9, FileKind::Regular);
        (map, hash.key)
    }

    #[test]
    fn a_cookie_is_free_again_when_its_entry_leaves_in_the_same_operation() {
        let (map, leaving) = with_collision();
        assert_eq!(probe(&map, 5, &name("wanted"), None).unwrap().1, Slot::Taken);
        assert_eq!(probe(&map, 5, &name("wanted"), Some(&leaving)).unwrap().1, Slot::Free);
        assert_eq!(probe(&map, 5, &name("wanted"), Some(&[0; KEY_HASH_BYTES])).unwrap().1, Slot::Taken);
        assert_eq!(probe(&map, 5, &name("elsewhere"), None).unwrap().1, Slot::Free);
    }

    #[test]
    fn hashes_are_keyed_and_keep_the_top_bit_clear() {
        let (one, two) = (new_key(&[1; 16], 5), new_key(&[1; 16], 6));
        assert_ne!(one, two, "the same entropy in another directory is another key");
        for index in 0..200 {
            let name = name(&format!("name {index}"));
            let hash = hash_under(&one, &name);
            assert!(hash.cookie() < 1 << 63);
            assert_ne!(hash, hash_under(&two, &name));
            let plain = blake3::keyed_hash(&one.key, name.as_bytes());
            assert_eq!(hash.key[1..], plain.as_bytes()[1..KEY_HASH_BYTES]);
            assert_eq!(hash.key[0], plain.as_bytes()[0] & 0x7F);
        }
    }
}
