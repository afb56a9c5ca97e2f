//! Writing ranges of a file: plan, upload, write, fold and repeat.
//!
//! Invariant: an operation that refers to blocks carries the evidence of a quorum for each of them; an
//! operation that was not applied (`NeedsFold`, `Continue`) is repeated until it is or the deadline passes.

use quorate_crypto::{Bounded, Hash};
use quorate_metadata::Errno;
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
/// How often the blocks of one write may be uploaded again.
const UPLOADS_MAX: u32 = 4;
/// Writes of one wave: uploaded together, then queued together.
const WAVE_WRITES_MAX: usize = 64;

/// Sixteen random bytes.
pub(super) fn entropy() -> Result<Entropy, ClientError> {
    let mut entropy = Entropy::default();
    getrandom::fill(&mut entropy).map_err(|error| ClientError::Local(format!("no randomness: {error}")))?;
    Ok(entropy)
}

/// A write that is queued, with what it takes to make it again.
struct Queued {
    planned: PlannedWrite,
    body: OperationBody,
    pending: Pending,
}

/// Who writes what how.
struct Writer<'a> {
    client: &'a Client,
    credential: &'a Credential,
    write: &'a FileWrite,
    append: bool,
}

/// Writes; see [`Client::write_ranges`]. While one wave is being committed, the next one is uploaded.
pub(crate) async fn write_ranges(
    client: &Client,
    credential: &Credential,
    write: &FileWrite,
    ranges: Vec<DirtyRange>,
) -> Result<Option<Attributes>, ClientError> {
    let writer = Writer { client, credential, write, append: false };
    let mut attributes = None;
    let mut queued: Vec<Queued> = Vec::new();
    for wave in waves(plan(ranges, write.block_log2, inline_limit(client))) {
        let next = writer.queue(wave).await?;
        writer.settle(std::mem::replace(&mut queued, next), &mut attributes).await?;
    }
    writer.settle(queued, &mut attributes).await?;
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
    let writer = Writer { client, credential, write, append: true };
    let mut planned = plan(vec![DirtyRange { offset: 0, bytes }], write.block_log2, inline_limit(client));
    if planned.is_empty() {
        planned.push(PlannedWrite::default());
    }
    let mut first = None;
    let mut last = None;
    for one in planned {
        for queued in writer.queue(vec![one]).await? {
            let (offset, attributes) = writer.complete(queued).await?;
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

impl Writer<'_> {
    /// Uploads a wave and queues its operations.
    async fn queue(&self, wave: Vec<PlannedWrite>) -> Result<Vec<Queued>, ClientError> {
        let bodies = self.upload(&wave).await?;
        let mut queued = Vec::with_capacity(wave.len());
        for (planned, body) in wave.into_iter().zip(bodies) {
            let pending = self.client.submit(self.credential, body.clone()).await?;
            queued.push(Queued { planned, body, pending });
        }
        Ok(queued)
    }

    /// Stores the blocks of a wave and makes its operations.
    async fn upload(&self, wave: &[PlannedWrite]) -> Result<Vec<OperationBody>, ClientError> {
        let pieces = wave.iter().flat_map(|write| &write.pieces);
        let blocks = pieces.filter_map(|piece| match piece {
            Planned::Block(bytes) => Some(bytes.clone()),
            Planned::Inline(_) => None,
        });
        let blocks: Vec<Vec<u8>> = blocks.collect();
        let (evidence, descriptors) = match blocks.is_empty() {
            true => (BlockEvidence::default(), Vec::new()),
            false => self.client.put_blocks(blocks).await?,
        };
        let ids: Vec<Hash> = descriptors.iter().map(BlockDescriptor::id).collect();
        let mut next_block = 0_usize;
        wave.iter().map(|planned| self.operation(planned, (&evidence, &ids), &mut next_block)).collect()
    }

    /// The operation of a planned write; its blocks begin at number `next_block` of the evidence.
    fn operation(
        &self,
        planned: &PlannedWrite,
        (evidence, ids): (&BlockEvidence, &[Hash]),
        next_block: &mut usize,
    ) -> Result<OperationBody, ClientError> {
        let bounds = |_| ClientError::Invalid("a write beyond the bounds of an operation");
        let mut pieces: Bounded<Piece, PIECES_PER_WRITE_MAX> = Bounded::new();
        let mut grants = Bounded::new();
        for piece in &planned.pieces {
            let piece = match piece {
                Planned::Inline(bytes) => Piece::Inline(bytes.as_slice().try_into().map_err(bounds)?),
                Planned::Block(bytes) => {
                    let missing = ClientError::Invalid("a block without evidence");
                    let id = ids.get(*next_block).copied().ok_or_else(|| missing.clone())?;
                    grants.push(evidence.blocks.get(*next_block).cloned().ok_or(missing)?).map_err(bounds)?;
                    *next_block = next_block.saturating_add(1);
                    self.client.remember(id, bytes);
                    Piece::Block { id, offset: 0, length: u32::try_from(bytes.len()).unwrap_or(u32::MAX) }
                }
            };
            pieces.push(piece).map_err(bounds)?;
        }
        let receipts = if grants.is_empty() { Bounded::new() } else { evidence.receipts.clone() };
        Ok(OperationBody::Write {
            ino: self.write.ino,
            at: if self.append { WriteAt::Append } else { WriteAt::Offset(planned.offset) },
            pieces,
            evidence: BlockEvidence { blocks: grants, receipts },
            authority: self.write.authority,
            token: self.write.token,
            entropy: entropy()?,
        })
    }

    /// Waits for queued writes and repeats those that were not applied. Notes the latest attributes.
    async fn settle(&self, queued: Vec<Queued>, latest: &mut Option<Attributes>) -> Result<(), ClientError> {
        for one in queued {
            let (_, attributes) = self.complete(one).await?;
            if latest.as_ref().is_none_or(|known| known.version <= attributes.version) {
                *latest = Some(attributes);
            }
        }
        Ok(())
    }

    /// Waits for one write; folds, uploads anew and repeats as long as the state asks for it.
    async fn complete(&self, queued: Queued) -> Result<(u64, Attributes), ClientError> {
        let Queued { planned, mut body, pending } = queued;
        let mut result = pending.await;
        let mut uploads = 0_u32;
        for _ in 0..REPEATS_MAX {
            match result {
                Ok(Reply::Written { offset, attributes }) => return Ok((offset, attributes)),
                Ok(Reply::NeedsFold { index, .. }) => {
                    fold(self.client, self.credential, self.write, index).await?;
                }
                Ok(Reply::Continue) => {}
                Ok(_) => return Err(ClientError::Invalid("a write was answered with something else")),
                // The replicas' promises were over, for instance because batch time leapt after an outage.
                Err(ClientError::Errno(errno))
                    if errno == Errno::EBADMSG.number() && planned.blocks() > 0 && uploads < UPLOADS_MAX =>
                {
                    uploads = uploads.saturating_add(1);
                    let again = self.upload(std::slice::from_ref(&planned)).await?;
                    body = again.into_iter().next().ok_or(ClientError::Invalid("no operation"))?;
                }
                Err(error) => return Err(error),
            }
            result = self.client.execute(self.credential, body.clone()).await;
        }
        Err(ClientError::Deadline { sent: false })
    }
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
