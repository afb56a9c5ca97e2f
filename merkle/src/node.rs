//! The nodes of the trie: shared by `Arc`, hashed lazily, and changed in place when nobody else holds them.
//!
//! Invariants: bits rise strictly from the root to the leaves, so no path is longer than [`DEPTH_MAX`] inner
//! nodes; all leaves below an inner node of bit b agree in their first b bits, and bit b tells the left ones
//! from the right ones; no inner node has two stubs (that would be one stub), so every inner node has a
//! revealed leaf below it.

use std::sync::{Arc, OnceLock};

use quorate_crypto::Hash;

use crate::hash::{inner_hash, leaf_hash, value_hash};
use crate::key::Key;

/// Inner nodes on the longest possible path: one for each bit of a key.
pub const DEPTH_MAX: usize = 256;

/// One node. Cloning it shares it.
#[derive(Clone)]
pub(crate) enum Node {
    Inner(Arc<Inner>),
    Leaf(Arc<Leaf>),
    Pruned(Arc<PrunedLeaf>),
    Stub(Arc<Hash>),
}

/// A branch at `bit`: keys with a 0 there are on the left.
#[derive(Clone)]
pub(crate) struct Inner {
    left: Node,
    right: Node,
    hash: OnceLock<Hash>,
    pub(crate) bit: u8,
}

/// A key and its value.
pub(crate) struct Leaf {
    pub(crate) key: Key,
    value: Arc<[u8]>,
    hash: OnceLock<Hash>,
}

/// A key, and of its value only the hash.
pub(crate) struct PrunedLeaf {
    pub(crate) key: Key,
    pub(crate) value_hash: Hash,
    hash: OnceLock<Hash>,
}

impl Inner {
    pub(crate) fn child(&self, right: bool) -> &Node {
        if right { &self.right } else { &self.left }
    }

    /// The child to be changed; what was known of this node's hash is forgotten.
    fn child_mut(&mut self, right: bool) -> &mut Node {
        self.hash.take();
        if right { &mut self.right } else { &mut self.left }
    }
}

impl Leaf {
    pub(crate) fn value(&self) -> &Arc<[u8]> {
        &self.value
    }

    pub(crate) fn value_hash(&self) -> Hash {
        value_hash(&self.value)
    }
}

impl Node {
    pub(crate) fn leaf(key: Key, value: Arc<[u8]>) -> Self {
        Node::Leaf(Arc::new(Leaf { key, value, hash: OnceLock::new() }))
    }

    pub(crate) fn pruned(key: Key, value_hash: Hash) -> Self {
        Node::Pruned(Arc::new(PrunedLeaf { key, value_hash, hash: OnceLock::new() }))
    }

    pub(crate) fn stub(hash: Hash) -> Self {
        Node::Stub(Arc::new(hash))
    }

    /// The caller keeps the invariants of the module.
    pub(crate) fn inner(bit: u8, left: Node, right: Node) -> Self {
        Node::Inner(Arc::new(Inner { left, right, hash: OnceLock::new(), bit }))
    }

    pub(crate) fn is_stub(&self) -> bool {
        matches!(self, Node::Stub(_))
    }

    /// The key of a revealed leaf, pruned or not.
    pub(crate) fn key(&self) -> Option<&Key> {
        match self {
            Node::Leaf(leaf) => Some(&leaf.key),
            Node::Pruned(leaf) => Some(&leaf.key),
            Node::Inner(_) | Node::Stub(_) => None,
        }
    }

    /// The hash, computed where it is not known yet. Recurses to at most [`DEPTH_MAX`] inner nodes and a
    /// leaf.
    pub(crate) fn hash(&self) -> Hash {
        match self {
            Node::Inner(inner) => {
                *inner.hash.get_or_init(|| inner_hash(inner.bit, &inner.left.hash(), &inner.right.hash()))
            }
            Node::Leaf(leaf) => *leaf.hash.get_or_init(|| leaf_hash(&leaf.key, &leaf.value_hash())),
            Node::Pruned(leaf) => *leaf.hash.get_or_init(|| leaf_hash(&leaf.key, &leaf.value_hash)),
            Node::Stub(hash) => **hash,
        }
    }

    /// Whether both are the same allocation: a cheap sufficient sign of equality.
    pub(crate) fn is_same(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Inner(a), Node::Inner(b)) => Arc::ptr_eq(a, b),
            (Node::Leaf(a), Node::Leaf(b)) => Arc::ptr_eq(a, b),
            (Node::Pruned(a), Node::Pruned(b)) => Arc::ptr_eq(a, b),
            (Node::Stub(a), Node::Stub(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Follows the bits of `key` down to a leaf or a stub.
    pub(crate) fn walk(&self, key: &Key) -> &Node {
        let mut node = self;
        while let Node::Inner(inner) = node {
            node = inner.child(key.bit(inner.bit));
        }
        node
    }

    /// Some revealed leaf of this subtree, the leftmost that is not behind a stub's sibling; `None` only for
    /// a stub.
    pub(crate) fn any_key(&self) -> Option<&Key> {
        let mut node = self;
        while let Node::Inner(inner) = node {
            node = inner.child(inner.left.is_stub());
        }
        node.key()
    }

    /// The first leaf or stub of this subtree, in order.
    pub(crate) fn first(&self) -> &Node {
        let mut node = self;
        while let Node::Inner(inner) = node {
            node = &inner.left;
        }
        node
    }

    /// The last leaf or stub of this subtree, in order.
    pub(crate) fn last(&self) -> &Node {
        let mut node = self;
        while let Node::Inner(inner) = node {
            node = &inner.right;
        }
        node
    }

    /// Puts `value` under `key`, where `critical` is the first bit in which `key` differs from the leaf at
    /// the end of its walk, or `None` when that leaf's key is `key`. Copies what others hold of the path.
    pub(crate) fn put(&mut self, key: Key, value: Arc<[u8]>, critical: Option<u8>) {
        let Some(critical) = critical else {
            return self.descend(&key, None).replace_leaf(key, value);
        };
        let place = self.descend(&key, Some(critical));
        let (fresh, rest) = (Node::leaf(key, value), place.clone());
        *place = if key.bit(critical) {
            Node::inner(critical, rest, fresh)
        } else {
            Node::inner(critical, fresh, rest)
        };
    }

    /// The first node on the walk of `key` that branches no earlier than at `limit` (none: the leaf), with
    /// all nodes above it unshared and their hashes forgotten.
    fn descend(&mut self, key: &Key, limit: Option<u8>) -> &mut Node {
        let mut node = self;
        while node.branches_before(limit) {
            let Node::Inner(inner) = node else { break };
            let right = key.bit(inner.bit);
            node = Arc::make_mut(inner).child_mut(right);
        }
        node
    }

    /// Whether this is an inner node with a bit below `limit`, or any inner node when there is none.
    fn branches_before(&self, limit: Option<u8>) -> bool {
        matches!(self, Node::Inner(inner) if limit.is_none_or(|limit| inner.bit < limit))
    }

    fn replace_leaf(&mut self, key: Key, value: Arc<[u8]>) {
        if let Node::Leaf(leaf) = self
            && let Some(leaf) = Arc::get_mut(leaf)
        {
            leaf.value = value;
            leaf.hash.take();
            return;
        }
        *self = Node::leaf(key, value);
    }

    /// Takes the leaf of `key` out from below this inner node; its sibling takes their parent's place. The
    /// caller has seen that the walk of `key` ends in that leaf. Recurses to at most [`DEPTH_MAX`].
    pub(crate) fn take_out(&mut self, key: &Key) {
        let Node::Inner(shared) = self else { return };
        let right = key.bit(shared.bit);
        if !matches!(shared.child(right), Node::Inner(_)) {
            *self = shared.child(!right).clone();
            return;
        }
        let inner = Arc::make_mut(shared);
        inner.child_mut(right).take_out(key);
        if inner.left.is_stub() && inner.right.is_stub() {
            *self = Node::stub(self.hash());
        }
    }
}
