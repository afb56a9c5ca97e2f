//! What an operation may depend on besides the state and itself.
//!
//! Invariant: time, identity, parameters and the means to check block receipts come in here; nothing in
//! this crate reads a clock or has a source of randomness.

use quorate_crypto::Hash;
use quorate_protocol::blocks::BlockReceipt;
use quorate_protocol::genesis::Parameters;
use quorate_protocol::{BatchTime, Epoch, Height, SessionId, SessionNumber, Timestamp};

/// Who acts, after the principal's table, groups and squash have been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group, which new inodes get.
    pub gid: u32,
    /// Supplementary groups, in any order.
    pub groups: Vec<u32>,
}

impl Caller {
    /// The superuser.
    #[must_use]
    pub const fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new() }
    }

    /// Whether it is the superuser, who has all the capabilities of Linux's root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether `gid` is its group or one of its supplementary groups.
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// A point of the chain of batches: when blocks are born and released, and grace ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The height that is executed.
    pub height: Height,
    /// Its batch time.
    pub time: BatchTime,
}

/// Checks of block receipts that need keys and RFC 6962 trees, which this crate does not know.
///
/// Distinctness, session, expiry and the quorum are counted by this crate (rule S5).
pub trait BlockChecker {
    /// The epoch of the batch.
    fn epoch(&self) -> Epoch;

    /// Q of that epoch's members.
    fn quorum(&self) -> usize;

    /// Whether the receipt's signature is that of member `receipt.replica` of the batch's epoch, under its
    /// key for blocks, for this cluster.
    fn signed(&self, receipt: &BlockReceipt) -> bool;

    /// Whether `path` proves `leaf` at `index` of the RFC 6962 tree of `count` leaves under `root`.
    fn included(&self, leaf: &[u8], index: u32, count: u32, path: &[Hash], root: &Hash) -> bool;
}

/// Everything that an operation may depend on besides the state and its body.
#[derive(Copy, Clone)]
pub struct Context<'a> {
    /// The session's number, under which grants are kept.
    pub session: SessionNumber,
    /// The session's identifier, which block receipts name.
    pub session_id: SessionId,
    /// Who acts.
    pub caller: &'a Caller,
    /// Time of the operation: batch time plus its index in nanoseconds (rule S8).
    pub time: Timestamp,
    /// Height and batch time.
    pub moment: Moment,
    /// Global number of the operation, which becomes `version` of what it changes (rule S8).
    pub operation: u64,
    /// Replicated parameters.
    pub parameters: &'a Parameters,
    /// Checks of block receipts.
    pub blocks: &'a dyn BlockChecker,
}

/// Who asks a query.
#[derive(Copy, Clone, Debug)]
pub struct Reader<'a> {
    /// Who acts.
    pub caller: &'a Caller,
    /// The number of the session that a content query names, if that session exists and belongs to the
    /// principal that asks: its open grants stand in for the read permission (rule S6).
    pub session: Option<SessionNumber>,
}
