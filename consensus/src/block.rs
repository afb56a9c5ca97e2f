//! The proposals above the committed height that this replica holds, by digest and by header hash.
//!
//! Invariant: every block is above the committed height; a block's header, once known, never changes; the
//! index by header hash names exactly the blocks whose header is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_crypto::Hash;
use quorate_protocol::peer::Batch;
use quorate_protocol::{BatchTime, Header, Height, Proposal, SessionId};

/// How far the execution of a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Execution {
    /// Not asked for yet.
    Idle,
    /// Asked for.
    Running,
    /// Done; the header is known.
    Done { advanced: Vec<(SessionId, u64)>, wake_at: Option<BatchTime> },
    /// The proposal has a static fault.
    Failed,
}

/// A proposal with what is known about it.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub height: Height,
    pub digest: Hash,
    pub proposal: Arc<Proposal>,
    pub operations: u64,
    /// From own execution, or from a certified chain.
    pub header: Option<(Hash, Header)>,
    pub execution: Execution,
    /// Whether a `Record::Proposed` of it has been appended to the log.
    pub logged: bool,
}

impl Block {
    pub(crate) fn new(height: Height, digest: Hash, proposal: Arc<Proposal>) -> Self {
        let operations = proposal.operation_count();
        Self { height, digest, proposal, operations, header: None, execution: Execution::Idle, logged: false }
    }

    pub(crate) const fn is_executed(&self) -> bool {
        matches!(self.execution, Execution::Done { .. })
    }

    /// Header and proposal, for a record or a peer; `None` while the header is unknown.
    pub(crate) fn batch(&self) -> Option<Batch> {
        let (_, header) = self.header.as_ref()?;
        Some(Batch { header: header.clone(), proposal: Proposal::clone(&self.proposal) })
    }
}

/// What lies between a header and the committed height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Digests of all blocks from just above the committed height up to the header, ascending; empty if
    /// the header is at or below the committed height.
    Complete(Vec<Hash>),
    /// This header is needed and unknown.
    Missing { header: Hash, height: Height },
    /// The chain does not rest on the committed header.
    Contradicts,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    by_digest: BTreeMap<Hash, Block>,
    by_header: BTreeMap<Hash, Hash>,
}

impl Blocks {
    pub(crate) fn len(&self) -> usize {
        self.by_digest.len()
    }

    pub(crate) fn get(&self, digest: &Hash) -> Option<&Block> {
        self.by_digest.get(digest)
    }

    pub(crate) fn get_mut(&mut self, digest: &Hash) -> Option<&mut Block> {
        self.by_digest.get_mut(digest)
    }

    pub(crate) fn by_header(&self, header: &Hash) -> Option<&Block> {
        self.by_header.get(header).and_then(|digest| self.by_digest.get(digest))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Block> {
        self.by_digest.values()
    }

    /// Adds a block unless its digest is there already.
    pub(crate) fn insert(&mut self, block: Block) {
        if !self.by_digest.contains_key(&block.digest) {
            if let Some((hash, _)) = &block.header {
                self.by_header.insert(*hash, block.digest);
            }
            self.by_digest.insert(block.digest, block);
        }
    }

    /// Sets a block's header.
    ///
    /// # Errors
    /// The hash of the header that is known already, if it is another one.
    pub(crate) fn set_header(&mut self, digest: &Hash, hash: Hash, header: Header) -> Result<(), Hash> {
        let Some(block) = self.by_digest.get_mut(digest) else { return Ok(()) };
        match &block.header {
            Some((known, _)) if *known != hash => Err(*known),
            Some(_) => Ok(()),
            None => {
                block.header = Some((hash, header));
                self.by_header.insert(hash, *digest);
                Ok(())
            }
        }
    }

    pub(crate) fn remove(&mut self, digest: &Hash) -> Option<Block> {
        let block = self.by_digest.remove(digest)?;
        if let Some((hash, _)) = &block.header {
            self.by_header.remove(hash);
        }
        Some(block)
    }

    /// Removes all blocks whose digest is not in `kept`, and returns them by ascending digest.
    pub(crate) fn retain(&mut self, kept: &BTreeSet<Hash>) -> Vec<Block> {
        let dropped: Vec<Hash> =
            self.by_digest.keys().filter(|digest| !kept.contains(*digest)).copied().collect();
        dropped.iter().filter_map(|digest| self.remove(digest)).collect()
    }

    /// The path from `top` at `height` down to the committed header, which is `floor`. Takes at most
    /// `height - floor.0` steps.
    pub(crate) fn path(&self, top: Hash, height: Height, floor: (Height, Hash)) -> Path {
        let (floor_height, floor_header) = floor;
        let (mut digests, mut wanted, mut at) = (Vec::new(), top, height);
        while at > floor_height {
            match self.by_header(&wanted) {
                Some(block) if block.height == at => {
                    digests.push(block.digest);
                    wanted = block.header.as_ref().map_or(Hash::ZERO, |(_, header)| header.previous);
                    at = at.saturating_sub(1);
                }
                // A certificate names its header's height, so another one here is nobody's certificate.
                Some(_) => return Path::Contradicts,
                None => return Path::Missing { header: wanted, height: at },
            }
        }
        if !digests.is_empty() && wanted != floor_header {
            return Path::Contradicts;
        }
        digests.reverse();
        Path::Complete(digests)
    }

    /// Digests of a block and of its ancestors in the table, by proposal digest.
    pub(crate) fn ancestry(&self, digest: Hash) -> Vec<Hash> {
        let mut found = Vec::new();
        let mut at = digest;
        while let Some(block) = self.by_digest.get(&at) {
            found.push(at);
            at = block.proposal.parent;
            if found.len() > self.by_digest.len() {
                break;
            }
        }
        found
    }

    /// Whether both indices agree.
    pub(crate) fn is_consistent(&self) -> bool {
        let named = self.by_digest.values().filter(|block| block.header.is_some()).count();
        named == self.by_header.len()
            && self.by_header.iter().all(|(hash, digest)| {
                self.by_digest
                    .get(digest)
                    .and_then(|block| block.header.as_ref())
                    .is_some_and(|(known, header)| known == hash && header.proposal == *digest)
            })
    }
}
