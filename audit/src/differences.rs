//! In what the trees of two heights differ, by paths.
//!
//! Invariant: subtrees of the state with one hash are never entered, so the work is that of what changed, and of the
//! ancestors of it, whatever the size of the trees.

use std::collections::{BTreeMap, BTreeSet};

use quorate_execution::State;
use quorate_merkle::diff;
use quorate_metadata::rows::{Entry, Inode, Row, get};
use quorate_metadata::{Error, INO_END, Key, keys, navigate};
use quorate_protocol::Ino;
use quorate_protocol::file::Name;

use crate::trace::{Aspect, differing};

/// A path from the root, by its names.
pub type PathNames = Vec<Name>;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the later tree has the path.
    Added {
        /// The path.
        path: PathNames,
        /// What it names.
        ino: Ino,
    },
    /// Only the earlier tree has the path.
    Removed {
        /// The path.
        path: PathNames,
        /// What it named.
        ino: Ino,
    },
    /// What the earlier tree has at one path, and nowhere else, the later one has at another alone.
    Moved {
        /// Where it was.
        from: PathNames,
        /// Where it is.
        to: PathNames,
        /// What it is.
        ino: Ino,
        /// What the earlier tree has where it is.
        over: Option<Ino>,
    },
    /// One path names two different inodes.
    Replaced {
        /// The path.
        path: PathNames,
        /// What it named.
        before: Ino,
        /// What it names.
        after: Ino,
    },
    /// An inode of both trees is not what it was.
    Modified {
        /// A path that leads to it in the later tree.
        path: PathNames,
        /// The inode.
        ino: Ino,
        /// In what.
        aspects: BTreeSet<Aspect>,
    },
}

impl Difference {
    /// The path by which differences are ordered: where it is, or else where it was.
    #[must_use]
    pub fn path(&self) -> &[Name] {
        match self {
            Self::Added { path, .. }
            | Self::Removed { path, .. }
            | Self::Replaced { path, .. }
            | Self::Modified { path, .. } => path,
            Self::Moved { to, .. } => to,
        }
    }

    /// Whether it is about something at or below a path, in either tree.
    #[must_use]
    pub fn is_within(&self, path: &[Name]) -> bool {
        let was = matches!(self, Self::Moved { from, .. } if from.starts_with(path));
        was || self.path().starts_with(path)
    }
}

/// What was found, and at what cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differences {
    /// By path.
    pub found: Vec<Difference>,
    /// Rows of the state that differ, those of sessions and blocks included.
    pub rows: u64,
    /// Nodes of both tries that were looked at to find these rows.
    pub nodes: u64,
}

/// The differences from `old` to `new`.
///
/// # Errors
/// [`Error`]: a row does not decode, which no state that execution makes has.
pub fn differences(old: &State, new: &State) -> Result<Differences, Error> {
    let mut changed = Changed::default();
    let mut walk = diff(old.trie(), new.trie());
    let mut rows = 0_u64;
    for change in walk.by_ref() {
        let change = change.map_err(|missing| Error::Missing(quorate_metadata::Missing(missing.0.0)))?;
        rows = rows.saturating_add(1);
        changed.note(&change.key().0);
    }
    let nodes = walk.visited();
    let mut found = entries(old, new, &changed.entries)?;
    for (ino, rows) in &changed.inodes {
        found.extend(modified(old, new, *ino, rows)?);
    }
    found.sort_by(|one, other| one.path().cmp(other.path()));
    Ok(Differences { found, rows, nodes })
}

/// Rows that differ, by what they are about.
#[derive(Default)]
struct Changed {
    entries: Vec<Key>,
    inodes: BTreeMap<Ino, BTreeSet<Aspect>>,
}

impl Changed {
    fn note(&mut self, key: &Key) {
        let ino = keys::ino_of(key);
        if ino >= INO_END {
            return;
        }
        let aspects = self.inodes.entry(ino).or_default();
        match keys::kind_of(key) {
            keys::KIND_ENTRY => self.entries.push(*key),
            keys::KIND_CONTENT | keys::KIND_SYMLINK => {
                aspects.insert(Aspect::Content);
            }
            keys::KIND_XATTR => {
                aspects.insert(Aspect::Xattrs);
            }
            _ => {}
        }
    }
}

/// The differences in names. What had one name, lost it and came to one other was moved there.
fn entries(old: &State, new: &State, changed: &[Key]) -> Result<Vec<Difference>, Error> {
    let (mut removed, mut added) = (BTreeMap::new(), BTreeMap::new());
    for key in changed {
        let (was, is) = (entry(old, key)?, entry(new, key)?);
        if was.as_ref().map(|entry| entry.ino) == is.as_ref().map(|entry| entry.ino) {
            continue;
        }
        for (state, entry, paths) in [(old, was, &mut removed), (new, is, &mut added)] {
            let Some(entry) = entry else { continue };
            if let Some(path) = child(state, keys::ino_of(key), &entry.name)? {
                paths.entry(entry.ino).or_insert_with(Vec::new).push(path);
            }
        }
    }
    let mut moved = Vec::new();
    for (ino, left) in &mut removed {
        if let Some(came) = added.get_mut(ino)
            && left.len() == 1
            && came.len() == 1
            && has_one_name(old, *ino)?
            && has_one_name(new, *ino)?
            && let (Some(from), Some(to)) = (left.pop(), came.pop())
        {
            moved.push((from, to, *ino));
        }
    }
    let mut gone: BTreeMap<PathNames, Ino> = by_path(removed);
    let mut found = Vec::new();
    for (from, to, ino) in moved {
        let over = gone.remove(&to);
        found.push(Difference::Moved { from, to, ino, over });
    }
    for (path, ino) in by_path(added) {
        found.push(match gone.remove(&path) {
            Some(before) => Difference::Replaced { path, before, after: ino },
            None => Difference::Added { path, ino },
        });
    }
    found.extend(gone.into_iter().map(|(path, ino)| Difference::Removed { path, ino }));
    Ok(found)
}

/// Whether one name alone leads to an inode: a directory's number of links counts what it holds.
fn has_one_name(state: &State, ino: Ino) -> Result<bool, Error> {
    let inode = get::<Inode>(&state.as_view(), &keys::inode(ino))?;
    Ok(inode.is_some_and(|inode| inode.is_directory() || inode.nlink == 1))
}

fn by_path(paths: BTreeMap<Ino, Vec<PathNames>>) -> BTreeMap<PathNames, Ino> {
    paths.into_iter().flat_map(|(ino, paths)| paths.into_iter().map(move |path| (path, ino))).collect()
}

fn entry(state: &State, key: &Key) -> Result<Option<Entry>, Error> {
    state.row(key).map(|value| Entry::from_value(&value)).transpose()
}

/// The path of a name in a directory, unless nothing leads to the directory.
fn child(state: &State, directory: Ino, name: &Name) -> Result<Option<PathNames>, Error> {
    let mut path = navigate::path_of(&state.as_view(), directory)?;
    if let Some(path) = &mut path {
        path.push(name.clone());
    }
    Ok(path)
}

/// The difference of an inode that both trees have, if it is one beside names.
fn modified(
    old: &State,
    new: &State,
    ino: Ino,
    rows: &BTreeSet<Aspect>,
) -> Result<Option<Difference>, Error> {
    let inode = |state: &State| get::<Inode>(&state.as_view(), &keys::inode(ino));
    let (Some(was), Some(is)) = (inode(old)?, inode(new)?) else { return Ok(None) };
    let mut aspects = rows.clone();
    aspects.extend(differing(&was, &is, rows.is_empty() && !is.is_directory()));
    // Told by its entries.
    aspects.remove(&Aspect::Name);
    if aspects.is_empty() {
        return Ok(None);
    }
    let path = navigate::path_of(&new.as_view(), ino)?;
    Ok(path.map(|path| Difference::Modified { path, ino, aspects }))
}
