//! The way to the session's task: queues operations and waits for what becomes of them.
//!
//! Invariant: operations are queued in the order of the calls, in groups that stay together, and every one
//! of them is answered; no call waits beyond the client's deadline.

mod task;

use std::sync::Arc;
use std::time::Duration;

use quorate_crypto::Hash;
use quorate_protocol::client::Refusal;
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Groups, OperationBody, Reply, SessionId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::task::Task;
use crate::batch::{GROUP_OPERATIONS_MAX, Job, Waiter};
use crate::client::{Pending, Sessions, Step};
use crate::core::{Core, Deadline};
use crate::error::ClientError;
use crate::options::CLOSE_TIMEOUT;

/// Groups of operations on their way to the task.
const COMMANDS_MAX: usize = 1024;
/// How often a principal must be refused while it connects before that is believed.
const REFUSALS_MAX: u32 = 4;
/// Pause between two of these.
const REFUSAL_PAUSE: Duration = Duration::from_millis(300);
/// Pause before an operation that answered `Continue` is repeated.
const CONTINUE_PAUSE: Duration = Duration::from_millis(2);

/// What a client is told that wants to write without a session.
const NO_SESSION: ClientError = ClientError::Invalid("this client has no session and can only read");

/// What is asked of the task.
enum Command {
    Jobs(Vec<Job>),
    Close(oneshot::Sender<()>),
}

/// Where the session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Registering,
    Live(SessionId),
    Refused(ClientError),
    Closed,
}

impl Standing {
    pub(crate) const fn session(&self) -> Option<SessionId> {
        match self {
            Self::Live(session) => Some(*session),
            Self::Registering | Self::Refused(_) | Self::Closed => None,
        }
    }
}

/// The way to the session's task. The task ends with the last of its handles.
#[derive(Clone)]
pub(crate) struct SessionHandle {
    commands: mpsc::Sender<Command>,
    standing: watch::Receiver<Standing>,
    core: Arc<Core>,
}

impl SessionHandle {
    /// Starts the task and waits until a session is registered.
    pub(crate) async fn start(core: &Arc<Core>) -> Result<Self, ClientError> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (publish, standing) = watch::channel(Standing::Registering);
        let handle = Self { commands, standing, core: Arc::clone(core) };
        let events = core.replicas.events().ok_or(ClientError::Closed)?;
        tokio::spawn(Task::new(Arc::clone(core), publish).run(receiver, events));
        if core.options.session {
            tokio::select! {
                registered = handle.registered() => registered?,
                refused = refusal(core) => return Err(refused),
            }
        }
        Ok(handle)
    }

    async fn registered(&self) -> Result<(), ClientError> {
        let mut standing = self.standing.clone();
        let settled = standing.wait_for(|standing| *standing != Standing::Registering);
        match tokio::time::timeout(self.core.options.connect_timeout, settled).await {
            Ok(Ok(settled)) => match &*settled {
                Standing::Refused(error) => Err(error.clone()),
                Standing::Closed => Err(ClientError::Closed),
                Standing::Live(_) | Standing::Registering => Ok(()),
            },
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => {
                let (reachable, needed) = (self.core.connected(), self.core.members.quorum());
                Err(match reachable < needed {
                    true => ClientError::NoQuorum { reachable, needed },
                    false => ClientError::Deadline { sent: true },
                })
            }
        }
    }

    /// The live session, or the next one if it is being replaced.
    ///
    /// # Errors
    /// [`ClientError::Deadline`] when none is there in time; why there will be none.
    pub(crate) async fn live(&self, deadline: Deadline) -> Result<SessionId, ClientError> {
        if !self.core.options.session {
            return Err(NO_SESSION);
        }
        let mut standing = self.standing.clone();
        match deadline.run(standing.wait_for(|standing| *standing != Standing::Registering)).await {
            Some(Ok(settled)) => match &*settled {
                Standing::Live(session) => Ok(*session),
                Standing::Refused(error) => Err(error.clone()),
                Standing::Closed | Standing::Registering => Err(ClientError::Closed),
            },
            Some(Err(_)) => Err(ClientError::Closed),
            None => Err(ClientError::Deadline { sent: false }),
        }
    }

    /// Asks the cluster whether the session still is, by an operation that renews it.
    ///
    /// # Errors
    /// [`ClientError::SessionLost`] when it is not, and then [`SessionHandle::live`] gives the next one.
    pub(crate) async fn renew(&self) -> Result<(), ClientError> {
        let lifetime = self.core.cluster.genesis().parameters.session_lifetime;
        let until = self.core.batch_now().plus(lifetime);
        let nobody = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
        match self.submit(&nobody, OperationBody::Renew { until }).await?.await {
            // Whatever else it says, it was executed in a session that is.
            Ok(_) | Err(ClientError::Errno(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The live session, or zeros.
    pub(crate) fn id(&self) -> SessionId {
        self.standing.borrow().session().unwrap_or(Hash::ZERO)
    }

    pub(crate) fn sessions(&self) -> Sessions {
        let last = self.standing.borrow().session();
        Sessions { standing: self.standing.clone(), last }
    }

    pub(crate) async fn submit(
        &self,
        credential: &Credential,
        body: OperationBody,
    ) -> Result<Pending, ClientError> {
        let mut pending = self.queue(credential, vec![Step::new(body)]).await?;
        pending.pop().ok_or(ClientError::Closed)
    }

    pub(crate) async fn execute_many(
        &self,
        credential: &Credential,
        steps: Vec<Step>,
    ) -> Vec<Result<Reply, ClientError>> {
        let count = steps.len();
        match self.queue(credential, steps).await {
            Ok(pending) => {
                let mut results = Vec::with_capacity(count);
                for one in pending {
                    results.push(one.await);
                }
                results
            }
            Err(error) => vec![Err(error); count],
        }
    }

    pub(crate) async fn execute_to_end(
        &self,
        credential: &Credential,
        body: OperationBody,
    ) -> Result<Reply, ClientError> {
        let deadline = self.core.deadline();
        loop {
            let reply = self.submit(credential, body.clone()).await?.await?;
            if reply != Reply::Continue {
                return Ok(reply);
            }
            if deadline.passed() {
                return Err(ClientError::Deadline { sent: false });
            }
            tokio::time::sleep(CONTINUE_PAUSE).await;
        }
    }

    /// Queues a group of operations; waits for room in the queue until the deadline.
    pub(crate) async fn queue(
        &self,
        credential: &Credential,
        steps: Vec<Step>,
    ) -> Result<Vec<Pending>, ClientError> {
        if !self.core.options.session {
            return Err(NO_SESSION);
        }
        let deadline = self.core.deadline();
        let (jobs, pending) = jobs(credential, steps, deadline.instant())?;
        let permit = deadline.run(self.commands.reserve()).await;
        let permit = permit.ok_or(ClientError::Deadline { sent: false })?;
        permit.map_err(|_| ClientError::Closed)?.send(Command::Jobs(jobs));
        Ok(pending)
    }

    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        let closing = async {
            if self.commands.send(Command::Close(done)).await.is_ok() {
                // Either way the task is done.
                let _ = closed.await;
            }
        };
        // The task has the same limit; this one is for a task that does not run any more.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT.saturating_mul(2), closing).await;
    }
}

/// Waits until more replicas than can be faulty say that they do not know this principal: they do not answer
/// its envelopes at all.
async fn refusal(core: &Arc<Core>) -> ClientError {
    let credential = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
    let mut refusals = 0_u32;
    loop {
        match crate::read::read_at_floor(core, &credential, Query::Totals).await {
            Err(error @ ClientError::Refused { refusal: Refusal::Denied, .. }) => {
                refusals = refusals.saturating_add(1);
                // Not at once: a principal may be so new that some replicas have yet to hear of it.
                if refusals >= REFUSALS_MAX {
                    return error;
                }
                tokio::time::sleep(REFUSAL_PAUSE).await;
            }
            Err(ClientError::NoQuorum { .. } | ClientError::Deadline { .. }) => {}
            _ => return std::future::pending().await,
        }
    }
}

/// Makes jobs of steps, with the distances that `requires` means.
fn jobs(
    credential: &Credential,
    steps: Vec<Step>,
    deadline: Option<Instant>,
) -> Result<(Vec<Job>, Vec<Pending>), ClientError> {
    if steps.len() > GROUP_OPERATIONS_MAX {
        return Err(ClientError::Invalid("too many operations at once"));
    }
    let mut jobs = Vec::with_capacity(steps.len());
    let mut pending = Vec::with_capacity(steps.len());
    for (position, step) in steps.into_iter().enumerate() {
        let distance = step.requires.map(|earlier| position.saturating_sub(earlier));
        if distance == Some(0) {
            return Err(ClientError::Invalid("a step requires one that is not before it"));
        }
        let (done, receiver) = oneshot::channel();
        let job = Job {
            credential: credential.clone(),
            body: step.body,
            // Bounded by the size of a group.
            requires: u16::try_from(distance.unwrap_or_default()).unwrap_or(u16::MAX),
            opens_group: position == 0,
            waiter: Waiter::new(done, deadline.filter(|_| !step.lasts)),
        };
        if !job.fits() {
            return Err(ClientError::Invalid("an operation that does not fit an envelope"));
        }
        jobs.push(job);
        pending.push(Pending(receiver));
    }
    Ok((jobs, pending))
}
