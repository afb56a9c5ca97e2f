//! What all tasks of a mount share, and how they fail.
//!
//! Invariant: an errno that reaches the kernel is the cluster's verdict, or EIO, ETIMEDOUT and the like for
//! what the cluster could not decide; a failed proof never becomes ENOENT.

use crate::files::Files;
use crate::options::MountOptions;
use crate::releases::Releases;
use crate::remembered::{Remembered, parent_of};
use crate::sleep::Pulse;
use quorate_client::{Client, ClientError, Freshness, Step};
use quorate_metadata::Answer;
use quorate_protocol::file::{Attributes, Entropy, Name};
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Ino, OperationBody, Reply, SessionId};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a question waits that has something to say without an answer.
pub const PATIENCE_WITHOUT_QUORUM: Duration = Duration::from_millis(500);
/// How often an operation is begun anew that was not executed because its session ended.
const SESSIONS_MAX: u32 = 4;
/// The root's inode number (rule S1).
pub const ROOT: Ino = 1;

/// The result of a request: an errno on failure.
pub type Outcome<T> = Result<T, i32>;

/// One mount.
pub struct Shared {
    /// The verified client.
    pub client: Client,
    /// Where tasks run.
    pub runtime: Handle,
    /// Options.
    pub options: MountOptions,
    /// What is open.
    pub files: Files,
    /// Grants that were given back and of which the cluster does not know yet.
    pub releases: Releases,
    /// Dirty bytes of all files.
    pub dirty_bytes: AtomicUsize,
    /// Write-backs that were done since the mount.
    pub write_backs: AtomicU64,
    /// Those of them that failed.
    pub failures: AtomicU64,
    /// The last totals, for a `statfs` that must not wait.
    pub totals: Mutex<Option<quorate_metadata::rows::Totals>>,
    /// The last attributes of the root, which `df` looks at before.
    pub root: Mutex<Option<Attributes>>,
    /// Directories that may be gone while the kernel has them.
    pub remembered: Remembered,
    /// When it was awake.
    pub pulse: Pulse,
}

/// A handle to it, cheap to clone.
pub type Mount = Arc<Shared>;

/// The errno of a client's error.
pub fn errno(error: &ClientError) -> i32 {
    i32::from(error.errno())
}

/// Random bytes for what an operation creates (rule S3).
pub fn entropy() -> Outcome<Entropy> {
    let mut bytes = Entropy::default();
    getrandom::fill(&mut bytes).map_err(|_| libc::EIO)?;
    Ok(bytes)
}

impl Shared {
    /// Does one operation.
    pub async fn execute(&self, credential: &Credential, body: OperationBody) -> Outcome<Reply> {
        self.execute_in(credential, body).await.map(|(reply, _)| reply)
    }

    /// Does one operation, under the next session if that which it was queued in ended before it was executed.
    /// Returns the session that it was queued in as well; zeros if there was none.
    async fn execute_in(&self, credential: &Credential, body: OperationBody) -> Outcome<(Reply, SessionId)> {
        if self.options.read_only {
            return Err(libc::EROFS);
        }
        self.wake().await;
        let mut left = SESSIONS_MAX;
        loop {
            let session = self.client.session();
            match self.attempt(credential, body.clone(), session).await {
                Ok(reply) => return Ok((reply, session)),
                Err(ClientError::SessionLost { sent: false }) if left > 0 => left -= 1,
                Err(error) => return Err(errno(&error)),
            }
        }
    }

    async fn attempt(
        &self,
        credential: &Credential,
        body: OperationBody,
        session: SessionId,
    ) -> Result<Reply, ClientError> {
        let releases = self.releases.take(session);
        if releases.is_empty() {
            return self.client.execute_to_end(credential, body).await;
        }
        // One envelope, one certificate for all of them. Nobody waits for the releases.
        let mut steps = releases.steps();
        steps.push(Step::new(body.clone()));
        let pending = self.client.submit_many(credential, steps).await?.pop();
        releases.sent();
        match pending.ok_or(ClientError::Closed)?.await? {
            Reply::Continue => self.client.execute_to_end(credential, body).await,
            reply => Ok(reply),
        }
    }

    /// As [`Shared::execute_for_inode`] for what takes a grant, with the session that has it. `None` if that is
    /// not certain, because the session was replaced meanwhile.
    pub async fn execute_for_grant(
        &self,
        credential: &Credential,
        body: OperationBody,
    ) -> Outcome<(Attributes, bool, Option<SessionId>)> {
        let parent = parent_of(&body);
        let done = self.execute_in(credential, body).await;
        let (reply, before) = match parent {
            Some(parent) => self.remembered.within(parent, done)?,
            None => done?,
        };
        let Reply::Inode { attributes, created } = reply else { return Err(libc::EIO) };
        let after = self.client.session();
        // Without a session, an operation waits for the next one.
        let certain = after != SessionId::ZERO && (before == after || before == SessionId::ZERO);
        Ok((attributes, created, certain.then_some(after)))
    }

    /// Does one operation that answers with an inode.
    pub async fn execute_for_inode(
        &self,
        credential: &Credential,
        body: OperationBody,
    ) -> Outcome<(Attributes, bool)> {
        let parent = parent_of(&body);
        let done = self.execute(credential, body).await;
        let reply = match parent {
            Some(parent) => self.remembered.within(parent, done)?,
            None => done?,
        };
        match reply {
            Reply::Inode { attributes, created } => {
                self.remembered.note(&attributes);
                Ok((attributes, created))
            }
            _ => Err(libc::EIO),
        }
    }

    /// Asks a question.
    pub async fn read(&self, credential: &Credential, query: Query, freshness: Freshness) -> Outcome<Answer> {
        self.client.read(credential, query, freshness).await.map_err(|error| errno(&error))
    }

    /// Counts a write-back that is done, and returns the count.
    pub fn count_write_back(&self) -> u64 {
        self.write_backs.fetch_add(1, Ordering::AcqRel).saturating_add(1)
    }

    /// Whether a write-back of this file was done since the count was `since`. An answer that was asked for
    /// before may lack its bytes, which are not dirty here any more either: it must be asked for again.
    pub fn is_overtaken(&self, ino: Ino, since: u64) -> bool {
        self.files.inode(ino).is_some_and(|inode| inode.written_at.load(Ordering::Acquire) > since)
    }

    async fn attributes_by(
        &self,
        credential: &Credential,
        query: Query,
        freshness: Freshness,
    ) -> Outcome<Attributes> {
        loop {
            let since = self.write_backs.load(Ordering::Acquire);
            let Answer::Attributes(attributes) = self.read(credential, query.clone(), freshness).await?
            else {
                return Err(libc::EIO);
            };
            let ino = attributes.ino;
            let attributes = self.overlay(attributes);
            if !self.is_overtaken(ino, since) {
                return Ok(attributes);
            }
        }
    }

    /// The attributes of an inode, with what is dirty here.
    pub async fn attributes(&self, credential: &Credential, ino: Ino) -> Outcome<Attributes> {
        let found = self.attributes_by(credential, Query::Attributes { ino }, Freshness::Floor).await;
        self.remembered.attributes(ino, found)
    }

    /// The attributes of the root. While the cluster does not answer, those that were known last: `df` and its
    /// like look at the root of every mount, and one that hangs there takes the whole machine's list with it.
    pub async fn root_attributes(&self, credential: &Credential) -> Outcome<Attributes> {
        let asked = self.attributes(credential, ROOT);
        let Some(known) = self.known_root() else {
            return asked.await.inspect(|found| self.remember_root(found));
        };
        match tokio::time::timeout(PATIENCE_WITHOUT_QUORUM, asked).await {
            Ok(found) => found.inspect(|found| self.remember_root(found)),
            Err(_) => Ok(known),
        }
    }

    /// The last attributes of the root.
    pub fn known_root(&self) -> Option<Attributes> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember_root(&self, found: &Attributes) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
    }

    /// What a name names, linearizable.
    pub async fn lookup(&self, credential: &Credential, parent: Ino, name: Name) -> Outcome<Attributes> {
        let query = Query::Lookup { parent, name };
        let found = self.attributes_by(credential, query, Freshness::Linearizable).await;
        let found = self.remembered.within(parent, found)?;
        self.remembered.note(&found);
        Ok(found)
    }

    /// Lays local size and time over attributes of a file that is dirty here.
    pub fn overlay(&self, mut attributes: Attributes) -> Attributes {
        let Some(inode) = self.files.inode(attributes.ino) else { return attributes };
        let dirty = inode.dirty();
        if dirty.is_clean() {
            return attributes;
        }
        let end = dirty.end();
        if end > attributes.size {
            attributes.size = end;
            attributes.blocks = attributes.blocks.max(end.div_ceil(512));
        }
        if let Some(changed) = dirty.changed_at() {
            attributes.mtime = attributes.mtime.max(changed);
            attributes.ctime = attributes.ctime.max(changed);
        }
        attributes
    }
}
