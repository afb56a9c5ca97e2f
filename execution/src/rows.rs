//! The rows of sessions, principals and members (rule S1), in the encodings of `quorate_metadata::rows`.
//!
//! Invariants: numbers of sessions and principals start at 1, are dense, and never return. A full identifier
//! or key that does not fit into a row's key stands in the value and is compared on every use; a mismatch is
//! absence. Every session has exactly one row among the deadlines, at the time that its row names.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, MemberSet, PublicKey};
use quorate_metadata::keys::{self, Counter};
use quorate_metadata::rows::{CounterRow, Row, get, put};
use quorate_metadata::{Error, Key, View};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::{BatchTime, Height, PrincipalNumber, SessionId, SessionNumber};

/// Envelopes whose place a session remembers (rule S10).
pub const RECENT_MAX: usize = 64;
/// Operations whose outcome a session remembers: the furthest that `requires` reaches.
pub const OUTCOMES_MAX: usize = 1024;
/// The system table of [`OutageRow`]; the others are in `quorate_metadata::keys`.
pub const TABLE_OUTAGE: u8 = 0x16;

/// Where a session stands in its life.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Phase {
    /// Its deadline has not been reached.
    Live,
    /// Its deadline was found passed at this batch time; it ends after the grace, if no outage came between.
    Suspected(BatchTime),
    /// Ended; what it holds is being released.
    Ending,
    /// Ended and empty; remembered so that its registration and its retries are known.
    Ended,
}

/// An envelope that consumed its numbers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Consumed {
    /// Its first sequence number.
    pub first: u64,
    /// The height that executed it.
    pub height: Height,
    /// Index of its first operation in that batch.
    pub index: u32,
}

/// Which of the last [`OUTCOMES_MAX`] operations of a session succeeded: bit s modulo the bound is that of
/// operation s.
#[derive(Copy, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Outcomes(pub [u8; OUTCOMES_MAX / 8]);

impl Outcomes {
    /// No operation yet.
    pub const NONE: Self = Self([0; OUTCOMES_MAX / 8]);

    /// Byte and mask of an operation.
    fn place(sequence: u64) -> (usize, u8) {
        let bit = usize::try_from(sequence.checked_rem(OUTCOMES_MAX as u64).unwrap_or(0)).unwrap_or(0);
        (bit / 8, 1_u8.rotate_left(u32::try_from(bit % 8).unwrap_or(0)))
    }

    /// Records the outcome of operation `sequence`, in place of the one [`OUTCOMES_MAX`] before it.
    pub fn set(&mut self, sequence: u64, succeeded: bool) {
        let (byte, mask) = Self::place(sequence);
        if let Some(bits) = self.0.get_mut(byte) {
            *bits = if succeeded { *bits | mask } else { *bits & !mask };
        }
    }

    /// Whether the operation `distance` before `sequence` is known to have succeeded.
    #[must_use]
    pub fn succeeded(&self, sequence: u64, distance: u16) -> bool {
        let (byte, mask) = match sequence.checked_sub(u64::from(distance)) {
            Some(required) if usize::from(distance) <= OUTCOMES_MAX => Self::place(required),
            _ => return false,
        };
        self.0.get(byte).is_some_and(|bits| bits & mask != 0)
    }
}

impl std::fmt::Debug for Outcomes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Outcomes")
    }
}

/// A session (rule R8).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SessionRow {
    /// Its identifier.
    pub id: SessionId,
    /// The key that registered it.
    pub key: PublicKey,
    /// The principal of that key.
    pub principal: PrincipalNumber,
    /// The next sequence number.
    pub next: u64,
    /// Where it stands.
    pub phase: Phase,
    /// When its row among the deadlines is due.
    pub due: BatchTime,
    /// Until when the registration stays valid, and so must be remembered.
    pub registration: BatchTime,
    /// What came of its last operations.
    pub outcomes: Outcomes,
    /// Its last envelopes, oldest first.
    pub recent: Bounded<Consumed, RECENT_MAX>,
}

impl SessionRow {
    /// Whether it takes envelopes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Live | Phase::Suspected(_))
    }

    /// Where the envelope was executed that consumed this number, while it is remembered.
    #[must_use]
    pub fn executed(&self, sequence: u64) -> Option<(Height, u32)> {
        let consumed = self.recent.iter().rev().find(|consumed| consumed.first <= sequence)?;
        (sequence < self.next).then_some((consumed.height, consumed.index))
    }

    /// Remembers an envelope, in place of the oldest when there is no room.
    pub fn remember(&mut self, consumed: Consumed) {
        let excess = self.recent.len().saturating_add(1).saturating_sub(RECENT_MAX);
        let kept = self.recent.iter().skip(excess).copied().chain([consumed]);
        // At most RECENT_MAX by construction.
        self.recent = Bounded::try_collect(kept).unwrap_or_default();
    }
}

/// A principal (rule S6).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PrincipalRow {
    /// Its key.
    pub key: PublicKey,
    /// What it may.
    pub rights: PrincipalRights,
    /// Sessions of it that are remembered.
    pub sessions: u32,
}

/// The number of a session.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SessionIdRow {
    /// The full identifier.
    pub id: SessionId,
    /// The number.
    pub number: SessionNumber,
}

/// The number of a principal.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PrincipalKeyRow {
    /// The full key.
    pub key: PublicKey,
    /// The number.
    pub number: PrincipalNumber,
}

/// The members of an epoch (rule R7).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MembersRow {
    /// They.
    pub members: MemberSet,
}

/// When the cluster came back from its last outage; absent while there was none.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OutageRow {
    /// Batch time of the first batch after it.
    pub ended: BatchTime,
}

impl Row for SessionRow {
    const DAMAGED: &'static str = "a session does not decode";
}

impl Row for PrincipalRow {
    const DAMAGED: &'static str = "a principal does not decode";
}

impl Row for SessionIdRow {
    const DAMAGED: &'static str = "the number of a session does not decode";
}

impl Row for PrincipalKeyRow {
    const DAMAGED: &'static str = "the number of a principal does not decode";
}

impl Row for MembersRow {
    const DAMAGED: &'static str = "a member set does not decode";
}

impl Row for OutageRow {
    const DAMAGED: &'static str = "the mark of the last outage does not decode";
}

/// The key of the one [`OutageRow`].
#[must_use]
pub fn outage_key() -> Key {
    keys::table_start(TABLE_OUTAGE)
}

/// The session with this identifier, whatever its phase.
pub(crate) fn find_session(
    view: &dyn View,
    id: &SessionId,
) -> Result<Option<(SessionNumber, SessionRow)>, Error> {
    let Some(found) = get::<SessionIdRow>(view, &keys::session_id(id))? else { return Ok(None) };
    if found.id != *id {
        return Ok(None);
    }
    let row = get::<SessionRow>(view, &keys::session(found.number))?;
    Ok(row.map(|row| (found.number, row)))
}

/// The principal with this key.
pub(crate) fn find_principal(
    view: &dyn View,
    key: &PublicKey,
) -> Result<Option<(PrincipalNumber, PrincipalRow)>, Error> {
    let Some(found) = get::<PrincipalKeyRow>(view, &keys::principal_key(key))? else { return Ok(None) };
    if found.key != *key {
        return Ok(None);
    }
    let row = get::<PrincipalRow>(view, &keys::principal(found.number))?;
    Ok(row.map(|row| (found.number, row)))
}

/// Takes the next number of a counter, which starts at 1.
pub(crate) fn take_number(view: &mut dyn View, counter: Counter) -> Result<u64, Error> {
    let key = keys::counter(counter);
    let number = get::<CounterRow>(view, &key)?.map_or(1, |row| row.next);
    put(view, key, &CounterRow { next: number.saturating_add(1) });
    Ok(number)
}
