//! Ordered reads: where a key stands among the leaves, the leaf before it, and the leaves from there on.
//!
//! Invariant (rule S2): an ordered read trusts only revealed leaves that follow each other without a stub
//! between them. Critical bits alone are not trusted: compressed paths do not show the bits that they skip.

use std::sync::Arc;

use crate::error::Missing;
use crate::key::Key;
use crate::node::Node;
use crate::trie::Row;

/// Where a key stands: between the last leaf or stub of `below` and the first of the nodes `above`.
struct Place<'a> {
    /// The subtree that ends right before the key, if it is not at the left edge.
    below: Option<&'a Node>,
    /// The subtrees that follow, the next one last. At most `DEPTH_MAX + 1`.
    above: Vec<&'a Node>,
}

/// Finds the place of `key`, or [`Missing`] when it may be inside a stub or between a stub and a leaf on a
/// path that the revealed leaves do not settle.
fn locate<'a>(root: &'a Node, key: &Key) -> Result<Place<'a>, Missing> {
    let mut path = Vec::new();
    let mut node = root;
    while let Node::Inner(inner) = node {
        path.push(inner);
        node = inner.child(key.bit(inner.bit));
    }
    // A revealed leaf that shares with the key as much of the path as is known.
    let critical = match node.key() {
        Some(found) => found.critical_bit(key),
        None => {
            // The walk ends in a stub, so the sibling of the stub has a leaf.
            let parent = path.last().ok_or(Missing(*key))?;
            let found = parent.child(!key.bit(parent.bit)).any_key().ok_or(Missing(*key))?;
            let critical = found.critical_bit(key).filter(|critical| *critical < parent.bit);
            // At the parent's bit or later: the key's place is on the stub's side.
            Some(critical.ok_or(Missing(*key))?)
        }
    };
    // The subtree at `node` is all above the key, all below it, or is its leaf.
    let mut place = Place { below: None, above: Vec::new() };
    let mut node = root;
    for inner in path.into_iter().take_while(|inner| critical.is_none_or(|critical| inner.bit < critical)) {
        let right = key.bit(inner.bit);
        if right {
            place.below = Some(inner.child(false));
        } else {
            place.above.push(inner.child(true));
        }
        node = inner.child(right);
    }
    match critical {
        Some(critical) if key.bit(critical) => place.below = Some(node),
        _ => place.above.push(node),
    }
    Ok(place)
}

/// The last revealed leaf below `key`, or [`Missing`] when a stub lies between it and the first revealed leaf at
/// or above the key.
pub(crate) fn neighbour_below(root: &Node, key: &Key) -> Result<Option<Key>, Missing> {
    let place = locate(root, key)?;
    if place.above.last().is_some_and(|next| next.first().is_stub()) {
        return Err(Missing(*key));
    }
    match place.below {
        None => Ok(None),
        Some(node) => node.last().key().copied().map(Some).ok_or(Missing(*key)),
    }
}

/// A leaf as a scan meets it.
#[derive(Clone, Copy)]
pub(crate) struct LeafRef<'a> {
    pub(crate) key: &'a Key,
    /// `None` when the value is pruned.
    pub(crate) value: Option<&'a Arc<[u8]>>,
}

/// The leaves of a range in order, pruned ones included.
pub(crate) struct Leaves<'a> {
    above: Vec<&'a Node>,
    hi: Option<Key>,
    /// From here on it is not known what follows.
    position: Key,
    failed: Option<Missing>,
    /// The first leaf at or above `hi`, once met.
    beyond: Option<&'a Key>,
}

impl<'a> Leaves<'a> {
    pub(crate) fn new(root: Option<&'a Node>, lo: &Key, hi: Option<&Key>) -> Self {
        let mut leaves =
            Leaves { above: Vec::new(), hi: hi.copied(), position: *lo, failed: None, beyond: None };
        // Nothing lies in an empty range, whatever is held.
        let (Some(root), false) = (root, hi.is_some_and(|hi| hi <= lo)) else { return leaves };
        match locate(root, lo) {
            Ok(place) if place.below.is_none_or(|below| !below.last().is_stub()) => {
                leaves.above = place.above;
            }
            Ok(_) => leaves.failed = Some(Missing(*lo)),
            Err(missing) => leaves.failed = Some(missing),
        }
        leaves
    }

    /// The first leaf at or above the end of the range, once the iterator has ended there.
    pub(crate) fn beyond(&self) -> Option<&'a Key> {
        self.beyond
    }

    fn fail(&mut self, missing: Missing) -> Option<Result<LeafRef<'a>, Missing>> {
        self.above.clear();
        Some(Err(missing))
    }
}

impl<'a> Iterator for Leaves<'a> {
    type Item = Result<LeafRef<'a>, Missing>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(missing) = self.failed.take() {
            return self.fail(missing);
        }
        let mut node = self.above.pop()?;
        while let Node::Inner(inner) = node {
            self.above.push(inner.child(true));
            node = inner.child(false);
        }
        let (key, value) = match node {
            Node::Leaf(leaf) => (&leaf.key, Some(leaf.value())),
            Node::Pruned(leaf) => (&leaf.key, None),
            Node::Stub(_) | Node::Inner(_) => {
                let position = self.position;
                return self.fail(Missing(position));
            }
        };
        if self.hi.is_some_and(|hi| *key >= hi) {
            self.beyond = Some(key);
            self.above.clear();
            return None;
        }
        // After the highest key nothing follows, so the position does not matter.
        self.position = key.successor().unwrap_or(Key::MAX);
        Some(Ok(LeafRef { key, value }))
    }
}

/// The keys and values of a range in order; see [`Trie::scan`](crate::Trie::scan).
pub struct Scan<'a> {
    leaves: Leaves<'a>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(leaves: Leaves<'a>) -> Self {
        Scan { leaves }
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Row, Missing>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = match self.leaves.next()? {
            Ok(leaf) => leaf,
            Err(missing) => return Some(Err(missing)),
        };
        match found.value {
            Some(value) => Some(Ok((*found.key, Arc::clone(value)))),
            None => {
                let missing = Missing(*found.key);
                self.leaves.fail(missing);
                Some(Err(missing))
            }
        }
    }
}
