//! Folding a content row that has too many segments or inline bytes (rule S4).
//!
//! Invariant: the folded row shows the same bytes at the same places, holes included as far as they fit; it
//! replaces exactly the row that was read, or nothing.

use std::ops::Range;

use quorate_crypto::Bounded;
use quorate_metadata::rows::value_hash;
use quorate_metadata::{Answer, Errno, keys};
use quorate_protocol::file::{Segment, SegmentSource};
use quorate_protocol::limits::SEGMENTS_PER_ROW_MAX;
use quorate_protocol::operation::Authority;
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, OperationBody};

use super::FileWrite;
use super::layout::{fill, row_bytes};
use super::reading::fetch;
use super::writing::entropy;
use crate::client::{Client, Freshness};
use crate::error::{ClientError, EIO};

/// How often a fold that met another change is repeated.
const ATTEMPTS_MAX: u32 = 16;
/// Segments that a folded row has at most: as many again can be spliced in before the next fold.
const FOLDED_SEGMENTS_MAX: usize = SEGMENTS_PER_ROW_MAX / 2;

/// Folds row `index`, unless somebody else changed it so that it needs none.
pub(super) async fn fold(
    client: &Client,
    credential: &Credential,
    write: &FileWrite,
    index: u64,
) -> Result<(), ClientError> {
    for _ in 0..ATTEMPTS_MAX {
        let Some(body) = prepare(client, credential, write, index).await? else { return Ok(()) };
        match client.execute_to_end(credential, body).await {
            Ok(_) => return Ok(()),
            Err(ClientError::Errno(errno)) if errno == Errno::ESTALE.number() => {}
            Err(error) => return Err(error),
        }
    }
    Err(ClientError::Errno(Errno::EAGAIN.number()))
}

/// Reads the row, merges, uploads; `None` when there is nothing to merge any more.
async fn prepare(
    client: &Client,
    credential: &Credential,
    write: &FileWrite,
    index: u64,
) -> Result<Option<OperationBody>, ClientError> {
    let session = matches!(write.authority, Authority::Grant).then(|| client.session());
    let query = Query::Content { ino: write.ino, first: index, count: 1, session };
    let verdict = client.read_rows(credential, query, Freshness::Linearizable).await?;
    let content = match verdict.answer.map_err(ClientError::Errno)? {
        Answer::Content(content) => content,
        _ => return Err(ClientError::Errno(EIO)),
    };
    let key = keys::content(write.ino, index);
    let row = verdict.rows.row(&key).map_err(|_| ClientError::Errno(EIO))?;
    let Some(row) = row.filter(|_| !content.rows.is_empty()) else { return Ok(None) };
    let segments = content.rows.into_iter().find(|(found, _)| *found == index).map(|(_, segments)| segments);
    let base = index.saturating_mul(row_bytes(content.attributes.block_log2));
    let size = u32::try_from(content.attributes.size.saturating_sub(base)).unwrap_or(u32::MAX);
    let Some(merge) = plan(&segments.unwrap_or_default(), size) else { return Ok(None) };
    let mut bytes = vec![0; merge.bytes()];
    for (run, target) in merge.targets() {
        let buffer = bytes.get_mut(target).ok_or(ClientError::Errno(EIO))?;
        let offset = base.saturating_add(u64::from(run.start));
        let rows = [(index, merge.old.clone())];
        let parts = fill(buffer, offset, content.attributes.block_log2, &rows);
        fetch(client, credential, (write.ino, write.authority), buffer, &parts).await?;
    }
    let (evidence, descriptors) = client.put_blocks(vec![bytes]).await?;
    let id = descriptors.first().ok_or(ClientError::Errno(EIO))?.id();
    let segments = Bounded::try_from(merge.folded(id)).map_err(|_| ClientError::Errno(EIO))?;
    Ok(Some(OperationBody::Fold {
        ino: write.ino,
        index,
        expected: value_hash(&row),
        segments,
        evidence,
        authority: write.authority,
        entropy: entropy()?,
    }))
}

/// What of a row is kept and what goes, run by run, into one new block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Merge {
    old: Vec<Segment>,
    kept: Vec<Segment>,
    runs: Vec<Range<u32>>,
}

impl Merge {
    fn bytes(&self) -> usize {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.len()))
    }

    /// The runs, each with its place in the new block.
    fn targets(&self) -> impl Iterator<Item = (&Range<u32>, Range<usize>)> {
        self.runs.iter().scan(0_usize, |next, run| {
            let start = *next;
            *next = start.saturating_add(run.len());
            Some((run, start..*next))
        })
    }

    /// The row with the runs as parts of the new block.
    fn folded(&self, id: quorate_crypto::Hash) -> Vec<Segment> {
        let parts = self.targets().map(|(run, target)| Segment {
            start: run.start,
            length: run.end.saturating_sub(run.start),
            // A row, and with it the new block, has at most 2^20 bytes.
            source: SegmentSource::Block { id, offset: u32::try_from(target.start).unwrap_or(u32::MAX) },
        });
        let mut segments: Vec<Segment> = parts.chain(self.kept.iter().cloned()).collect();
        segments.sort_by_key(|segment| segment.start);
        segments
    }
}

/// Chooses what to merge. Large blocks in front of what was appended stay as they are, so that a log that
/// grows in small pieces is rewritten a logarithmic number of times; when that leaves too much, everything
/// is merged. `size` is the file's size within the row. `None` when nothing would be gained.
fn plan(segments: &[Segment], size: u32) -> Option<Merge> {
    let visible: Vec<Segment> = segments.iter().filter(|segment| segment.start < size).cloned().collect();
    let ends = |segment: &Segment| segment.start.saturating_add(segment.length).min(size);
    let is_inline = |segment: &Segment| matches!(segment.source, SegmentSource::Inline(_));
    if visible.is_empty() || (visible.len() == 1 && !visible.iter().any(is_inline)) {
        return None;
    }
    let kept = visible.len().saturating_sub(appended(&visible));
    let (front, back) = visible.split_at(kept);
    let uncut = front.iter().all(|segment| ends(segment) == segment.start.saturating_add(segment.length));
    let runs = runs(back.iter().map(|segment| segment.start..ends(segment)));
    let total = front.len().saturating_add(runs.len());
    if uncut && !back.is_empty() && !front.iter().any(is_inline) && total <= FOLDED_SEGMENTS_MAX {
        return Some(Merge { old: segments.to_vec(), kept: front.to_vec(), runs });
    }
    let mut runs = self::runs(visible.iter().map(|segment| segment.start..ends(segment)));
    if runs.len() > FOLDED_SEGMENTS_MAX {
        // Holes become zeros.
        let start = runs.first().map_or(0, |run| run.start);
        let end = runs.last().map_or(0, |run| run.end);
        runs.clear();
        runs.push(start..end);
    }
    Some(Merge { old: segments.to_vec(), kept: Vec::new(), runs })
}

/// How many of the last segments belong together: each block is taken in that is no longer than all behind.
fn appended(segments: &[Segment]) -> usize {
    let mut behind = 0_u32;
    let mut count = 0_usize;
    for segment in segments.iter().rev() {
        let inline = matches!(segment.source, SegmentSource::Inline(_));
        if !inline && segment.length > behind {
            break;
        }
        behind = behind.saturating_add(segment.length);
        count = count.saturating_add(1);
    }
    count
}

/// Ranges without gaps between them, joined.
fn runs(ranges: impl Iterator<Item = Range<u32>>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for range in ranges {
        match runs.last_mut().filter(|run| run.end == range.start) {
            Some(run) => run.end = range.end,
            None => runs.push(range),
        }
    }
    runs
}

#[cfg(test)]
mod tests;
