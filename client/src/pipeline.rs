//! The envelopes of one session: sequence numbers, retries, results. Pure: no network, no clock.
//!
//! Invariants: every sequence number is used for one operation only, except that a number whose envelope
//! is proven dead (a certified batch time is beyond its validity and the session did not consume it) is
//! used again; an envelope is sent byte-identical until its fate is certified; a result reaches its caller
//! only from a header that is known to be committed; a gap is never final (rules R3, R8).

mod loss;
mod orphans;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use quorate_crypto::{Bounded, Hash, Signer};
use quorate_execution::{BATCH_TIME_MAX, verify_results_of};
use quorate_protocol::client::{EnvelopeResults, Refusal};
use quorate_protocol::envelope::session_id;
use quorate_protocol::operation::OpenMode;
use quorate_protocol::{
    BatchTime, Credential, Envelope, EnvelopeBody, Groups, Height, Operation, OperationBody, OperationResult,
    ReplicaIndex, SessionId, SkipReason,
};
use tokio::time::Instant;

use crate::batch::{Batch, Job, Waiter};
use crate::error::{ClientError, EIO};
use crate::options::{
    ENVELOPES_IN_FLIGHT_MAX, FOLLOW_AFTER, FOLLOW_OPERATIONS, GATHER_DIVISOR, GATHER_MAX,
    OPERATIONS_WAITING_MAX, RESULTS_WAIT, RESULTS_WAIT_MIN, RETRY_FIRST, RETRY_FRESH, RETRY_MAX,
};
use crate::trust::Trust;

pub(crate) use loss::SessionAt;

/// Results of one envelope under different uncertified headers that are kept at once.
pub(crate) const CANDIDATES_MAX: usize = 8;

/// Fetches of results before the wait between them doubles.
const FETCHES_PER_DOUBLING: u32 = 4;
/// Retries before the session's row is asked for.
const ATTEMPTS_BEFORE_RESOLVE: u32 = 2;
/// First wait before an envelope that was skipped is sent again.
const RETRY_SKIPPED: Duration = Duration::from_millis(20);

/// What the pipeline wants to be done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send this envelope; `attempt` counts from 0.
    Send { envelope: Arc<Envelope>, attempt: u32 },
    /// Ask a replica for the results of the envelope that starts at `first`.
    Fetch { first: u64, attempt: u32 },
    /// The envelope that starts at `first` gets no answer: ask for the session's row, as somebody whom the
    /// envelope acts as, and call [`Pipeline::resolve`].
    Resolve { first: u64, credential: Credential },
}

/// What became of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Lives,
    /// It is gone, or its numbers are; start a fresh one.
    Lost,
    /// The cluster does not take this principal.
    Refused(ClientError),
}

/// An envelope whose fate is not certified.
#[derive(Debug)]
struct Flight {
    envelope: Arc<Envelope>,
    digest: Hash,
    waiters: Vec<Waiter>,
    candidates: Vec<(Hash, EnvelopeResults)>,
    attempt: u32,
    /// First wait before it is sent again.
    patience: Duration,
    retry_at: Instant,
    fetch_at: Option<Instant>,
    fetches: u32,
    /// Whether a fetch was hastened: once, whatever liars send.
    hastened: bool,
    resolving: bool,
    refusals: Vec<(ReplicaIndex, Refusal)>,
}

impl Flight {
    fn first(&self) -> u64 {
        self.envelope.body.first
    }

    /// Results were sent that a certified header contradicts: true ones are asked for at once.
    fn hasten(&mut self, now: Instant) {
        if !self.hastened {
            self.hastened = true;
            self.fetch_at = Some(now);
        }
    }

    fn answer_all(&mut self, error: &ClientError) {
        for waiter in &mut self.waiters {
            waiter.answer(Err(error.clone()));
        }
    }
}

/// What the next envelope waits for once none is in flight: callers that were just answered come back soon,
/// and what they ask for costs nearly nothing in an envelope that is sent anyway.
#[derive(Copy, Clone, Debug)]
struct Gathering {
    /// Until then,
    until: Instant,
    /// or so many operations.
    operations: usize,
}

/// One session's envelopes and what waits for the next one.
pub(crate) struct Pipeline {
    cluster: Hash,
    signer: Arc<dyn Signer>,
    session: SessionId,
    registered: bool,
    next: u64,
    /// Once the session is known to have ended: the number from which on nothing was executed.
    consumed: Option<u64>,
    waiting: VecDeque<Job>,
    flights: VecDeque<Flight>,
    /// When the last envelope of waiting operations was made.
    launched_at: Instant,
    /// What envelopes took lately, a mean in which the last ones weigh most; at most [`RESULTS_WAIT`].
    usual: Duration,
    /// What the next envelope waits for.
    gathering: Gathering,
    /// How long envelopes are valid; `None`: for ever.
    validity: Option<u64>,
}

impl Pipeline {
    pub(crate) fn new(
        cluster: Hash,
        signer: Arc<dyn Signer>,
        validity: Option<Duration>,
        now: Instant,
    ) -> Self {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4);
        Self {
            cluster,
            signer,
            session: Hash::ZERO,
            registered: false,
            next: 0,
            consumed: None,
            waiting: VecDeque::new(),
            flights: VecDeque::new(),
            launched_at: now,
            usual: RESULTS_WAIT,
            gathering: Gathering { until: now, operations: 0 },
            validity: validity.map(nanoseconds),
        }
    }

    pub(crate) const fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) const fn registered(&self) -> bool {
        self.registered
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < OPERATIONS_WAITING_MAX
    }

    /// Starts a fresh session. What is pending is answered with `SessionLost`.
    pub(crate) fn register(&mut self, nonce: [u8; 32], valid_until: BatchTime, now: Instant) -> Action {
        self.fail_lost();
        let key = self.signer.public();
        self.session = session_id(&self.cluster, &key, &nonce);
        self.registered = false;
        self.next = 1;
        let nobody = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
        let operation =
            Operation { credential: 0, requires: 0, at: None, body: OperationBody::Register { nonce } };
        self.send(0, valid_until, (vec![nobody], vec![operation], Vec::new()), now)
    }

    /// Queues an operation; the caller has asked [`Pipeline::has_room`].
    pub(crate) fn push(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// Makes envelopes of what waits, as long as few enough are in flight.
    pub(crate) fn launch(&mut self, now: Instant, batch_now: BatchTime) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.follow_at().is_some_and(|at| at <= now) {
            self.launched_at = now;
            let batch = Batch::take(&mut self.waiting);
            let first = self.next;
            self.next = first.saturating_add(batch.operations.len() as u64);
            let content = (batch.credentials, batch.operations, batch.waiters);
            actions.push(self.send(first, self.valid_until(batch_now), content, now));
        }
        actions
    }

    /// When the next envelope may be made; `None` when nothing waits for it, or too many are in flight.
    fn follow_at(&self) -> Option<Instant> {
        if !self.registered || self.waiting.is_empty() || self.flights.len() >= ENVELOPES_IN_FLIGHT_MAX {
            return None;
        }
        let enough = if self.flights.is_empty() { self.gathering.operations } else { FOLLOW_OPERATIONS };
        Some(match () {
            () if self.waiting.len() >= enough => self.launched_at,
            () if self.flights.is_empty() => self.gathering.until,
            () => later(self.launched_at, FOLLOW_AFTER),
        })
    }

    /// How long results that should have come are waited for.
    fn results_wait(&self) -> Duration {
        self.usual.clamp(RESULTS_WAIT_MIN, RESULTS_WAIT)
    }

    /// The last envelope in flight was answered: lets those that wait for its results come back.
    fn gather(&mut self, answered: usize, now: Instant) {
        let took = now.saturating_duration_since(self.launched_at);
        self.usual = (self.usual.saturating_mul(3).saturating_add(took) / 4).min(RESULTS_WAIT);
        let pause = took / GATHER_DIVISOR;
        let expected = answered.saturating_add(self.waiting.len());
        let until = later(now, pause.min(GATHER_MAX));
        self.gathering = Gathering { until, operations: expected.saturating_mul(3) / 4 };
    }

    fn valid_until(&self, batch_now: BatchTime) -> BatchTime {
        self.validity.map_or(BATCH_TIME_MAX, |validity| batch_now.plus(validity).min(BATCH_TIME_MAX))
    }

    /// Signs an envelope and puts it in its place among those in flight.
    fn send(
        &mut self,
        first: u64,
        valid_until: BatchTime,
        content: (Vec<Credential>, Vec<Operation>, Vec<Waiter>),
        now: Instant,
    ) -> Action {
        let (credentials, operations, waiters) = content;
        let body = EnvelopeBody {
            cluster: self.cluster,
            session: self.session,
            key: self.signer.public(),
            first,
            valid_until,
            // A batch keeps to both bounds.
            credentials: Bounded::try_from(credentials).unwrap_or_default(),
            operations: Bounded::try_from(operations).unwrap_or_default(),
        };
        let digest = body.digest();
        // Replicas that have yet to hear of a fresh session drop what comes for it.
        let patience = if first == 1 { RETRY_FRESH } else { RETRY_FIRST };
        let envelope = Arc::new(body.sign(self.signer.as_ref()));
        let flight = Flight {
            envelope: Arc::clone(&envelope),
            digest,
            waiters,
            candidates: Vec::new(),
            attempt: 0,
            patience,
            retry_at: later(now, patience),
            fetch_at: None,
            fetches: 0,
            hastened: false,
            resolving: false,
            refusals: Vec::new(),
        };
        let position = self.flights.iter().position(|other| other.first() > first);
        self.flights.insert(position.unwrap_or(self.flights.len()), flight);
        Action::Send { envelope, attempt: 0 }
    }

    /// Takes results that a replica sent. Nothing is proven by them alone.
    ///
    /// # Errors
    /// What is wrong with them: the replica's fault.
    pub(crate) fn results(
        &mut self,
        results: EnvelopeResults,
        trust: &Trust,
        time: (Instant, BatchTime),
    ) -> Result<(Fate, Vec<Action>), String> {
        let wait = self.results_wait();
        let position = self.flights.iter().position(|flight| flight.digest == results.envelope);
        let Some(flight) = position.and_then(|position| self.flights.get_mut(position)) else {
            // Settled already, or of a session that is over.
            return Ok((Fate::Lives, Vec::new()));
        };
        let count = flight.envelope.body.operations.len();
        verify_results_of(&results, &self.session, flight.first(), count, &flight.digest)
            .map_err(|fault| fault.to_string())?;
        let hash = results.header.hash();
        let certified = results.certificate.is_some() || trust.is_committed(results.header.height, &hash);
        if certified {
            trust
                .verify_header(&results.header, results.certificate.as_ref())
                .map_err(|fault| fault.to_string())?;
            return Ok(self.settle(position.unwrap_or_default(), &results, time));
        }
        if trust.contradicts(results.header.height, &hash) {
            flight.hasten(time.0);
        } else if flight.candidates.iter().all(|(known, _)| *known != hash) {
            if flight.candidates.len() >= CANDIDATES_MAX {
                flight.candidates.remove(0);
            }
            flight.candidates.push((hash, results));
        }
        if flight.fetch_at.is_none() {
            flight.fetch_at = Some(later(time.0, wait));
        }
        Ok((Fate::Lives, Vec::new()))
    }

    /// Whether results under this header wait for its certificate.
    pub(crate) fn waits_for(&self, hash: &Hash) -> bool {
        self.flights.iter().any(|flight| flight.candidates.iter().any(|(known, _)| known == hash))
    }

    /// A height was certified. Settles what waited for it; for the rest results are fetched soon.
    pub(crate) fn committed(
        &mut self,
        height: Height,
        hash: &Hash,
        trust: &Trust,
        time: (Instant, BatchTime),
    ) -> (Fate, Vec<Action>) {
        let mut actions = Vec::new();
        let waits = |flight: &Flight| flight.candidates.iter().any(|(known, _)| known == hash);
        while let Some(position) = self.flights.iter().position(waits) {
            let Some(flight) = self.flights.get_mut(position) else { break };
            let found = flight.candidates.iter().position(|(known, _)| known == hash);
            let Some((_, results)) = found.map(|found| flight.candidates.swap_remove(found)) else { break };
            if results.header.height != height || trust.verify_header(&results.header, None).is_err() {
                continue;
            }
            let (fate, more) = self.settle(position, &results, time);
            actions.extend(more);
            if fate != Fate::Lives {
                return (fate, actions);
            }
        }
        self.drop_contradicted(height, hash, time.0);
        self.expect_results(time.0);
        (Fate::Lives, actions)
    }

    /// Results under another header of a height that was certified will never be.
    fn drop_contradicted(&mut self, height: Height, hash: &Hash, now: Instant) {
        for flight in &mut self.flights {
            let before = flight.candidates.len();
            flight.candidates.retain(|(known, results)| results.header.height != height || known == hash);
            if flight.candidates.len() < before {
                flight.hasten(now);
            }
        }
    }

    /// A height that may hold these envelopes is being decided: if nothing more comes, ask.
    pub(crate) fn expect_results(&mut self, now: Instant) {
        let wait = self.results_wait();
        for flight in self.flights.iter_mut().filter(|flight| flight.fetch_at.is_none()) {
            flight.fetch_at = Some(later(now, wait));
        }
    }

    /// Acts on certified results of the flight at `position`.
    fn settle(
        &mut self,
        position: usize,
        results: &EnvelopeResults,
        (now, batch_now): (Instant, BatchTime),
    ) -> (Fate, Vec<Action>) {
        let Some(flight) = self.flights.get_mut(position) else { return (Fate::Lives, Vec::new()) };
        let Some(OperationResult::Skipped(reason)) = results.results.first() else {
            return (self.finish(position, results, now), Vec::new());
        };
        match reason {
            // Not final (rule R8): what is missing is in flight as well, and both are sent again soon.
            SkipReason::Gap { .. } | SkipReason::Budget => {
                for flight in self.flights.iter_mut().take(position.saturating_add(1)) {
                    let soon = later(now, back_off(RETRY_SKIPPED, flight.attempt, RETRY_MAX));
                    flight.retry_at = flight.retry_at.min(soon);
                }
                (Fate::Lives, Vec::new())
            }
            // Executed before: the replicas have the results of that.
            SkipReason::Duplicate { .. } => {
                flight.fetch_at = Some(now);
                (Fate::Lives, Vec::new())
            }
            // Certified beyond its validity, and by the order of admission not executed before.
            SkipReason::Expired if self.registered => {
                let action = self.reissue(position, now, batch_now);
                (Fate::Lives, action.into_iter().collect())
            }
            // It has ended: its row says what was executed before that.
            SkipReason::UnknownSession if self.registered => {
                let credential = flight.envelope.body.credentials.first().cloned();
                let credential = credential.filter(|_| !std::mem::replace(&mut flight.resolving, true));
                let first = flight.first();
                let ask = credential.map(|credential| Action::Resolve { first, credential });
                (Fate::Lives, ask.into_iter().collect())
            }
            SkipReason::UnknownPrincipal => {
                let text = "the cluster does not know this principal, or revoked it".to_owned();
                (Fate::Refused(ClientError::Refused { refusal: Refusal::Denied, text }), Vec::new())
            }
            SkipReason::Expired
            | SkipReason::Overlap { .. }
            | SkipReason::UnknownSession
            | SkipReason::WrongKey
            | SkipReason::BadRegistration => (Fate::Lost, Vec::new()),
        }
    }

    /// The envelope was executed: answers its callers.
    fn finish(&mut self, position: usize, results: &EnvelopeResults, now: Instant) -> Fate {
        let Some(mut flight) = self.flights.remove(position) else { return Fate::Lives };
        let body = &flight.envelope.body;
        let mut orphans = Vec::new();
        for ((waiter, result), operation) in
            flight.waiters.iter_mut().zip(&results.results).zip(&body.operations)
        {
            let is_heard = waiter.answer(match result {
                OperationResult::Done(reply) => Ok(reply.clone()),
                OperationResult::Failed(errno) => Err(ClientError::Errno(*errno)),
                // An executed envelope has no skipped operations.
                OperationResult::Skipped(_) => Err(ClientError::Errno(EIO)),
            });
            if !is_heard
                && let OperationResult::Done(reply) = result
                && let Some(credential) = body.credentials.get(usize::from(operation.credential))
            {
                let release = orphans::release_of(operation, reply);
                orphans.extend(release.map(|release| (credential.clone(), release)));
            }
        }
        self.give_back(orphans);
        if self.flights.is_empty() {
            self.gather(flight.waiters.len(), now);
        }
        if flight.first() == 0 {
            match results.results.first() {
                Some(OperationResult::Done(_)) => self.registered = true,
                _ => return Fate::Lost,
            }
        }
        Fate::Lives
    }

    /// Replaces a dead envelope by one with as many operations, so that those behind it keep their numbers.
    /// Operations that were called dead (their callers saw the deadline) become ones that fail.
    fn reissue(&mut self, position: usize, now: Instant, batch_now: BatchTime) -> Option<Action> {
        let flight = self.flights.remove(position)?;
        let body = &flight.envelope.body;
        let alive = |(operation, waiter): (&Operation, &Waiter)| {
            if waiter.answered() { dead(operation) } else { operation.clone() }
        };
        let operations = body.operations.iter().zip(&flight.waiters).map(alive).collect();
        let content = (body.credentials.to_vec(), operations, flight.waiters);
        Some(self.send(body.first, self.valid_until(batch_now), content, now))
    }

    /// A replica declines an envelope. When more decline than can be faulty, that is believed.
    pub(crate) fn refused(
        &mut self,
        from: ReplicaIndex,
        first: u64,
        (refusal, text): (Refusal, String),
        weak_quorum: usize,
    ) -> Fate {
        let Some(flight) = self.flights.iter_mut().find(|flight| flight.first() == first) else {
            return Fate::Lives;
        };
        let final_for_it = matches!(refusal, Refusal::Invalid | Refusal::Denied);
        if final_for_it && flight.refusals.iter().all(|(replica, _)| *replica != from) {
            flight.refusals.push((from, refusal));
        }
        if flight.refusals.len() >= weak_quorum {
            return Fate::Refused(ClientError::Refused { refusal, text });
        }
        Fate::Lives
    }

    /// What is due: deadlines of callers, retries, fetches, questions for the session's row.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Action> {
        self.expire_waiting(now);
        let wait = self.results_wait();
        let mut actions = Vec::new();
        for flight in &mut self.flights {
            for waiter in flight.waiters.iter_mut().filter(|waiter| waiter.is_due(now)) {
                waiter.answer(Err(ClientError::Deadline { sent: true }));
            }
            let first = flight.first();
            if flight.retry_at <= now {
                flight.attempt = flight.attempt.saturating_add(1);
                flight.retry_at = later(now, back_off(flight.patience, flight.attempt, RETRY_MAX));
                let envelope = Arc::clone(&flight.envelope);
                actions.push(Action::Send { envelope, attempt: flight.attempt });
                actions.push(Action::Fetch { first, attempt: flight.attempt });
                if flight.attempt >= ATTEMPTS_BEFORE_RESOLVE && !flight.resolving {
                    flight.resolving = true;
                    if let Some(credential) = flight.envelope.body.credentials.first().cloned() {
                        actions.push(Action::Resolve { first, credential });
                    }
                }
            }
            if flight.fetch_at.is_some_and(|fetch_at| fetch_at <= now) {
                actions.push(Action::Fetch { first, attempt: flight.fetches });
                flight.fetches = flight.fetches.saturating_add(1);
                // A few in quick succession: the first often comes before a view change is over.
                let doublings = flight.fetches / FETCHES_PER_DOUBLING;
                flight.fetch_at = Some(later(now, back_off(wait, doublings, RETRY_MAX)));
            }
        }
        actions
    }

    /// Gives up what waits too long and was not sent: whole groups, so that `requires` stays right.
    fn expire_waiting(&mut self, now: Instant) {
        // In order of arrival, hence of deadlines.
        let earliest = self.waiting.iter().find_map(|job| job.waiter.due());
        if earliest.is_none_or(|deadline| deadline > now) {
            return;
        }
        // A group whose beginning was sent is sent to its end.
        let mut sent_in_part = true;
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        for mut job in self.waiting.drain(..) {
            sent_in_part = sent_in_part && !job.opens_group;
            if job.waiter.is_due(now) {
                job.waiter.answer(Err(ClientError::Deadline { sent: sent_in_part }));
                if !sent_in_part {
                    continue;
                }
            }
            kept.push_back(job);
        }
        self.waiting = kept;
    }

    /// Everything in flight once more, for a replica that was away.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        self.flights.iter().map(|flight| &flight.envelope)
    }

    /// When [`Pipeline::due`] has something to do.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        // In order of arrival, hence of deadlines.
        let waiting = self.waiting.iter().find_map(|job| job.waiter.due());
        let flights = self.flights.iter().flat_map(|flight| {
            let waiters = flight.waiters.iter().find_map(Waiter::due);
            [Some(flight.retry_at), flight.fetch_at, waiters]
        });
        flights.flatten().chain(waiting).chain(self.follow_at()).min()
    }
}

/// An operation that always fails, for a number whose operation was called dead.
fn dead(operation: &Operation) -> Operation {
    let mode = OpenMode { read: false, write: false, truncate: false };
    let body = OperationBody::Open { ino: 0, mode };
    Operation { credential: operation.credential, requires: 0, at: None, body }
}

fn later(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}

/// `first` doubled `attempt` times, at most `longest`.
fn back_off(first: Duration, attempt: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(attempt.min(16)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
mod tests;
