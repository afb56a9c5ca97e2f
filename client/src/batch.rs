//! Waiting operations, and how they are put into envelopes.
//!
//! Invariants: operations keep the order in which they were queued; an envelope respects every bound of
//! the protocol; credentials stand in its table once each.

use std::collections::VecDeque;

use quorate_protocol::limits::{CREDENTIALS_MAX, ENVELOPE_BYTES_MAX, OPERATIONS_PER_ENVELOPE_MAX};
use quorate_protocol::{Credential, Operation, OperationBody, Reply};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::ClientError;

/// Encoded bytes of an envelope without credentials and operations: cluster, session, key, first sequence
/// number, validity, two lengths, signature.
pub(crate) const ENVELOPE_FRAME_BYTES: usize = 32 + 32 + 32 + 8 + 8 + 4 + 4 + 64;
/// Operations that may be queued together, since `requires` reaches no further back (rule S8).
pub(crate) const GROUP_OPERATIONS_MAX: usize = 512;

/// Who waits for an operation, and how long.
#[derive(Debug)]
pub(crate) struct Waiter {
    done: Option<oneshot::Sender<Result<Reply, ClientError>>>,
    deadline: Option<Instant>,
}

impl Waiter {
    pub(crate) const fn new(
        done: oneshot::Sender<Result<Reply, ClientError>>,
        deadline: Option<Instant>,
    ) -> Self {
        Self { done: Some(done), deadline }
    }

    /// Answers, if that was not done before. Whether the caller still wants to know.
    pub(crate) fn answer(&mut self, result: Result<Reply, ClientError>) -> bool {
        self.done.take().is_some_and(|done| done.send(result).is_ok())
    }

    /// The deadline, while no answer was given.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.done.is_some())
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|deadline| deadline <= now)
    }

    /// Whether the caller was told that the deadline passed: its operation is not repeated.
    pub(crate) const fn answered(&self) -> bool {
        self.done.is_none()
    }
}

/// An operation that waits for an envelope.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) credential: Credential,
    pub(crate) body: OperationBody,
    /// Distance back, as in [`Operation`].
    pub(crate) requires: u16,
    /// Whether it is the first of those that were queued together.
    pub(crate) opens_group: bool,
    pub(crate) waiter: Waiter,
}

impl Job {
    /// Encoded bytes of the operation and of its credential.
    fn sizes(&self) -> (usize, usize) {
        // Index, `requires`, absent time; then the body.
        let body = borsh::object_length(&self.body).unwrap_or(usize::MAX / 4);
        let credential = borsh::object_length(&self.credential).unwrap_or(usize::MAX / 4);
        (body.saturating_add(4), credential)
    }

    /// Whether it fits an envelope of its own.
    pub(crate) fn fits(&self) -> bool {
        let (body, credential) = self.sizes();
        body.saturating_add(credential).saturating_add(ENVELOPE_FRAME_BYTES) <= ENVELOPE_BYTES_MAX
    }
}

/// The content of one envelope.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) credentials: Vec<Credential>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) waiters: Vec<Waiter>,
    bytes: usize,
}

impl Batch {
    /// Takes the longest run of operations from the front that fits one envelope.
    pub(crate) fn take(waiting: &mut VecDeque<Job>) -> Self {
        let mut batch = Self { bytes: ENVELOPE_FRAME_BYTES, ..Self::default() };
        while let Some(place) = waiting.front().and_then(|job| batch.place(job)) {
            let Some(job) = waiting.pop_front() else { break };
            batch.push(job, place);
        }
        batch
    }

    /// Where an operation would go, if there is room for it.
    fn place(&self, job: &Job) -> Option<Place> {
        let (bytes, credential_bytes) = job.sizes();
        let known = self.credentials.iter().position(|credential| *credential == job.credential);
        let index = known.unwrap_or(self.credentials.len());
        let added = if known.is_some() { bytes } else { bytes.saturating_add(credential_bytes) };
        let total = self.bytes.saturating_add(added);
        let room = self.operations.len() < OPERATIONS_PER_ENVELOPE_MAX
            && index < CREDENTIALS_MAX
            && total <= ENVELOPE_BYTES_MAX;
        let credential = u8::try_from(index).ok().filter(|_| room)?;
        Some(Place { credential, is_new: known.is_none(), total })
    }

    fn push(&mut self, job: Job, place: Place) {
        let Place { credential, is_new, total } = place;
        self.bytes = total;
        if is_new {
            self.credentials.push(job.credential);
        }
        self.operations.push(Operation { credential, requires: job.requires, at: None, body: job.body });
        self.waiters.push(job.waiter);
    }
}

/// Where an operation goes in a batch.
struct Place {
    credential: u8,
    /// Whether the credential is not in the table yet.
    is_new: bool,
    /// Bytes of the envelope with it.
    total: usize,
}
