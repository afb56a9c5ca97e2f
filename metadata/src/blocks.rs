//! References to blocks: the evidence that lets one in, and the rows that count them (rule S5).
//!
//! Invariant: a block's count is the number of segments that name it; a reference appears only with the
//! evidence of a quorum, or by splitting one that was there.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::Hash;
use quorate_protocol::blocks::{BlockDescriptor, BlockEvidence, BlockGrant, Coding, receipt_leaf};
use quorate_protocol::limits::{BLOCK_BYTES_MAX, BLOCKS_PER_RECEIPT_MAX};

use crate::context::{Context, Moment};
use crate::errno::Errno;
use crate::inodes;
use crate::keys;
use crate::rows::{self, Block, Placement, Released};
use crate::splice::References;
use crate::view::{Error, View};

/// The blocks that an operation may refer to, by identifier.
pub(crate) type Admitted = BTreeMap<Hash, BlockDescriptor>;

/// Checks an operation's evidence: Q distinct members of the batch's epoch signed unexpired receipts for this
/// session over one root, and each block lies under it. Anything else is EBADMSG.
pub(crate) fn admit(context: &Context<'_>, evidence: &BlockEvidence) -> Result<Admitted, Errno> {
    if evidence.blocks.is_empty() {
        return Ok(Admitted::new());
    }
    let first = &evidence.receipts.first().ok_or(Errno::EBADMSG)?.body;
    let (root, count) = (first.root, first.count);
    let mut signers = BTreeSet::new();
    for receipt in &evidence.receipts {
        let body = &receipt.body;
        let same = body.root == root && body.count == count;
        let current = receipt.epoch == context.blocks.epoch()
            && body.session == context.session_id
            && body.expires >= context.moment.time;
        if !same || !current || !signers.insert(receipt.replica) || !context.blocks.signed(receipt) {
            return Err(Errno::EBADMSG);
        }
    }
    if signers.len() < context.blocks.quorum() || count as usize > BLOCKS_PER_RECEIPT_MAX {
        return Err(Errno::EBADMSG);
    }
    evidence.blocks.iter().map(|grant| admit_block(context, grant, count, &root)).collect()
}

fn admit_block(
    context: &Context<'_>,
    grant: &BlockGrant,
    count: u32,
    root: &Hash,
) -> Result<(Hash, BlockDescriptor), Errno> {
    let descriptor = &grant.descriptor;
    let id = descriptor.id();
    let leaf = receipt_leaf(&id, descriptor.length);
    let included = context.blocks.included(&leaf, grant.index, count, &grant.path, root);
    if is_known(descriptor) && included { Ok((id, descriptor.clone())) } else { Err(Errno::EBADMSG) }
}

/// Whether this version of the rules knows the block's coding.
fn is_known(descriptor: &BlockDescriptor) -> bool {
    let BlockDescriptor { coding: Coding::Copies, transform, k, n, length, content_root: _, shard_root } =
        descriptor;
    (*transform, *k, *n, *shard_root) == (0, 1, 1, Hash::ZERO)
        && (1..=BLOCK_BYTES_MAX).contains(&(*length as usize))
}

/// Applies changes of references to the blocks' rows.
///
/// A block whose identifier shares 31 bytes with another one's is refused (ENOSPC).
pub(crate) fn adjust(
    view: &mut dyn View,
    moment: Moment,
    references: &References,
    admitted: &Admitted,
) -> Result<(), Error> {
    for (id, change) in references.iter() {
        adjust_one(view, moment, id, change, admitted)?;
    }
    Ok(())
}

fn adjust_one(
    view: &mut dyn View,
    moment: Moment,
    id: &Hash,
    change: i64,
    admitted: &Admitted,
) -> Result<(), Error> {
    let key = keys::block(id);
    let mut block = match rows::get::<Block>(view, &key)? {
        Some(block) if block.id == *id => block,
        Some(_) => return Err(Errno::ENOSPC.into()),
        None => {
            let descriptor = admitted.get(id).ok_or(Error::Corrupt("a segment names no block"))?;
            bear(view, moment, id, descriptor)?
        }
    };
    if let Some(released) = block.released.take() {
        view.delete(keys::released(released.time, id));
    }
    block.count =
        block.count.checked_add_signed(change).ok_or(Error::Corrupt("a block's count does not add up"))?;
    if block.count == 0 {
        block.released = Some(moment.into());
        rows::put(view, keys::released(moment.time, id), &Released { id: *id });
    }
    rows::put(view, key, &block);
    Ok(())
}

/// The row of a block that is referred to for the first time, or again after its row was reclaimed.
fn bear(
    view: &mut dyn View,
    moment: Moment,
    id: &Hash,
    descriptor: &BlockDescriptor,
) -> Result<Block, Error> {
    inodes::count(view, |totals| {
        totals.blocks = totals.blocks.checked_add(1)?;
        totals.block_bytes = totals.block_bytes.checked_add(u64::from(descriptor.length))?;
        Some(())
    })?;
    Ok(Block {
        id: *id,
        descriptor: descriptor.clone(),
        placement: Placement::EveryReplica,
        count: 0,
        born: moment.into(),
        released: None,
    })
}

/// Removes the row of a block whose grace has ended.
pub(crate) fn bury(view: &mut dyn View, id: &Hash) -> Result<(), Error> {
    let key = keys::block(id);
    let block: Block = rows::get(view, &key)?.ok_or(Error::Corrupt("a released block has no row"))?;
    if block.id != *id || block.count != 0 {
        return Err(Error::Corrupt("a block in use is queued as released"));
    }
    view.delete(key);
    inodes::count(view, |totals| {
        totals.blocks = totals.blocks.checked_sub(1)?;
        totals.block_bytes = totals.block_bytes.checked_sub(u64::from(block.descriptor.length))?;
        Some(())
    })
}
