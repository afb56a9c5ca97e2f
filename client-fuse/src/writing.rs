//! Writing: buffered here, written back at close, fsync, by size and by age.
//!
//! Invariant: when close or fsync has returned without an error, what was written is in the cluster under a
//! certificate; an error is reported once. One write-back of a file goes on at a time.

use crate::files::{OpenFile, OpenInode};
use crate::shared::{Mount, Outcome, Shared, errno};
use quorate_client::{ClientError, FileWrite};
use quorate_protocol::operation::Authority;
use quorate_protocol::{Credential, Groups};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Dirty bytes of one file from which a write-back begins; a writer waits for it.
pub const DIRTY_BYTES_MAX: usize = 8 << 20;
/// Age at which dirty bytes are written back though nobody asks.
pub const DIRTY_AGE_MAX: Duration = Duration::from_secs(5);

impl Shared {
    /// Takes a write. True when the writer must wait for a write-back.
    pub fn buffer(file: &OpenFile, offset: u64, data: &[u8]) -> bool {
        let mut dirty = file.inode.dirty();
        dirty.write(offset, data);
        dirty.bytes() > DIRTY_BYTES_MAX
    }

    /// Appends at the committed size, at once: two mounts that append never write over each other.
    pub async fn append(&self, file: &OpenFile, data: Vec<u8>) -> Outcome<usize> {
        self.write_back(&file.inode, &file.credential).await?;
        let length = data.len();
        let write = Self::write_of(&file.inode, Authority::Grant);
        let appended = match self.client.append(&file.credential, &write, data.clone()).await {
            Err(error) if grant_is_gone(&error) => {
                let write = Self::write_of(&file.inode, Authority::Check);
                self.client.append(&file.credential, &write, data).await
            }
            other => other,
        };
        appended.map(|_| length).map_err(|error| errno(&error))
    }

    fn write_of(inode: &OpenInode, authority: Authority) -> FileWrite {
        FileWrite { ino: inode.ino, authority, token: None, block_log2: inode.block_log2 }
    }

    /// Writes everything back that is dirty now, and waits until the cluster has it.
    pub async fn write_back(&self, inode: &OpenInode, credential: &Credential) -> Outcome<()> {
        let _one = inode.writing.lock().await;
        let ranges = inode.dirty().take();
        if ranges.is_empty() {
            return Ok(());
        }
        let write = Self::write_of(inode, Authority::Grant);
        let written = match self.client.write_ranges(credential, &write, ranges.clone()).await {
            // The session was lost, and the grant with it: whoever may write still can.
            Err(error) if grant_is_gone(&error) => {
                let write = Self::write_of(inode, Authority::Check);
                self.client.write_ranges(credential, &write, ranges).await
            }
            other => other,
        };
        inode.dirty().written();
        written.map(|_| ()).map_err(|error| {
            tracing::warn!(ino = inode.ino, %error, "written data did not reach the cluster");
            errno(&error)
        })
    }

    /// As close and fsync do it: what is dirty, then the error of an earlier write-back.
    pub async fn flush(&self, file: &OpenFile) -> Outcome<()> {
        let result = self.write_back(&file.inode, &file.credential).await;
        match file.inode.take_error() {
            Some(earlier) => Err(earlier),
            None => result,
        }
    }

    /// Writes an inode back if it is dirty here, before an operation that must see its bytes.
    pub async fn settle(&self, ino: u64) -> Outcome<()> {
        let Some(inode) = self.files.inode(ino) else { return Ok(()) };
        if inode.dirty().is_clean() {
            return Ok(());
        }
        match self.files.writer(ino) {
            Some(file) => self.write_back(&inode, &file.credential).await,
            None => Ok(()),
        }
    }
}

/// Whether the failure may come from a grant that went with its session.
fn grant_is_gone(error: &ClientError) -> bool {
    matches!(error, ClientError::SessionLost) || errno(error) == libc::EBADF
}

/// Starts to write back what grows old.
pub fn age(mount: &Mount, file: &Arc<OpenFile>) {
    let (weak, file) = (Arc::downgrade(mount), Arc::clone(file));
    mount.runtime.spawn(async move {
        tokio::time::sleep(DIRTY_AGE_MAX).await;
        let Some(mount) = weak.upgrade() else { return };
        if let Err(errno) = mount.write_back(&file.inode, &file.credential).await {
            file.inode.fail(errno);
        }
    });
}

/// Gives a handle back: what is left dirty, then the grant. The kernel has answered close already.
pub fn release(mount: &Mount, file: Arc<OpenFile>) {
    let mount = Arc::clone(mount);
    mount.runtime.clone().spawn(async move {
        // Dirtied after the last close through a shared mapping; nobody is left to hear of an error.
        let _ = mount.write_back(&file.inode, &file.credential).await;
        if file.granted.swap(false, Ordering::AcqRel) {
            mount.release_grant(file.inode.ino, file.mode);
        } else {
            file.inode.unknown_opens.fetch_sub(1, Ordering::Relaxed);
        }
    });
}

/// How long a release waits for another operation to travel with.
const RELEASE_PATIENCE: Duration = Duration::from_millis(50);

/// Sends releases that no other operation took along, as long as the mount lives.
pub fn keep_releasing(mount: &Mount) {
    let weak = Arc::downgrade(mount);
    mount.runtime.spawn(async move {
        let nobody = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
        loop {
            tokio::time::sleep(RELEASE_PATIENCE).await;
            let Some(mount) = weak.upgrade() else { return };
            for body in mount.take_releases() {
                // What is not released now goes with the session.
                let _ = mount.client.submit(&nobody, body).await;
            }
        }
    });
}
