//! The hashes of the state trie, by rule S2: keyed BLAKE3 with one key for each domain.
//!
//! Invariant: values, leaves and inner nodes of each bit are hashed under different keys, so that no input
//! of one domain has the meaning of another (hazard CR5); leaves and inner nodes are exactly 64 bytes, which
//! is one compression.

use std::sync::OnceLock;

use quorate_crypto::Hash;

use crate::key::Key;

const VALUE_CONTEXT: &str = "quorate merkle v1 value";
const LEAF_CONTEXT: &str = "quorate merkle v1 leaf";
const INNER_CONTEXT: &str = "quorate merkle v1 inner";
const EMPTY_CONTEXT: &str = "quorate merkle v1 empty";

/// Inner nodes branch at one of this many bits, and each bit has its own key.
const INNER_KEYS: usize = 256;

struct DomainKeys {
    value: [u8; 32],
    leaf: [u8; 32],
    inner: [[u8; 32]; INNER_KEYS],
    empty: [u8; 32],
}

impl DomainKeys {
    fn derive() -> Self {
        let mut inner = [[0_u8; 32]; INNER_KEYS];
        for (bit, key) in inner.iter_mut().enumerate() {
            *key = blake3::derive_key(&format!("{INNER_CONTEXT} {bit}"), &[]);
        }
        DomainKeys {
            value: blake3::derive_key(VALUE_CONTEXT, &[]),
            leaf: blake3::derive_key(LEAF_CONTEXT, &[]),
            inner,
            empty: blake3::derive_key(EMPTY_CONTEXT, &[]),
        }
    }

    fn inner(&self, bit: u8) -> &[u8; 32] {
        // 256 keys and a u8: the fallback is never taken, and the bound check is compiled away.
        self.inner.get(usize::from(bit)).unwrap_or(&self.empty)
    }
}

fn keys() -> &'static DomainKeys {
    static KEYS: OnceLock<Box<DomainKeys>> = OnceLock::new();
    KEYS.get_or_init(|| Box::new(DomainKeys::derive()))
}

fn keyed_pair(key: &[u8; 32], first: &[u8; 32], second: &[u8; 32]) -> Hash {
    let mut input = [0_u8; 64];
    let (head, tail) = input.split_at_mut(32);
    head.copy_from_slice(first);
    tail.copy_from_slice(second);
    Hash(*blake3::keyed_hash(key, &input).as_bytes())
}

/// The hash of a value, which stands for it in the leaf and in a pruned leaf.
#[must_use]
pub fn value_hash(value: &[u8]) -> Hash {
    Hash(*blake3::keyed_hash(&keys().value, value).as_bytes())
}

/// The hash of a leaf from its key and the hash of its value.
#[must_use]
pub fn leaf_hash(key: &Key, value_hash: &Hash) -> Hash {
    keyed_pair(&keys().leaf, &key.0, &value_hash.0)
}

/// The hash of an inner node that branches at `bit`.
#[must_use]
pub fn inner_hash(bit: u8, left: &Hash, right: &Hash) -> Hash {
    keyed_pair(keys().inner(bit), &left.0, &right.0)
}

/// The root of the empty trie: a constant, and the child of no node.
#[must_use]
pub fn empty_root() -> Hash {
    Hash(keys().empty)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// CR5: the same bytes in different domains, and in inner nodes of different bits, hash differently.
    #[test]
    fn cr5_domains_do_not_meet() {
        let (first, second) = (Hash([1; 32]), Hash([2; 32]));
        let mut joined = first.0.to_vec();
        joined.extend_from_slice(&second.0);
        let mut seen = BTreeSet::new();
        assert!(seen.insert(value_hash(&joined).0));
        assert!(seen.insert(leaf_hash(&Key(first.0), &second).0));
        assert!(seen.insert(empty_root().0));
        assert!(seen.insert(*blake3::hash(&joined).as_bytes()));
        for bit in 0..=255 {
            assert!(seen.insert(inner_hash(bit, &first, &second).0));
            assert!(seen.insert(inner_hash(bit, &second, &first).0));
        }
    }

    #[test]
    fn keys_come_from_the_written_contexts() {
        let key = blake3::derive_key("quorate merkle v1 inner 17", &[]);
        let expected = blake3::keyed_hash(&key, &[9; 64]);
        assert_eq!(inner_hash(17, &Hash([9; 32]), &Hash([9; 32])).0, *expected.as_bytes());
        assert_eq!(empty_root().0, blake3::derive_key("quorate merkle v1 empty", &[]));
    }
}
