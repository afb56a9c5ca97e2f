//! Directories that the kernel may still hold after they were removed.
//!
//! Invariant: what is remembered is shown for an inode only after the cluster has said that it is gone (ESTALE);
//! then it has no links and no entries, as on a local filesystem. The kernel asks for every name anew, so only who
//! has such a directory open, or works in it, ever sees that. The number of remembered ones is bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use quorate_metadata::DirectoryPage;
use quorate_protocol::file::{Attributes, FileKind};
use quorate_protocol::{Ino, OperationBody};

use crate::shared::Outcome;

/// Directories that are remembered; the one that was first seen longest ago gives way.
const REMEMBERED_MAX: usize = 4096;

#[derive(Default)]
struct Table {
    attributes: HashMap<Ino, Attributes>,
    order: VecDeque<Ino>,
}

/// The attributes that directories had when they were last asked for.
#[derive(Default)]
pub struct Remembered(Mutex<Table>);

impl Remembered {
    /// Takes note of attributes, if they are those of a directory.
    pub fn note(&self, attributes: &Attributes) {
        if attributes.kind != FileKind::Directory {
            return;
        }
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.attributes.insert(attributes.ino, attributes.clone()).is_some() {
            return;
        }
        table.order.push_back(attributes.ino);
        if table.order.len() > REMEMBERED_MAX
            && let Some(oldest) = table.order.pop_front()
        {
            table.attributes.remove(&oldest);
        }
    }

    /// What is left to say of a directory that is gone.
    fn gone(&self, ino: Ino) -> Option<Attributes> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = table.attributes.get(&ino)?.clone();
        Some(Attributes { nlink: 0, size: 0, ..known })
    }

    /// Attributes of an inode; of a directory that is gone, those without links.
    pub fn attributes(&self, ino: Ino, found: Outcome<Attributes>) -> Outcome<Attributes> {
        match found {
            Err(libc::ESTALE) => self.gone(ino).ok_or(libc::ESTALE),
            found => found.inspect(|attributes| self.note(attributes)),
        }
    }

    /// What became of a name in a directory: in one that is gone there is none, and none can be made.
    pub fn within<T>(&self, parent: Ino, outcome: Outcome<T>) -> Outcome<T> {
        match outcome {
            Err(libc::ESTALE) if self.gone(parent).is_some() => Err(libc::ENOENT),
            outcome => outcome,
        }
    }

    /// A page of a directory that the kernel has or opens; one that is gone is empty.
    pub fn page(&self, ino: Ino, is_open: bool, page: Outcome<DirectoryPage>) -> Outcome<DirectoryPage> {
        match page {
            Err(libc::ESTALE) if is_open || self.gone(ino).is_some() => {
                Ok(DirectoryPage { entries: Vec::new(), complete: true })
            }
            page => page,
        }
    }
}

/// The directory in which an operation makes a name.
pub fn parent_of(body: &OperationBody) -> Option<Ino> {
    match body {
        OperationBody::Create { parent, .. }
        | OperationBody::Mkdir { parent, .. }
        | OperationBody::Symlink { parent, .. }
        | OperationBody::Mknod { parent, .. }
        | OperationBody::Link { parent, .. } => Some(*parent),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_protocol::Timestamp;

    fn attributes(ino: Ino, kind: FileKind) -> Attributes {
        let time = Timestamp { seconds: 1, nanoseconds: 0 };
        Attributes {
            ino,
            kind,
            mode: 0o755,
            uid: 1,
            gid: 1,
            nlink: 2,
            rdev: 0,
            size: 3,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            block_log2: 20,
        }
    }

    #[test]
    fn a_directory_that_is_gone_has_no_links_and_no_names() {
        let remembered = Remembered::default();
        assert_eq!(remembered.attributes(7, Err(libc::ESTALE)), Err(libc::ESTALE), "never seen");
        assert_eq!(remembered.within::<()>(7, Err(libc::ESTALE)), Err(libc::ESTALE));
        let known = attributes(7, FileKind::Directory);
        assert_eq!(remembered.attributes(7, Ok(known.clone())), Ok(known.clone()));
        let left = Attributes { nlink: 0, size: 0, ..known };
        assert_eq!(remembered.attributes(7, Err(libc::ESTALE)), Ok(left));
        assert_eq!(remembered.within::<()>(7, Err(libc::ESTALE)), Err(libc::ENOENT));
        assert!(remembered.page(7, false, Err(libc::ESTALE)).is_ok_and(|page| page.entries.is_empty()));
        // Whatever else fails, fails as it is; files are no directories.
        assert_eq!(remembered.attributes(7, Err(libc::EIO)), Err(libc::EIO));
        assert_eq!(remembered.within::<()>(7, Err(libc::EACCES)), Err(libc::EACCES));
        let file = attributes(8, FileKind::Regular);
        assert_eq!(remembered.attributes(8, Ok(file.clone())), Ok(file));
        assert_eq!(remembered.attributes(8, Err(libc::ESTALE)), Err(libc::ESTALE));
    }

    #[test]
    fn the_number_of_remembered_ones_is_bounded() {
        let remembered = Remembered::default();
        for ino in 0..2 * REMEMBERED_MAX as u64 {
            remembered.note(&attributes(ino, FileKind::Directory));
            remembered.note(&attributes(ino, FileKind::Directory));
        }
        let table = remembered.0.lock().unwrap();
        assert_eq!((table.attributes.len(), table.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(table.attributes.contains_key(&(2 * REMEMBERED_MAX as u64 - 1)));
    }
}
