//! Reading files, opening and keeping them open.
//!
//! Invariant: a read sees at least what was committed when the file was opened, and what was written here
//! since. A file that is read for longer than a moment is held by a grant, so that unlinking it elsewhere
//! does not take its content away (`docs/adr/0003-short-reads-take-no-grant.md`).

use crate::files::OpenFile;
use crate::shared::{Mount, Outcome, Shared, errno};
use quorate_client::{FileRead, Freshness};
use quorate_metadata::Answer;
use quorate_protocol::operation::{Authority, OpenMode};
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Ino, OperationBody};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a file may be open for reading before the cluster is told.
pub const UNKNOWN_OPEN_MAX: Duration = Duration::from_secs(1);

impl Shared {
    /// Opens for reading: checks the permission at a linearizable height, without an operation.
    pub async fn open_to_read(&self, credential: &Credential, ino: Ino) -> Outcome<u8> {
        let query = Query::Content { ino, first: 0, count: 1, session: None };
        match self.read(credential, query, Freshness::Linearizable).await? {
            // Who owns a file may read what it has open whatever the mode, but not open it.
            Answer::Content(content) if !self.permits(credential, &content.attributes, libc::R_OK) => {
                Err(libc::EACCES)
            }
            Answer::Content(content) => Ok(content.attributes.block_log2),
            _ => Err(libc::EIO),
        }
    }

    /// Checks that a program may be executed, which the kernel leaves to us but for "any of the three bits".
    pub async fn check_executable(&self, credential: &Credential, ino: Ino) -> Outcome<()> {
        self.access(credential, ino, libc::X_OK as u16).await
    }

    /// Opens for writing: a logged grant, with the truncation if one is asked for.
    pub async fn open_to_write(&self, credential: &Credential, ino: Ino, mode: OpenMode) -> Outcome<u8> {
        if mode.truncate {
            self.settle(ino).await?;
        }
        let body = OperationBody::Open { ino, mode };
        self.execute_for_inode(credential, body).await.map(|(attributes, _)| attributes.block_log2)
    }

    /// Reads a range, clipped at the size.
    pub async fn read_file(&self, file: &OpenFile, offset: u64, length: usize) -> Outcome<Vec<u8>> {
        if let Some(bytes) = Self::read_dirty(file, offset, length) {
            return Ok(bytes);
        }
        loop {
            let since = self.write_backs.load(Ordering::Acquire);
            let bytes = self.read_overlaid(file, offset, length).await?;
            if !self.is_overtaken(file.inode.ino, since) {
                return Ok(bytes);
            }
        }
    }

    /// What the cluster has, with what is dirty here on top.
    async fn read_overlaid(&self, file: &OpenFile, offset: u64, length: usize) -> Outcome<Vec<u8>> {
        let granted = file.granted.load(Ordering::Acquire);
        let read = FileRead {
            ino: file.inode.ino,
            offset,
            length,
            authority: if granted { Authority::Grant } else { Authority::Check },
            freshness: Freshness::Floor,
        };
        let data = self.client.read_range(&file.credential, read).await.map_err(|error| errno(&error))?;
        let mut bytes = data.bytes;
        let dirty = file.inode.dirty();
        if !dirty.is_clean() {
            // Zeros up to a dirty end that lies beyond the committed size.
            let end = dirty.end().saturating_sub(offset);
            let end = usize::try_from(end).unwrap_or(usize::MAX).min(length);
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            dirty.apply(offset, length, &mut bytes);
        }
        Ok(bytes)
    }

    /// Answers from what was written here alone, when that is all of it.
    fn read_dirty(file: &OpenFile, offset: u64, length: usize) -> Option<Vec<u8>> {
        let dirty = file.inode.dirty();
        dirty.covers(offset, length).then(|| {
            let mut bytes = Vec::with_capacity(length);
            dirty.apply(offset, length, &mut bytes);
            bytes
        })
    }

    /// Takes grants for handles that have none, before their file loses a name.
    pub async fn hold(&self, ino: Ino) -> Outcome<()> {
        for file in self.files.unknown(ino) {
            self.grant(&file).await?;
        }
        Ok(())
    }

    async fn grant(&self, file: &OpenFile) -> Outcome<()> {
        if self.options.read_only {
            return Ok(());
        }
        let mode = OpenMode { truncate: false, ..file.mode };
        let body = OperationBody::Open { ino: file.inode.ino, mode };
        self.execute_for_inode(&file.credential, body).await?;
        if file.granted.swap(true, Ordering::AcqRel) || file.closed.load(Ordering::Acquire) {
            // Somebody else was faster, or the file was closed meanwhile.
            file.granted.store(!file.closed.load(Ordering::Acquire), Ordering::Release);
            self.release_grant(file.inode.ino, file.mode);
            return Ok(());
        }
        file.inode.unknown_opens.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Tells the cluster of an open that lasts.
pub fn hold_later(mount: &Mount, file: &Arc<OpenFile>) {
    let (weak, file) = (Arc::downgrade(mount), Arc::downgrade(file));
    mount.runtime.spawn(async move {
        tokio::time::sleep(UNKNOWN_OPEN_MAX).await;
        let (Some(mount), Some(file)) = (weak.upgrade(), file.upgrade()) else { return };
        if !file.closed.load(Ordering::Acquire)
            && !file.granted.load(Ordering::Acquire)
            && let Err(errno) = mount.grant(&file).await
        {
            tracing::debug!(ino = file.inode.ino, errno, "no grant for an open file");
        }
    });
}
