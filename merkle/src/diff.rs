//! The keys in which two tries differ, found by walking only where their hashes differ.
//!
//! Invariant: subtrees that are shared or hash alike are never entered, so the cost is bounded by what
//! changed between the two, not by their size.

use crate::error::Missing;
use crate::key::Key;
use crate::node::Node;
use crate::trie::Trie;

/// One key in which the new trie differs from the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the new trie has the key.
    Added(Key),
    /// Only the old trie has the key.
    Removed(Key),
    /// Both have the key, with different values.
    Replaced(Key),
}

impl Change {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Change::Added(key) | Change::Removed(key) | Change::Replaced(key) => key,
        }
    }
}

/// The changes from `old` to `new`, in order of keys. Between pruned copies it yields one [`Missing`] and
/// ends where a stub stands against something else.
#[must_use]
pub fn diff<'a>(old: &'a Trie, new: &'a Trie) -> Diff<'a> {
    let tasks = match (&old.root, &new.root) {
        (Some(old), Some(new)) => vec![Task::Compare(old, new)],
        (Some(old), None) => vec![Task::Old(old)],
        (None, Some(new)) => vec![Task::New(new)],
        (None, None) => Vec::new(),
    };
    Diff { tasks, position: Key::MIN, visited: 0 }
}

/// What is left to do for one range of keys.
enum Task<'a> {
    Compare(&'a Node, &'a Node),
    /// The new trie has nothing here.
    Old(&'a Node),
    /// The old trie has nothing here.
    New(&'a Node),
}

/// The iterator of [`diff`].
pub struct Diff<'a> {
    /// The next task last. At most two for each level of either trie.
    tasks: Vec<Task<'a>>,
    position: Key,
    visited: u64,
}

impl<'a> Diff<'a> {
    /// Nodes that were looked at so far, those of both tries counted: the cost.
    #[must_use]
    pub fn visited(&self) -> u64 {
        self.visited
    }

    fn push(&mut self, first: Task<'a>, second: Task<'a>) {
        self.tasks.push(second);
        self.tasks.push(first);
    }

    /// Splits two differing subtrees into smaller tasks, or finds that they are one replaced leaf.
    fn compare(&mut self, old: &'a Node, new: &'a Node) -> Result<Option<Change>, Missing> {
        let missing = Missing(self.position);
        let old_key = old.any_key().ok_or(missing)?;
        let new_key = new.any_key().ok_or(missing)?;
        let critical = old_key.critical_bit(new_key);
        match (old, new) {
            // They have no key in common, if they part before either branches.
            _ if critical
                .is_some_and(|critical| branches_after(old, critical) && branches_after(new, critical)) =>
            {
                let (old_task, new_task) = (Task::Old(old), Task::New(new));
                if old_key < new_key {
                    self.push(old_task, new_task);
                } else {
                    self.push(new_task, old_task);
                }
            }
            (Node::Inner(a), Node::Inner(b)) if a.bit == b.bit => self.push(
                Task::Compare(a.child(false), b.child(false)),
                Task::Compare(a.child(true), b.child(true)),
            ),
            (Node::Inner(a), _) if branches_after(new, a.bit) => {
                if new_key.bit(a.bit) {
                    self.push(Task::Old(a.child(false)), Task::Compare(a.child(true), new));
                } else {
                    self.push(Task::Compare(a.child(false), new), Task::Old(a.child(true)));
                }
            }
            (_, Node::Inner(b)) => {
                if old_key.bit(b.bit) {
                    self.push(Task::New(b.child(false)), Task::Compare(old, b.child(true)));
                } else {
                    self.push(Task::Compare(old, b.child(false)), Task::New(b.child(true)));
                }
            }
            // Two leaves of one key, or they had parted above.
            _ => return Ok(Some(Change::Replaced(*new_key))),
        }
        Ok(None)
    }

    fn step(&mut self, task: Task<'a>) -> Result<Option<Change>, Missing> {
        let nodes = if matches!(task, Task::Compare(..)) { 2 } else { 1 };
        self.visited = self.visited.saturating_add(nodes);
        match task {
            Task::Compare(old, new) => {
                if old.is_same(new) || old.hash() == new.hash() {
                    return Ok(None);
                }
                self.compare(old, new)
            }
            Task::Old(Node::Inner(inner)) => {
                self.push(Task::Old(inner.child(false)), Task::Old(inner.child(true)));
                Ok(None)
            }
            Task::New(Node::Inner(inner)) => {
                self.push(Task::New(inner.child(false)), Task::New(inner.child(true)));
                Ok(None)
            }
            Task::Old(leaf) => {
                leaf.key().map(|key| Some(Change::Removed(*key))).ok_or(Missing(self.position))
            }
            Task::New(leaf) => leaf.key().map(|key| Some(Change::Added(*key))).ok_or(Missing(self.position)),
        }
    }
}

/// Whether all keys below `node` agree up to and including `bit`.
fn branches_after(node: &Node, bit: u8) -> bool {
    match node {
        Node::Inner(inner) => inner.bit > bit,
        Node::Leaf(_) | Node::Pruned(_) | Node::Stub(_) => true,
    }
}

impl Iterator for Diff<'_> {
    type Item = Result<Change, Missing>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(task) = self.tasks.pop() {
            match self.step(task) {
                Ok(None) => {}
                Ok(Some(change)) => {
                    self.position = change.key().successor().unwrap_or(Key::MAX);
                    return Some(Ok(change));
                }
                Err(missing) => {
                    self.tasks.clear();
                    return Some(Err(missing));
                }
            }
        }
        None
    }
}
