//! Names, attributes, extended attributes and directories: one method for each system call.
//!
//! Invariant: what changes is one operation of the cluster, atomic there; nothing is decided here that the
//! replicas do not check again.

use crate::files::{OpenDirectory, OpenFile};
use crate::shared::{Mount, Outcome, PATIENCE_WITHOUT_QUORUM, ROOT, Shared, entropy, errno};
use quorate_client::Freshness;
use quorate_metadata::{Answer, Caller, DirectoryEntry, DirectoryPage};
use quorate_protocol::file::{Attributes, FileKind, Name};
use quorate_protocol::operation::{Authority, RenameMode, SetXattrMode, SpecialFile};
use quorate_protocol::query::Query;
use quorate_protocol::time::SetTime;
use quorate_protocol::{Credential, Groups, Ino, OperationBody};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Entries of a directory that are fetched at a time.
const PAGE_ENTRIES: u16 = 128;
/// How often a truncation that met a lost session takes its grant anew.
const GRANT_ATTEMPTS_MAX: u32 = 3;
/// `security.capability`, which the kernel asks for before every write.
const CAPABILITY: &[u8] = b"security.capability";

/// What `setattr` changes.
pub struct AttributeChanges {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size.
    pub size: Option<u64>,
    /// Access time.
    pub atime: SetTime,
    /// Modification time.
    pub mtime: SetTime,
}

impl Shared {
    /// `mkdir`.
    pub async fn mkdir(
        &self,
        credential: &Credential,
        (parent, name): (Ino, Name),
        mode: u16,
        umask: u16,
    ) -> Outcome<Attributes> {
        let body = OperationBody::Mkdir { parent, name, mode, umask, ino: None, entropy: entropy()? };
        self.execute_for_inode(credential, body).await.map(|(attributes, _)| attributes)
    }

    /// `mknod`.
    pub async fn mknod(
        &self,
        credential: &Credential,
        (parent, name): (Ino, Name),
        (mode, rdev): (u32, u32),
        umask: u16,
    ) -> Outcome<Attributes> {
        let node = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => SpecialFile::Regular,
            libc::S_IFIFO => SpecialFile::Fifo,
            libc::S_IFSOCK => SpecialFile::Socket,
            libc::S_IFCHR => SpecialFile::CharacterDevice(rdev),
            libc::S_IFBLK => SpecialFile::BlockDevice(rdev),
            _ => return Err(libc::EINVAL),
        };
        let mode = crate::convert::mode(mode);
        let body = OperationBody::Mknod { parent, name, node, mode, umask, ino: None, entropy: entropy()? };
        self.execute_for_inode(credential, body).await.map(|(attributes, _)| attributes)
    }

    /// `symlink`.
    pub async fn symlink(
        &self,
        credential: &Credential,
        (parent, name): (Ino, Name),
        target: Vec<u8>,
    ) -> Outcome<Attributes> {
        let target = target.try_into().map_err(|_| libc::ENAMETOOLONG)?;
        let body = OperationBody::Symlink { parent, name, target, ino: None, entropy: entropy()? };
        self.execute_for_inode(credential, body).await.map(|(attributes, _)| attributes)
    }

    /// `link`.
    pub async fn link(
        &self,
        credential: &Credential,
        ino: Ino,
        parent: Ino,
        name: Name,
    ) -> Outcome<Attributes> {
        let body = OperationBody::Link { ino, parent, name };
        let (attributes, _) = self.execute_for_inode(credential, body).await?;
        Ok(self.overlay(attributes))
    }

    /// `unlink`.
    pub async fn unlink(&self, credential: &Credential, parent: Ino, name: Name) -> Outcome<()> {
        self.hold_named(credential, parent, &name).await;
        self.execute(credential, OperationBody::Unlink { parent, name }).await.map(drop)
    }

    /// `rmdir`.
    pub async fn rmdir(&self, credential: &Credential, parent: Ino, name: Name) -> Outcome<()> {
        self.execute(credential, OperationBody::Rmdir { parent, name }).await.map(drop)
    }

    /// `renameat2`. What is dirty in the file that moves is written first: whoever replaces a file by a
    /// rename relies on finding the whole new one under its name.
    pub async fn rename(
        self: &Arc<Self>,
        credential: &Credential,
        (parent, name): (Ino, Name),
        (new_parent, new_name): (Ino, Name),
        mode: RenameMode,
    ) -> Outcome<()> {
        if mode == RenameMode::Replace {
            self.hold_named(credential, new_parent, &new_name).await;
        }
        self.settle_named(credential, parent, &name).await?;
        if mode == RenameMode::Exchange {
            self.settle_named(credential, new_parent, &new_name).await?;
        }
        self.execute(credential, OperationBody::Rename { parent, name, new_parent, new_name, mode })
            .await
            .map(drop)
    }

    /// Writes back what is dirty in the file of this name.
    async fn settle_named(
        self: &Arc<Self>,
        credential: &Credential,
        parent: Ino,
        name: &Name,
    ) -> Outcome<()> {
        if self.dirty_bytes.load(Ordering::Acquire) == 0 && self.failures.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let query = Query::Lookup { parent, name: name.clone() };
        match self.read(credential, query, Freshness::Floor).await {
            Ok(Answer::Attributes(attributes)) => self.settle_whole(attributes.ino).await,
            // The operation itself says what is wrong.
            _ => Ok(()),
        }
    }

    /// Before a name goes: if its file is open here and the cluster does not know that, it is told.
    async fn hold_named(&self, credential: &Credential, parent: Ino, name: &Name) {
        if !self.files.any_unknown() {
            return;
        }
        let query = Query::Lookup { parent, name: name.clone() };
        if let Ok(Answer::Attributes(attributes)) = self.read(credential, query, Freshness::Floor).await {
            // Without a grant the open handle may lose its content; the call that removes goes on.
            let _ = self.hold(attributes.ino).await;
        }
    }

    /// `setattr`: chmod, chown, truncate, utimensat; a size through an open file by its grant.
    pub async fn set_attributes(
        self: &Arc<Self>,
        credential: &Credential,
        ino: Ino,
        changes: AttributeChanges,
        file: Option<&OpenFile>,
    ) -> Outcome<Attributes> {
        // Times and sizes that are set must not be overtaken by bytes that were written before.
        self.settle(ino).await?;
        let AttributeChanges { mode, uid, gid, size, atime, mtime } = changes;
        let change = |authority| {
            let token = None;
            OperationBody::SetAttributes { ino, mode, uid, gid, size, atime, mtime, authority, token }
        };
        let Some(file) = file.filter(|file| size.is_some() && file.mode.write) else {
            let (attributes, _) = self.execute_for_inode(credential, change(Authority::Check)).await?;
            return Ok(self.overlay(attributes));
        };
        let mut changed = Err(libc::EBADF);
        for _ in 0..GRANT_ATTEMPTS_MAX {
            let held = self.is_held(file).await;
            let authority = if held { Authority::Grant } else { Authority::Check };
            changed = self.execute_for_inode(credential, change(authority)).await;
            // The grant went with its session between the two: it is taken anew.
            if !matches!(changed, Err(libc::EBADF)) {
                break;
            }
        }
        changed.map(|(attributes, _)| self.overlay(attributes))
    }

    /// `readlink`.
    pub async fn read_link(&self, credential: &Credential, ino: Ino) -> Outcome<Vec<u8>> {
        match self.read(credential, Query::Symlink { ino }, Freshness::Floor).await? {
            Answer::Symlink(target) => Ok(target),
            _ => Err(libc::EIO),
        }
    }

    /// `access`.
    pub async fn access(&self, credential: &Credential, ino: Ino, mask: u16) -> Outcome<()> {
        let attributes = self.attributes(credential, ino).await?;
        const WRITE: u16 = libc::W_OK as u16;
        let special = !matches!(attributes.kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink);
        if mask & WRITE != 0 && self.options.read_only && !special {
            return Err(libc::EROFS);
        }
        if self.permits(credential, &attributes, i32::from(mask)) { Ok(()) } else { Err(libc::EACCES) }
    }

    /// Whether the mode lets this caller do what the bits of `access` ask for.
    pub fn permits(&self, credential: &Credential, attributes: &Attributes, access: i32) -> bool {
        let groups = match &credential.groups {
            Groups::Listed(groups) => groups.to_vec(),
            Groups::OfPrincipal => Vec::new(),
        };
        let caller = Caller { uid: credential.uid, gid: credential.gid, groups };
        let mask = u16::try_from(access & 7).unwrap_or(7);
        quorate_metadata::permission::permits_attributes(&caller, attributes, mask)
    }

    /// `setxattr`.
    pub async fn set_xattr(
        &self,
        credential: &Credential,
        ino: Ino,
        (name, value): (Vec<u8>, Vec<u8>),
        flags: i32,
    ) -> Outcome<()> {
        let mode = match flags {
            0 => SetXattrMode::Any,
            libc::XATTR_CREATE => SetXattrMode::Create,
            libc::XATTR_REPLACE => SetXattrMode::Replace,
            _ => return Err(libc::EINVAL),
        };
        if name == CAPABILITY
            && let Some(inode) = self.files.inode(ino)
        {
            inode.no_capability.store(false, Ordering::Relaxed);
        }
        let name = name.try_into().map_err(|_| libc::ERANGE)?;
        let value = value.try_into().map_err(|_| libc::E2BIG)?;
        let body = OperationBody::SetXattr { ino, name, value, mode, entropy: entropy()? };
        self.execute(credential, body).await.map(drop)
    }

    /// `removexattr`.
    pub async fn remove_xattr(&self, credential: &Credential, ino: Ino, name: Vec<u8>) -> Outcome<()> {
        let name = name.try_into().map_err(|_| libc::ERANGE)?;
        self.execute(credential, OperationBody::RemoveXattr { ino, name }).await.map(drop)
    }

    /// Whether this is the question for a capability of an open file that is known to have none.
    pub fn has_no_capability(&self, ino: Ino, name: &[u8]) -> bool {
        name == CAPABILITY
            && self.files.inode(ino).is_some_and(|inode| inode.no_capability.load(Ordering::Relaxed))
    }

    /// `getxattr`. For a file that is open here, the absence of a capability is asked for once.
    pub async fn xattr(&self, credential: &Credential, ino: Ino, name: Vec<u8>) -> Outcome<Vec<u8>> {
        let open = if name == CAPABILITY { self.files.inode(ino) } else { None };
        let name = name.try_into().map_err(|_| libc::ERANGE)?;
        let found = self.read(credential, Query::Xattr { ino, name }, Freshness::Floor).await;
        if let (Some(inode), Err(libc::ENODATA)) = (open, &found) {
            inode.no_capability.store(true, Ordering::Relaxed);
        }
        match found? {
            Answer::Xattr(value) => Ok(value),
            _ => Err(libc::EIO),
        }
    }

    /// `listxattr`: names, each with a NUL behind it.
    pub async fn xattrs(&self, credential: &Credential, ino: Ino) -> Outcome<Vec<u8>> {
        match self.read(credential, Query::Xattrs { ino }, Freshness::Floor).await? {
            Answer::Xattrs(names) => {
                let mut list = Vec::new();
                for name in names {
                    list.extend_from_slice(&name);
                    list.push(0);
                }
                Ok(list)
            }
            _ => Err(libc::EIO),
        }
    }

    /// `opendir`: what others have done before is seen by the pages that follow.
    pub async fn open_directory(&self, credential: &Credential, ino: Ino) -> Outcome<u64> {
        let query = Query::Directory { ino, after: 0, limit: PAGE_ENTRIES, attributes: false };
        let asked = self.read(credential, query, Freshness::Linearizable);
        let answer = match self.known_root().filter(|_| ino == ROOT) {
            // As with its attributes: `df` opens what it is asked about. A listing still waits.
            Some(known) if self.permits(credential, &known, libc::R_OK) => {
                match tokio::time::timeout(PATIENCE_WITHOUT_QUORUM, asked).await {
                    Ok(answer) => answer,
                    Err(_) => return Ok(self.files.open_directory(ino, credential.clone(), None)),
                }
            }
            _ => asked.await,
        };
        let page = self.remembered.page(ino, false, answer.and_then(page_of))?;
        Ok(self.files.open_directory(ino, credential.clone(), Some(page)))
    }

    /// Entries after a cookie, until `take` has enough.
    pub async fn list(
        &self,
        directory: &OpenDirectory,
        after: u64,
        mut take: impl FnMut(&DirectoryEntry) -> bool,
    ) -> Outcome<()> {
        let mut held = directory.page.lock().await;
        let mut after = after;
        if after == 0 && directory.started.swap(true, Ordering::Relaxed) {
            *held = None;
        }
        loop {
            let page = match held.take().filter(|(asked, page)| continues(*asked, page, after)) {
                Some(page) => page,
                None => (after, self.page(directory, after).await?),
            };
            let mut enough = false;
            for entry in page.1.entries.iter().filter(|entry| entry.cookie > after) {
                if take(entry) {
                    enough = true;
                    break;
                }
            }
            let next = page.1.entries.last().map(|entry| entry.cookie).filter(|last| *last > after);
            let complete = page.1.complete;
            *held = Some(page);
            match next {
                _ if enough || complete => return Ok(()),
                None => return Ok(()),
                Some(last) => after = last,
            }
        }
    }

    async fn page(&self, directory: &OpenDirectory, after: u64) -> Outcome<DirectoryPage> {
        let query = Query::Directory { ino: directory.ino, after, limit: PAGE_ENTRIES, attributes: false };
        let seen = directory.seen.load(Ordering::Relaxed);
        let freshness = if seen { Freshness::Floor } else { Freshness::Linearizable };
        let answer = self.read(&directory.credential, query, freshness).await;
        let page = self.remembered.page(directory.ino, true, answer.and_then(page_of))?;
        directory.seen.store(true, Ordering::Relaxed);
        Ok(page)
    }

    /// `statfs`: from a replica if that is quick, else what was known last.
    pub async fn totals(&self, credential: &Credential) -> Outcome<quorate_metadata::rows::Totals> {
        let known = *self.totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let asked = self.client.read(credential, Query::Totals, Freshness::Floor);
        match tokio::time::timeout(PATIENCE_WITHOUT_QUORUM, asked).await {
            Ok(Ok(Answer::Totals(totals))) => {
                *self.totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(totals);
                Ok(totals)
            }
            Ok(Err(error)) if known.is_none() => Err(errno(&error)),
            _ => known.ok_or(libc::EIO),
        }
    }
}

/// Asks once for what a `df` always gets an answer to.
pub fn learn(mount: &Mount) {
    let weak = Arc::downgrade(mount);
    let root = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
    mount.runtime.spawn(async move {
        if let Some(mount) = weak.upgrade() {
            // A later one asks again.
            let _ = mount.totals(&root).await;
            let _ = mount.root_attributes(&root).await;
        }
    });
}

fn page_of(answer: Answer) -> Outcome<DirectoryPage> {
    if let Answer::Directory(page) = answer { Ok(page) } else { Err(libc::EIO) }
}

/// Whether a page that was asked with cookie `asked` holds what comes right after `after`.
fn continues(asked: u64, page: &DirectoryPage, after: u64) -> bool {
    let last = page.entries.last().map_or(asked, |entry| entry.cookie);
    asked <= after && (after < last || page.complete && after <= last) && (after != 0 || asked == 0)
}
