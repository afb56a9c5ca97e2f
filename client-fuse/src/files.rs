//! Open files and directories of this mount, and what is dirty in them.
//!
//! Invariant: a handle lives from open to release; an inode's entry lives until the last handle is released
//! and what it left dirty is written back. Every handle that may write learns once of each failed write-back.
//! A grant belongs to one session: with another one, the handle has none.

use crate::dirty::Dirty;
use quorate_protocol::operation::OpenMode;
use quorate_protocol::{Credential, Ino, SessionId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A regular file that is open here, whatever its number of handles.
pub struct OpenInode {
    /// The inode.
    pub ino: Ino,
    /// What is not in the cluster yet.
    pub dirty: Mutex<Dirty>,
    /// One write-back at a time, so that older bytes never land after newer ones.
    pub writing: tokio::sync::Mutex<()>,
    /// The last write-back that failed.
    failure: Mutex<Failure>,
    /// The mount's count of write-backs when the last one of this file was done.
    pub written_at: AtomicU64,
    /// Binary logarithm of the block size.
    pub block_log2: u8,
    /// Whether `security.capability` is known to be absent: the kernel asks before every write.
    pub no_capability: AtomicBool,
    /// Opens that the cluster does not know of (reads that have not lasted long).
    pub unknown_opens: AtomicU64,
}

/// Failed write-backs of a file.
#[derive(Copy, Clone, Debug, Default)]
struct Failure {
    /// How many there were.
    count: u64,
    /// The errno of the last one.
    errno: i32,
}

impl OpenInode {
    fn new(ino: Ino, block_log2: u8, created: bool) -> Self {
        Self {
            ino,
            dirty: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            failure: Mutex::default(),
            written_at: AtomicU64::new(0),
            block_log2,
            no_capability: AtomicBool::new(created),
            unknown_opens: AtomicU64::new(0),
        }
    }

    /// The dirty bytes.
    pub fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a failed write-back for whoever closes or syncs next.
    pub fn fail(&self, errno: i32) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.count = failure.count.saturating_add(1);
        failure.errno = errno;
    }

    fn failure(&self) -> Failure {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many write-backs have failed.
    pub fn failures(&self) -> u64 {
        self.failure().count
    }

    /// The errno of the last write-back that failed, if any has since there were `before` of them.
    pub fn failed_since(&self, before: u64) -> Option<i32> {
        let Failure { count, errno } = self.failure();
        (count > before).then_some(errno)
    }
}

/// What holds the file of a handle open in the cluster.
#[derive(Copy, Clone, Debug, Default)]
struct Hold {
    /// The session that has a grant for it.
    session: Option<SessionId>,
    /// Set at release: a grant that arrives later is given back at once.
    closed: bool,
}

/// A handle of a regular file.
pub struct OpenFile {
    /// The file.
    pub inode: Arc<OpenInode>,
    /// Who opened it.
    pub credential: Credential,
    /// What for.
    pub mode: OpenMode,
    /// Failed write-backs that this handle knows of.
    failures_seen: AtomicU64,
    hold: Mutex<Hold>,
}

impl OpenFile {
    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this session has a grant for the handle.
    pub fn is_granted(&self, session: SessionId) -> bool {
        self.hold().session == Some(session)
    }

    /// Whether the handle was released.
    pub fn is_closed(&self) -> bool {
        self.hold().closed
    }

    /// Takes a grant of this session over. False when it is one too many: the handle has one of this session,
    /// or was released meanwhile.
    pub fn take_over(&self, session: SessionId) -> bool {
        let mut hold = self.hold();
        if hold.closed || hold.session == Some(session) {
            return false;
        }
        if hold.session.replace(session).is_none() {
            self.inode.unknown_opens.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// Forgets a grant of another session than this one. Whether there was one.
    fn lose_grant(&self, present: SessionId) -> bool {
        let mut hold = self.hold();
        let lost = !hold.closed && hold.session.is_some_and(|session| session != present);
        if lost {
            hold.session = None;
            self.inode.unknown_opens.fetch_add(1, Ordering::Relaxed);
        }
        lost
    }

    /// Takes the grant out, for whoever gives it back when the handle is gone.
    pub fn give_up(&self) -> Option<SessionId> {
        let session = self.hold().session.take();
        if session.is_none() {
            self.inode.unknown_opens.fetch_sub(1, Ordering::Relaxed);
        }
        session
    }

    /// The errno of a write-back that failed since this handle was opened or last asked.
    pub fn take_error(&self) -> Option<i32> {
        let Failure { count, errno } = self.inode.failure();
        (self.failures_seen.swap(count, Ordering::AcqRel) < count && self.mode.write).then_some(errno)
    }

    /// Whether [`OpenFile::take_error`] would return one.
    pub fn has_error(&self) -> bool {
        self.mode.write && self.failures_seen.load(Ordering::Acquire) < self.inode.failure().count
    }
}

/// A handle of a directory: the last page that was fetched.
pub struct OpenDirectory {
    /// The directory.
    pub ino: Ino,
    /// Who opened it.
    pub credential: Credential,
    /// One reader at a time; the page, by the cookie that it was asked with.
    pub page: tokio::sync::Mutex<Option<(u64, quorate_metadata::DirectoryPage)>>,
    /// Whether a listing from the start was served: the next one sees the present (`rewinddir`).
    pub started: AtomicBool,
    /// Whether a page was asked for that shows all that was done before the directory was opened.
    pub seen: AtomicBool,
}

#[derive(Default)]
struct Tables {
    files: HashMap<u64, Arc<OpenFile>>,
    directories: HashMap<u64, Arc<OpenDirectory>>,
    inodes: HashMap<Ino, (Arc<OpenInode>, usize)>,
}

/// All that is open.
#[derive(Default)]
pub struct Files {
    next: AtomicU64,
    tables: Mutex<Tables>,
}

impl Files {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Adds a handle of a regular file, with the session that has a grant for it.
    pub fn open(
        &self,
        ino: Ino,
        block_log2: u8,
        credential: Credential,
        mode: OpenMode,
        (session, created): (Option<SessionId>, bool),
    ) -> (u64, Arc<OpenFile>) {
        let mut tables = self.tables();
        let (inode, handles) = tables
            .inodes
            .entry(ino)
            .or_insert_with(|| (Arc::new(OpenInode::new(ino, block_log2, created)), 0));
        *handles += 1;
        if session.is_none() {
            inode.unknown_opens.fetch_add(1, Ordering::Relaxed);
        }
        let file = Arc::new(OpenFile {
            inode: Arc::clone(inode),
            credential,
            mode,
            failures_seen: AtomicU64::new(inode.failure().count),
            hold: Mutex::new(Hold { session, closed: false }),
        });
        let handle = self.number();
        tables.files.insert(handle, Arc::clone(&file));
        (handle, file)
    }

    /// A handle's file.
    pub fn file(&self, handle: u64) -> Option<Arc<OpenFile>> {
        self.tables().files.get(&handle).cloned()
    }

    /// An inode that is open here.
    pub fn inode(&self, ino: Ino) -> Option<Arc<OpenInode>> {
        self.tables().inodes.get(&ino).map(|(inode, _)| Arc::clone(inode))
    }

    /// All inodes that are open here.
    pub fn inodes(&self) -> Vec<Arc<OpenInode>> {
        self.tables().inodes.values().map(|(inode, _)| Arc::clone(inode)).collect()
    }

    /// Whether any file is open without a grant.
    pub fn any_unknown(&self) -> bool {
        self.tables().inodes.values().any(|(inode, _)| inode.unknown_opens.load(Ordering::Relaxed) > 0)
    }

    /// The handles of an inode that have no grant of this session.
    pub fn unknown(&self, ino: Ino, session: SessionId) -> Vec<Arc<OpenFile>> {
        let tables = self.tables();
        let without = |file: &&Arc<OpenFile>| file.inode.ino == ino && !file.is_granted(session);
        tables.files.values().filter(without).cloned().collect()
    }

    /// Forgets the grants of other sessions than the present one; returns the handles that had them.
    pub fn lose_grants(&self, present: SessionId) -> Vec<Arc<OpenFile>> {
        let files: Vec<_> = self.tables().files.values().cloned().collect();
        files.into_iter().filter(|file| file.lose_grant(present)).collect()
    }

    /// The errno of a write-back of this inode that failed and that not all who may write have heard of.
    pub fn unheard_failure(&self, ino: Ino) -> Option<i32> {
        let tables = self.tables();
        let unheard = |file: &&Arc<OpenFile>| file.inode.ino == ino && file.has_error();
        tables.files.values().find(unheard).map(|file| file.inode.failure().errno)
    }

    /// A handle that can write to an inode.
    pub fn writer(&self, ino: Ino) -> Option<Arc<OpenFile>> {
        let tables = self.tables();
        let writes = |file: &&Arc<OpenFile>| file.inode.ino == ino && file.mode.write;
        tables.files.values().find(writes).cloned()
    }

    /// Takes a handle out. Its inode stays known until [`Files::forget`].
    pub fn release(&self, handle: u64) -> Option<Arc<OpenFile>> {
        let file = self.tables().files.remove(&handle)?;
        file.hold().closed = true;
        Some(file)
    }

    /// A released handle of this inode left nothing dirty behind.
    pub fn forget(&self, ino: Ino) {
        let mut tables = self.tables();
        if let Some((_, handles)) = tables.inodes.get_mut(&ino) {
            *handles = handles.saturating_sub(1);
            if *handles == 0 {
                tables.inodes.remove(&ino);
            }
        }
    }

    /// Adds a handle of a directory, with its first page if that is there.
    pub fn open_directory(
        &self,
        ino: Ino,
        credential: Credential,
        first: Option<quorate_metadata::DirectoryPage>,
    ) -> u64 {
        let handle = self.number();
        let seen = AtomicBool::new(first.is_some());
        let page = tokio::sync::Mutex::new(first.map(|page| (0, page)));
        let directory = OpenDirectory { ino, credential, page, started: AtomicBool::new(false), seen };
        self.tables().directories.insert(handle, Arc::new(directory));
        handle
    }

    /// A handle's directory.
    pub fn directory(&self, handle: u64) -> Option<Arc<OpenDirectory>> {
        self.tables().directories.get(&handle).cloned()
    }

    /// Takes a directory's handle out.
    pub fn release_directory(&self, handle: u64) {
        self.tables().directories.remove(&handle);
    }
}
