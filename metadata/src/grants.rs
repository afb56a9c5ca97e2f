//! Open grants: who has an inode open, through which session (rule S6).
//!
//! Invariant: a session has a held-by-session row for an inode exactly when it has a grants row there; an
//! inode without links lives as long as any grants row does, and no longer.

use quorate_crypto::Bounded;
use quorate_protocol::file::FileKind;
use quorate_protocol::operation::{Authority, OpenMode};
use quorate_protocol::{Ino, Reply, SessionNumber};

use crate::attributes;
use crate::context::{Caller, Context, Moment};
use crate::errno::Errno;
use crate::inodes;
use crate::keys::{self, HELD_GRANTS, KIND_GRANTS};
use crate::permission::{self, READ, WRITE, require};
use crate::reclaim::{self, EAGER_WORK_MAX, Progress};
use crate::rows::{self, Grant, Grants, Inode, Presence};
use crate::view::{Error, View};

/// Takes a grant after the checks of `open(2)`, truncating if that is asked for.
pub(crate) fn open(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    mode: OpenMode,
) -> Result<Reply, Error> {
    let mut inode = inodes::load(view, ino)?;
    check_kind(&inode, mode)?;
    check_mode(context.caller, &inode, mode)?;
    take(view, context, ino, mode)?;
    if mode.truncate && inode.kind == FileKind::Regular {
        // Truncating to nothing exposes no rows, so it is always done at once.
        attributes::truncate(view, context, ino, &mut inode, 0)?;
        inodes::store(view, ino, &inode);
    }
    Ok(Reply::Inode { attributes: inode.attributes(ino), created: false })
}

/// Takes a grant for what was opened before. The owner passes, as for content by `Authority::Check`: a file that
/// was created with mode 0444, or whose mode was changed since, stays open to who may change it back.
pub(crate) fn reopen(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    mode: OpenMode,
) -> Result<Reply, Error> {
    if mode.truncate {
        return Err(Errno::EINVAL.into());
    }
    let inode = inodes::load(view, ino)?;
    check_kind(&inode, mode)?;
    if !permission::owns(context.caller, &inode) {
        check_mode(context.caller, &inode, mode)?;
    }
    take(view, context, ino, mode)?;
    Ok(Reply::Inode { attributes: inode.attributes(ino), created: false })
}

/// What `open(2)` checks before permissions.
fn check_kind(inode: &Inode, mode: OpenMode) -> Result<(), Errno> {
    if !mode.read && !mode.write {
        return Err(Errno::EINVAL);
    }
    match inode.kind {
        FileKind::Symlink => Err(Errno::ELOOP),
        FileKind::Directory if mode.write || mode.truncate => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

/// The permissions that `open(2)` wants.
fn check_mode(caller: &Caller, inode: &Inode, mode: OpenMode) -> Result<(), Errno> {
    let read = if mode.read { READ } else { 0 };
    let write = if mode.write || mode.truncate { WRITE } else { 0 };
    require(caller, inode, read | write)
}

/// Adds one open to the session's row, without a check: the creator of a file may open it in any mode.
pub(crate) fn take(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    mode: OpenMode,
) -> Result<(), Error> {
    let key = keys::grants(ino, context.session);
    let held: Option<Grants> = rows::get(view, &key)?;
    if held.is_none() {
        rows::put(view, keys::held(context.session, HELD_GRANTS, ino), &Presence);
    }
    let mut grants = held.unwrap_or_default().grants.into_inner();
    let wanted = Grant {
        read: mode.read,
        write: mode.write,
        uid: context.caller.uid,
        gid: context.caller.gid,
        count: 1,
    };
    match grants.binary_search_by_key(&wanted.identity(), Grant::identity) {
        Ok(position) => {
            if let Some(grant) = grants.get_mut(position) {
                grant.count = grant.count.checked_add(1).ok_or(Errno::EMFILE)?;
            }
        }
        Err(position) => grants.insert(position, wanted),
    }
    let grants = Bounded::try_from(grants).map_err(|_| Errno::EMFILE)?;
    rows::put(view, key, &Grants { grants });
    Ok(())
}

/// Gives `count` opens of a mode back: the caller's own first, then others of the session in the order of
/// the row. EBADF when the session has fewer.
pub(crate) fn release(
    view: &mut dyn View,
    context: &Context<'_>,
    ino: Ino,
    mode: OpenMode,
    count: u32,
) -> Result<Reply, Error> {
    let key = keys::grants(ino, context.session);
    let row: Grants = rows::get(view, &key)?.ok_or(Errno::EBADF)?;
    let mut grants = row.grants.into_inner();
    let mut left = count;
    let mut give = |grant: &mut Grant| {
        if (grant.read, grant.write) == (mode.read, mode.write) {
            let given = left.min(grant.count);
            grant.count = grant.count.saturating_sub(given);
            left = left.saturating_sub(given);
        }
    };
    let own = (mode.read, mode.write, context.caller.uid, context.caller.gid);
    grants.iter_mut().filter(|grant| grant.identity() == own).for_each(&mut give);
    grants.iter_mut().for_each(&mut give);
    if left > 0 {
        return Err(Errno::EBADF.into());
    }
    grants.retain(|grant| grant.count > 0);
    if grants.is_empty() {
        drop_row(view, context.session, ino);
        let inode = inodes::load(view, ino)?;
        if inode.nlink == 0 {
            store_or_dispose(view, context.moment, ino, inode)?;
        }
    } else {
        let grants = Bounded::try_from(grants).map_err(|_| Errno::EMFILE)?;
        rows::put(view, key, &Grants { grants });
    }
    Ok(Reply::Empty)
}

fn drop_row(view: &mut dyn View, session: SessionNumber, ino: Ino) {
    view.delete(keys::grants(ino, session));
    view.delete(keys::held(session, HELD_GRANTS, ino));
}

/// Whether any session has the inode open.
fn is_open(view: &dyn View, ino: Ino) -> Result<bool, Error> {
    let from = keys::kind_start(ino, KIND_GRANTS);
    Ok(view.next(&from, Some(&keys::kind_end(ino, KIND_GRANTS)))?.is_some())
}

/// Stores an inode that may have lost its last link; if it is not open either, it is reclaimed, small ones
/// at once.
pub(crate) fn store_or_dispose(
    view: &mut dyn View,
    moment: Moment,
    ino: Ino,
    inode: Inode,
) -> Result<(), Error> {
    if inode.nlink > 0 || is_open(view, ino)? {
        inodes::store(view, ino, &inode);
        return Ok(());
    }
    reclaim::remove_inode(view, moment, ino, inode, EAGER_WORK_MAX)
}

/// Whether a session has the inode open in a mode that covers the one that is asked for.
pub(crate) fn holds(
    view: &dyn View,
    session: SessionNumber,
    ino: Ino,
    read: bool,
    write: bool,
) -> Result<bool, Error> {
    let row: Option<Grants> = rows::get(view, &keys::grants(ino, session))?;
    let covers = |grant: &Grant| (grant.read || !read) && (grant.write || !write);
    Ok(row.is_some_and(|row| row.grants.iter().any(covers)))
}

/// Whether a content operation may write: by grant (EBADF), or by a fresh check in which the owner passes
/// (EACCES), because he could have opened the file before its mode changed.
pub(crate) fn authorize_write(
    view: &dyn View,
    context: &Context<'_>,
    ino: Ino,
    inode: &Inode,
    authority: Authority,
) -> Result<(), Error> {
    match authority {
        Authority::Grant if holds(view, context.session, ino, false, true)? => Ok(()),
        Authority::Grant => Err(Errno::EBADF.into()),
        Authority::Check if permission::owns(context.caller, inode) => Ok(()),
        Authority::Check => Ok(require(context.caller, inode, WRITE)?),
    }
}

/// Drops the grants of a session that has ended, at most `budget` rows of them; inodes that nobody can reach
/// any more go to the reclaim queue. To be called, batch after batch, until it is [`Progress::Done`].
///
/// # Errors
/// [`Error::Missing`] and [`Error::Corrupt`] only.
pub fn release_session(
    view: &mut dyn View,
    moment: Moment,
    session: SessionNumber,
    budget: u32,
) -> Result<Progress, Error> {
    let end = keys::held_end(session, HELD_GRANTS);
    for _ in 0..budget {
        let Some((key, _)) = view.next(&keys::held(session, HELD_GRANTS, 0), Some(&end))? else {
            return Ok(Progress::Done);
        };
        let ino = keys::held_ino(&key);
        drop_row(view, session, ino);
        let inode = inodes::raw(view, ino)?.ok_or(Error::Corrupt("a session holds no inode"))?;
        if inode.nlink == 0 && !is_open(view, ino)? {
            reclaim::remove_inode(view, moment, ino, inode, 0)?;
        }
    }
    let rest = view.next(&keys::held(session, HELD_GRANTS, 0), Some(&end))?;
    Ok(if rest.is_some() { Progress::More } else { Progress::Done })
}
