//! The session's task: drives the pipeline with notices, replies and time, and keeps the session alive.
//!
//! Invariants: one task owns sequence numbers, tally and pipeline; it never waits for a replica; whatever
//! ends the session answers everything that is pending. A session that was lost is replaced by a fresh one
//! with a fresh nonce, never continued (CL6).

use std::sync::Arc;
use std::time::Duration;

use quorate_crypto::{Certificate, Hash};
use quorate_execution::rows::Phase;
use quorate_protocol::client::{ClientReply, ClientRequest, EnvelopeResults, Notice, Refusal};
use quorate_protocol::query::Query;
use quorate_protocol::{
    BatchTime, Credential, Envelope, Groups, Height, OperationBody, ReplicaIndex, SessionId, Vote,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Command, Standing};
use crate::batch::{Job, Waiter};
use crate::core::Core;
use crate::error::ClientError;
use crate::options::{BROADCAST_REPLICAS_MAX, CLOSE_TIMEOUT, REQUEST_TIMEOUT};
use crate::pipeline::{Action, Fate, Pipeline, SessionAt};
use crate::replicas::Event;
use crate::tally::Tally;
use crate::trust::TrustFault;

/// Groups that the task takes at once.
const COMMANDS_PER_TURN: usize = 256;
/// Events that the task takes before it looks at anything else.
const EVENTS_PER_TURN: usize = 256;
/// Times in a row that results had to be fetched because the replica that was to send them did not, after which
/// another one is to.
const MISSES_MAX: u32 = 2;
/// Replies of replicas on their way to the task.
const REPLIES_MAX: usize = 1024;
/// Wait before a principal that was refused tries to register again.
const REGISTER_AGAIN: Duration = Duration::from_secs(5);
/// First wait before a registration that failed is repeated.
const REGISTER_PAUSE: Duration = Duration::from_millis(50);
/// How much longer than its callers wait an envelope is valid, in batch time: room for clocks that differ.
const VALIDITY_MARGIN: Duration = Duration::from_secs(10);
/// Batch time for which a registration is valid.
const REGISTRATION_VALIDITY: u64 = 600_000_000_000;

/// What a replica answered to the task.
enum Told {
    Results(ReplicaIndex, Box<EnvelopeResults>),
    /// About the envelope of that session that starts there.
    Refused(ReplicaIndex, Place, Refusal, String),
    /// What the session's row says, for the envelope that starts there; `None` without an answer.
    Row(Place, Option<SessionAt>),
}

/// A session and the first sequence number of an envelope.
type Place = (SessionId, u64);

/// Everything that the session's task owns.
pub(super) struct Task {
    core: Arc<Core>,
    pipeline: Pipeline,
    tally: Tally,
    publish: watch::Sender<Standing>,
    replies: mpsc::Sender<Told>,
    incoming: mpsc::Receiver<Told>,
    /// When the session is to be renewed, if nothing else renews it.
    renew_at: Instant,
    /// When to register again after a refusal.
    register_at: Option<Instant>,
    closing: Option<(Instant, Vec<oneshot::Sender<()>>)>,
    /// Registrations that failed one after the other.
    failures: u32,
    /// Who is asked to send results. Kept as long as it delivers and does not lie: a replica remembers one
    /// choice for the whole session.
    chosen: Option<ReplicaIndex>,
    /// How often in a row it did not deliver.
    misses: u32,
    /// Whom to ask next when the chosen one did not deliver.
    rotation: usize,
    /// Whether a certificate came that contradicts another one: more than f replicas lie.
    forked: bool,
}

impl Task {
    pub(super) fn new(core: Arc<Core>, publish: watch::Sender<Standing>) -> Self {
        let validity = core.options.deadline.map(|deadline| deadline.saturating_add(VALIDITY_MARGIN));
        let pipeline = Pipeline::new(core.cluster_id, Arc::clone(&core.signer), validity, Instant::now());
        let (replies, incoming) = mpsc::channel(REPLIES_MAX);
        let tally = Tally::new(core.cluster_id);
        let renew_at = Instant::now();
        Self {
            core,
            pipeline,
            tally,
            publish,
            replies,
            incoming,
            renew_at,
            register_at: None,
            closing: None,
            failures: 0,
            chosen: None,
            misses: 0,
            rotation: 0,
            forked: false,
        }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut events: mpsc::Receiver<Event>,
    ) {
        if self.core.options.session {
            self.register();
        }
        let mut taken = Vec::new();
        loop {
            let wake = self.wake_at();
            let sleep = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event),
                    None => break,
                },
                told = self.incoming.recv() => told.into_iter().for_each(|told| self.told(told)),
                count = commands.recv_many(&mut taken, COMMANDS_PER_TURN), if self.pipeline.has_room() => {
                    if count == 0 {
                        break;
                    }
                    taken.drain(..).for_each(|command| self.command(command));
                }
                () = sleep => {}
            }
            // Everything that has arrived meanwhile joins the next envelope.
            for _ in 0..EVENTS_PER_TURN {
                let Ok(event) = events.try_recv() else { break };
                self.event(event);
            }
            while self.pipeline.has_room() && taken.len() < COMMANDS_PER_TURN {
                match commands.try_recv() {
                    Ok(command) => taken.push(command),
                    Err(_) => break,
                }
            }
            taken.drain(..).for_each(|command| self.command(command));
            if self.turn() {
                break;
            }
        }
        self.pipeline.fail_all(&ClientError::Closed);
        self.publish.send_replace(Standing::Closed);
        for done in self.closing.take().into_iter().flat_map(|(_, waiters)| waiters) {
            let _ = done.send(());
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let renew = self.pipeline.registered().then_some(self.renew_at);
        let closing = self.closing.as_ref().map(|(until, _)| *until);
        [self.pipeline.wake_at(), renew, self.register_at, closing].into_iter().flatten().min()
    }

    /// What time brings, then new envelopes. Whether the task is done.
    fn turn(&mut self) -> bool {
        let now = Instant::now();
        if self.register_at.is_some_and(|at| at <= now) {
            self.register();
        }
        if self.pipeline.registered() && self.renew_at <= now && self.closing.is_none() {
            self.renew(now);
        }
        let due = self.pipeline.due(now);
        self.act(due);
        let launched = self.pipeline.launch(now, self.core.batch_now());
        self.act(launched);
        let Some((until, _)) = self.closing.as_ref() else { return false };
        *until <= now || self.pipeline.is_idle()
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Jobs(jobs) => self.queue(jobs),
            Command::Close(done) => self.close(done),
        }
    }

    fn queue(&mut self, jobs: Vec<Job>) {
        let refused = match &*self.publish.borrow() {
            Standing::Refused(error) => Some(error.clone()),
            _ if self.closing.is_some() => Some(ClientError::Closed),
            _ => None,
        };
        for mut job in jobs {
            match &refused {
                Some(error) => {
                    job.waiter.answer(Err(error.clone()));
                }
                None => self.pipeline.push(job),
            }
        }
    }

    /// Lets what is in flight end, and the session behind it.
    fn close(&mut self, done: oneshot::Sender<()>) {
        if let Some((_, waiters)) = self.closing.as_mut() {
            waiters.push(done);
            return;
        }
        let until = Instant::now().checked_add(CLOSE_TIMEOUT).unwrap_or_else(Instant::now);
        self.closing = Some((until, vec![done]));
        self.pipeline.fail_waiting(&ClientError::Closed);
        if self.pipeline.registered() {
            self.push_own(OperationBody::CloseSession);
        } else {
            self.pipeline.fail_all(&ClientError::Closed);
        }
    }

    /// An operation of the client's own, whose result nobody waits for.
    fn push_own(&mut self, body: OperationBody) {
        let (done, _) = oneshot::channel();
        let credential = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
        let waiter = Waiter::new(done, None);
        self.pipeline.push(Job { credential, body, requires: 0, opens_group: true, waiter });
    }

    fn register(&mut self) {
        self.register_at = None;
        let now = Instant::now();
        let mut nonce = [0_u8; 32];
        if let Err(error) = getrandom::fill(&mut nonce) {
            self.refuse(ClientError::Local(format!("no randomness: {error}")));
            return;
        }
        // A clock that is a day ahead makes a registration that no replica takes; then the certified time
        // decides, which in turn may be long ago when the cluster is idle.
        let by_clock = self.failures.is_multiple_of(2);
        let base = if by_clock { self.core.batch_now() } else { self.core.trust.time() };
        let valid_until = base.plus(REGISTRATION_VALIDITY);
        // First, because whoever hears that the session is lost looks here for the next one.
        self.publish.send_if_modified(|standing| {
            let live = matches!(standing, Standing::Live(_));
            if live {
                *standing = Standing::Registering;
            }
            live
        });
        let action = self.pipeline.register(nonce, valid_until, now);
        self.act(vec![action]);
    }

    fn refuse(&mut self, error: ClientError) {
        tracing::error!(%error, "the cluster does not take this client");
        self.publish.send_replace(Standing::Refused(error.clone()));
        self.pipeline.fail_all(&error);
        self.register_at = Instant::now().checked_add(REGISTER_AGAIN);
    }

    /// A third of the lifetime has passed: every envelope renews the session, so an empty one will do.
    fn renew(&mut self, now: Instant) {
        self.put_off_renewal(now);
        if self.pipeline.is_idle() {
            let lifetime = self.core.cluster.genesis().parameters.session_lifetime;
            let until = self.core.batch_now().plus(lifetime);
            self.push_own(OperationBody::Renew { until });
        }
    }

    fn put_off_renewal(&mut self, now: Instant) {
        let lifetime = Duration::from_nanos(self.core.cluster.genesis().parameters.session_lifetime);
        self.renew_at = now.checked_add(lifetime / 3).unwrap_or(now);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected(replica) => {
                // What was submitted before may be lost, and so are the notices about it.
                if self.chosen.is_none() {
                    self.chosen = self.core.order().first().copied();
                }
                self.submit_again(replica);
            }
            Event::Disconnected(replica) => {
                if self.chosen == Some(replica) {
                    self.replace_chosen();
                }
            }
            Event::Garbled(replica, error) => self.accuse(replica, &error),
            Event::Notice(replica, notice) => match *notice {
                Notice::Commits(votes) => votes.iter().for_each(|vote| self.vote(replica, vote)),
                Notice::Results(results) => {
                    if self.chosen == Some(replica) {
                        self.misses = 0;
                    }
                    self.results(replica, results);
                }
                Notice::Certified(certificate) => self.certified(replica, &certificate),
            },
        }
    }

    /// Everything in flight once more to one replica.
    fn submit_again(&self, replica: ReplicaIndex) {
        let results = self.chosen == Some(replica);
        for envelope in self.pipeline.in_flight() {
            // The link reports when it is lost again.
            let _ = self.core.replicas.submit(replica, envelope, results);
        }
    }

    /// The one that was chosen to send results is gone, lies or is silent: another one is to send them, those of
    /// what is in flight included.
    fn replace_chosen(&mut self) {
        self.choose_another();
        self.chosen.into_iter().for_each(|chosen| self.submit_again(chosen));
    }

    /// Names a liar, whose results nobody waits for any longer.
    fn accuse(&mut self, replica: ReplicaIndex, reason: &dyn std::fmt::Display) {
        self.core.accuse(replica, reason);
        if self.chosen == Some(replica) {
            self.replace_chosen();
        }
    }

    /// What was asked of another replica settled what the chosen one should have sent long before.
    fn missed(&mut self) {
        self.misses = self.misses.saturating_add(1);
        if self.misses >= MISSES_MAX {
            self.replace_chosen();
        }
    }

    /// Whether a height is known to be committed under this header; what waits for it is settled then.
    fn is_known(&mut self, height: Height, header: &Hash) -> bool {
        let known = self.core.trust.is_committed(height, header);
        // Perhaps a read proved it before the COMMITs did.
        if known && self.pipeline.waits_for(header) {
            self.committed(height, header);
        }
        known
    }

    /// Takes a certificate that comes in place of a COMMIT. Its signatures are checked at once, so whoever was caught
    /// lately has to send COMMITs, and old heights are not looked at: a liar cannot have this client check more than
    /// once for each height, and once for each lie.
    fn certified(&mut self, from: ReplicaIndex, certificate: &Certificate) {
        let (height, header) = (certificate.height, &certificate.header_hash);
        tracing::debug!(replica = from, height, "a certificate in place of a COMMIT");
        let is_due = self.pipeline.in_flight().next().is_some() && self.core.trust.is_recent(height);
        let is_barred = self.core.is_barred(from) || self.forked;
        if self.is_known(height, header) || !is_due || is_barred {
            return;
        }
        match self.core.trust.verify_committed(certificate) {
            Ok(()) => {
                self.core.led_by(certificate.view);
                self.committed(height, header);
            }
            // Logged; no single replica is to blame for it, and COMMITs do without certificates from now on.
            Err(TrustFault::Fork(_)) => self.forked = true,
            Err(fault) => self.accuse(from, &fault),
        }
    }

    fn vote(&mut self, from: ReplicaIndex, vote: &Vote) {
        if self.is_known(vote.height, &vote.header) {
            return;
        }
        let core = Arc::clone(&self.core);
        let counted = self.tally.add(from, vote, &core.members, core.trust.verifier());
        for (replica, fault) in counted.faults {
            self.accuse(replica, &fault);
        }
        let Some(certificate) = counted.certificate else {
            self.pipeline.expect_results(Instant::now());
            return;
        };
        core.led_by(certificate.view);
        if core.trust.adopt(&certificate).is_err() {
            // Logged; nothing that contradicts what is known is acted upon.
            return;
        }
        self.committed(certificate.height, &certificate.header_hash);
    }

    fn committed(&mut self, height: Height, hash: &Hash) {
        let time = self.time();
        let outcome = self.pipeline.committed(height, hash, &self.core.trust, time);
        self.outcome(outcome);
    }

    fn results(&mut self, from: ReplicaIndex, results: EnvelopeResults) {
        let time = self.time();
        match self.pipeline.results(results, &self.core.trust, time) {
            Ok(outcome) => self.outcome(outcome),
            Err(reason) => self.accuse(from, &reason),
        }
    }

    fn told(&mut self, told: Told) {
        let time = self.time();
        let present = self.pipeline.session();
        match told {
            Told::Results(from, results) => {
                let before = self.pipeline.in_flight().count();
                self.results(from, *results);
                if self.chosen != Some(from) && self.pipeline.in_flight().count() < before {
                    self.missed();
                }
            }
            // Of a session that is over: its numbers are used again.
            Told::Refused(_, (session, _), ..) | Told::Row((session, _), _) if session != present => {}
            Told::Refused(from, (_, first), refusal, text) => {
                let weak_quorum = self.core.members.weak_quorum();
                let fate = self.pipeline.refused(from, first, (refusal, text), weak_quorum);
                self.outcome((fate, Vec::new()));
            }
            Told::Row((_, first), Some(row)) => {
                let outcome = self.pipeline.resolve(first, row, time);
                self.outcome(outcome);
            }
            Told::Row((_, first), None) => self.pipeline.unresolved(first),
        }
    }

    fn time(&self) -> (Instant, BatchTime) {
        (Instant::now(), self.core.batch_now())
    }

    /// What a step of the pipeline leads to.
    fn outcome(&mut self, (fate, actions): (Fate, Vec<Action>)) {
        self.act(actions);
        match fate {
            Fate::Lives => {
                if self.pipeline.registered()
                    && *self.publish.borrow() != Standing::Live(self.pipeline.session())
                {
                    self.failures = 0;
                    self.put_off_renewal(Instant::now());
                    self.publish.send_replace(Standing::Live(self.pipeline.session()));
                }
            }
            Fate::Lost => self.lost(),
            Fate::Refused(error) => self.refuse(error),
        }
    }

    /// At once after a session that lived; with growing pauses when registrations fail.
    fn lost(&mut self) {
        tracing::warn!("the session was lost; a fresh one is registered");
        if self.pipeline.registered() {
            self.register();
            return;
        }
        self.pipeline.fail_lost();
        let pause = REGISTER_PAUSE.saturating_mul(1_u32.checked_shl(self.failures.min(8)).unwrap_or(1));
        self.failures = self.failures.saturating_add(1);
        self.register_at = Instant::now().checked_add(pause.min(REGISTER_AGAIN));
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { envelope, attempt } => self.send(&envelope, attempt),
                Action::Fetch { first, attempt } => self.fetch(first, attempt),
                Action::Resolve { first, credential } => self.resolve(first, credential),
            }
        }
    }

    /// To the leader and, in a cluster that is small enough or on a retry, to all; one of them is asked for
    /// the results.
    fn send(&mut self, envelope: &Arc<Envelope>, attempt: u32) {
        if attempt > 0 || self.chosen.is_some_and(|chosen| self.core.is_barred(chosen)) {
            self.choose_another();
        }
        let order = self.core.order();
        let fastest = order.first().copied().unwrap_or_default();
        let chosen = *self.chosen.get_or_insert(fastest);
        let leader = self.core.leader();
        let to_all = attempt > 0 || envelope.body.first == 0 || order.len() <= BROADCAST_REPLICAS_MAX;
        for replica in order.into_iter().filter(|replica| to_all || [leader, chosen].contains(replica)) {
            let results = replica == chosen;
            if results && attempt > 0 || envelope.body.first == 0 {
                // With a reply, which tells of a refusal.
                let request = ClientRequest::Submit { envelope: Envelope::clone(envelope), results };
                self.request(replica, request, envelope.body.first);
            } else {
                // What is not queued now is sent again by the retry, or when the link is up again.
                let _ = self.core.replicas.submit(replica, envelope, results);
            }
        }
    }

    /// The one that was chosen to send results did not: the next best one is, of those that are linked and were
    /// not caught lately, or of all others.
    fn choose_another(&mut self) {
        self.misses = 0;
        self.rotation = self.rotation.wrapping_add(1);
        let mut others = self.core.order();
        others.retain(|replica| Some(*replica) != self.chosen);
        let usable =
            |replica: &ReplicaIndex| self.core.replicas.connected(*replica) && !self.core.is_barred(*replica);
        // In order, so that the usable ones come first.
        let count = others.iter().filter(|replica| usable(replica)).count();
        let index = self.rotation.checked_rem(if count > 0 { count } else { others.len() });
        self.chosen = index.and_then(|index| others.get(index)).copied();
    }

    /// Asks for results, last of the one that should have sent them unasked: it may be faulty in a way that answers
    /// do not show.
    fn fetch(&mut self, first: u64, attempt: u32) {
        let mut order = self.core.order();
        let core = &self.core;
        order.sort_by_key(|replica| {
            let usable = core.replicas.connected(*replica) && !core.is_barred(*replica);
            (!usable, Some(*replica) == self.chosen)
        });
        let turn = usize::try_from(attempt).unwrap_or_default();
        let index = turn.checked_rem(order.len()).unwrap_or_default();
        let Some(replica) = order.get(index).copied() else { return };
        let request = ClientRequest::Results { session: self.pipeline.session(), first };
        self.request(replica, request, first);
    }

    /// Sends a request about the envelope that starts at `first`; its reply comes back as [`Told`].
    fn request(&self, replica: ReplicaIndex, request: ClientRequest, first: u64) {
        let (core, replies) = (Arc::clone(&self.core), self.replies.clone());
        let submits = matches!(request, ClientRequest::Submit { .. });
        let place = (self.pipeline.session(), first);
        tokio::spawn(async move {
            let told = match core.request_within(replica, Arc::new(request), REQUEST_TIMEOUT).await {
                Ok(ClientReply::Results(results)) => Told::Results(replica, Box::new(results)),
                Ok(ClientReply::Refused { refusal, text }) if submits => {
                    Told::Refused(replica, place, refusal, String::from_utf8_lossy(&text).into_owned())
                }
                Ok(_) | Err(_) => return,
            };
            // Fails only when the client is gone.
            let _ = replies.send(told).await;
        });
    }

    /// Reads the session's row.
    fn resolve(&self, first: u64, credential: Credential) {
        let (core, replies) = (Arc::clone(&self.core), self.replies.clone());
        let session = self.pipeline.session();
        tokio::spawn(async move {
            let query = Query::Session { session };
            let read = crate::read::read_at_floor(&core, &credential, query).await;
            let row = read.ok().and_then(|verdict| {
                let row = verdict.rows.session(&session).ok()?;
                let is_open =
                    row.as_ref().is_some_and(|row| matches!(row.phase, Phase::Live | Phase::Suspected(_)));
                let next = row.map(|row| row.next);
                let (next, consumed) = if is_open { (next, None) } else { (None, next) };
                Some(SessionAt { next, consumed, time: verdict.header.time })
            });
            let _ = replies.send(Told::Row((session, first), row)).await;
        });
    }
}
