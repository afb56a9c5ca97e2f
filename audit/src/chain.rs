//! The checks of one height on top of the heights below it.
//!
//! Invariant: a height that passes is the only one that the same quorum of signatures can stand for: its
//! header is bound to all headers below by hash and by log root, to its proposal by digest, and to the members
//! by their signatures; with replay, also to the state by execution.

use quorate_crypto::{Certificate, Hash, MemberSet, Verifier, encode};
use quorate_execution::{Environment, GenesisError, Receipts, State, check_static};
use quorate_merkle::LogFrontier;
use quorate_metadata::Error;
use quorate_protocol::header::HEADER_VERSION;
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Genesis, Header, Height, Proposal};

use crate::anchor::{Anchor, NoAnchor};
use crate::head::{Head, NoHead};
use crate::report::{Breach, Progress, Rule};
use crate::signatures::{Finding, Found, Signatures, Signed, ensure};
use crate::trace::{Subject, Touch, Trace};

/// How much is checked. The header chain, the certificates and the log always are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether the signatures of clients on their envelopes are checked.
    pub envelopes: bool,
    /// Whether every batch is executed again, which holds the whole state in memory.
    pub replay: bool,
}

impl Policy {
    /// Certificates, chain, log and envelopes, without replay.
    pub const STANDARD: Self = Self { envelopes: true, replay: false };
    /// Everything.
    pub const FULL: Self = Self { envelopes: true, replay: true };
}

/// An audit at work: takes one height after the other.
pub struct Auditor<'a> {
    cluster: Hash,
    members: MemberSet,
    members_digest: Hash,
    verifier: &'a dyn Verifier,
    policy: Policy,
    head: Header,
    hash: Hash,
    /// What vouches for `head`; nothing for genesis.
    certificate: Option<Certificate>,
    /// Over the headers below `head`.
    log: LogFrontier,
    /// The state at `head`, when batches are executed again.
    state: Option<State>,
    /// What the batch of `head` answered, when it was executed again.
    receipts: Option<Receipts>,
    /// The path or inode that is followed, and what the last height did to it.
    trace: Option<Trace>,
    touches: Vec<Touch>,
    progress: Progress,
}

impl<'a> Auditor<'a> {
    /// Starts at the genesis.
    ///
    /// # Errors
    /// [`GenesisError`] when it is none that a cluster can start from.
    pub fn new(genesis: &Genesis, verifier: &'a dyn Verifier, policy: Policy) -> Result<Self, GenesisError> {
        let state = State::genesis(genesis)?;
        Ok(Auditor {
            cluster: state.cluster(),
            members: genesis.members.clone(),
            members_digest: genesis.members.digest(),
            verifier,
            policy,
            head: state.header().clone(),
            hash: state.hash(),
            certificate: None,
            log: LogFrontier::new(),
            state: policy.replay.then_some(state),
            receipts: None,
            trace: None,
            touches: Vec::new(),
            progress: Progress::default(),
        })
    }

    /// Starts above an anchor, whose height and all below it are taken for what they are certified to be.
    ///
    /// # Errors
    /// [`NoAnchor`] when the anchor does not hold or does not suffice.
    pub fn above(
        anchor: &Anchor,
        genesis: &Genesis,
        verifier: &'a dyn Verifier,
        policy: Policy,
    ) -> Result<Self, NoAnchor> {
        anchor.check(genesis, verifier)?;
        let log = anchor.log.clone().ok_or(NoAnchor::NoLog)?;
        if policy.replay {
            return Err(NoAnchor::NoState);
        }
        let auditor = Self::new(genesis, verifier, policy);
        let auditor = auditor.map_err(|error| NoHead::Genesis(error.to_string()))?;
        let Head { header, certificate } = anchor.head.clone();
        let numbered = header.first_operation.saturating_add(u64::from(header.operation_count));
        // Number 0 belongs to the genesis.
        let operations = numbered.saturating_sub(1);
        let progress = Progress { height: header.height, operations, signatures: 0 };
        Ok(Auditor { hash: header.hash(), head: header, certificate, log, progress, ..auditor })
    }

    /// The last height that holds, with the log below it, for an audit to start there.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        let head = Head { header: self.head.clone(), certificate: self.certificate.clone() };
        Anchor { cluster: self.cluster, head, log: Some(self.log.clone()) }
    }

    /// The header of the last height that holds.
    #[must_use]
    pub fn head(&self) -> &Header {
        &self.head
    }

    /// The height that must come next.
    #[must_use]
    pub fn next_height(&self) -> Height {
        self.head.height.saturating_add(1)
    }

    /// The state at the head, if the policy says that batches are executed again.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The receipts of the height that was checked last, if its batch was executed again.
    #[must_use]
    pub fn receipts(&self) -> Option<&Receipts> {
        self.receipts.as_ref()
    }

    /// Follows a path or an inode from now on, if the policy says that batches are executed again.
    ///
    /// # Errors
    /// [`Error`], of the state.
    pub fn trace(&mut self, subject: Subject) -> Result<(), Error> {
        self.trace = match &self.state {
            Some(state) => Some(Trace::new(subject, &state.as_view())?),
            None => None,
        };
        Ok(())
    }

    /// What the height that was checked last did to what is followed, in order.
    #[must_use]
    pub fn touches(&self) -> &[Touch] {
        &self.touches
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// What execution needs besides the state.
    pub(crate) fn environment(&self) -> Environment<'_> {
        Environment { cluster: self.cluster, members: &self.members, verifier: self.verifier }
    }

    /// Checks the next height. After a breach the auditor stays where it was.
    ///
    /// # Errors
    /// [`Breach`] names the height that had to come and the first rule that it breaks.
    pub fn check(&mut self, committed: &CommittedBatch) -> Result<(), Breach> {
        let found = Signatures::new(self.cluster, &self.members, self.verifier, self.policy).find(committed);
        self.take(committed, found)
    }

    /// Checks the next height, whose signatures were checked before.
    ///
    /// # Errors
    /// As [`Auditor::check`].
    pub fn check_signed(&mut self, signed: Signed) -> Result<CommittedBatch, Breach> {
        self.take(&signed.committed, signed.found)?;
        Ok(signed.committed)
    }

    fn take(&mut self, committed: &CommittedBatch, found: Found) -> Result<(), Breach> {
        let height = self.next_height();
        self.advance(committed, found).map_err(|Finding(rule, replica, text)| Breach {
            height,
            replica,
            rule,
            text,
        })
    }

    fn advance(&mut self, committed: &CommittedBatch, found: Found) -> Result<(), Finding> {
        let (header, proposal) = (&committed.batch.header, &committed.batch.proposal);
        let Found { hash, signatures } = found;
        self.check_header(header)?;
        self.check_proposal(header, proposal)?;
        let mut log = self.log.clone();
        let appended = log.append(&encode(&self.head)).is_ok();
        ensure(appended && log.root() == header.log_root, Rule::LogRoot, || {
            format!("the header has log root {}, the headers below it have {}", header.log_root, log.root())
        })?;
        signatures?;
        let mut trace = self.trace.clone();
        let (state, receipts) = self.replay(header, hash, proposal, trace.as_mut())?.unzip();
        let damaged = |error: Error| Finding(Rule::Execution, None, error.to_string());
        self.touches = trace.as_mut().map_or_else(|| Ok(Vec::new()), Trace::take).map_err(damaged)?;
        self.trace = trace;
        self.log = log;
        self.state = state;
        self.receipts = receipts;
        self.head = header.clone();
        self.hash = hash;
        self.certificate = Some(committed.certificate.clone());
        let signatures = committed.certificate.signatures.len() as u64;
        self.progress = Progress {
            height: header.height,
            operations: self.progress.operations.saturating_add(u64::from(header.operation_count)),
            signatures: self.progress.signatures.saturating_add(signatures),
        };
        Ok(())
    }

    /// What the header says of itself and of the one below.
    fn check_header(&self, header: &Header) -> Result<(), Finding> {
        let (expected, epoch) = (self.next_height(), self.members.epoch());
        ensure(header.height == expected, Rule::Continuity, || {
            format!("the header says height {}", header.height)
        })?;
        ensure(header.version == HEADER_VERSION, Rule::Version, || {
            format!("the header has version {}", header.version)
        })?;
        ensure(header.cluster == self.cluster, Rule::Cluster, || {
            format!("the header says cluster {}", header.cluster)
        })?;
        ensure(header.epoch == epoch, Rule::Epoch, || format!("the header says epoch {}", header.epoch))?;
        ensure(header.previous == self.hash, Rule::Previous, || {
            format!("the header follows {}, the height below has {}", header.previous, self.hash)
        })?;
        ensure(header.members == self.members_digest, Rule::Members, || {
            format!("the header names the member set {}", header.members)
        })
    }

    /// What the header says of the proposal, and whether the proposal may stand here.
    fn check_proposal(&self, header: &Header, proposal: &Proposal) -> Result<(), Finding> {
        let digest = proposal.digest(&self.cluster, header.epoch, header.height);
        ensure(header.proposal == digest, Rule::ProposalDigest, || {
            format!("the header names the proposal {}, the one stored has {digest}", header.proposal)
        })?;
        check_static(&self.cluster, &self.head, header.height, proposal)
            .map_err(|fault| Finding(Rule::Proposal, None, fault.to_string()))?;
        ensure(header.time == proposal.time, Rule::Time, || {
            format!("the header has time {}, its proposal {}", header.time.0, proposal.time.0)
        })?;
        let first = self.head.first_operation.saturating_add(u64::from(self.head.operation_count));
        let count = proposal.operation_count();
        ensure(
            header.first_operation == first && u64::from(header.operation_count) == count,
            Rule::Operations,
            || {
                let (given, of) = (header.operation_count, header.first_operation);
                format!("the header has {given} operations from {of}, there are {count} from {first}")
            },
        )
    }

    /// Executes the batch again, if the policy says so, and compares the header.
    fn replay(
        &self,
        header: &Header,
        hash: Hash,
        proposal: &Proposal,
        trace: Option<&mut Trace>,
    ) -> Result<Option<(State, Receipts)>, Finding> {
        let Some(state) = &self.state else { return Ok(None) };
        let environment = self.environment();
        let executed = match trace {
            Some(trace) => {
                state.execute_watched(&environment, header.height, proposal, header.proposal, trace)
            }
            None => state.execute(&environment, header.height, proposal, header.proposal),
        };
        let executed = executed.map_err(|fault| Finding(Rule::Execution, None, fault.to_string()))?;
        ensure(executed.state.hash() == hash, Rule::Execution, || {
            difference(header, executed.state.header())
        })?;
        Ok(Some((executed.state, executed.receipts)))
    }
}

/// The first field in which a certified header differs from the one that execution gives.
pub(crate) fn difference(certified: &Header, executed: &Header) -> String {
    let roots = [
        ("state root", certified.state_root, executed.state_root),
        ("receipts root", certified.receipts_root, executed.receipts_root),
        ("touched root", certified.touched_root, executed.touched_root),
    ];
    let differing = roots.into_iter().find(|(_, certified, executed)| certified != executed);
    differing.map_or_else(
        || "the header differs from that of the execution".to_owned(),
        |(name, certified, executed)| format!("{name} {certified} was certified, execution gives {executed}"),
    )
}
