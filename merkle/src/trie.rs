//! The state trie: one persistent, canonical, binary crit-bit trie for the full state and for pruned copies.
//!
//! Invariant: the root is a pure function of the map from keys to values, whatever the order or history of
//! changes. A copy that lacks what a question needs answers [`Missing`], never "absent" and never a guess.
//!
//! Every read returns `Result`, so that subtrees can be brought from disk at the place where a stub stands
//! without a change to the callers.

use std::fmt;
use std::sync::Arc;

use quorate_crypto::Hash;

use crate::error::Missing;
use crate::hash::empty_root;
use crate::key::Key;
use crate::node::Node;
use crate::scan::{Leaves, Scan, neighbour_below};

/// A map from [`Key`] to bytes with a Merkle root. Cloning is O(1): copies share all nodes, and a change
/// copies only the path to what it changes. Nodes that nobody else holds are changed in place.
///
/// Full tries never return [`Missing`]. Pruned copies come from
/// [`PartialTrie::verify`](crate::PartialTrie::verify) and take the same reads and writes as long as they
/// hold the nodes that these need, so that a client or an auditor can execute on them.
#[derive(Clone, Default)]
pub struct Trie {
    pub(crate) root: Option<Node>,
}

/// A key with its value, as scans yield them.
pub type Row = (Key, Arc<[u8]>);

impl Trie {
    /// The empty trie.
    #[must_use]
    pub fn new() -> Self {
        Trie::default()
    }

    /// Whether the trie holds no leaf. A pruned copy that is not empty says so too.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The root: the hash of the map. Hashes only what changed since the last call on a trie that shares the
    /// nodes. The recursion is bounded by [`DEPTH_MAX`](crate::DEPTH_MAX).
    #[must_use]
    pub fn root(&self) -> Hash {
        self.root.as_ref().map_or_else(empty_root, Node::hash)
    }

    /// The value of `key`, or `None` when it is absent, which is when the walk by its bits ends in the leaf
    /// of another key.
    ///
    /// # Errors
    /// [`Missing`] when the walk ends in a stub, or the value is pruned.
    pub fn get(&self, key: &Key) -> Result<Option<Arc<[u8]>>, Missing> {
        let Some(root) = &self.root else { return Ok(None) };
        match root.walk(key) {
            Node::Leaf(leaf) if leaf.key == *key => Ok(Some(Arc::clone(leaf.value()))),
            Node::Leaf(_) => Ok(None),
            Node::Pruned(leaf) if leaf.key != *key => Ok(None),
            Node::Pruned(_) | Node::Stub(_) | Node::Inner(_) => Err(Missing(*key)),
        }
    }

    /// The hash of the value of `key`, or `None` when it is absent. A pruned leaf answers this.
    ///
    /// # Errors
    /// [`Missing`] when the walk ends in a stub.
    pub fn value_hash(&self, key: &Key) -> Result<Option<Hash>, Missing> {
        let Some(root) = &self.root else { return Ok(None) };
        match root.walk(key) {
            Node::Leaf(leaf) => Ok((leaf.key == *key).then(|| leaf.value_hash())),
            Node::Pruned(leaf) => Ok((leaf.key == *key).then_some(leaf.value_hash)),
            Node::Stub(_) | Node::Inner(_) => Err(Missing(*key)),
        }
    }

    /// Whether `key` is present. A pruned leaf answers this.
    ///
    /// # Errors
    /// [`Missing`] when the walk ends in a stub.
    pub fn contains(&self, key: &Key) -> Result<bool, Missing> {
        let Some(root) = &self.root else { return Ok(false) };
        root.walk(key).key().map(|found| found == key).ok_or(Missing(*key))
    }

    /// Puts `value` under `key`, new or in place of another.
    ///
    /// # Errors
    /// [`Missing`] when the walk ends in a stub; then nothing has changed.
    pub fn insert(&mut self, key: Key, value: Arc<[u8]>) -> Result<(), Missing> {
        let Some(root) = &mut self.root else {
            self.root = Some(Node::leaf(key, value));
            return Ok(());
        };
        let critical = root.walk(&key).key().ok_or(Missing(key))?.critical_bit(&key);
        root.put(key, value, critical);
        Ok(())
    }

    /// Takes `key` out; false when it was absent.
    ///
    /// In a pruned copy the place of a leaf taken out may be a stub, so that a later question about another
    /// key near it is [`Missing`] though the copy could answer it before. Use [`Trie::apply`] for a batch.
    ///
    /// # Errors
    /// [`Missing`] when the walk ends in a stub; then nothing has changed.
    pub fn remove(&mut self, key: &Key) -> Result<bool, Missing> {
        if !self.contains(key)? {
            return Ok(false);
        }
        match &mut self.root {
            Some(root @ Node::Inner(_)) => root.take_out(key),
            root => *root = None,
        }
        Ok(true)
    }

    /// Applies a batch of changes: `Some` puts, `None` takes out. Each key may occur once; the order does not
    /// matter. On a pruned copy this succeeds whenever the copy answers [`Trie::contains`] for each key,
    /// because it puts before it takes out.
    ///
    /// # Errors
    /// [`Missing`] when the walk of a key ends in a stub. Then part of the batch may have been applied: drop
    /// this trie and go on with a clone made before.
    pub fn apply<'c, I>(&mut self, changes: I) -> Result<(), Missing>
    where
        I: IntoIterator<Item = (&'c Key, &'c Option<Arc<[u8]>>)>,
    {
        let mut removed = Vec::new();
        for (key, value) in changes {
            match value {
                Some(value) => self.insert(*key, Arc::clone(value))?,
                None if self.contains(key)? => removed.push(key),
                None => {}
            }
        }
        for key in removed {
            self.remove(key)?;
        }
        Ok(())
    }

    /// The keys and values of `[lo, hi)` in order; `hi` = `None` has no upper end.
    ///
    /// In a pruned copy the answer is complete by rule S2: no stub lies between the last revealed leaf below
    /// `lo` (or the left edge) and the first at or above `hi` (or the right edge), or where the caller stops.
    /// Otherwise the iterator yields one [`Missing`] and ends.
    #[must_use]
    pub fn scan(&self, lo: &Key, hi: Option<&Key>) -> Scan<'_> {
        Scan::new(Leaves::new(self.root.as_ref(), lo, hi))
    }

    /// The first key at or after `key`, with its value.
    ///
    /// # Errors
    /// [`Missing`] as [`Trie::scan`].
    pub fn first_at_or_after(&self, key: &Key) -> Result<Option<Row>, Missing> {
        self.scan(key, None).next().transpose()
    }

    /// The last key below `key`. Its value may be pruned. It is what a question for the range from it to
    /// `key` proves.
    ///
    /// # Errors
    /// [`Missing`] when a stub lies between it (or the left edge) and the first revealed leaf at or above `key`
    /// (or the right edge).
    pub fn last_before(&self, key: &Key) -> Result<Option<Key>, Missing> {
        self.root.as_ref().map_or(Ok(None), |root| neighbour_below(root, key))
    }
}

impl fmt::Debug for Trie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the leaves: there may be millions.
        write!(f, "Trie({})", self.root())
    }
}
