//! Checks of block receipts for `quorate_metadata`: the members' signatures and RFC 6962 paths (rule S5).
//!
//! Invariant: a receipt counts only under the block key of the member that it names, in the batch's epoch and
//! for this cluster. Every signature that is checked is counted, so that it can be charged.

use std::cell::Cell;

use quorate_crypto::Hash;
use quorate_merkle::log::verify_inclusion;
use quorate_merkle::rfc6962;
use quorate_metadata::BlockChecker;
use quorate_protocol::Epoch;
use quorate_protocol::blocks::BlockReceipt;

use crate::batch::Environment;

/// The checker of one batch.
pub(crate) struct ReceiptChecker<'a> {
    environment: &'a Environment<'a>,
    signatures: Cell<u64>,
}

impl<'a> ReceiptChecker<'a> {
    pub(crate) fn new(environment: &'a Environment<'a>) -> Self {
        ReceiptChecker { environment, signatures: Cell::new(0) }
    }

    /// How many signatures were checked since the last call.
    pub(crate) fn take_signatures(&self) -> u64 {
        self.signatures.take()
    }
}

impl BlockChecker for ReceiptChecker<'_> {
    fn epoch(&self) -> Epoch {
        self.environment.members.epoch()
    }

    fn quorum(&self) -> usize {
        self.environment.members.quorum()
    }

    fn signed(&self, receipt: &BlockReceipt) -> bool {
        let Environment { cluster, members, verifier } = self.environment;
        if receipt.epoch != members.epoch() {
            return false;
        }
        let Some(member) = members.get(receipt.replica) else { return false };
        self.signatures.set(self.signatures.get().saturating_add(1));
        let statement = BlockReceipt::statement(*cluster, receipt.epoch, &receipt.body);
        verifier.verify(&member.blocks, &statement, &receipt.signature).is_ok()
    }

    fn included(&self, leaf: &[u8], index: u32, count: u32, path: &[Hash], root: &Hash) -> bool {
        let leaf = rfc6962::leaf_hash(leaf);
        verify_inclusion(root, u64::from(count), u64::from(index), &leaf, path).is_ok()
    }
}
