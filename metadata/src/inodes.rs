//! Loading, changing and counting inodes: what all families of operations share.
//!
//! Invariant: an inode without links and without grants is unreachable: `load` answers ESTALE for it as for
//! one that never was.

use quorate_protocol::Ino;

use crate::context::{Caller, Context};
use crate::errno::Errno;
use crate::keys::{self, Counter, INO_END};
use crate::permission::{EXECUTE, require};
use crate::rows::{self, CounterRow, Inode, Totals};
use crate::view::{Error, View};

/// The inode, or ESTALE.
pub(crate) fn load(view: &dyn View, ino: Ino) -> Result<Inode, Error> {
    match raw(view, ino)? {
        Some(inode) if !inode.is_removed() => Ok(inode),
        _ => Err(Errno::ESTALE.into()),
    }
}

/// The inode as it is stored, removed or not.
pub(crate) fn raw(view: &dyn View, ino: Ino) -> Result<Option<Inode>, Error> {
    if ino == 0 || ino >= INO_END {
        return Ok(None);
    }
    rows::get(view, &keys::inode(ino))
}

/// An inode that an entry names, which therefore must be there.
pub(crate) fn named(view: &dyn View, ino: Ino) -> Result<Inode, Error> {
    match raw(view, ino)? {
        Some(inode) if !inode.is_removed() => Ok(inode),
        _ => Err(Error::Corrupt("an entry names an inode that is not there")),
    }
}

/// A directory in which the caller may look up names: ENOTDIR, then EACCES.
pub(crate) fn searchable(view: &dyn View, caller: &Caller, ino: Ino) -> Result<Inode, Error> {
    let inode = load(view, ino)?;
    if !inode.is_directory() {
        return Err(Errno::ENOTDIR.into());
    }
    require(caller, &inode, EXECUTE)?;
    Ok(inode)
}

/// Stores an inode.
pub(crate) fn store(view: &mut dyn View, ino: Ino, inode: &Inode) {
    rows::put(view, keys::inode(ino), inode);
}

/// Marks an inode as changed by this operation: attributes only.
pub(crate) fn touch_attributes(inode: &mut Inode, context: &Context<'_>) {
    inode.ctime = context.time;
    inode.version = context.operation;
}

/// Marks an inode as changed by this operation: content, or a directory's entries.
pub(crate) fn touch_content(inode: &mut Inode, context: &Context<'_>) {
    inode.mtime = context.time;
    touch_attributes(inode, context);
}

/// The next inode number of the dense counter; ENOSPC when there is none.
pub(crate) fn allocate(view: &mut dyn View) -> Result<Ino, Error> {
    let key = keys::counter(Counter::Ino);
    let row: CounterRow = rows::get(view, &key)?.ok_or(Error::Corrupt("the inode counter is missing"))?;
    if row.next >= INO_END {
        return Err(Errno::ENOSPC.into());
    }
    rows::put(view, key, &CounterRow { next: row.next.saturating_add(1) });
    Ok(row.next)
}

/// The totals.
pub(crate) fn totals(view: &dyn View) -> Result<Totals, Error> {
    rows::get(view, &keys::totals())?.ok_or(Error::Corrupt("the totals are missing"))
}

/// Changes the totals.
pub(crate) fn count(
    view: &mut dyn View,
    change: impl FnOnce(&mut Totals) -> Option<()>,
) -> Result<(), Error> {
    let mut row = totals(view)?;
    change(&mut row).ok_or(Error::Corrupt("the totals do not add up"))?;
    rows::put(view, keys::totals(), &row);
    Ok(())
}

/// Replaces what an inode has allocated, in the inode and in the totals.
pub(crate) fn reallocate(
    view: &mut dyn View,
    inode: &mut Inode,
    removed: u64,
    added: u64,
) -> Result<(), Error> {
    let replace = |bytes: u64| bytes.checked_sub(removed).and_then(|rest| rest.checked_add(added));
    if removed == added {
        return Ok(());
    }
    inode.allocated = replace(inode.allocated).ok_or(Error::Corrupt("an inode's bytes do not add up"))?;
    count(view, |totals| {
        totals.bytes = replace(totals.bytes)?;
        Some(())
    })
}
