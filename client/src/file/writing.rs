//! Writing ranges of a file: plan, upload, write, fold and repeat.
//!
//! Invariant: an operation that refers to blocks carries the evidence of a quorum for each of them; an
//! operation that was not applied (`NeedsFold`, `Continue`) is repeated until it is or the deadline passes.

use std::sync::Arc;

use quorate_crypto::{Bounded, Hash};
use quorate_protocol::blocks::{BlockDescriptor, BlockEvidence};
use quorate_protocol::file::{Attributes, Entropy};
use quorate_protocol::limits::{BLOCKS_PER_RECEIPT_MAX, PIECES_PER_WRITE_MAX};
use quorate_protocol::operation::{Piece, WriteAt};
use quorate_protocol::{Credential, OperationBody, Reply};

use super::fold::fold;
use super::layout::{Planned, PlannedWrite, plan};
use super::{DirtyRange, FileWrite};
use crate::client::{Client, Pending};
use crate::error::ClientError;
use crate::options::PUT_BLOCKS_BYTES_MAX;

/// How often one write may be answered with `NeedsFold` or `Continue`.
const REPEATS_MAX: u32 = 256;
/// Writes of one wave: uploaded together, then queued together.
const WAVE_WRITES_MAX: usize = 64;

/// Sixteen random bytes.
pub(super) fn entropy() -> Result<Entropy, ClientError> {
    let mut entropy = Entropy::default();
    getrandom::fill(&mut entropy).map_err(|error| ClientError::Local(format!("no randomness: {error}")))?;
    Ok(entropy)
}

/// Writes; see [`Client::write_ranges`]. While one wave is being committed, the next one is uploaded.
pub(crate) async fn write_ranges(
    client: &Client,
    credential: &Credential,
    write: &FileWrite,
    ranges: Vec<DirtyRange>,
) -> Result<Option<Attributes>, ClientError> {
    let mut attributes = None;
    let mut queued: Vec<(OperationBody, Pending)> = Vec::new();
    for wave in waves(plan(ranges, write.block_log2, inline_limit(client))) {
        let bodies = upload(client, write, wave).await?;
        let mut next = Vec::with_capacity(bodies.len());
        for body in bodies {
            let pending = client.submit(credential, body.clone()).await?;
            next.push((body, pending));
        }
        settle(client, credential, write, std::mem::replace(&mut queued, next), &mut attributes).await?;
    }
    settle(client, credential, write, queued, &mut attributes).await?;
    Ok(attributes)
}

/// Appends; see [`Client::append`]. More than one operation's worth goes in several, each at the size that
/// it finds.
pub(crate) async fn append(
    client: &Client,
    credential: &Credential,
    write: &FileWrite,
    bytes: Vec<u8>,
) -> Result<(u64, Attributes), ClientError> {
    let mut first = None;
    let ranges = vec![DirtyRange { offset: 0, bytes }];
    let mut planned = plan(ranges, write.block_log2, inline_limit(client));
    if planned.is_empty() {
        planned.push(PlannedWrite::default());
    }
    let mut last = None;
    for one in planned {
        for mut body in upload(client, write, vec![one]).await? {
            if let OperationBody::Write { at, .. } = &mut body {
                *at = WriteAt::Append;
            }
            let pending = client.submit(credential, body.clone()).await?;
            let (offset, attributes) = complete(client, credential, write, &body, pending).await?;
            first.get_or_insert(offset);
            last = Some(attributes);
        }
    }
    first.zip(last).ok_or(ClientError::Invalid("nothing to append"))
}

/// The longest run that is written inline.
fn inline_limit(client: &Client) -> usize {
    let most = usize::try_from(client.parameters().inline_bytes_max).unwrap_or(usize::MAX);
    client.options().inline_limit.min(most)
}

/// Writes that are uploaded together.
fn waves(writes: Vec<PlannedWrite>) -> Vec<Vec<PlannedWrite>> {
    let mut waves: Vec<Vec<PlannedWrite>> = Vec::new();
    let (mut bytes, mut blocks) = (0_usize, 0_usize);
    for write in writes {
        bytes = bytes.saturating_add(write.block_bytes());
        blocks = blocks.saturating_add(write.blocks());
        let full = bytes > PUT_BLOCKS_BYTES_MAX || blocks > BLOCKS_PER_RECEIPT_MAX;
        match waves.last_mut().filter(|wave| !full && wave.len() < WAVE_WRITES_MAX) {
            Some(wave) => wave.push(write),
            None => {
                (bytes, blocks) = (write.block_bytes(), write.blocks());
                waves.push(vec![write]);
            }
        }
    }
    waves
}

/// Stores the blocks of a wave and makes its operations.
async fn upload(
    client: &Client,
    write: &FileWrite,
    wave: Vec<PlannedWrite>,
) -> Result<Vec<OperationBody>, ClientError> {
    let blocks: Vec<Vec<u8>> = wave
        .iter()
        .flat_map(|write| &write.pieces)
        .filter_map(|piece| match piece {
            Planned::Block(bytes) => Some(bytes.clone()),
            Planned::Inline(_) => None,
        })
        .collect();
    let (evidence, descriptors) = match blocks.is_empty() {
        true => (BlockEvidence::default(), Vec::new()),
        false => client.put_blocks(blocks).await?,
    };
    let ids: Vec<Hash> = descriptors.iter().map(BlockDescriptor::id).collect();
    let mut next_block = 0_usize;
    wave.into_iter()
        .map(|planned| operation(client, write, planned, (&evidence, &ids), &mut next_block))
        .collect()
}

/// The operation of a planned write; its blocks begin at number `next_block` of the evidence.
fn operation(
    client: &Client,
    write: &FileWrite,
    planned: PlannedWrite,
    (evidence, ids): (&BlockEvidence, &[Hash]),
    next_block: &mut usize,
) -> Result<OperationBody, ClientError> {
    let bounds = |_| ClientError::Invalid("a write beyond the bounds of an operation");
    let mut pieces: Bounded<Piece, PIECES_PER_WRITE_MAX> = Bounded::new();
    let mut grants = Bounded::new();
    for piece in planned.pieces {
        let piece = match piece {
            Planned::Inline(bytes) => Piece::Inline(bytes.try_into().map_err(bounds)?),
            Planned::Block(bytes) => {
                let missing = ClientError::Invalid("a block without evidence");
                let id = ids.get(*next_block).copied().ok_or_else(|| missing.clone())?;
                grants.push(evidence.blocks.get(*next_block).cloned().ok_or(missing)?).map_err(bounds)?;
                *next_block = next_block.saturating_add(1);
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                client.remember(id, &Arc::from(bytes));
                Piece::Block { id, offset: 0, length }
            }
        };
        pieces.push(piece).map_err(bounds)?;
    }
    let receipts = if grants.is_empty() { Bounded::new() } else { evidence.receipts.clone() };
    Ok(OperationBody::Write {
        ino: write.ino,
        at: WriteAt::Offset(planned.offset),
        pieces,
        evidence: BlockEvidence { blocks: grants, receipts },
        authority: write.authority,
        token: write.token,
        entropy: entropy()?,
    })
}

/// Waits for queued writes and repeats those that were not applied. Notes the latest attributes.
async fn settle(
    client: &Client,
    credential: &Credential,
    write: &FileWrite,
    queued: Vec<(OperationBody, Pending)>,
    latest: &mut Option<Attributes>,
) -> Result<(), ClientError> {
    for (body, pending) in queued {
        let (_, attributes) = complete(client, credential, write, &body, pending).await?;
        if latest.as_ref().is_none_or(|known| known.version <= attributes.version) {
            *latest = Some(attributes);
        }
    }
    Ok(())
}

/// Waits for one write; folds and repeats as long as the state asks for it.
async fn complete(
    client: &Client,
    credential: &Credential,
    write: &FileWrite,
    body: &OperationBody,
    pending: Pending,
) -> Result<(u64, Attributes), ClientError> {
    let mut reply = pending.await?;
    for _ in 0..REPEATS_MAX {
        match reply {
            Reply::Written { offset, attributes } => return Ok((offset, attributes)),
            Reply::NeedsFold { index, .. } => fold(client, credential, write, index).await?,
            Reply::Continue => {}
            _ => return Err(ClientError::Invalid("a write was answered with something else")),
        }
        reply = client.execute(credential, body.clone()).await?;
    }
    Err(ClientError::Deadline { sent: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_keep_to_the_bounds_of_an_upload() {
        let block = |bytes: usize| PlannedWrite { offset: 0, pieces: vec![Planned::Block(vec![0; bytes])] };
        let sizes = [5 << 20, 3 << 20, 1, 8 << 20, 1, 1];
        let waves = waves(sizes.into_iter().map(block).collect());
        let bytes = |wave: &Vec<PlannedWrite>| wave.iter().map(PlannedWrite::block_bytes).sum::<usize>();
        assert_eq!(waves.iter().map(bytes).collect::<Vec<_>>(), [8 << 20, 1, 8 << 20, 2]);
        let many = (0..200).map(|_| block(1)).collect();
        assert!(super::waves(many).iter().all(|wave| wave.len() <= BLOCKS_PER_RECEIPT_MAX));
    }
}
