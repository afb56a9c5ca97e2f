//! Writing: buffered here, written back at close, fsync, by size and by age.
//!
//! Invariant: when close or fsync has returned without an error, what was written is in the cluster under a
//! certificate; every handle that may write learns once of a write-back that failed, whoever asked for it.
//! One write-back of a file goes on at a time, and dirty bytes are bounded per file and per mount.

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
/// Dirty bytes of the whole mount from which writers wait until all of them are written back.
pub const DIRTY_BYTES_TOTAL_MAX: usize = 256 << 20;
/// Age at which dirty bytes are written back though nobody asks.
pub const DIRTY_AGE_MAX: Duration = Duration::from_secs(5);
/// How often ages are looked at.
const AGE_INTERVAL: Duration = Duration::from_secs(1);

/// What a buffered write leads to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Buffered {
    /// It may be acknowledged.
    Done,
    /// The file has so many dirty bytes that its writer waits for a write-back.
    FileFull,
    /// The mount has.
    MountFull,
}

impl Shared {
    /// Takes a write.
    pub fn buffer(&self, file: &OpenFile, offset: u64, data: &[u8]) -> Buffered {
        let mut dirty = file.inode.dirty();
        let grown = dirty.write(offset, data);
        let full = dirty.bytes() > DIRTY_BYTES_MAX;
        drop(dirty);
        let total = self.dirty_bytes.fetch_add(grown, Ordering::AcqRel).saturating_add(grown);
        match (total > DIRTY_BYTES_TOTAL_MAX, full) {
            (true, _) => Buffered::MountFull,
            (false, true) => Buffered::FileFull,
            (false, false) => Buffered::Done,
        }
    }

    /// Makes room after a write that filled a buffer.
    pub async fn relieve(self: &Arc<Self>, file: &OpenFile, buffered: Buffered) -> Outcome<()> {
        if buffered == Buffered::MountFull {
            for inode in self.files.inodes() {
                if self.dirty_bytes.load(Ordering::Acquire) <= DIRTY_BYTES_TOTAL_MAX {
                    break;
                }
                // Each file's own writers learn of its failure.
                let _ = self.settle(inode.ino).await;
            }
        }
        self.write_back(&file.inode, &file.credential).await
    }

    /// Appends at the committed size, at once: two mounts that append never write over each other.
    pub async fn append(self: &Arc<Self>, file: &OpenFile, data: Vec<u8>) -> Outcome<usize> {
        self.write_back(&file.inode, &file.credential).await?;
        self.wake().await;
        let length = data.len();
        let write = Self::write_of(&file.inode, Authority::Grant);
        let appended = match self.client.append(&file.credential, &write, data.clone()).await {
            // After a lost session nobody can tell whether it was appended: it is not tried again.
            Err(error) if errno(&error) == libc::EBADF => {
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

    /// Writes everything back that is dirty now, and waits until the cluster has it; as somebody who has the
    /// file open for writing, if there is one, else with this credential. What is being written back already
    /// is waited for, and fails this one if it fails.
    ///
    /// Whoever waits may stop waiting at any time: the write-back goes on.
    pub async fn write_back(
        self: &Arc<Self>,
        inode: &Arc<OpenInode>,
        credential: &Credential,
    ) -> Outcome<()> {
        if inode.dirty().is_clean() {
            return Ok(());
        }
        let failures = inode.failures();
        let (mount, inode, credential) = (Arc::clone(self), Arc::clone(inode), credential.clone());
        let work = async move { mount.write_back_now(&inode, &credential, failures).await };
        self.runtime.spawn(work).await.unwrap_or(Err(libc::EIO))
    }

    async fn write_back_now(&self, inode: &OpenInode, credential: &Credential, failures: u64) -> Outcome<()> {
        let _one = inode.writing.lock().await;
        let ranges = inode.dirty().take();
        if ranges.is_empty() {
            // Somebody else has written back what was dirty when we came.
            return inode.failed_since(failures).map_or(Ok(()), Err);
        }
        let writer = self.files.writer(inode.ino);
        let credential = writer.as_ref().map_or(credential, |file| &file.credential);
        let write = Self::write_of(inode, Authority::Grant);
        let written = match self.client.write_ranges(credential, &write, ranges.clone()).await {
            // The session was lost, and the grant with it: whoever may write still can.
            Err(error) if grant_is_gone(&error) => {
                let write = Self::write_of(inode, Authority::Check);
                self.client.write_ranges(credential, &write, ranges).await
            }
            other => other,
        };
        let outcome = written.map(|_| ()).map_err(|error| {
            tracing::warn!(ino = inode.ino, %error, "written data did not reach the cluster");
            errno(&error)
        });
        if let Err(errno) = outcome {
            inode.fail(errno);
            self.failures.fetch_add(1, Ordering::AcqRel);
        }
        // Answers that were asked for before this moment may lack these bytes, and so may the overlay now.
        inode.written_at.store(self.count_write_back(), Ordering::Release);
        let bytes = inode.dirty().written();
        self.dirty_bytes.fetch_sub(bytes, Ordering::AcqRel);
        outcome
    }

    /// As close and fsync do it: what is dirty, and the error of any write-back that this handle has not been
    /// told of.
    pub async fn flush(self: &Arc<Self>, file: &OpenFile) -> Outcome<()> {
        let result = self.write_back(&file.inode, &file.credential).await;
        match file.take_error() {
            Some(errno) => Err(errno),
            None => result,
        }
    }

    /// Whether close has nothing to wait for and nothing to report.
    pub fn is_flushed(file: &OpenFile) -> bool {
        // Whoever writes back holds the lock until its outcome is known.
        let Ok(_nobody) = file.inode.writing.try_lock() else { return false };
        file.inode.dirty().is_clean() && !file.has_error()
    }

    /// Writes an inode back if it is dirty here, before an operation that must see its bytes.
    pub async fn settle(self: &Arc<Self>, ino: u64) -> Outcome<()> {
        let Some(inode) = self.files.inode(ino) else { return Ok(()) };
        if inode.dirty().is_clean() {
            return Ok(());
        }
        let nobody = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
        let writer = self.files.writer(ino);
        self.write_back(&inode, writer.as_ref().map_or(&nobody, |file| &file.credential)).await
    }

    /// The same before the inode takes another one's place under a name: never while a write-back of it has
    /// failed of which a writer has yet to hear. A file that lacks bytes must not replace the good one.
    pub async fn settle_whole(self: &Arc<Self>, ino: u64) -> Outcome<()> {
        self.settle(ino).await?;
        if self.failures.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        self.files.unheard_failure(ino).map_or(Ok(()), Err)
    }
}

/// Whether the failure may come from a grant that went with its session.
fn grant_is_gone(error: &ClientError) -> bool {
    matches!(error, ClientError::SessionLost { .. }) || errno(error) == libc::EBADF
}

/// Writes back what grows old, as long as the mount lives.
pub fn keep_writing_back(mount: &Mount) {
    let weak = Arc::downgrade(mount);
    mount.runtime.spawn(async move {
        loop {
            tokio::time::sleep(AGE_INTERVAL).await;
            let Some(mount) = weak.upgrade() else { return };
            for inode in mount.files.inodes() {
                if inode.dirty().is_older_than(DIRTY_AGE_MAX) {
                    let mount = Arc::clone(&mount);
                    // The writers learn of a failure.
                    mount.runtime.clone().spawn(async move { mount.settle(inode.ino).await });
                }
            }
        }
    });
}

/// Gives a handle back: what is left dirty, then the grant. The kernel has answered close already.
pub fn release(mount: &Mount, file: Arc<OpenFile>) {
    if Shared::is_flushed(&file) {
        released(mount, &file);
        return;
    }
    let mount = Arc::clone(mount);
    mount.runtime.clone().spawn(async move {
        // Dirtied after the last close through a shared mapping; nobody is left to hear of an error.
        let _ = mount.write_back(&file.inode, &file.credential).await;
        released(&mount, &file);
    });
}

fn released(mount: &Shared, file: &OpenFile) {
    mount.files.forget(file.inode.ino);
    if let Some(session) = file.give_up() {
        mount.releases.push(session, file.inode.ino, file.mode);
    }
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
            let releases = mount.releases.take(mount.client.session());
            if !releases.is_empty() && mount.client.submit_many(&nobody, releases.steps()).await.is_ok() {
                // Nobody waits for them.
                releases.sent();
            }
        }
    });
}
