//! What happened to a path or to an inode: the operations that made, moved, changed and removed it.
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

/// What an operation did to what is followed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// The path names something that it did not name before, be it made or moved there; the inode was made.
    Appeared,
    /// The path names nothing any more; nothing names the inode any more.
    Vanished,
    /// The inode was given another name in place of its only one.
    Name,
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
    pub const ALL: [Self; 10] = [
        Self::Appeared,
        Self::Vanished,
        Self::Name,
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
            Self::Name => "name",
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

/// An operation that touched what is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Its index in the batch.
    pub index: u32,
    /// What it did; never empty.
    pub aspects: BTreeSet<Aspect>,
    /// What the path named before; the inode, if it was there.
    pub before: Option<Ino>,
    /// The same after it.
    pub after: Option<Ino>,
}

/// What is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A path from the root, whatever it names; without names that is the root itself.
    Path(Vec<Name>),
    /// An inode, wherever it is named.
    Inode(Ino),
}

/// Follows one path or inode through the batches that it is shown.
#[derive(Clone, Debug)]
pub struct Trace {
    subject: Subject,
    /// The keys of the rows that decide what it is: the entries that lead there, as far as there are directories.
    keys: Vec<Key>,
    target: Option<(Ino, Inode)>,
    touches: Vec<Touch>,
    damaged: Option<Error>,
}

impl Trace {
    /// Follows `subject`. `state` is the one before the first batch that it will be shown.
    ///
    /// # Errors
    /// [`Error`], of the state.
    pub fn new(subject: Subject, state: &dyn View) -> Result<Self, Error> {
        let mut trace = Trace { subject, keys: Vec::new(), target: None, touches: Vec::new(), damaged: None };
        trace.resolve(state)?;
        Ok(trace)
    }

    /// What the path names now; the inode, if it is there.
    #[must_use]
    pub fn target(&self) -> Option<Ino> {
        self.target.as_ref().map(|(ino, _)| *ino)
    }

    /// The operations of the batches since the last call that touched the subject, in order.
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
        let ino = match &self.subject {
            Subject::Inode(ino) => *ino,
            Subject::Path(names) => {
                let mut current = keys::ROOT_INO;
                for name in names {
                    let Some(located) = navigate::locate(view, current, name)? else { return Ok(()) };
                    self.keys.push(located.key);
                    let Some(ino) = located.ino else { return Ok(()) };
                    current = ino;
                }
                current
            }
        };
        self.keys.push(keys::inode(ino));
        self.target = get::<Inode>(view, &keys::inode(ino))?.map(|inode| (ino, inode));
        Ok(())
    }

    fn see(&mut self, index: u32, changes: &Changes, after: &dyn View) -> Result<(), Error> {
        let before = self.target.clone();
        if self.keys.iter().any(|key| changes.contains_key(key)) {
            self.resolve(after)?;
        }
        let mut aspects = BTreeSet::new();
        match (&before, &self.target) {
            (Some((was, old)), Some((ino, new))) if was == ino => {
                let rows = changes.range(keys::inode(*ino)..keys::inode_end(*ino));
                aspects.extend(rows.filter_map(|(key, _)| aspect_of(keys::kind_of(key))));
                aspects.extend(differing(old, new, aspects.is_empty()));
                if new.is_removed() || (new.nlink == 0 && old.nlink != 0) {
                    aspects = BTreeSet::from([Aspect::Vanished]);
                }
            }
            (_, Some(_)) => {
                aspects.insert(Aspect::Appeared);
            }
            // It had vanished when its last name went; only whoever had it open held it.
            (Some((_, old)), None) if old.nlink == 0 => {}
            (Some(_), None) => {
                aspects.insert(Aspect::Vanished);
            }
            (None, None) => {}
        }
        if !aspects.is_empty() {
            let before = before.map(|(ino, _)| ino);
            self.touches.push(Touch { index, aspects, before, after: self.target() });
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
    let named = was.parent != 0 && is.parent != 0;
    let found = [
        (named && (was.parent, was.name) != (is.parent, is.name), Aspect::Name),
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
