//! Pruned copies of the trie: what answers a question, in one canonical encoding, and the way back.
//!
//! Invariant: a copy reveals the values that were asked for, the keys that show what is absent or comes next,
//! and nothing else but hashes; `encode(decode(bytes)) == bytes` for every accepted input; a copy that leads
//! to the certified root answers each question right or with [`Missing`].

mod parse;

use std::collections::BTreeMap;

use quorate_crypto::Hash;

use crate::error::{Missing, ProofError, ProveError};
use crate::key::Key;
use crate::node::Node;
use crate::scan::Leaves;
use crate::touched::Touched;
use crate::trie::Trie;

/// Most bytes in the encoding of a pruned copy: 16 MiB.
pub const PROOF_BYTES_MAX: usize = 16 << 20;
/// Most nodes in a pruned copy.
pub const PROOF_NODES_MAX: usize = 1 << 18;
/// The first byte of the encoding.
pub const PROOF_FORMAT: u8 = 1;

const TAG_EMPTY: u8 = 0;
const TAG_INNER: u8 = 1;
const TAG_LEAF: u8 = 2;
const TAG_PRUNED_LEAF: u8 = 3;
const TAG_STUB: u8 = 4;

/// The encoding of pruned copies. The copy itself is a [`Trie`].
#[derive(Debug)]
pub enum PartialTrie {}

impl PartialTrie {
    /// Parses a pruned copy and checks that it leads to the certified root: the way to use one.
    ///
    /// # Errors
    /// [`ProofError`], the fault of the peer that sent it.
    pub fn verify(bytes: &[u8], certified_root: &Hash) -> Result<Trie, ProofError> {
        let trie = Self::decode(bytes)?;
        if trie.root() == *certified_root { Ok(trie) } else { Err(ProofError::RootMismatch) }
    }

    /// Parses a pruned copy. Until its [`Trie::root`] was compared with a certified one it proves nothing.
    ///
    /// # Errors
    /// [`ProofError`] for whatever is not the one encoding of a pruned copy.
    pub fn decode(bytes: &[u8]) -> Result<Trie, ProofError> {
        parse::parse(bytes).map(|root| Trie { root })
    }

    /// Encodes all that `trie` holds, be it full or pruned.
    ///
    /// # Errors
    /// [`ProveError`] when it is beyond the bounds, or nothing but a stub is left of it.
    pub fn encode(trie: &Trie) -> Result<Vec<u8>, ProveError> {
        encode(trie, Selection::Held)
    }
}

impl Trie {
    /// Makes the pruned copy that answers the question `touched`: for each key the leaf where its walk ends,
    /// for each range its leaves, the last one below and the first one beyond. Values are shown only of the
    /// keys and ranges asked for. A question that touched nothing is answered by one pruned leaf.
    ///
    /// # Errors
    /// [`ProveError`] when the answer is beyond the bounds, or this trie lacks it.
    pub fn prove(&self, touched: &Touched) -> Result<Vec<u8>, ProveError> {
        let Some(root) = &self.root else { return encode(self, Selection::Held) };
        let mut revealed = Revealed::default();
        for key in touched.keys() {
            revealed.walk_end(root, key)?;
        }
        for (lo, hi) in touched.ranges() {
            if let Some(below) = self.last_before(&lo)? {
                revealed.key(&below)?;
            }
            revealed.leaves(Leaves::new(Some(root), &lo, hi.as_ref()))?;
        }
        if revealed.leaves.is_empty() {
            revealed.key(root.any_key().ok_or(Missing(Key::MIN))?)?;
        }
        let leaves: Vec<_> = revealed.leaves.into_iter().collect();
        encode(self, Selection::Leaves(&leaves))
    }
}

/// The leaves to reveal, and whether with their values.
#[derive(Default)]
struct Revealed {
    leaves: BTreeMap<Key, bool>,
}

impl Revealed {
    fn bounded(&self) -> Result<(), ProveError> {
        if self.leaves.len() > PROOF_NODES_MAX { Err(ProveError::TooManyNodes) } else { Ok(()) }
    }

    fn key(&mut self, key: &Key) -> Result<(), ProveError> {
        self.leaves.entry(*key).or_insert(false);
        self.bounded()
    }

    fn value(&mut self, key: &Key) -> Result<(), ProveError> {
        self.leaves.insert(*key, true);
        self.bounded()
    }

    fn walk_end(&mut self, root: &Node, key: &Key) -> Result<(), ProveError> {
        match root.walk(key) {
            Node::Leaf(leaf) if leaf.key == *key => self.value(key),
            Node::Leaf(leaf) => self.key(&leaf.key),
            Node::Pruned(leaf) if leaf.key != *key => self.key(&leaf.key),
            Node::Pruned(_) | Node::Stub(_) | Node::Inner(_) => Err(Missing(*key).into()),
        }
    }

    fn leaves(&mut self, mut leaves: Leaves<'_>) -> Result<(), ProveError> {
        for leaf in leaves.by_ref() {
            let leaf = leaf?;
            if leaf.value.is_none() {
                return Err(Missing(*leaf.key).into());
            }
            self.value(leaf.key)?;
        }
        leaves.beyond().map_or(Ok(()), |key| self.key(key))
    }
}

/// What of a subtree is written out.
#[derive(Clone, Copy)]
enum Selection<'a> {
    /// All that is held, as it is held.
    Held,
    /// These leaves, in order, all of them below the node; true with their values.
    Leaves(&'a [(Key, bool)]),
}

impl Selection<'_> {
    fn is_none(&self) -> bool {
        matches!(self, Selection::Leaves([]))
    }

    /// The parts for the two children of a node that branches at `bit`.
    fn split(self, bit: u8) -> (Self, Self) {
        match self {
            Selection::Held => (Selection::Held, Selection::Held),
            Selection::Leaves(leaves) => {
                let middle = leaves.partition_point(|(key, _)| !key.bit(bit));
                let (left, right) = leaves.split_at_checked(middle).unwrap_or((leaves, &[]));
                (Selection::Leaves(left), Selection::Leaves(right))
            }
        }
    }

    /// Whether the value of the leaf that this selection has come down to is shown.
    fn shows_value(&self) -> bool {
        match self {
            Selection::Held => true,
            Selection::Leaves(leaves) => leaves.iter().any(|(_, value)| *value),
        }
    }
}

fn encode(trie: &Trie, selection: Selection<'_>) -> Result<Vec<u8>, ProveError> {
    let mut bytes = vec![PROOF_FORMAT];
    let Some(root) = &trie.root else {
        bytes.push(TAG_EMPTY);
        return Ok(bytes);
    };
    if root.is_stub() {
        return Err(Missing(Key::MIN).into());
    }
    let mut nodes = 0_usize;
    // The right siblings of the path: at most one for each level.
    let mut pending = vec![(root, selection)];
    while let Some((node, selection)) = pending.pop() {
        nodes = nodes.saturating_add(1);
        if nodes > PROOF_NODES_MAX {
            return Err(ProveError::TooManyNodes);
        }
        if let (Node::Inner(inner), false) = (node, selection.is_none()) {
            bytes.extend_from_slice(&[TAG_INNER, inner.bit]);
            let (left, right) = selection.split(inner.bit);
            pending.push((inner.child(true), right));
            pending.push((inner.child(false), left));
        } else {
            encode_end(&mut bytes, node, selection);
        }
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(ProveError::TooManyBytes);
        }
    }
    Ok(bytes)
}

/// Writes a leaf, a pruned leaf, or a stub for all else.
fn encode_end(bytes: &mut Vec<u8>, node: &Node, selection: Selection<'_>) {
    match node {
        Node::Leaf(leaf) if selection.shows_value() => {
            let value = leaf.value();
            // A longer value is beyond the bound on bytes, and then nothing of this is returned.
            let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
            bytes.push(TAG_LEAF);
            bytes.extend_from_slice(&leaf.key.0);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(value);
        }
        Node::Leaf(leaf) if !selection.is_none() => {
            encode_pruned_leaf(bytes, &leaf.key, &leaf.value_hash());
        }
        Node::Pruned(leaf) if !selection.is_none() => {
            encode_pruned_leaf(bytes, &leaf.key, &leaf.value_hash);
        }
        _ => {
            bytes.push(TAG_STUB);
            bytes.extend_from_slice(&node.hash().0);
        }
    }
}

fn encode_pruned_leaf(bytes: &mut Vec<u8>, key: &Key, value_hash: &Hash) {
    bytes.push(TAG_PRUNED_LEAF);
    bytes.extend_from_slice(&key.0);
    bytes.extend_from_slice(&value_hash.0);
}
