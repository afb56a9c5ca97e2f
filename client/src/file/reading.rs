//! Reading a range of a file.
//!
//! Invariant: each byte returned is zero because a certified row shows a hole there, or comes from a
//! certified row, or from a block that such a row names.

use quorate_crypto::Hash;
use quorate_metadata::{Answer, ContentRows};
use quorate_protocol::Credential;
use quorate_protocol::limits::CONTENT_ROWS_PER_READ_MAX;
use quorate_protocol::operation::Authority;
use quorate_protocol::query::Query;

use super::layout::{BlockPart, fill, place, row_bytes};
use super::{FileData, FileRead, READ_BYTES_MAX};
use crate::client::{Client, Freshness};
use crate::error::{ClientError, EIO};
use crate::options::BLOCK_FETCHES_MAX;
use crate::race::Race;

/// How often rows are read again when a block that they name is gone: the file was changed meanwhile.
const ATTEMPTS_MAX: u32 = 4;

/// Reads; see [`Client::read_range`].
pub(crate) async fn read_range(
    client: &Client,
    credential: &Credential,
    read: FileRead,
) -> Result<FileData, ClientError> {
    let wanted = read.length.min(READ_BYTES_MAX);
    let mut block_log2 = client.parameters().block_log2;
    let mut step = FileRead { length: wanted, ..read };
    let mut data = next(client, credential, step, &mut block_log2).await?;
    // Files of tiny rows need several questions; a short answer means the end of the file.
    loop {
        let done = data.bytes.len();
        let at = read.offset.saturating_add(done as u64);
        if done >= wanted || at >= data.attributes.size {
            return Ok(data);
        }
        step =
            FileRead { offset: at, length: wanted.saturating_sub(done), freshness: Freshness::Floor, ..read };
        let more = next(client, credential, step, &mut block_log2).await?;
        if more.bytes.is_empty() {
            return Ok(data);
        }
        data.bytes.extend_from_slice(&more.bytes);
        data.attributes = more.attributes;
    }
}

/// As many bytes as one question for rows gives.
async fn next(
    client: &Client,
    credential: &Credential,
    read: FileRead,
    block_log2: &mut u8,
) -> Result<FileData, ClientError> {
    let mut freshness = read.freshness;
    let mut last = ClientError::Errno(EIO);
    for _ in 0..ATTEMPTS_MAX {
        let content = rows(client, credential, FileRead { freshness, ..read }, *block_log2).await?;
        if content.attributes.block_log2 != *block_log2 {
            *block_log2 = content.attributes.block_log2;
            continue;
        }
        match assemble(client, credential, read, &content).await {
            Ok(bytes) => return Ok(FileData { bytes, attributes: content.attributes }),
            Err(error @ (ClientError::Refused { .. } | ClientError::Errno(_))) => last = error,
            Err(error) => return Err(error),
        }
        freshness = Freshness::Linearizable;
    }
    tracing::warn!(ino = read.ino, error = %last, "a block of a file cannot be had");
    Err(ClientError::Errno(EIO))
}

/// The rows that the range touches, as many as one question may name.
async fn rows(
    client: &Client,
    credential: &Credential,
    read: FileRead,
    block_log2: u8,
) -> Result<ContentRows, ClientError> {
    let (first, count) = rows_of(read.offset, read.length, block_log2);
    let session = matches!(read.authority, Authority::Grant).then(|| client.session());
    let query = Query::Content { ino: read.ino, first, count, session };
    match client.read(credential, query, read.freshness).await? {
        Answer::Content(content) => Ok(content),
        // What a query answers is decided by the code that evaluates it here.
        _ => Err(ClientError::Errno(EIO)),
    }
}

/// First row, and number of rows, at least 1.
fn rows_of(offset: u64, length: usize, block_log2: u8) -> (u64, u16) {
    let row = |position: u64| position.checked_div(row_bytes(block_log2)).unwrap_or_default();
    let last = offset.saturating_add(length.saturating_sub(1) as u64);
    let count = row(last).saturating_sub(row(offset)).saturating_add(1);
    let most = u16::try_from(CONTENT_ROWS_PER_READ_MAX).unwrap_or(u16::MAX);
    (row(offset), u16::try_from(count).unwrap_or(most).min(most))
}

/// The bytes of the range, as far as these rows reach.
async fn assemble(
    client: &Client,
    credential: &Credential,
    read: FileRead,
    content: &ContentRows,
) -> Result<Vec<u8>, ClientError> {
    let block_log2 = content.attributes.block_log2;
    let (first, count) = rows_of(read.offset, read.length, block_log2);
    let covered = first.saturating_add(u64::from(count)).saturating_mul(row_bytes(block_log2));
    let end = read.offset.saturating_add(read.length as u64).min(content.attributes.size).min(covered);
    let length = usize::try_from(end.saturating_sub(read.offset)).unwrap_or_default().min(read.length);
    let mut buffer = vec![0; length];
    let parts = fill(&mut buffer, read.offset, block_log2, &content.rows);
    fetch(client, credential, (read.ino, read.authority), &mut buffer, &parts).await?;
    Ok(buffer)
}

/// Fetches the blocks and puts their parts in place, a bounded number at once.
pub(super) async fn fetch(
    client: &Client,
    credential: &Credential,
    (ino, authority): (quorate_protocol::Ino, Authority),
    buffer: &mut [u8],
    parts: &[BlockPart],
) -> Result<(), ClientError> {
    let mut race: Race<'_, usize, _> = Race::new();
    let mut waiting = parts.iter().enumerate();
    loop {
        while race.len() < BLOCK_FETCHES_MAX {
            let Some((position, part)) = waiting.next() else { break };
            let (row, id): (u64, Hash) = (part.row, part.id);
            race.push(position, client.get_block(credential, ino, row, id, authority));
        }
        let Some((position, block)) = race.next().await else { return Ok(()) };
        let block = block?;
        let placed = parts.get(position).is_some_and(|part| place(buffer, part, &block));
        if !placed {
            // Replicas checked at the write that the segment lies within its block.
            return Err(ClientError::Errno(EIO));
        }
    }
}
