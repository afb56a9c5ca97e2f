//! Writing into files: splicing pieces into content rows, and folding rows that have too many segments.
//!
//! Invariant: no byte outside a write's range changes; a row has at most 32 segments and at most
//! `inline_bytes_max` inline bytes, or nothing is applied and the answer is `NeedsFold` (rule S4).

use std::collections::BTreeMap;

use quorate_crypto::{Bounded, Hash};
use quorate_protocol::file::{Entropy, FileKind, Segment, SegmentSource};
use quorate_protocol::limits::SEGMENTS_PER_ROW_MAX;
use quorate_protocol::operation::{Piece, WriteAt};
use quorate_protocol::{Ino, OperationBody, Reply};

use crate::attributes::{self, FILE_SIZE_MAX};
use crate::blocks::{self, Admitted};
use crate::context::Context;
use crate::errno::Errno;
use crate::grants;
use crate::inodes;
use crate::keys;
use crate::reclaim::{self, Progress};
use crate::rows::{self, Content, Inode, value_hash};
use crate::splice::{self, References};
use crate::view::{Error, Key, View};

/// Content rows that one write may touch, holes included; more is EINVAL.
pub const WRITE_ROWS_MAX: u64 = 64;
/// Segments that one write may put into one row; more is EINVAL. A write splits what is there at its two ends
/// at most, so after a fold to one segment it always fits.
pub const WRITE_SEGMENTS_PER_ROW_MAX: usize = SEGMENTS_PER_ROW_MAX - 2;

/// A write, placed.
struct Range {
    offset: u64,
    end: u64,
}

/// A row before and after.
struct Rewritten {
    key: Key,
    old: Vec<Segment>,
    new: Vec<Segment>,
}

/// Applies `Write`.
///
/// EINVAL for a write that no fold could make room for: too many rows, or in one row too many segments or
/// inline bytes of its own.
pub(crate) fn write(
    view: &mut dyn View,
    context: &Context<'_>,
    body: &OperationBody,
) -> Result<Reply, Error> {
    let OperationBody::Write { ino, at, pieces, evidence, authority, token, entropy } = body else {
        return Err(Errno::EOPNOTSUPP.into());
    };
    let mut inode = load_regular(view, *ino)?;
    attributes::check_token(*token)?;
    grants::authorize_write(view, context, *ino, &inode, *authority)?;
    let range = place(&inode, *at, pieces)?;
    if range.end == range.offset {
        return Ok(Reply::Written { offset: range.offset, attributes: inode.attributes(*ino) });
    }
    let admitted = blocks::admit(context, evidence)?;
    let inserted = lay_out(context, &inode, range.offset, pieces, &admitted)?;
    let rows = inode.rows_of(range.end);
    if reclaim::expose(view, context.moment, *ino, &mut inode, rows)? == Progress::More {
        return Ok(Reply::Continue);
    }
    let rewritten = match rewrite(view, context, *ino, &inode, &range, inserted)? {
        Ok(rewritten) => rewritten,
        Err(index) => return Ok(Reply::NeedsFold { ino: *ino, index }),
    };
    store(view, context, &mut inode, entropy, rewritten, &admitted)?;
    inode.size = inode.size.max(range.end);
    attributes::changed(view, context, *ino, &mut inode)?;
    inodes::store(view, *ino, &inode);
    Ok(Reply::Written { offset: range.offset, attributes: inode.attributes(*ino) })
}

fn load_regular(view: &dyn View, ino: Ino) -> Result<Inode, Error> {
    let inode = inodes::load(view, ino)?;
    match inode.kind {
        FileKind::Regular => Ok(inode),
        FileKind::Directory => Err(Errno::EISDIR.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn length_of(piece: &Piece) -> u64 {
    match piece {
        Piece::Inline(bytes) => bytes.len() as u64,
        Piece::Block { length, .. } => u64::from(*length),
        Piece::Zero(length) => *length,
    }
}

/// Where a write lands: EFBIG beyond the largest file, EINVAL for too many rows.
fn place(inode: &Inode, at: WriteAt, pieces: &[Piece]) -> Result<Range, Errno> {
    let offset = match at {
        WriteAt::Offset(offset) => offset,
        WriteAt::Append => inode.size,
    };
    let end = pieces
        .iter()
        .try_fold(offset, |end, piece| end.checked_add(length_of(piece)))
        .filter(|end| *end <= FILE_SIZE_MAX)
        .ok_or(Errno::EFBIG)?;
    let rows = inode.rows_of(end).saturating_sub(inode.row_of(offset));
    if rows > WRITE_ROWS_MAX { Err(Errno::EINVAL) } else { Ok(Range { offset, end }) }
}

/// The segments that a write puts into each row.
fn lay_out(
    context: &Context<'_>,
    inode: &Inode,
    offset: u64,
    pieces: &[Piece],
    admitted: &Admitted,
) -> Result<BTreeMap<u64, Vec<Segment>>, Error> {
    let mut rows: BTreeMap<u64, Vec<Segment>> = BTreeMap::new();
    let mut position = offset;
    for piece in pieces {
        let length = length_of(piece);
        if let Piece::Block { id, offset, length } = piece {
            check_part(admitted, id, *offset, *length)?;
        }
        if !matches!(piece, Piece::Zero(_)) {
            lay_out_piece(&mut rows, inode, position, piece)?;
        }
        position = position.saturating_add(length);
    }
    let limit = u64::from(context.parameters.inline_bytes_max);
    for segments in rows.values_mut() {
        *segments = splice::join(std::mem::take(segments))?;
        if segments.len() > WRITE_SEGMENTS_PER_ROW_MAX || splice::inline(segments) > limit {
            return Err(Errno::EINVAL.into());
        }
    }
    Ok(rows)
}

/// A part of a block needs evidence (EBADMSG) and must lie inside the block (EINVAL).
fn check_part(admitted: &Admitted, id: &Hash, offset: u32, length: u32) -> Result<(), Errno> {
    let descriptor = admitted.get(id).ok_or(Errno::EBADMSG)?;
    let inside = offset.checked_add(length).is_some_and(|end| end <= descriptor.length);
    if inside { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Splits a piece at the ends of rows.
fn lay_out_piece(
    rows: &mut BTreeMap<u64, Vec<Segment>>,
    inode: &Inode,
    position: u64,
    piece: &Piece,
) -> Result<(), Error> {
    let damaged = Error::Corrupt("a row is too long");
    let total = length_of(piece);
    let mut done = 0_u64;
    while done < total {
        let at = position.saturating_add(done);
        let start = inode.offset_in_row(at);
        let room = inode.block_bytes().saturating_sub(start);
        let step = room.min(total.saturating_sub(done));
        let narrow = |number: u64| u32::try_from(number).map_err(|_| damaged);
        let (skipped, length) = (narrow(done)?, narrow(step)?);
        let source = match piece {
            Piece::Inline(bytes) => SegmentSource::Inline(splice::slice(bytes, skipped, length)?),
            Piece::Block { id, offset, .. } => {
                SegmentSource::Block { id: *id, offset: offset.checked_add(skipped).ok_or(damaged)? }
            }
            Piece::Zero(_) => return Ok(()),
        };
        rows.entry(inode.row_of(at)).or_default().push(Segment { start: narrow(start)?, length, source });
        done = done.saturating_add(step);
    }
    Ok(())
}

/// The touched rows before and after, or the index of the first one that must be folded before.
fn rewrite(
    view: &dyn View,
    context: &Context<'_>,
    ino: Ino,
    inode: &Inode,
    range: &Range,
    mut inserted: BTreeMap<u64, Vec<Segment>>,
) -> Result<Result<Vec<Rewritten>, u64>, Error> {
    let first = inode.row_of(range.offset);
    let limit = u64::from(context.parameters.inline_bytes_max);
    let mut rewritten = Vec::new();
    for index in first..inode.rows_of(range.end) {
        let key = keys::content(ino, index);
        let old = rows::get::<Content>(view, &key)?.map_or_else(Vec::new, |row| row.segments.into_inner());
        let from = if index == first { inode.offset_in_row(range.offset) } else { 0 };
        let rest = range.end.saturating_sub(index.saturating_mul(inode.block_bytes()));
        let to = rest.min(inode.block_bytes());
        let narrow = |number: u64| u32::try_from(number).map_err(|_| Error::Corrupt("a row is too long"));
        let new = inserted.remove(&index).unwrap_or_default();
        let new = splice::splice(&old, narrow(from)?, narrow(to)?, new)?;
        if new.len() > SEGMENTS_PER_ROW_MAX || splice::inline(&new) > limit {
            return Ok(Err(index));
        }
        rewritten.push(Rewritten { key, old, new });
    }
    Ok(Ok(rewritten))
}

/// Writes rows, the blocks' counts, and what the inode has allocated. The caller stores the inode.
fn store(
    view: &mut dyn View,
    context: &Context<'_>,
    inode: &mut Inode,
    entropy: &Entropy,
    rewritten: Vec<Rewritten>,
    admitted: &Admitted,
) -> Result<(), Error> {
    let mut references = References::default();
    let (mut removed, mut added) = (0_u64, 0_u64);
    for row in rewritten {
        references.remove(&row.old);
        references.add(&row.new);
        removed = removed.saturating_add(splice::covered(&row.old));
        added = added.saturating_add(splice::covered(&row.new));
        if row.old != row.new {
            put(view, row.key, entropy, row.new)?;
        }
    }
    inodes::reallocate(view, inode, removed, added)?;
    blocks::adjust(view, context.moment, &references, admitted)
}

/// Writes a content row, or removes it when nothing is covered.
pub(crate) fn put(
    view: &mut dyn View,
    key: Key,
    entropy: &Entropy,
    segments: Vec<Segment>,
) -> Result<(), Error> {
    if segments.is_empty() {
        view.delete(key);
        return Ok(());
    }
    let segments = Bounded::try_from(segments).map_err(|_| Error::Corrupt("a row has too many segments"))?;
    rows::put(view, key, &Content { entropy: *entropy, segments });
    Ok(())
}

/// Applies `Fold`: replaces a row if its value is still the one that was folded, else ESTALE.
///
/// That the bytes are the same cannot be checked, so a fold counts as a change of content. It may keep only
/// what the row shows, in place: a block's hidden parts do not come back without evidence (EBADMSG).
pub(crate) fn fold(view: &mut dyn View, context: &Context<'_>, body: &OperationBody) -> Result<Reply, Error> {
    let OperationBody::Fold { ino, index, expected, segments, evidence, authority, entropy } = body else {
        return Err(Errno::EOPNOTSUPP.into());
    };
    let mut inode = load_regular(view, *ino)?;
    grants::authorize_write(view, context, *ino, &inode, *authority)?;
    if *index >= inode.rows_of(inode.size) {
        return Err(Errno::ESTALE.into());
    }
    let key = keys::content(*ino, *index);
    let value = view.get(&key)?.filter(|value| value_hash(value) == *expected).ok_or(Errno::ESTALE)?;
    let old = <Content as rows::Row>::from_value(&value)?.segments.into_inner();
    check_folded(context, &inode, *index, segments)?;
    let admitted = blocks::admit(context, evidence)?;
    for segment in segments {
        check_folded_source(&old, segment, &admitted)?;
    }
    let new = splice::join(segments.as_slice().to_vec())?;
    store(view, context, &mut inode, entropy, vec![Rewritten { key, old, new }], &admitted)?;
    attributes::changed(view, context, *ino, &mut inode)?;
    inodes::store(view, *ino, &inode);
    Ok(Reply::Inode { attributes: inode.attributes(*ino), created: false })
}

/// A folded row is well formed, not empty, within the row and the file, and within the inline bound.
fn check_folded(context: &Context<'_>, inode: &Inode, index: u64, segments: &[Segment]) -> Result<(), Error> {
    let last = segments.last().ok_or(Errno::EINVAL)?;
    let start = index.saturating_mul(inode.block_bytes());
    let room = inode.size.saturating_sub(start).min(inode.block_bytes());
    let limit = u64::from(context.parameters.inline_bytes_max);
    let fits = rows::well_formed(segments)
        && u64::from(splice::end(last).map_err(|_| Errno::EINVAL)?) <= room
        && splice::inline(segments) <= limit;
    if fits { Ok(()) } else { Err(Errno::EINVAL.into()) }
}

fn check_folded_source(old: &[Segment], segment: &Segment, admitted: &Admitted) -> Result<(), Error> {
    let SegmentSource::Block { id, offset } = &segment.source else { return Ok(()) };
    if check_part(admitted, id, *offset, segment.length).is_ok() || shows(old, segment)? {
        return Ok(());
    }
    Err(Errno::EBADMSG.into())
}

/// Whether a row shows these very bytes of this block at this place already.
fn shows(old: &[Segment], wanted: &Segment) -> Result<bool, Error> {
    let stop = splice::end(wanted)?;
    let mut parts = Vec::new();
    for segment in old {
        parts.extend(splice::part(segment, wanted.start, stop)?);
    }
    let joined = splice::join(parts)?;
    Ok(matches!(joined.as_slice(), [only] if only == wanted))
}
