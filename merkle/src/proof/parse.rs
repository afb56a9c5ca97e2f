//! The strict parser of pruned copies: iterative, in pre-order, bounded in bytes and nodes.
//!
//! Invariant: what it accepts keeps the invariants of the trie's nodes as far as leaves are revealed, and is
//! the one encoding of what it returns. Memory stays within a small multiple of the input's length.

use std::sync::Arc;

use quorate_crypto::Hash;

use super::{
    PROOF_BYTES_MAX, PROOF_FORMAT, PROOF_NODES_MAX, TAG_EMPTY, TAG_INNER, TAG_LEAF, TAG_PRUNED_LEAF, TAG_STUB,
};
use crate::error::ProofError;
use crate::key::Key;
use crate::node::Node;

/// An inner node whose children are not complete yet.
struct Open {
    bit: u8,
    left: Option<Node>,
}

/// Parses the whole of `bytes`; `None` is the empty trie.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Node>, ProofError> {
    if bytes.len() > PROOF_BYTES_MAX {
        return Err(ProofError::TooManyBytes);
    }
    let mut reader = Reader { rest: bytes };
    let format = reader.byte()?;
    if format != PROOF_FORMAT {
        return Err(ProofError::UnknownFormat(format));
    }
    let root = if reader.rest.first() == Some(&TAG_EMPTY) {
        reader.byte()?;
        None
    } else {
        Some(Parser::default().nodes(&mut reader)?)
    };
    if reader.rest.is_empty() { Ok(root) } else { Err(ProofError::Trailing) }
}

#[derive(Default)]
struct Parser {
    /// The inner nodes around the next node, outermost first. Bits rise, so there are at most `DEPTH_MAX`.
    open: Vec<Open>,
    last: Option<Key>,
    nodes: usize,
}

impl Parser {
    /// Reads nodes until the first one is complete.
    fn nodes(mut self, reader: &mut Reader<'_>) -> Result<Node, ProofError> {
        loop {
            self.nodes = self.nodes.saturating_add(1);
            if self.nodes > PROOF_NODES_MAX {
                return Err(ProofError::TooManyNodes);
            }
            let complete = match reader.byte()? {
                TAG_INNER => {
                    self.begin_inner(reader.byte()?)?;
                    continue;
                }
                TAG_LEAF => {
                    let key = self.place_leaf(Key(reader.array()?))?;
                    Node::leaf(key, reader.value()?)
                }
                TAG_PRUNED_LEAF => {
                    let key = self.place_leaf(Key(reader.array()?))?;
                    Node::pruned(key, Hash(reader.array()?))
                }
                TAG_STUB => Node::stub(Hash(reader.array()?)),
                tag => return Err(ProofError::UnknownTag(tag)),
            };
            if let Some(root) = self.complete(complete)? {
                return Ok(root);
            }
        }
    }

    fn begin_inner(&mut self, bit: u8) -> Result<(), ProofError> {
        if self.open.last().is_some_and(|parent| bit <= parent.bit) {
            return Err(ProofError::BitNotRising);
        }
        self.open.push(Open { bit, left: None });
        Ok(())
    }

    /// Checks a leaf against all inner nodes around it: its own bits, and the prefix that it must share with
    /// the leaf before. Where these two part is the deepest node that has a leaf on its left; agreeing there
    /// with each neighbour, each leaf agrees with all others, and they ascend.
    fn place_leaf(&mut self, key: Key) -> Result<Key, ProofError> {
        if self.open.iter().any(|inner| key.bit(inner.bit) != inner.left.is_some()) {
            return Err(ProofError::LeafMisplaced);
        }
        if let Some(last) = self.last.replace(key) {
            let mut around = self.open.iter().rev();
            let parting = around.find(|inner| inner.left.as_ref().is_some_and(|left| !left.is_stub()));
            if last.critical_bit(&key) != parting.map(|inner| inner.bit) {
                return Err(ProofError::LeafMisplaced);
            }
        }
        Ok(key)
    }

    /// Puts a complete node into its parent, and so on upward; returns the root once it is complete.
    fn complete(&mut self, mut node: Node) -> Result<Option<Node>, ProofError> {
        while let Some(mut parent) = self.open.pop() {
            let Some(left) = parent.left.take() else {
                parent.left = Some(node);
                self.open.push(parent);
                return Ok(None);
            };
            if left.is_stub() && node.is_stub() {
                return Err(ProofError::PairOfStubs);
            }
            node = Node::inner(parent.bit, left, node);
        }
        if node.is_stub() { Err(ProofError::LoneStub) } else { Ok(Some(node)) }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ProofError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ProofError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProofError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(ProofError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, ProofError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn value(&mut self) -> Result<Arc<[u8]>, ProofError> {
        let length = u32::from_le_bytes(self.array()?);
        let length = usize::try_from(length).map_err(|_| ProofError::TooManyBytes)?;
        self.take(length).map(Arc::from)
    }
}
