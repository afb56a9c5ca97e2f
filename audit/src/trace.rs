//! What happened to a path: the operations that made, moved, changed and removed what it names.
//!
//! Invariant: operations are seen one by one, while the checked history is executed again, each with the state
//! right after it; so a file that comes and goes within one batch is seen as well, and nothing is told that the
//! certified states do not bear out.

use std::collections::BTreeSet;

use quorate_execution::{Changes, Watch};
use quorate_metadata::rows::{Inode, get};
use quorate_metadata::{Error, Key, View, keys, navigate};
use quorate_protocol::Ino;
use quorate_protocol::file::Name;

/// What an operation did to what a path names.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// The path names something that it did not name before, be it made or moved there.
    Appeared,
    /// The path names nothing any more.
    Vanished,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Bytes or size of a file, or a symbolic link's target.
    Content,
    /// Names in a directory.
    Entries,
    /// Hard links.
    Links,
    /// Extended attributes.
    Xattrs,
    /// Times alone.
    Times,
}

impl Aspect {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 9] = [
        Self::Appeared,
        Self::Vanished,
        Self::Mode,
        Self::Owner,
        Self::Content,
        Self::Entries,
        Self::Links,
        Self::Xattrs,
        Self::Times,
    ];

    /// Its name, as commands print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Appeared => "appeared",
            Self::Vanished => "vanished",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Content => "content",
            Self::Entries => "entries",
            Self::Links => "links",
            Self::Xattrs => "xattrs",
            Self::Times => "times",
        }
    }
}

/// An operation that touched the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Its index in the batch.
    pub index: u32,
    /// What it did; never empty.
    pub aspects: BTreeSet<Aspect>,
    /// What the path named before.
    pub before: Option<Ino>,
    /// What it names after.
    pub after: Option<Ino>,
}

/// Follows one path through the batches that it is shown.
#[derive(Clone, Debug)]
pub struct Trace {
    names: Vec<Name>,
    /// The keys of the entries that lead there, as far as there are directories, and what the path names.
    keys: Vec<Key>,
    target: Option<(Ino, Inode)>,
    touches: Vec<Touch>,
    damaged: Option<Error>,
}

impl Trace {
    /// Follows a path from the root; without names that is the root itself. `state` is the one before the first
    /// batch that it will be shown.
    ///
    /// # Errors
    /// [`Error`], of the state.
    pub fn new(names: Vec<Name>, state: &dyn View) -> Result<Self, Error> {
        let mut trace = Trace { names, keys: Vec::new(), target: None, touches: Vec::new(), damaged: None };
        trace.resolve(state)?;
        Ok(trace)
    }

    /// What the path names now.
    #[must_use]
    pub fn target(&self) -> Option<Ino> {
        self.target.as_ref().map(|(ino, _)| *ino)
    }

    /// The operations of the batches since the last call that touched the path, in order.
    ///
    /// # Errors
    /// [`Error`]: a row does not decode, which no state that execution makes has.
    pub fn take(&mut self) -> Result<Vec<Touch>, Error> {
        match self.damaged.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.touches)),
        }
    }

    fn resolve(&mut self, view: &dyn View) -> Result<(), Error> {
        self.keys.clear();
        self.target = None;
        let mut current = keys::ROOT_INO;
        for name in &self.names {
            let Some(located) = navigate::locate(view, current, name)? else { return Ok(()) };
            self.keys.push(located.key);
            let Some(ino) = located.ino else { return Ok(()) };
            current = ino;
        }
        self.target = get::<Inode>(view, &keys::inode(current))?.map(|inode| (current, inode));
        Ok(())
    }

    fn see(&mut self, index: u32, changes: &Changes, after: &dyn View) -> Result<(), Error> {
        let before = self.target.clone();
        let led = before.as_ref().map(|(ino, _)| *ino);
        if self.keys.iter().any(|key| changes.contains_key(key)) {
            self.resolve(after)?;
        }
        let mut aspects = BTreeSet::new();
        match (led, self.target()) {
            (was, Some(is)) if was != Some(is) => {
                aspects.insert(Aspect::Appeared);
            }
            (Some(_), None) => {
                aspects.insert(Aspect::Vanished);
            }
            (_, Some(ino)) => {
                let touched = changes.range(keys::inode(ino)..keys::inode_end(ino)).map(|(key, _)| key);
                aspects.extend(touched.filter_map(|key| aspect_of(keys::kind_of(key))));
                if changes.contains_key(&keys::inode(ino)) {
                    let now = get::<Inode>(after, &keys::inode(ino))?;
                    if let (Some((_, was)), Some(is)) = (&before, &now) {
                        aspects.extend(differing(was, is, aspects.is_empty()));
                    }
                    self.target = now.map(|inode| (ino, inode));
                }
            }
            (None, None) => {}
        }
        if !aspects.is_empty() {
            self.touches.push(Touch { index, aspects, before: led, after: self.target() });
        }
        Ok(())
    }
}

impl Watch for Trace {
    fn applied(&mut self, index: u32, changes: &Changes, after: &dyn View) {
        if let Err(error) = self.see(index, changes, after) {
            self.damaged = self.damaged.or(Some(error));
        }
    }
}

/// What a row of an inode is about; nothing for the inode row itself, which is compared, and for grants.
fn aspect_of(kind: u8) -> Option<Aspect> {
    match kind {
        keys::KIND_CONTENT | keys::KIND_SYMLINK => Some(Aspect::Content),
        keys::KIND_ENTRY => Some(Aspect::Entries),
        keys::KIND_LINK => Some(Aspect::Links),
        keys::KIND_XATTR => Some(Aspect::Xattrs),
        _ => None,
    }
}

/// In what two rows of one inode differ. Times count if `alone`, when no other row has changed, and nothing else here.
pub(crate) fn differing(was: &Inode, is: &Inode, alone: bool) -> Vec<Aspect> {
    let size = !is.is_directory() && was.size != is.size;
    let found = [
        (was.mode != is.mode, Aspect::Mode),
        ((was.uid, was.gid) != (is.uid, is.gid), Aspect::Owner),
        (size || was.reclaim_from != is.reclaim_from, Aspect::Content),
        (!is.is_directory() && was.nlink != is.nlink, Aspect::Links),
        (was.xattr_count != is.xattr_count || was.xattr_bytes != is.xattr_bytes, Aspect::Xattrs),
    ];
    let mut aspects: Vec<Aspect> =
        found.into_iter().filter(|(differs, _)| *differs).map(|(_, aspect)| aspect).collect();
    if alone && aspects.is_empty() && (was.atime, was.mtime) != (is.atime, is.mtime) {
        aspects.push(Aspect::Times);
    }
    aspects
}
