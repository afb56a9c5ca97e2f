//! Executes a batch: what is due, every envelope by rule R8, every operation all or nothing, reclaiming.
//!
//! Invariants: the outcome is a function of the parent state and the proposal alone (hazard DT1); every
//! operation has exactly one receipt, in order; the work is bounded by budgets (rule R5): an operation that
//! uses up its own fails, an envelope that finds the batch's used up is skipped and keeps its numbers.

use quorate_crypto::{Hash, MemberSet, Verifier};
use quorate_metadata::{Caller, Context, Errno, Error, Moment, View};
use quorate_protocol::genesis::Parameters;
use quorate_protocol::{
    BatchTime, Envelope, Height, Operation, OperationBody, OperationResult, Proposal, ReceiptLeaf, Reply,
    SessionId, SkipReason,
};

use crate::blocks::ReceiptChecker;
use crate::expiry::{self, Prologue};
use crate::principals;
use crate::results::Receipts;
use crate::seal::seal;
use crate::sessions::{self, Actor, Admitted, Place, admit};
use crate::state::State;
use crate::static_check::{StaticFault, checked_digests};
use crate::view::{Base, Changes, Overlay};

/// What one operation may spend; an access to a row costs one (see `view.rs`).
pub const OPERATION_COST_MAX: u64 = 1 << 16;
/// What the operations of one envelope may spend together.
pub const ENVELOPE_COST_MAX: u64 = 1 << 18;
/// What a batch may have spent when it starts another envelope.
pub const BATCH_COST_MAX: u64 = 1 << 19;
/// What the check of one signature costs.
pub const COST_OF_SIGNATURE: u64 = 64;
/// The errno of an operation whose budget is used up.
pub const BUDGET_ERRNO: Errno = Errno::EDQUOT;

/// What execution needs besides the state and the proposal.
#[derive(Copy, Clone)]
pub struct Environment<'a> {
    /// The cluster's identifier.
    pub cluster: Hash,
    /// The members of the epoch that decides the height.
    pub members: &'a MemberSet,
    /// Checks the signatures of block receipts. Those of envelopes were checked at the door.
    pub verifier: &'a dyn Verifier,
}

/// What came of a batch.
#[derive(Clone, Debug)]
pub struct Executed {
    /// The state after it, with the header.
    pub state: State,
    /// The receipts, one for each operation.
    pub receipts: Receipts,
    /// The rows that differ from those of the state before.
    pub changes: Changes,
    /// Sessions whose next number moved, with that number; each once, in order of their last envelopes.
    pub advanced: Vec<(SessionId, u64)>,
    /// When the leader should propose an empty batch; see [`State::wake_at`].
    pub wake_at: Option<BatchTime>,
}

impl State {
    /// Executes a proposal for `height` on top of this state. `digest` is the proposal's, which whoever calls
    /// has computed for this height and the members' epoch, and with the signatures of the envelopes checked.
    ///
    /// # Errors
    /// [`StaticFault`] when the proposal is one that no correct replica votes for: the leader's fault.
    pub fn execute(
        &self,
        environment: &Environment<'_>,
        height: Height,
        proposal: &Proposal,
        digest: Hash,
    ) -> Result<Executed, StaticFault> {
        self.execute_on(self.trie(), environment, height, proposal, digest, &mut Unwatched)
    }

    /// As [`State::execute`], and shows each operation that was applied to `watch`.
    ///
    /// # Errors
    /// As for [`State::execute`].
    pub fn execute_watched(
        &self,
        environment: &Environment<'_>,
        height: Height,
        proposal: &Proposal,
        digest: Hash,
        watch: &mut dyn Watch,
    ) -> Result<Executed, StaticFault> {
        self.execute_on(self.trie(), environment, height, proposal, digest, watch)
    }

    /// Executes with reads that end in `base`, which shows the rows of this state's trie.
    pub(crate) fn execute_on<B: Base>(
        &self,
        base: &B,
        environment: &Environment<'_>,
        height: Height,
        proposal: &Proposal,
        digest: Hash,
        watch: &mut dyn Watch,
    ) -> Result<Executed, StaticFault> {
        let digests = checked_digests(&environment.cluster, self.header(), height, proposal)?;
        let moment = Moment { height, time: proposal.time };
        let mut batch = Batch::new(self, base, environment, moment, watch);
        batch.prologue(self.header().time);
        for (envelope, digest) in proposal.envelopes.iter().zip(digests) {
            batch.envelope(envelope, digest);
        }
        batch.epilogue();
        let Batch { overlay, leaves, advanced, .. } = batch;
        let changes = overlay.into_changes();
        base.changing(&changes);
        seal(self, environment, (height, proposal.time, digest), changes, leaves, advanced)
    }
}

/// Sees what the operations of a batch do while it is executed again, for an audit.
pub trait Watch {
    /// The operation with this index in the batch was applied: the rows that it put (`Some`) or took out, and the
    /// state with them and with all that came before in the batch.
    fn applied(&mut self, index: u32, changes: &Changes, after: &dyn View);
}

/// Nobody looks on.
pub(crate) struct Unwatched;

impl Watch for Unwatched {
    fn applied(&mut self, _index: u32, _changes: &Changes, _after: &dyn View) {}
}

/// A batch at work.
struct Batch<'a, B: Base> {
    checker: ReceiptChecker<'a>,
    parameters: &'a Parameters,
    moment: Moment,
    /// Global number of the first operation.
    first_operation: u64,
    overlay: Overlay<'a, B>,
    watch: &'a mut dyn Watch,
    leaves: Vec<ReceiptLeaf>,
    advanced: Vec<(SessionId, u64)>,
}

impl<'a, B: Base> Batch<'a, B> {
    fn new(
        state: &'a State,
        base: &'a B,
        environment: &'a Environment<'a>,
        moment: Moment,
        watch: &'a mut dyn Watch,
    ) -> Self {
        Batch {
            checker: ReceiptChecker::new(environment),
            parameters: state.parameters(),
            moment,
            first_operation: state.next_operation(),
            overlay: Overlay::new(base),
            watch,
            leaves: Vec::new(),
            advanced: Vec::new(),
        }
    }

    fn at(&self, previous: BatchTime) -> Prologue {
        Prologue { moment: self.moment, previous, lifetime: self.parameters.session_lifetime }
    }

    /// Runs what belongs to no operation: kept whole, or not at all when the state turns out to be damaged,
    /// which is the same on every replica.
    fn system(&mut self, work: impl FnOnce(&mut dyn View) -> Result<(), Error>) {
        self.overlay.begin(u64::MAX);
        match work(&mut self.overlay) {
            Ok(()) => self.overlay.keep(),
            Err(_) => self.overlay.drop_operation(),
        }
    }

    fn prologue(&mut self, previous: BatchTime) {
        let prologue = self.at(previous);
        self.system(|view| expiry::run(view, prologue));
    }

    fn epilogue(&mut self) {
        let (moment, parameters) = (self.moment, self.parameters);
        self.system(|view| quorate_metadata::reclaim(view, moment, parameters).map(drop));
    }

    /// Index in the batch of the operation that comes next.
    fn index(&self) -> u32 {
        // A proposal's operations are bounded far below.
        u32::try_from(self.leaves.len()).unwrap_or(u32::MAX)
    }

    fn place(&self) -> Place {
        Place {
            height: self.moment.height,
            time: self.moment.time,
            index: self.index(),
            lifetime: self.parameters.session_lifetime,
        }
    }

    /// Executes or skips an envelope.
    fn envelope(&mut self, envelope: &Envelope, digest: Hash) {
        if self.overlay.spent() >= BATCH_COST_MAX {
            return self.skip(envelope, digest, &SkipReason::Budget);
        }
        self.overlay.begin(u64::MAX);
        match admit(&self.overlay, self.moment.time, envelope) {
            Ok(Ok(Admitted::Next(actor))) => self.execute(envelope, digest, *actor),
            Ok(Ok(Admitted::Registration(number, row))) => {
                let place = self.place();
                match sessions::register(&mut self.overlay, place, &envelope.body, (number, *row)) {
                    Ok(session) => {
                        self.overlay.keep();
                        self.receipt(
                            envelope,
                            digest,
                            0,
                            OperationResult::Done(Reply::Registered { session }),
                        );
                        self.advance(envelope);
                    }
                    Err(_) => self.skip(envelope, digest, &SkipReason::BadRegistration),
                }
            }
            Ok(Err(reason)) => self.skip(envelope, digest, &reason),
            // The state is damaged in the same way on every replica.
            Err(_) => self.skip(envelope, digest, &SkipReason::UnknownSession),
        }
    }

    fn skip(&mut self, envelope: &Envelope, digest: Hash, reason: &SkipReason) {
        self.overlay.drop_operation();
        for (index, _) in (0_u32..).zip(&envelope.body.operations) {
            self.receipt(envelope, digest, index, OperationResult::Skipped(reason.clone()));
        }
    }

    fn receipt(&mut self, envelope: &Envelope, digest: Hash, index: u32, result: OperationResult) {
        // The static check has seen that the numbers do not run over.
        let sequence = envelope.body.first.saturating_add(u64::from(index));
        let session = envelope.body.session;
        self.leaves.push(ReceiptLeaf { session, sequence, envelope: digest, index, result });
    }

    fn advance(&mut self, envelope: &Envelope) {
        let session = envelope.body.session;
        self.advanced.retain(|(known, _)| *known != session);
        self.advanced.push((session, envelope.next()));
    }

    /// Executes the next envelope of a session.
    fn execute(&mut self, envelope: &Envelope, digest: Hash, mut actor: Actor) {
        let place = self.place();
        let rights = &actor.principal.rights;
        let resolve = |credential| principals::resolve(rights, credential);
        let callers: Vec<_> = envelope.body.credentials.iter().map(resolve).collect();
        let end = self.overlay.spent().saturating_add(ENVELOPE_COST_MAX);
        for (index, operation) in (0_u32..).zip(&envelope.body.operations) {
            let sequence = envelope.body.first.saturating_add(u64::from(index));
            let limit = OPERATION_COST_MAX.min(end.saturating_sub(self.overlay.spent()));
            self.overlay.begin(limit);
            let result = match self.operation(&mut actor, &callers, sequence, operation) {
                Ok(reply) => OperationResult::Done(reply),
                Err(errno) => OperationResult::Failed(errno.number()),
            };
            actor.session.outcomes.set(sequence, succeeded(&result));
            self.receipt(envelope, digest, index, result);
        }
        self.overlay.begin(u64::MAX);
        sessions::consume(&mut self.overlay, place, envelope, &mut actor);
        self.overlay.keep();
        self.advance(envelope);
    }

    /// Executes one operation within a budget, and keeps what it did only if it succeeds.
    fn operation(
        &mut self,
        actor: &mut Actor,
        callers: &[Result<Caller, Errno>],
        sequence: u64,
        operation: &Operation,
    ) -> Result<Reply, Errno> {
        let outcome = self.attempt(actor, callers, sequence, operation);
        let signatures = self.checker.take_signatures();
        self.overlay.charge(signatures.saturating_mul(COST_OF_SIGNATURE));
        let outcome = match outcome {
            _ if self.overlay.exhausted() => Err(BUDGET_ERRNO),
            Ok(reply) => Ok(reply),
            Err(Error::Errno(errno)) => Err(errno),
            // The state is damaged in the same way on every replica.
            Err(Error::Missing(_) | Error::Corrupt(_)) => Err(Errno::EIO),
        };
        match &outcome {
            // Nothing was applied, whatever was put on the way (rule S4).
            Ok(Reply::NeedsFold { .. }) | Err(_) => self.overlay.drop_operation(),
            Ok(_) => {
                self.watch.applied(self.index(), self.overlay.pending(), &self.overlay);
                self.overlay.keep();
            }
        }
        outcome
    }

    fn attempt(
        &mut self,
        actor: &mut Actor,
        callers: &[Result<Caller, Errno>],
        sequence: u64,
        operation: &Operation,
    ) -> Result<Reply, Error> {
        if !actor.session.is_open() {
            // Closed by an operation before this one.
            return Err(Errno::EBADF.into());
        }
        let requires = operation.requires;
        if requires != 0 && !actor.session.outcomes.succeeded(sequence, requires) {
            return Err(Errno::ECANCELED.into());
        }
        if operation.at.is_some() {
            return Err(Errno::EOPNOTSUPP.into());
        }
        match &operation.body {
            OperationBody::Null => Ok(Reply::Empty),
            OperationBody::Register { .. } => Err(Errno::EINVAL.into()),
            OperationBody::Renew { until } => {
                let place = self.place();
                sessions::extend(&mut self.overlay, place, actor, *until);
                Ok(Reply::Empty)
            }
            OperationBody::CloseSession => self.close(actor),
            OperationBody::PutPrincipal { key, rights } => {
                principals::put_principal(&mut self.overlay, &actor.principal, key, rights)
            }
            OperationBody::RemovePrincipal { principal } => {
                principals::remove_principal(&mut self.overlay, &actor.principal, *principal)
            }
            body => self.apply(actor, callers, operation.credential, body),
        }
    }

    /// `CloseSession`.
    fn close(&mut self, actor: &mut Actor) -> Result<Reply, Error> {
        // What it releases has a bound of its own; the session must not be left half closed by a budget.
        self.overlay.begin(u64::MAX);
        let closing = self.at(self.moment.time);
        let Actor { number, session, .. } = actor;
        expiry::end(&mut self.overlay, *number, session, closing)?;
        Ok(Reply::Empty)
    }

    /// An operation of the filesystem.
    fn apply(
        &mut self,
        actor: &Actor,
        callers: &[Result<Caller, Errno>],
        credential: u8,
        body: &OperationBody,
    ) -> Result<Reply, Error> {
        let caller = callers.get(usize::from(credential)).ok_or(Errno::EINVAL)?.as_ref();
        let index = u64::from(self.index());
        let context = Context {
            session: actor.number,
            session_id: actor.session.id,
            caller: caller.map_err(|errno| *errno)?,
            time: self.moment.time.plus(index).timestamp(),
            moment: self.moment,
            operation: self.first_operation.saturating_add(index),
            parameters: self.parameters,
            blocks: &self.checker,
        };
        quorate_metadata::apply(&mut self.overlay, &context, body)
    }
}

/// Whether an operation counts as one that another may require: it did what it says.
fn succeeded(result: &OperationResult) -> bool {
    match result {
        OperationResult::Done(Reply::NeedsFold { .. } | Reply::Continue) => false,
        OperationResult::Done(_) => true,
        OperationResult::Failed(_) | OperationResult::Skipped(_) => false,
    }
}
