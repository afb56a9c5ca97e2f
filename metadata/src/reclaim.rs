//! Removing rows that nobody can see any more, a bounded amount at a time (rule S4).
//!
//! Invariant: an inode is in the reclaim queue exactly when it is marked as removed or has `reclaim_from`;
//! rows at or above `reclaim_from` are invisible, and no operation makes one visible before it is gone.
//! An inode's own row is the last to go.

use quorate_protocol::genesis::Parameters;
use quorate_protocol::{BatchTime, Ino};

use crate::blocks::{self, Admitted};
use crate::context::Moment;
use crate::inodes;
use crate::keys::{self, KIND_CONTENT, KIND_INODE, TABLE_RECLAIM, TABLE_RELEASED};
use crate::rows::{self, Content, FLAG_REMOVED, Inode, Presence, Released, Row};
use crate::splice::{self, References};
use crate::view::{Error, Key, Value, View};

/// Work that an operation does at once instead of leaving it to the queue; a row is one unit, and so is a
/// segment that it holds.
pub(crate) const EAGER_WORK_MAX: u32 = 64;
/// Work that an operation does before it answers `Continue`.
pub(crate) const EXPOSE_WORK_MAX: u32 = 1024;

/// Whether bounded work came to its end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is left.
    Done,
    /// Call again.
    More,
}

/// What a batch's reclaiming left.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    /// Whether there is work for the next batch already.
    pub progress: Progress,
    /// The batch time from which on there will be work, if nothing else happens.
    pub next_at: Option<BatchTime>,
}

/// A budget of work, which is checked before a row and charged after it: one row may overdraw it by its
/// segments.
struct Budget(u32);

impl Budget {
    fn is_spent(&self) -> bool {
        self.0 == 0
    }

    fn charge(&mut self, work: usize) {
        self.0 = self.0.saturating_sub(u32::try_from(work).unwrap_or(u32::MAX));
    }
}

/// Works off the queue and the released blocks. `reclaim_rows_per_batch` is the budget: a row costs one, and
/// so does each of its segments; the last row may overdraw it.
///
/// # Errors
/// [`Error::Missing`] and [`Error::Corrupt`] only.
pub fn reclaim(view: &mut dyn View, moment: Moment, parameters: &Parameters) -> Result<Reclaimed, Error> {
    let mut budget = Budget(parameters.reclaim_rows_per_batch);
    let queue_end = keys::table_end(TABLE_RECLAIM);
    while let Some((key, _)) = view.next(&keys::table_start(TABLE_RECLAIM), Some(&queue_end))? {
        if budget.is_spent() {
            return Ok(Reclaimed { progress: Progress::More, next_at: None });
        }
        let ino = keys::reclaim_ino(&key);
        let mut inode = inodes::raw(view, ino)?.ok_or(Error::Corrupt("the reclaim queue names no inode"))?;
        if inode.is_removed() {
            if work_off(view, moment, ino, &mut inode, &mut budget)? == Progress::Done {
                view.delete(key);
            }
        } else {
            let progress = reclaim_content(view, moment, ino, &mut inode, None, &mut budget)?;
            store(view, ino, &inode, progress);
        }
        budget.charge(1);
    }
    bury_released(view, moment, parameters.block_grace, &mut budget)
}

/// Removes the rows of blocks whose grace has ended.
fn bury_released(
    view: &mut dyn View,
    moment: Moment,
    grace: u64,
    budget: &mut Budget,
) -> Result<Reclaimed, Error> {
    let end = keys::table_end(TABLE_RELEASED);
    loop {
        let Some((key, value)) = view.next(&keys::table_start(TABLE_RELEASED), Some(&end))? else {
            return Ok(Reclaimed { progress: Progress::Done, next_at: None });
        };
        let due = keys::released_time(&key).plus(grace);
        if due > moment.time {
            return Ok(Reclaimed { progress: Progress::Done, next_at: Some(due) });
        }
        if budget.is_spent() {
            return Ok(Reclaimed { progress: Progress::More, next_at: None });
        }
        blocks::bury(view, &Released::from_value(&value)?.id)?;
        view.delete(key);
        budget.charge(1);
    }
}

/// Marks an inode as removed and queues it, after up to `work` of its rows went at once.
pub(crate) fn remove_inode(
    view: &mut dyn View,
    moment: Moment,
    ino: Ino,
    mut inode: Inode,
    work: u32,
) -> Result<(), Error> {
    let queued = inode.reclaim_from.is_some();
    inode.flags |= FLAG_REMOVED;
    match work_off(view, moment, ino, &mut inode, &mut Budget(work))? {
        Progress::Done if queued => view.delete(keys::reclaim(ino)),
        Progress::More if !queued => rows::put(view, keys::reclaim(ino), &Presence),
        Progress::Done | Progress::More => {}
    }
    Ok(())
}

/// Removes the rows of a removed inode, its own last; stores what is left of it. The caller keeps the queue.
fn work_off(
    view: &mut dyn View,
    moment: Moment,
    ino: Ino,
    inode: &mut Inode,
    budget: &mut Budget,
) -> Result<Progress, Error> {
    let first = keys::kind_start(ino, KIND_INODE.saturating_add(1));
    let end = keys::inode_end(ino);
    while !budget.is_spent() {
        let Some((key, value)) = view.next(&first, Some(&end))? else {
            view.delete(keys::inode(ino));
            inodes::count(view, |totals| {
                totals.inodes = totals.inodes.checked_sub(1)?;
                Some(())
            })?;
            return Ok(Progress::Done);
        };
        if keys::kind_of(&key) == KIND_CONTENT {
            remove_content(view, moment, inode, (key, value), budget)?;
        } else {
            view.delete(key);
            budget.charge(1);
        }
    }
    inodes::store(view, ino, inode);
    Ok(Progress::More)
}

/// Removes one content row and its references.
fn remove_content(
    view: &mut dyn View,
    moment: Moment,
    inode: &mut Inode,
    (key, value): (Key, Value),
    budget: &mut Budget,
) -> Result<(), Error> {
    let content = Content::from_value(&value)?;
    view.delete(key);
    inodes::reallocate(view, inode, splice::covered(&content.segments), 0)?;
    let mut references = References::default();
    references.remove(&content.segments);
    blocks::adjust(view, moment, &references, &Admitted::new())?;
    budget.charge(content.segments.len().saturating_add(1));
    Ok(())
}

/// Removes content rows from `reclaim_from` on, up to row `until` exclusive, and moves the mark past them.
/// Done means that none of those is left; the mark goes when none at all is left.
fn reclaim_content(
    view: &mut dyn View,
    moment: Moment,
    ino: Ino,
    inode: &mut Inode,
    until: Option<u64>,
    budget: &mut Budget,
) -> Result<Progress, Error> {
    let Some(mut from) = inode.reclaim_from else { return Ok(Progress::Done) };
    let end = keys::kind_end(ino, KIND_CONTENT);
    loop {
        let Some((key, value)) = view.next(&keys::content(ino, from), Some(&end))? else {
            inode.reclaim_from = None;
            return Ok(Progress::Done);
        };
        from = keys::content_index(&key);
        inode.reclaim_from = Some(from);
        if until.is_some_and(|until| from >= until) {
            return Ok(Progress::Done);
        }
        if budget.is_spent() {
            return Ok(Progress::More);
        }
        remove_content(view, moment, inode, (key, value), budget)?;
    }
}

/// Stores an inode after reclaiming, and takes it from the queue if nothing is left to do.
fn store(view: &mut dyn View, ino: Ino, inode: &Inode, progress: Progress) {
    if progress == Progress::Done && inode.reclaim_from.is_none() {
        view.delete(keys::reclaim(ino));
    }
    inodes::store(view, ino, inode);
}

/// Hides the content rows from index `from` on. Few go at once, more are queued. The caller stores the inode.
pub(crate) fn hide(
    view: &mut dyn View,
    moment: Moment,
    ino: Ino,
    inode: &mut Inode,
    from: u64,
) -> Result<(), Error> {
    let queued = inode.reclaim_from.is_some();
    inode.reclaim_from = Some(inode.reclaim_from.map_or(from, |earlier| earlier.min(from)));
    match reclaim_content(view, moment, ino, inode, None, &mut Budget(EAGER_WORK_MAX))? {
        Progress::Done if queued => view.delete(keys::reclaim(ino)),
        Progress::More if !queued => rows::put(view, keys::reclaim(ino), &Presence),
        Progress::Done | Progress::More => {}
    }
    Ok(())
}

/// Makes the first `rows` content rows free of hidden ones, and stores the inode if that took any work.
/// [`Progress::More`] when the work did not suffice: then the operation answers `Continue` and stops.
pub(crate) fn expose(
    view: &mut dyn View,
    moment: Moment,
    ino: Ino,
    inode: &mut Inode,
    rows: u64,
) -> Result<Progress, Error> {
    if inode.reclaim_from.is_none_or(|from| from >= rows) {
        return Ok(Progress::Done);
    }
    let progress = reclaim_content(view, moment, ino, inode, Some(rows), &mut Budget(EXPOSE_WORK_MAX))?;
    store(view, ino, inode, progress);
    Ok(progress)
}
