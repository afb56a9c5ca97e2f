//! The linearizable question: the highest height that replicas sent a COMMIT for (rule R4).
//!
//! Invariants: a target is the maximum of Q answers to a question that was sent after the caller asked; an
//! answer above what was known counts only with a valid certificate of exactly that height, so a liar can
//! neither inflate it nor, being one of f, hold it back. Callers that come while rounds are under way share
//! the next one, so the load is bounded whatever the number of readers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_crypto::{Certificate, CertificateKind};
use quorate_protocol::client::{ClientReply, ClientRequest};
use quorate_protocol::{Height, ReplicaIndex};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::core::{Core, Deadline};
use crate::error::ClientError;
use crate::options::{QUESTION_ROUNDS_MAX, REQUEST_TIMEOUT};
use crate::race::Race;
use crate::replicas::Unreachable;

/// The quickest Q are asked first, the others when these take longer than this.
const QUORUM_PATIENCE: Duration = Duration::from_millis(20);
/// Wait before a replica that gave no useful answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What a linearizable read must reach.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) height: Height,
    /// The prepare certificate of that height, when it is not known to be committed.
    pub(crate) prepared: Option<Certificate>,
    /// Whose answers it is the maximum of.
    pub(crate) answered: Vec<ReplicaIndex>,
}

/// Whom a round asks.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Q replicas.
    Quorum,
    /// Q - 1 replicas other than the quickest, which answers in another way: by a fresh read.
    Others,
}

type Waiters = Vec<oneshot::Sender<Result<Target, ClientError>>>;

/// The rounds of one client.
#[derive(Default)]
pub(crate) struct Question {
    quorum: Mutex<Rounds>,
    others: Mutex<Rounds>,
    /// When the latest question was asked whose answer the floor has reached.
    asked_at: Mutex<Option<Instant>>,
}

impl Question {
    fn rounds(&self, scope: Scope) -> MutexGuard<'_, Rounds> {
        let rounds = match scope {
            Scope::Quorum => &self.quorum,
            Scope::Others => &self.others,
        };
        rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the floor is no older than `age`: everything that was answered to anybody before then is at or
    /// below it.
    pub(crate) fn is_recent(&self, age: Duration) -> bool {
        let asked_at = self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        asked_at.is_some_and(|asked_at| asked_at.elapsed() <= age)
    }

    /// The floor has reached what was answered to a question that was asked at that time.
    pub(crate) fn reached(&self, time: Instant) {
        let mut asked_at = self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        *asked_at = (*asked_at).max(Some(time));
    }
}

#[derive(Default)]
struct Rounds {
    running: usize,
    forming: Waiters,
}

/// Asks, or joins the next round.
pub(crate) async fn ask(core: &Arc<Core>, scope: Scope) -> Result<Target, ClientError> {
    let (sender, receiver) = oneshot::channel();
    let start = {
        let mut state = core.question.rounds(scope);
        state.forming.push(sender);
        let start = state.running < QUESTION_ROUNDS_MAX;
        if start {
            state.running = state.running.saturating_add(1);
        }
        start
    };
    if start {
        tokio::spawn(run(Arc::clone(core), scope));
    }
    receiver.await.unwrap_or(Err(ClientError::Closed))
}

/// Rounds, one after the other, for as long as somebody waits for one.
async fn run(core: Arc<Core>, scope: Scope) {
    loop {
        let waiters = {
            let mut state = core.question.rounds(scope);
            let waiters = std::mem::take(&mut state.forming);
            if waiters.is_empty() {
                state.running = state.running.saturating_sub(1);
                return;
            }
            waiters
        };
        let target = round(&core, scope).await;
        for waiter in waiters {
            // Who stopped waiting has dropped its end.
            let _ = waiter.send(target.clone());
        }
    }
}

/// One question to the quickest replicas and then to all in its scope, until as many as it needs have answered.
async fn round(core: &Core, scope: Scope) -> Result<Target, ClientError> {
    let known = core.floor();
    let request = Arc::new(ClientRequest::Highest { known });
    let deadline = Deadline::after(Some(REQUEST_TIMEOUT));
    let mut race = Race::new();
    let mut order = core.order().into_iter();
    let mut needed = core.members.quorum();
    if scope == Scope::Others {
        order.next();
        needed = needed.saturating_sub(1);
    }
    let mut silent = Vec::new();
    for replica in order.by_ref().take(needed) {
        race.push(replica, core.request(replica, Arc::clone(&request)));
        silent.push(replica);
    }
    let mut answered = Vec::with_capacity(needed);
    let mut target = Target { height: known, prepared: None, answered: Vec::new() };
    while answered.len() < needed {
        let patience = if order.len() > 0 { QUORUM_PATIENCE } else { REQUEST_TIMEOUT };
        let next = match tokio::time::timeout(patience, deadline.run(race.next())).await {
            Ok(next) => next.flatten(),
            Err(_) if order.len() > 0 => {
                // Whoever keeps a reader waiting is asked later next time.
                silent.drain(..).for_each(|replica| core.demote(replica));
                for replica in order.by_ref() {
                    race.push(replica, core.request(replica, Arc::clone(&request)));
                }
                continue;
            }
            Err(_) => None,
        };
        let Some((replica, reply)) = next else {
            return Err(ClientError::NoQuorum { reachable: answered.len(), needed });
        };
        silent.retain(|asked| *asked != replica);
        // What is at or below a height that is proven already needs no proof of its own.
        let proven = target.height.max(core.floor());
        match judge(core, replica, proven, reply) {
            Some(answer) => {
                answered.push(replica);
                if answer.height > target.height {
                    target = answer;
                }
            }
            None => {
                if let Some(other) = order.next() {
                    race.push(other, core.request(other, Arc::clone(&request)));
                }
                let again = Arc::clone(&request);
                race.push(replica, async move {
                    tokio::time::sleep(ASK_AGAIN).await;
                    core.request(replica, again).await
                });
            }
        }
    }
    Ok(Target { answered, ..target })
}

/// What a replica's answer is worth; `None` when it is none. Only an answer above `proven`, a height that is
/// known to be certified, is looked at closely.
fn judge(
    core: &Core,
    replica: ReplicaIndex,
    proven: Height,
    reply: Result<ClientReply, Unreachable>,
) -> Option<Target> {
    let counts_as_known = Some(Target { height: proven, prepared: None, answered: Vec::new() });
    let (height, certificate) = match reply {
        Ok(ClientReply::Highest { height, certificate }) => (height, certificate),
        Ok(ClientReply::Refused { .. }) | Err(_) => return None,
        Ok(_) => {
            core.accuse(replica, &"another kind of reply than the question asks for");
            return None;
        }
    };
    if height <= proven {
        return counts_as_known;
    }
    let Some(certificate) = certificate.filter(|certificate| certificate.height == height) else {
        core.accuse(replica, &"a height above the known one without its certificate");
        return counts_as_known;
    };
    if let Err(fault) = core.trust.verify_certificate(&certificate) {
        core.accuse(replica, &fault);
        return counts_as_known;
    }
    let prepared = matches!(certificate.kind, CertificateKind::Prepare).then_some(certificate);
    Some(Target { height, prepared, answered: Vec::new() })
}

/// Asks in the background while reads go on, so that a replica that withholds news is found out (RD5): what
/// is prepared but not known to be committed is followed by a read.
pub(crate) fn follow(core: &Arc<Core>) {
    let interval = core.options.question_interval;
    if interval.is_zero() {
        return;
    }
    let weak = Arc::downgrade(core);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            let Some(core) = weak.upgrade() else { return };
            if core.reading.swap(false, Ordering::Relaxed) {
                // Nothing waits for it: a failure shows in the reads themselves.
                let _ = crate::read::refresh(&core).await;
            }
        }
    });
}
