//! A fast deterministic stand-in for execution: sessions by rule R8, and a few names that hold numbers.
//!
//! Invariant: the header is a pure function of the parent state and the proposal, and its state root binds
//! every session's next number and every name, so that a lost or doubled operation shows as another root.

use std::collections::BTreeMap;

use quorate_crypto::{Hash, PublicKey, derive_hash, encode};
use quorate_protocol::envelope::session_id;
use quorate_protocol::header::HEADER_VERSION;
use quorate_protocol::{
    BatchTime, Envelope, EnvelopeBody, Genesis, Header, Height, OperationBody, OperationResult, Proposal,
    ReceiptLeaf, Reply, SessionId, SkipReason,
};

/// The errno of a name that exists.
pub const EXISTS: u16 = 17;
/// The errno of a name that does not.
pub const ABSENT: u16 = 2;
/// The errno of a registration within a session.
pub const INVALID: u16 = 22;

/// The first bytes of the entropy of the operation that made a name, by name.
type Names = BTreeMap<Vec<u8>, u64>;

/// The state after a height.
#[derive(Clone, Debug)]
pub struct FakeState {
    cluster: Hash,
    header: Header,
    header_hash: Hash,
    /// The key and the next number of each session.
    sessions: BTreeMap<SessionId, (PublicKey, u64)>,
    names: Names,
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
        Self {
            cluster,
            header_hash: header.hash(),
            header,
            sessions: BTreeMap::new(),
            names: Names::new(),
            repeats,
        }
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
        self.sessions.get(session).map(|(_, next)| *next)
    }

    /// What a name holds.
    #[must_use]
    pub fn name(&self, name: &[u8]) -> Option<u64> {
        self.names.get(name).copied()
    }

    /// Why the envelope would be skipped on top of this state at the earliest time.
    #[must_use]
    pub fn admission(&self, envelope: &Envelope) -> Option<SkipReason> {
        skip_reason(&self.sessions, envelope, self.header.time)
    }

    /// Executes a batch, which passed the static checks, on top of this state.
    #[must_use]
    pub fn execute(&self, height: Height, proposal: &Proposal, digest: Hash) -> FakeExecuted {
        let parent = &self.header;
        let (mut sessions, mut names) = (self.sessions.clone(), self.names.clone());
        let mut leaves = Vec::new();
        let mut advanced = BTreeMap::new();
        for envelope in &proposal.envelopes {
            let body = &envelope.body;
            let reason = skip_reason(&sessions, envelope, proposal.time);
            let reason =
                reason.filter(|reason| !self.repeats || !matches!(reason, SkipReason::Duplicate { .. }));
            if reason.is_none() {
                sessions.insert(body.session, (body.key, envelope.next()));
                advanced.insert(body.session, envelope.next());
            }
            push_leaves(&mut leaves, &mut names, envelope, reason);
        }
        let moved: Vec<(SessionId, u64)> = advanced.into_iter().collect();
        let held: Vec<(&Vec<u8>, &u64)> = names.iter().collect();
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
                &[&parent.state_root.0, &digest.0, &encode(&moved), &encode(&held)],
            ),
            receipts_root: receipts_root(&leaves),
            first_operation: parent.first_operation + u64::from(parent.operation_count),
            operation_count: leaves.len() as u32,
            log_root: derive_hash("quorate simulated log v1", &[&parent.log_root.0, &self.header_hash.0]),
            members: parent.members,
            touched_root: Hash::ZERO,
            touched_count: 0,
        };
        let (cluster, repeats) = (self.cluster, self.repeats);
        let state = Self { cluster, header_hash: header.hash(), header, sessions, names, repeats };
        FakeExecuted { state, leaves, advanced: moved }
    }
}

fn push_leaves(
    leaves: &mut Vec<ReceiptLeaf>,
    names: &mut Names,
    envelope: &Envelope,
    reason: Option<SkipReason>,
) {
    let (body, digest) = (&envelope.body, envelope.body.digest());
    for ((index, sequence), operation) in (0u32..).zip(body.first..).zip(&body.operations) {
        let result = match &reason {
            Some(reason) => OperationResult::Skipped(reason.clone()),
            None if sequence > 0 && matches!(operation.body, OperationBody::Register { .. }) => {
                OperationResult::Failed(INVALID)
            }
            None => apply(names, &operation.body),
        };
        leaves.push(ReceiptLeaf { session: body.session, sequence, envelope: digest, index, result });
    }
}

/// Names alone: whatever directory they are in.
fn apply(names: &mut Names, operation: &OperationBody) -> OperationResult {
    let done = OperationResult::Done(Reply::Empty);
    match operation {
        OperationBody::Create { name, exclusive, entropy, .. } => {
            let name = name.as_bytes().to_vec();
            if *exclusive && names.contains_key(&name) {
                return OperationResult::Failed(EXISTS);
            }
            names.insert(name, number(entropy));
            done
        }
        OperationBody::Unlink { name, .. } => match names.remove(name.as_bytes()) {
            Some(_) => done,
            None => OperationResult::Failed(ABSENT),
        },
        OperationBody::Rename { name, new_name, .. } => match names.remove(name.as_bytes()) {
            Some(held) => {
                names.insert(new_name.as_bytes().to_vec(), held);
                done
            }
            None => OperationResult::Failed(ABSENT),
        },
        _ => done,
    }
}

/// What a name holds that was made with this entropy.
#[must_use]
pub fn number(entropy: &[u8; 16]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&entropy[..8]);
    u64::from_le_bytes(bytes)
}

fn skip_reason(
    sessions: &BTreeMap<SessionId, (PublicKey, u64)>,
    envelope: &Envelope,
    time: BatchTime,
) -> Option<SkipReason> {
    let body = &envelope.body;
    let Some((key, next)) = sessions.get(&body.session).copied() else {
        return registration_fault(body, time);
    };
    if key != body.key {
        Some(SkipReason::WrongKey)
    } else if envelope.next() <= next {
        Some(SkipReason::Duplicate { executed: None })
    } else if body.first < next {
        Some(SkipReason::Overlap { next })
    } else if body.valid_until < time {
        Some(SkipReason::Expired)
    } else if body.first > next {
        Some(SkipReason::Gap { next })
    } else {
        None
    }
}

/// Why an envelope of an unknown session is not its registration.
fn registration_fault(body: &EnvelopeBody, time: BatchTime) -> Option<SkipReason> {
    match body.operations.first().map(|first| &first.body) {
        Some(OperationBody::Register { nonce }) => {
            let own = session_id(&body.cluster, &body.key, nonce) == body.session;
            if body.first != 0 || body.operations.len() != 1 || !own {
                Some(SkipReason::BadRegistration)
            } else {
                (body.valid_until < time).then_some(SkipReason::Expired)
            }
        }
        _ => Some(SkipReason::UnknownSession),
    }
}
