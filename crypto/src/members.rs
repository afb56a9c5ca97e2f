//! The member set of an epoch: who the replicas are, under which keys and addresses.
//!
//! Invariant: a set has 4 to 32 members, each key is usable, and within each role no two members share a
//! key, so that one holder of a key can never count as two members. Index i of the set is replica i.

use std::collections::BTreeSet;
use std::io::{self, Read};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::bounded::{Bounded, BoundedString};
use crate::encoding::encode;
use crate::hash::{Hash, derive_hash};
use crate::keys::{KeyError, NodeSeed, PublicKey, Role};
use crate::quorum::{MEMBERS_MAX, MEMBERS_MIN, faults, quorum, weak_quorum};

/// Most bytes in a member's address.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// Where a member listens, as HOST:PORT.
pub type Address = BoundedString<ADDRESS_BYTES_MAX>;

/// Domain of [`MemberSet::digest`].
const DIGEST_CONTEXT: &str = "quorate member set v1";

/// One replica as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Member {
    /// Key of its votes.
    pub consensus: PublicKey,
    /// Key of its QUIC end point.
    pub transport: PublicKey,
    /// Key of its block receipts.
    pub blocks: PublicKey,
    /// Key of its plain note signatures on log heads.
    pub log_note: PublicKey,
    /// Key of its cosignatures on log heads.
    pub log_cosignature: PublicKey,
    /// Where it listens.
    pub address: Address,
}

impl Member {
    /// The member whose keys all come from one seed.
    pub fn from_seed(seed: &NodeSeed, address: Address) -> Self {
        let public = |role| seed.derive(role).public();
        Self {
            consensus: public(Role::Consensus),
            transport: public(Role::Transport),
            blocks: public(Role::Blocks),
            log_note: public(Role::LogNote),
            log_cosignature: public(Role::LogCosignature),
            address,
        }
    }

    /// The keys with their roles, in the order of the encoding.
    pub const fn keys(&self) -> [(Role, PublicKey); 5] {
        [
            (Role::Consensus, self.consensus),
            (Role::Transport, self.transport),
            (Role::Blocks, self.blocks),
            (Role::LogNote, self.log_note),
            (Role::LogCosignature, self.log_cosignature),
        ]
    }
}

/// Why members are no member set. The fault of whoever proposes the set.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberSetError {
    /// Fewer than [`MEMBERS_MIN`] or more than [`MEMBERS_MAX`].
    #[error("{0} members where {MEMBERS_MIN} to {MEMBERS_MAX} are allowed")]
    Size(usize),
    /// A key of a member is refused.
    #[error("{role:?} key of member {index}: {error}")]
    Key {
        /// Index of the member in the set.
        index: usize,
        /// Which of its keys.
        role: Role,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A member has the same key for the same role as one before it.
    #[error("{role:?} key of member {index} belongs to another member as well")]
    SharedKey {
        /// Index of the later member in the set.
        index: usize,
        /// Which of its keys.
        role: Role,
    },
}

/// The members of one epoch, in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct MemberSet {
    epoch: u64,
    members: Bounded<Member, MEMBERS_MAX>,
}

impl MemberSet {
    /// A set whose size, keys and distinctness are checked.
    ///
    /// # Errors
    /// [`MemberSetError`] names the first member that offends.
    pub fn new(epoch: u64, members: Vec<Member>) -> Result<Self, MemberSetError> {
        check_keys(&members)?;
        Self::new_unchecked_keys(epoch, members)
    }

    /// As [`MemberSet::new`], but any 32 bytes pass as a key: for simulations and tests whose signatures
    /// are not Ed25519. Size and distinctness are checked all the same. Decoding such a set fails.
    ///
    /// # Errors
    /// [`MemberSetError::Size`] or [`MemberSetError::SharedKey`].
    pub fn new_unchecked_keys(epoch: u64, members: Vec<Member>) -> Result<Self, MemberSetError> {
        let size = members.len();
        if size < MEMBERS_MIN {
            return Err(MemberSetError::Size(size));
        }
        let members = Bounded::try_from(members).map_err(|_| MemberSetError::Size(size))?;
        check_distinct(&members)?;
        Ok(Self { epoch, members })
    }

    /// The epoch in which these members vote.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The members in order of index.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// n: how many members there are.
    pub fn n(&self) -> usize {
        self.members.len()
    }

    /// f: how many of them may be Byzantine.
    pub fn f(&self) -> usize {
        faults(self.n())
    }

    /// Q: how many must agree.
    pub fn quorum(&self) -> usize {
        quorum(self.n())
    }

    /// f + 1: how many hold at least one correct member.
    pub fn weak_quorum(&self) -> usize {
        weak_quorum(self.n())
    }

    /// Index of the leader of a view: view mod n.
    pub fn leader(&self, view: u64) -> u8 {
        // n is 4 to 32 by construction, so the remainder exists and fits.
        let index = view.checked_rem(self.n() as u64).unwrap_or_default();
        u8::try_from(index).unwrap_or_default()
    }

    /// The member with this index.
    pub fn get(&self, index: u8) -> Option<&Member> {
        self.members.get(usize::from(index))
    }

    /// Every index, ascending.
    pub fn indices(&self) -> impl Iterator<Item = u8> + use<> {
        (0..=u8::MAX).take(self.n())
    }

    /// Index of the member that votes under this key.
    pub fn index_of_consensus(&self, key: &PublicKey) -> Option<u8> {
        self.position(|member| member.consensus == *key)
    }

    /// Index of the member whose QUIC end point has this key.
    pub fn index_of_transport(&self, key: &PublicKey) -> Option<u8> {
        self.position(|member| member.transport == *key)
    }

    /// Index of the member that signs block receipts under this key.
    pub fn index_of_blocks(&self, key: &PublicKey) -> Option<u8> {
        self.position(|member| member.blocks == *key)
    }

    /// Domain-separated hash of the encoding, as the header carries it.
    pub fn digest(&self) -> Hash {
        derive_hash(DIGEST_CONTEXT, &[&encode(self)])
    }

    fn position(&self, wanted: impl Fn(&Member) -> bool) -> Option<u8> {
        let index = self.members.iter().position(wanted)?;
        u8::try_from(index).ok()
    }
}

impl BorshDeserialize for MemberSet {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        let epoch = u64::deserialize_reader(reader)?;
        let members = Bounded::<Member, MEMBERS_MAX>::deserialize_reader(reader)?;
        Self::new(epoch, members.into_inner())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Every key passes [`PublicKey::validate`].
fn check_keys(members: &[Member]) -> Result<(), MemberSetError> {
    // Size is checked first, so that no one can make us validate an unbounded number of keys.
    if members.len() > MEMBERS_MAX {
        return Err(MemberSetError::Size(members.len()));
    }
    for (index, member) in members.iter().enumerate() {
        for (role, key) in member.keys() {
            key.validate().map_err(|error| MemberSetError::Key { index, role, error })?;
        }
    }
    Ok(())
}

/// Within each role no key occurs twice.
fn check_distinct(members: &[Member]) -> Result<(), MemberSetError> {
    let mut seen = BTreeSet::new();
    for (index, member) in members.iter().enumerate() {
        for (role, key) in member.keys() {
            if !seen.insert((role, key)) {
                return Err(MemberSetError::SharedKey { index, role });
            }
        }
    }
    Ok(())
}
