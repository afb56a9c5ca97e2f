//! Pruned copies of the trie as trees that can be changed at will, and written out again.
//!
//! Invariant: hashes and encoding are written here a second time after `docs/SPEC/merkle.md`, so that a liar
//! is not bound to what the library writes.

use quorate_crypto::Hash;
use quorate_merkle::{Key, PROOF_FORMAT, inner_hash, leaf_hash, value_hash};

use crate::source::Source;

/// Part of a pruned copy.
#[derive(Clone, Debug)]
pub enum Copy {
    Inner(u8, Box<Copy>, Box<Copy>),
    Leaf(Key, Vec<u8>),
    Pruned(Key, Hash),
    Stub(Hash),
}

impl Copy {
    /// Reads an encoding that the library has written; `None` for the empty trie.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut source = Source::new(bytes);
        assert_eq!(source.byte(), PROOF_FORMAT);
        (source.rest().first() != Some(&0)).then(|| Self::node(&mut source))
    }

    fn node(source: &mut Source<'_>) -> Self {
        let array = |source: &mut Source<'_>| <[u8; 32]>::try_from(source.take(32)).expect("32 bytes");
        match source.byte() {
            1 => {
                let bit = source.byte();
                let left = Self::node(source);
                Self::Inner(bit, Box::new(left), Box::new(Self::node(source)))
            }
            2 => {
                let key = Key(array(source));
                let length = u32::from_le_bytes(source.take(4).try_into().expect("4 bytes"));
                Self::Leaf(key, source.take(length as usize).to_vec())
            }
            3 => Self::Pruned(Key(array(source)), Hash(array(source))),
            _ => Self::Stub(Hash(array(source))),
        }
    }

    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![PROOF_FORMAT];
        self.write_node(&mut bytes);
        bytes
    }

    fn write_node(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Inner(bit, left, right) => {
                bytes.extend_from_slice(&[1, *bit]);
                left.write_node(bytes);
                right.write_node(bytes);
            }
            Self::Leaf(key, value) => {
                bytes.push(2);
                bytes.extend_from_slice(&key.0);
                bytes.extend_from_slice(&u32::try_from(value.len()).expect("a short value").to_le_bytes());
                bytes.extend_from_slice(value);
            }
            Self::Pruned(key, hash) => {
                bytes.push(3);
                bytes.extend_from_slice(&key.0);
                bytes.extend_from_slice(&hash.0);
            }
            Self::Stub(hash) => {
                bytes.push(4);
                bytes.extend_from_slice(&hash.0);
            }
        }
    }

    pub fn hash(&self) -> Hash {
        match self {
            Self::Inner(bit, left, right) => inner_hash(*bit, &left.hash(), &right.hash()),
            Self::Leaf(key, value) => leaf_hash(key, &value_hash(value)),
            Self::Pruned(key, hash) => leaf_hash(key, hash),
            Self::Stub(hash) => *hash,
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Inner(_, left, right) => 1 + left.count() + right.count(),
            _ => 1,
        }
    }

    /// The node of this number in pre-order.
    fn nth(&mut self, number: usize) -> &mut Self {
        if number == 0 {
            return self;
        }
        match self {
            Self::Inner(_, left, right) => {
                let on_the_left = left.count();
                if number <= on_the_left { left.nth(number - 1) } else { right.nth(number - 1 - on_the_left) }
            }
            end => end,
        }
    }

    /// Leaves out what the input says, keeping the root's hash.
    pub fn prune(&mut self, source: &mut Source<'_>) {
        if source.is_empty() {
            return;
        }
        match source.below(8) {
            0 => *self = Self::Stub(self.hash()),
            1 => self.hide_values(),
            _ => {
                if let Self::Inner(_, left, right) = self {
                    left.prune(source);
                    right.prune(source);
                }
            }
        }
    }

    fn hide_values(&mut self) {
        match self {
            Self::Inner(_, left, right) => {
                left.hide_values();
                right.hide_values();
            }
            Self::Leaf(key, value) => *self = Self::Pruned(*key, value_hash(value)),
            Self::Pruned(..) | Self::Stub(_) => {}
        }
    }

    /// One lie: a node is changed, or replaced by another one, of this copy or of `other`.
    pub fn lie(&mut self, source: &mut Source<'_>, other: &Self) {
        let pick = |source: &mut Source<'_>, count: usize| {
            (usize::from(source.byte()) | usize::from(source.byte()) << 8) % count
        };
        let count = self.count();
        let mut here = self.clone();
        let replacement = match source.below(4) {
            0 => here.nth(pick(source, count)).clone(),
            _ => other.clone().nth(pick(source, other.count())).clone(),
        };
        let node = self.nth(pick(source, count));
        match source.below(8) {
            0 => *node = Self::Stub(node.hash()),
            1 => node.hide_values(),
            2 => *node = replacement,
            3 => {
                if let Self::Inner(_, left, right) = node {
                    std::mem::swap(left, right);
                }
            }
            4 => {
                if let Self::Inner(bit, ..) = node {
                    *bit = bit.wrapping_add(source.byte());
                }
            }
            5 => {
                if let Self::Leaf(key, _) | Self::Pruned(key, _) = node {
                    key.0[source.below(32)] ^= source.byte();
                }
            }
            6 => match node {
                Self::Leaf(_, value) => *value = source.some(16).to_vec(),
                Self::Pruned(key, _) => *node = Self::Leaf(*key, source.some(16).to_vec()),
                _ => {}
            },
            _ => *node = Self::Inner(source.byte(), Box::new(node.clone()), Box::new(replacement)),
        }
    }
}
