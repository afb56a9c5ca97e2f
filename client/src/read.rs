//! Verified reads: one replica answers, the answer is checked, and another is asked when it fails.
//!
//! Invariants: an answer is computed here, from a pruned copy of the state whose root a certified header
//! names, at a height at least as high as asked for, or exactly the one. A check that fails names the replica and
//! moves the question on; it never becomes an answer (RD2, RD4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_crypto::{BoundedBytes, Certificate};
use quorate_execution::{Answer, PartialState};
use quorate_protocol::client::{ClientReply, ClientRequest, ReadAnswer, Refusal};
use quorate_protocol::limits::PROOF_BYTES_MAX;
use quorate_protocol::query::{Query, ReadAt, ReadRequest};
use quorate_protocol::{Credential, Groups, Header, Height, ReplicaIndex};
use tokio::time::Instant;

use crate::client::{Certified, Freshness};
use crate::core::{Core, Deadline};
use crate::error::ClientError;
use crate::options::HEDGE_DELAY;
use crate::question::{self, Scope, Target};
use crate::race::Race;
use crate::replicas::Unreachable;

/// First pause after all replicas were asked in vain; doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(4);
/// Longest pause between two rounds over all replicas.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a height that was prepared may stay uncommitted before the replicas are made to commit it.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a height that some replicas do not keep is sought at those that are busy: how much each keeps is its
/// operator's choice, and to prepare a height takes time.
const RETENTION_PATIENCE: Duration = Duration::from_secs(4);

/// How long the last f replicas are waited for when all others have replied, and none with an answer, until those are
/// asked again: they may have one by now, and the last ones may be silent.
const SILENCE_PATIENCE: Duration = Duration::from_secs(1);

/// What the filesystem answers to a query that is not its own.
const NO_ANSWER: u16 = quorate_execution::Errno::EOPNOTSUPP.number();

/// Reads.
pub(crate) async fn read(
    core: &Arc<Core>,
    credential: &Credential,
    query: Query,
    freshness: Freshness,
) -> Result<Certified, ClientError> {
    read_rows(core, credential, query, freshness).await?.into_certified()
}

/// As [`read`], with the rows that prove the answer.
pub(crate) async fn read_rows(
    core: &Arc<Core>,
    credential: &Credential,
    query: Query,
    freshness: Freshness,
) -> Result<Verdict, ClientError> {
    let asking = Asking { core, credential, query, deadline: core.deadline(), for_others: false };
    if let Freshness::Exactly(height) = freshness {
        // It says the same for ever: how old it is needs no question.
        return asking.answer(ReadAt::Exactly(height), None).await;
    }
    core.reading.store(true, Ordering::Relaxed);
    let interval = core.options.question_interval;
    // While reads go on, a question in the background keeps the floor young. After a pause the first read has
    // to ask for itself: how old an answer may be is counted from the last question (RD5).
    let young = interval.is_zero() || core.question.is_recent(interval);
    match freshness {
        Freshness::Floor if young => asking.answer(ReadAt::AtLeast(core.floor()), None).await,
        _ => asking.linearizable().await,
    }
}

/// A read of exactly this height, or without one a linearizable one, whose answer convinces whoever has the genesis.
pub(crate) async fn prove(
    core: &Arc<Core>,
    credential: &Credential,
    query: Query,
    at: Option<Height>,
) -> Result<ReadAnswer, ClientError> {
    let asking = Asking { core, credential, query, deadline: core.deadline(), for_others: true };
    let verdict = match at {
        Some(height) => asking.answer(ReadAt::Exactly(height), None).await,
        None => asking.linearizable().await,
    };
    let Verdict { header, certificate, proof, .. } = verdict?;
    Ok(ReadAnswer { header, certificate, proof })
}

/// Reads at the floor however old it is: for what the client itself wants to know, which no quorum need answer.
pub(crate) async fn read_at_floor(
    core: &Arc<Core>,
    credential: &Credential,
    query: Query,
) -> Result<Verdict, ClientError> {
    let asking = Asking { core, credential, query, deadline: core.deadline(), for_others: false };
    asking.answer(ReadAt::AtLeast(core.floor()), None).await
}

/// Asks for the highest height and follows it until it is known to be committed.
pub(crate) async fn refresh(core: &Arc<Core>) -> Result<Height, ClientError> {
    let (deadline, asked_at) = (core.deadline(), Instant::now());
    let target = target(core, deadline).await?;
    if target.height > core.floor() {
        let credential = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
        let asking =
            Asking { core, credential: &credential, query: Query::Totals, deadline, for_others: false };
        asking.answer(ReadAt::AtLeast(target.height), target.prepared.as_ref()).await?;
    }
    core.question.reached(asked_at);
    Ok(core.floor())
}

/// The target of a linearizable read; asked again until the deadline when no quorum answers.
async fn target(core: &Arc<Core>, deadline: Deadline) -> Result<Target, ClientError> {
    loop {
        match deadline.run(question::ask(core, Scope::Quorum)).await {
            Some(Err(ClientError::NoQuorum { .. })) if !deadline.passed() => {}
            Some(outcome) => return outcome,
            None => return Err(core.unanswered()),
        }
    }
}

/// What a certified state says: an answer, or the errno that the query ends with.
pub(crate) struct Verdict {
    pub(crate) header: Header,
    /// What came with the header: checked only where the header was not known to be certified, or for others.
    pub(crate) certificate: Option<Certificate>,
    /// The pruned copy of the state as it was sent.
    pub(crate) proof: BoundedBytes<PROOF_BYTES_MAX>,
    pub(crate) answer: Result<Answer, u16>,
    /// The rows that prove it.
    pub(crate) rows: PartialState,
}

impl Verdict {
    fn into_certified(self) -> Result<Certified, ClientError> {
        let Self { header, answer, .. } = self;
        answer.map(|answer| Certified { answer, header }).map_err(ClientError::Errno)
    }
}

/// Why an attempt at one replica is no answer.
enum Miss {
    /// The replica is behind or unreachable.
    Later,
    /// It may have an answer in a moment.
    Busy,
    /// It declines the request itself.
    Refused(Refusal, String),
    /// It was caught.
    Lie(String),
}

/// One query with all that it takes to ask it.
struct Asking<'a> {
    core: &'a Arc<Core>,
    credential: &'a Credential,
    query: Query,
    deadline: Deadline,
    /// Whether the answer is shown to somebody who knows of no certified header: its own certificate must hold.
    for_others: bool,
}

impl Asking<'_> {
    /// What the highest height says; afterwards the floor is as young as this question.
    async fn linearizable(&self) -> Result<Verdict, ClientError> {
        let asked_at = Instant::now();
        let verdict = self.at_target().await?;
        self.core.question.reached(asked_at);
        Ok(verdict)
    }

    /// One round trip if all goes well, two otherwise.
    async fn at_target(&self) -> Result<Verdict, ClientError> {
        if let Some(found) = self.deadline.run(self.at_once()).await.flatten() {
            return Ok(found);
        }
        let target = target(self.core, self.deadline).await?;
        self.answer(ReadAt::AtLeast(target.height), target.prepared.as_ref()).await
    }

    /// The quickest replica reads at or above the highest height that it sent a COMMIT for, which makes its
    /// answer one to the question as well, and Q - 1 others are asked the question meanwhile. `None` when
    /// that is no linearizable answer: a replica failed, or the others know of a higher height.
    async fn at_once(&self) -> Option<Verdict> {
        let (core, at) = (self.core, ReadAt::Fresh(self.core.floor()));
        let reader = *core.order().first()?;
        let request = Arc::new(self.request(at));
        let read = async {
            let reply = tokio::time::timeout(HEDGE_DELAY, core.request(reader, request)).await;
            // Whoever keeps a reader waiting is asked later next time.
            reply.inspect_err(|_| core.demote(reader)).ok()
        };
        let (reply, others) = tokio::join!(read, question::ask(core, Scope::Others));
        let (verdict, others) = (self.judge(reader, at, reply?).ok()?, others.ok()?);
        if others.answered.contains(&reader) {
            return None;
        }
        if verdict.header.height >= others.height {
            return Some(verdict);
        }
        self.answer(ReadAt::AtLeast(others.height), others.prepared.as_ref()).await.ok()
    }

    fn request(&self, at: ReadAt) -> ClientRequest {
        let (credential, query) = (self.credential.clone(), self.query.clone());
        ClientRequest::Read(ReadRequest { at, credential, query })
    }

    /// Asks replicas, fastest first, until one proves an answer at such a height.
    async fn answer(&self, at: ReadAt, prepared: Option<&Certificate>) -> Result<Verdict, ClientError> {
        let request = Arc::new(self.request(at));
        let insist = async {
            if let Some(certificate) = prepared {
                tokio::time::sleep(PATIENCE).await;
                self.make_wait(certificate);
            }
            std::future::pending().await
        };
        tokio::select! {
            verdict = self.passes(at, &request) => verdict,
            never = insist => never,
        }
    }

    /// Passes over all replicas until one answers or the deadline comes.
    async fn passes(&self, at: ReadAt, request: &Arc<ClientRequest>) -> Result<Verdict, ClientError> {
        let mut pause = PAUSE_FIRST;
        let mut refused: Option<(Instant, ClientError)> = None;
        loop {
            match self.deadline.run(self.pass(at, request)).await {
                Some(Ok(verdict)) => return Ok(verdict),
                Some(Err(Pointless::Ever(error))) => return Err(error),
                Some(Err(Pointless::UnlessBusy(error))) => {
                    let (since, _) = refused.get_or_insert((Instant::now(), error));
                    if since.elapsed() > RETENTION_PATIENCE {
                        break;
                    }
                }
                Some(Err(Pointless::No)) => {}
                None => break,
            }
            if self.deadline.run(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
        Err(refused.map_or_else(|| self.core.unanswered(), |(_, error)| error))
    }

    /// Each replica once: the next one when the one before fails or takes too long; again those that had no answer yet while
    /// the last ones are silent.
    async fn pass(&self, at: ReadAt, request: &Arc<ClientRequest>) -> Result<Verdict, Pointless> {
        let core = self.core;
        let mut race = Race::new();
        let mut order = core.order().into_iter();
        let mut tally = Misses::default();
        let mut asked_last = None;
        let (mut again, mut replied_at) = (Vec::new(), Instant::now());
        loop {
            if let Some(replica) = order.next() {
                race.push(replica, core.request(replica, Arc::clone(request)));
                asked_last = Some(replica);
            } else if race.len() <= core.members.f() && replied_at.elapsed() > SILENCE_PATIENCE {
                if let Some(verdict) = tally.verdict_of_most(core) {
                    return Err(verdict);
                }
                // Whoever is slow may yet answer with what the others do not keep.
                for replica in again.drain(..) {
                    race.push(replica, core.request(replica, Arc::clone(request)));
                }
            }
            let next = tokio::time::timeout(HEDGE_DELAY, race.next()).await;
            let (replica, reply) = match next {
                Ok(Some(completed)) => completed,
                Ok(None) => return Err(tally.verdict(core)),
                Err(_) => {
                    // Whoever keeps a reader waiting is asked later next time.
                    asked_last.take().into_iter().for_each(|replica| core.demote(replica));
                    continue;
                }
            };
            replied_at = Instant::now();
            match self.judge(replica, at, reply) {
                Ok(verdict) => return Ok(verdict),
                Err(miss) => {
                    if matches!(miss, Miss::Busy | Miss::Later) {
                        again.push(replica);
                    }
                    tally.add(replica, miss);
                }
            }
        }
    }

    /// Checks a replica's reply.
    fn judge(
        &self,
        replica: ReplicaIndex,
        at: ReadAt,
        reply: Result<ClientReply, Unreachable>,
    ) -> Result<Verdict, Miss> {
        let lie = |reason: String| {
            self.core.accuse(replica, &reason);
            Miss::Lie(reason)
        };
        match reply {
            Ok(ClientReply::Read(answer)) => self.check(at, answer).map_err(lie),
            Ok(ClientReply::Refused { refusal: Refusal::Busy, .. }) | Err(Unreachable::NoReply(_)) => {
                Err(Miss::Busy)
            }
            Ok(ClientReply::Refused { refusal: Refusal::Behind, .. }) | Err(_) => Err(Miss::Later),
            // Whoever asks for a height knows that it is committed: that replica has yet to get there.
            Ok(ClientReply::Refused { refusal: Refusal::NotRetained { applied, .. }, .. }) if matches!(at, ReadAt::Exactly(height) if height > applied) => {
                Err(Miss::Later)
            }
            Ok(ClientReply::Refused { refusal, text }) => {
                Err(Miss::Refused(refusal, String::from_utf8_lossy(&text).into_owned()))
            }
            Ok(_) => Err(lie("another kind of reply than a read asks for".to_owned())),
        }
    }

    /// Header under certificate, height, proof under root, and the query on the proof.
    fn check(&self, at: ReadAt, answer: ReadAnswer) -> Result<Verdict, String> {
        let ReadAnswer { header, certificate, proof } = answer;
        if !at.admits(header.height) {
            return Err(format!("an answer at height {} to a question of {at:?}", header.height));
        }
        let verified = self.core.trust.verify_header(&header, certificate.as_ref());
        verified.map_err(|fault| fault.to_string())?;
        if self.for_others {
            let whole = self.core.trust.verify_for_others(&header, certificate.as_ref());
            whole.map_err(|fault| fault.to_string())?;
        }
        let rows = PartialState::verify(&header, &proof).map_err(|fault| fault.to_string())?;
        let answer = rows.read(&self.core.signer.public(), self.credential, &self.query);
        let answer = answer.map_err(|fault| fault.to_string())?.map_err(|errno| errno.number());
        if let (Query::Session { session }, Err(NO_ANSWER)) = (&self.query, &answer) {
            // Its answer is in the rows alone.
            rows.session(session).map_err(|fault| fault.to_string())?;
        }
        Ok(Verdict { header, certificate, proof, answer, rows })
    }

    /// Shows all replicas the certificate of the height that this reader waits for (rule R4).
    fn make_wait(&self, certificate: &Certificate) {
        let request = Arc::new(ClientRequest::Await { certificate: certificate.clone() });
        for replica in self.core.members.indices() {
            let (core, request) = (Arc::clone(self.core), Arc::clone(&request));
            tokio::spawn(async move {
                // Only its effect matters, which the repeated read sees.
                let _ = core.request(replica, request).await;
            });
        }
    }
}

/// Whether it is pointless to ask all replicas again.
enum Pointless {
    No,
    /// They refuse, but one that was busy may have what the others have not.
    UnlessBusy(ClientError),
    Ever(ClientError),
}

/// What the replicas of one pass said last instead of an answer.
#[derive(Default)]
struct Misses(BTreeMap<ReplicaIndex, Miss>);

impl Misses {
    fn add(&mut self, replica: ReplicaIndex, miss: Miss) {
        self.0.insert(replica, miss);
    }

    /// Asking again is pointless when more replicas refuse than can be faulty, or when all lie.
    fn verdict(&self, core: &Core) -> Pointless {
        let mut refusals = self.0.values().filter_map(|miss| match miss {
            Miss::Refused(refusal, text) => Some((refusal, text)),
            _ => None,
        });
        if refusals.clone().count() >= core.members.weak_quorum()
            && let Some((refusal, text)) = refusals.next_back()
        {
            let is_busy = self.0.values().any(|miss| matches!(miss, Miss::Busy));
            let error = ClientError::Refused { refusal: *refusal, text: text.clone() };
            let busy = is_busy && matches!(refusal, Refusal::NotRetained { .. });
            return if busy { Pointless::UnlessBusy(error) } else { Pointless::Ever(error) };
        }
        let mut lies = self.0.iter().filter_map(|(replica, miss)| match miss {
            Miss::Lie(reason) => Some((replica, reason)),
            _ => None,
        });
        if lies.clone().count() >= core.members.n()
            && let Some((replica, reason)) = lies.next_back()
        {
            return Pointless::Ever(ClientError::PeerLies { replica: *replica, reason: reason.clone() });
        }
        Pointless::No
    }

    /// The same while the last f replicas are silent, which may have what others do not keep: pointless only if more than
    /// can be faulty refuse for another reason.
    fn verdict_of_most(&self, core: &Core) -> Option<Pointless> {
        let final_ones = self.0.values().filter(|miss| match miss {
            Miss::Refused(refusal, _) => !matches!(refusal, Refusal::NotRetained { .. } | Refusal::NotFound),
            _ => false,
        });
        (final_ones.count() >= core.members.weak_quorum()).then(|| self.verdict(core))
    }
}
