//! A fast deterministic stand-in for execution: sessions by rule R8, and a hash chain for the rest.
//!
//! Invariant: the header is a pure function of the parent state and the proposal, and its state root binds
//! every session's next number, so that a lost or doubled operation shows as another root.

use std::collections::BTreeMap;

use quorate_crypto::{Hash, derive_hash, encode};
use quorate_protocol::header::HEADER_VERSION;
use quorate_protocol::{
    BatchTime, Envelope, Genesis, Header, Height, OperationBody, OperationResult, Proposal, ReceiptLeaf,
    Reply, SessionId, SkipReason,
};

/// The state after a height.
#[derive(Clone, Debug)]
pub struct FakeState {
    cluster: Hash,
    header: Header,
    header_hash: Hash,
    next: BTreeMap<SessionId, u64>,
    /// Executes what was executed before (mutant).
    repeats: bool,
}

/// What came of a batch.
#[derive(Debug)]
pub struct FakeExecuted {
    /// The state after it.
    pub state: FakeState,
    /// One leaf per operation, skipped ones included.
    pub leaves: Vec<ReceiptLeaf>,
    /// Sessions that moved, with their next numbers.
    pub advanced: Vec<(SessionId, u64)>,
}

/// Root of the leaves of a batch, in place of the RFC 6962 tree.
#[must_use]
pub fn receipts_root(leaves: &[ReceiptLeaf]) -> Hash {
    let encoded: Vec<Vec<u8>> = leaves.iter().map(encode).collect();
    let parts: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
    derive_hash("quorate simulated receipts v1", &parts)
}

impl FakeState {
    /// The state at height 0. `repeats` makes a mutant that executes duplicates.
    #[must_use]
    pub fn genesis(genesis: &Genesis, repeats: bool) -> Self {
        let cluster = genesis.cluster();
        let header = Header {
            version: HEADER_VERSION,
            cluster: Hash::ZERO,
            epoch: 0,
            height: 0,
            time: genesis.time,
            previous: Hash::ZERO,
            proposal: cluster,
            state_root: Hash::ZERO,
            receipts_root: receipts_root(&[]),
            first_operation: 0,
            operation_count: 0,
            log_root: Hash::ZERO,
            members: genesis.members.digest(),
            touched_root: Hash::ZERO,
            touched_count: 0,
        };
        Self { cluster, header_hash: header.hash(), header, next: BTreeMap::new(), repeats }
    }

    /// The header of this height.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The same state under another root (mutant).
    #[must_use]
    pub fn diverged(&self) -> Self {
        let mut header = self.header.clone();
        header.state_root = derive_hash("quorate simulated divergence v1", &[&header.state_root.0]);
        Self { header_hash: header.hash(), header, ..self.clone() }
    }

    /// The next sequence number of a session; `None` if it is not registered.
    #[must_use]
    pub fn session_next(&self, session: &SessionId) -> Option<u64> {
        self.next.get(session).copied()
    }

    /// Executes a batch, which passed the static checks, on top of this state.
    #[must_use]
    pub fn execute(&self, height: Height, proposal: &Proposal, digest: Hash) -> FakeExecuted {
        let parent = &self.header;
        let mut next = self.next.clone();
        let mut leaves = Vec::new();
        let mut advanced = BTreeMap::new();
        for envelope in &proposal.envelopes {
            let reason = skip_reason(next.get(&envelope.body.session).copied(), envelope, proposal.time);
            let reason =
                reason.filter(|reason| !self.repeats || !matches!(reason, SkipReason::Duplicate { .. }));
            if reason.is_none() {
                next.insert(envelope.body.session, envelope.next());
                advanced.insert(envelope.body.session, envelope.next());
            }
            push_leaves(&mut leaves, envelope, reason);
        }
        let moved: Vec<(SessionId, u64)> = advanced.into_iter().collect();
        let header = Header {
            version: HEADER_VERSION,
            cluster: self.cluster,
            epoch: parent.epoch,
            height,
            time: proposal.time,
            previous: self.header_hash,
            proposal: digest,
            state_root: derive_hash(
                "quorate simulated state v1",
                &[&parent.state_root.0, &digest.0, &encode(&moved)],
            ),
            receipts_root: receipts_root(&leaves),
            first_operation: parent.first_operation + u64::from(parent.operation_count),
            operation_count: leaves.len() as u32,
            log_root: derive_hash("quorate simulated log v1", &[&parent.log_root.0, &self.header_hash.0]),
            members: parent.members,
            touched_root: Hash::ZERO,
            touched_count: 0,
        };
        let state =
            Self { cluster: self.cluster, header_hash: header.hash(), header, next, repeats: self.repeats };
        FakeExecuted { state, leaves, advanced: moved }
    }
}

fn push_leaves(leaves: &mut Vec<ReceiptLeaf>, envelope: &Envelope, reason: Option<SkipReason>) {
    let result = reason.map_or(OperationResult::Done(Reply::Empty), OperationResult::Skipped);
    let (body, digest) = (&envelope.body, envelope.body.digest());
    for (index, sequence) in (0u32..).zip(body.first..envelope.next()) {
        let result = result.clone();
        leaves.push(ReceiptLeaf { session: body.session, sequence, envelope: digest, index, result });
    }
}

fn skip_reason(next: Option<u64>, envelope: &Envelope, time: BatchTime) -> Option<SkipReason> {
    let body = &envelope.body;
    let registers =
        body.operations.iter().any(|operation| matches!(operation.body, OperationBody::Register { .. }));
    match next {
        _ if body.valid_until < time => Some(SkipReason::Expired),
        None if registers && body.first == 0 && body.operations.len() == 1 => None,
        None => Some(SkipReason::UnknownSession),
        Some(_) if registers => Some(SkipReason::BadRegistration),
        Some(next) if envelope.next() <= next => Some(SkipReason::Duplicate { executed: None }),
        Some(next) if body.first < next => Some(SkipReason::Overlap { next }),
        Some(next) if body.first > next => Some(SkipReason::Gap { next }),
        Some(_) => None,
    }
}
