//! The filesystem as a state machine over an abstract view.
//!
//! Holds the layout of the state (`keys`, `rows`), one module for each family of operations behind [`apply`],
//! the queries behind [`read()`], and the work between operations ([`reclaim()`], [`release_session`]).
//! Invariants: everything is a pure function of the view, the context and the operation; every failure is an
//! exact Linux errno; work is bounded for each operation and each batch.
#![forbid(unsafe_code)]

pub mod context;
pub mod errno;
pub mod keys;
pub mod navigate;
pub mod permission;
pub mod rows;
pub mod view;

mod attributes;
mod blocks;
mod content;
mod create;
mod directory;
mod genesis;
mod grants;
mod inodes;
mod link;
mod read;
mod reclaim;
mod rename;
mod splice;
mod xattr;

pub use attributes::FILE_SIZE_MAX;
pub use content::{WRITE_ROWS_MAX, WRITE_SEGMENTS_PER_ROW_MAX};
pub use context::{BlockChecker, Caller, Context, Moment, Reader};
pub use create::LINK_MAX;
pub use directory::ANCESTORS_MAX;
pub use errno::Errno;
pub use genesis::genesis;
pub use grants::release_session;
pub use keys::{INO_END, ROOT_INO};
pub use read::{Answer, ContentRows, DirectoryEntry, DirectoryPage, read};
pub use reclaim::{Progress, Reclaimed, reclaim};
pub use view::{Error, Key, Missing, Value, View};
pub use xattr::{XATTR_BYTES_PER_INODE_MAX, XATTRS_PER_INODE_MAX};

use quorate_protocol::{OperationBody, Reply};

/// Applies one operation of the filesystem.
///
/// On an error the caller drops whatever the view was told to put or delete. Operations on sessions and
/// principals belong to the executor: all but `Null` answer `EOPNOTSUPP` here.
///
/// # Errors
/// [`Error::Errno`] when the operation fails, [`Error::Missing`] when the view is a part of the state that
/// lacks a row, [`Error::Corrupt`] when the state is damaged.
pub fn apply(view: &mut dyn View, context: &Context<'_>, body: &OperationBody) -> Result<Reply, Error> {
    match body {
        OperationBody::Null => Ok(Reply::Empty),
        OperationBody::Register { .. }
        | OperationBody::CloseSession
        | OperationBody::PutPrincipal { .. }
        | OperationBody::RemovePrincipal { .. }
        | OperationBody::Renew { .. } => Err(Errno::EOPNOTSUPP.into()),
        OperationBody::Create { .. }
        | OperationBody::Mkdir { .. }
        | OperationBody::Symlink { .. }
        | OperationBody::Mknod { .. } => create::apply(view, context, body),
        OperationBody::Link { ino, parent, name } => link::link(view, context, *ino, *parent, name),
        OperationBody::Unlink { parent, name } => link::unlink(view, context, *parent, name),
        OperationBody::Rmdir { parent, name } => link::rmdir(view, context, *parent, name),
        OperationBody::Rename { parent, name, new_parent, new_name, mode } => {
            rename::rename(view, context, (*parent, name), (*new_parent, new_name), *mode)
        }
        OperationBody::SetAttributes { .. } => attributes::apply(view, context, body),
        OperationBody::SetXattr { ino, name, value, mode, entropy } => {
            xattr::set(view, context, *ino, name, value, *mode, entropy)
        }
        OperationBody::RemoveXattr { ino, name } => xattr::remove(view, context, *ino, name),
        OperationBody::Open { ino, mode } => grants::open(view, context, *ino, *mode),
        OperationBody::Reopen { ino, mode } => grants::reopen(view, context, *ino, *mode),
        OperationBody::Release { ino, mode, count } => grants::release(view, context, *ino, *mode, *count),
        OperationBody::Write { .. } => content::write(view, context, body),
        OperationBody::Fold { .. } => content::fold(view, context, body),
    }
}
