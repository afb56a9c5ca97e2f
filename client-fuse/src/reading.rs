//! Reading files, opening and keeping them open.
//!
//! Invariant: a read sees at least what was committed when the file was opened, and what was written here
//! since. A file that is read for longer than a moment is held by a grant, so that unlinking it elsewhere
//! does not take its content away (`docs/adr/0003-short-reads-take-no-grant.md`); when a session is lost, the
//! next one takes the grants of what is open again.

use crate::files::OpenFile;
use crate::shared::{Mount, Outcome, Shared, errno};
use quorate_client::{FileRead, Freshness};
use quorate_metadata::Answer;
use quorate_protocol::operation::{Authority, OpenMode};
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Ino, OperationBody, SessionId};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a file may be open for reading before the cluster is told.
pub const UNKNOWN_OPEN_MAX: Duration = Duration::from_secs(1);
/// Grants that are taken at once after a lost session.
const GRANTS_AT_ONCE: usize = 64;
/// Rows of a file that one question of a seek shows.
const SEEK_ROWS: u16 = 64;
/// Questions after which a seek gives up looking: 64 GiB of rows of one MiB.
const SEEK_QUESTIONS_MAX: u32 = 1024;

/// What `lseek` looks for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Seek {
    /// `SEEK_DATA`.
    Data,
    /// `SEEK_HOLE`.
    Hole,
}

impl Shared {
    /// Opens for reading, or to execute: checks the permission at a linearizable height, without an operation.
    pub async fn open_to_read(&self, credential: &Credential, ino: Ino, access: i32) -> Outcome<u8> {
        let query = Query::Content { ino, first: 0, count: 1, session: None };
        match self.read(credential, query, Freshness::Linearizable).await? {
            // Who owns or may execute a file may read what it has open, but not open it for that. That
            // execution needs the caller's own of the three bits is left to us by the kernel.
            Answer::Content(content) if !self.permits(credential, &content.attributes, access) => {
                Err(libc::EACCES)
            }
            Answer::Content(content) => Ok(content.attributes.block_log2),
            _ => Err(libc::EIO),
        }
    }

    /// Opens for writing: a logged grant, with the truncation if one is asked for.
    pub async fn open_to_write(
        self: &Arc<Self>,
        credential: &Credential,
        ino: Ino,
        mode: OpenMode,
    ) -> Outcome<(u8, Option<SessionId>)> {
        if mode.truncate {
            self.settle(ino).await?;
        }
        let body = OperationBody::Open { ino, mode };
        let (attributes, _, session) = self.execute_for_grant(credential, body).await?;
        Ok((attributes.block_log2, session))
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
        let granted = file.is_granted(self.client.session());
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

    /// The next place at or after `offset` where there is data, or a hole, by the rows of the file. After
    /// [`SEEK_QUESTIONS_MAX`] questions the rest counts as data, as a filesystem may say.
    pub async fn seek(self: &Arc<Self>, file: &OpenFile, offset: u64, target: Seek) -> Outcome<u64> {
        self.settle(file.inode.ino).await?;
        let session = self.client.session();
        let row_bytes = 1_u64.checked_shl(u32::from(file.inode.block_log2)).unwrap_or(1 << 20);
        let mut at = offset;
        for _ in 0..SEEK_QUESTIONS_MAX {
            let first = at / row_bytes;
            let query = Query::Content {
                ino: file.inode.ino,
                first,
                count: SEEK_ROWS,
                session: file.is_granted(session).then_some(session),
            };
            let Answer::Content(content) = self.read(&file.credential, query, Freshness::Floor).await? else {
                return Err(libc::EIO);
            };
            let size = content.attributes.size;
            if at >= size {
                return if target == Seek::Hole && at > offset { Ok(size) } else { Err(libc::ENXIO) };
            }
            let end = first.saturating_add(u64::from(SEEK_ROWS)).saturating_mul(row_bytes);
            let extents = content.rows.iter().flat_map(|(row, segments)| {
                let base = row.saturating_mul(row_bytes);
                segments.iter().map(move |segment| {
                    let start = base.saturating_add(u64::from(segment.start));
                    (start, start.saturating_add(u64::from(segment.length)))
                })
            });
            match found(at, end, extents, target) {
                Some(place) if place < size => return Ok(place),
                Some(_) => return if target == Seek::Hole { Ok(size) } else { Err(libc::ENXIO) },
                None => at = end,
            }
        }
        match target {
            Seek::Data => Ok(at),
            Seek::Hole => self.attributes(&file.credential, file.inode.ino).await.map(|known| known.size),
        }
    }

    /// Takes grants for handles that have none, before their file loses a name.
    pub async fn hold(&self, ino: Ino) -> Outcome<()> {
        for file in self.files.unknown(ino, self.client.session()) {
            self.grant(&file).await?;
        }
        Ok(())
    }

    /// Whether the present session has a grant for this handle, which is taken if need be.
    pub async fn is_held(&self, file: &OpenFile) -> bool {
        file.is_granted(self.client.session()) || self.grant(file).await.is_ok()
    }

    async fn grant(&self, file: &OpenFile) -> Outcome<()> {
        if self.options.read_only {
            return Ok(());
        }
        // It was permitted when it was opened; what the mode says now is another matter.
        let mode = OpenMode { truncate: false, ..file.mode };
        let body = OperationBody::Reopen { ino: file.inode.ino, mode };
        let (_, _, session) = self.execute_for_grant(&file.credential, body).await?;
        // That of a session which is over went with it.
        let session = session.ok_or(libc::EBADF)?;
        if !file.take_over(session) {
            self.releases.push(session, file.inode.ino, file.mode);
        }
        Ok(())
    }
}

/// The first byte at or after `at`, before `end`, that is data or a hole; extents ascend and are disjoint.
fn found(at: u64, end: u64, extents: impl Iterator<Item = (u64, u64)>, target: Seek) -> Option<u64> {
    let mut at = at;
    for (start, stop) in extents.filter(|(_, stop)| *stop > at).collect::<Vec<_>>() {
        match target {
            Seek::Data => return Some(start.max(at)),
            Seek::Hole if start > at => break,
            Seek::Hole => at = stop,
        }
    }
    (target == Seek::Hole && at < end).then_some(at)
}

/// Tells the cluster of an open that lasts.
pub fn hold_later(mount: &Mount, file: &Arc<OpenFile>) {
    let (weak, file) = (Arc::downgrade(mount), Arc::downgrade(file));
    mount.runtime.spawn(async move {
        tokio::time::sleep(UNKNOWN_OPEN_MAX).await;
        let (Some(mount), Some(file)) = (weak.upgrade(), file.upgrade()) else { return };
        mount.hold_again(&file).await;
    });
}

impl Shared {
    async fn hold_again(&self, file: &OpenFile) {
        if !file.is_closed()
            && !file.is_granted(self.client.session())
            && let Err(errno) = self.grant(file).await
        {
            tracing::debug!(ino = file.inode.ino, errno, "no grant for an open file");
        }
    }
}

/// Takes the grants of what is open again when a session was lost and with it its grants, as long as the mount
/// lives.
pub fn keep_granted(mount: &Mount) {
    let weak = Arc::downgrade(mount);
    let mut sessions = mount.client.sessions();
    mount.runtime.spawn(async move {
        while let Some(session) = sessions.next().await {
            let Some(mount) = weak.upgrade() else { return };
            let lost = mount.files.lose_grants(session);
            let mut under_way = tokio::task::JoinSet::new();
            for file in lost {
                if under_way.len() >= GRANTS_AT_ONCE {
                    under_way.join_next().await;
                }
                let mount = Arc::clone(&mount);
                under_way.spawn(async move { mount.hold_again(&file).await });
            }
            under_way.join_all().await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_holes_are_found() {
        let extents = [(10, 20), (20, 30), (50, 60)];
        let find = |at, target| found(at, 100, extents.into_iter(), target);
        for (at, data, hole) in [
            (0, Some(10), Some(0)),
            (10, Some(10), Some(30)),
            (25, Some(25), Some(30)),
            (30, Some(50), Some(30)),
            (59, Some(59), Some(60)),
            (60, None, Some(60)),
        ] {
            assert_eq!((find(at, Seek::Data), find(at, Seek::Hole)), (data, hole), "at {at}");
        }
        assert_eq!(found(0, 30, [(0, 10), (10, 30)].into_iter(), Seek::Hole), None);
    }
}
