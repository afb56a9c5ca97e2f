//! Opening and creating files for the kernel: flags to modes, and the handle that is left.
//!
//! Invariant: a handle exists only after the cluster has permitted the open.

use crate::reading;
use crate::shared::{Mount, Outcome, entropy};
use quorate_protocol::file::{Attributes, Name};
use quorate_protocol::operation::OpenMode;
use quorate_protocol::{Credential, OperationBody};

/// The kernel's mark of an open for execve (`__FMODE_EXEC`).
const OPEN_TO_EXECUTE: i32 = 0x20;

fn open_mode(flags: i32) -> OpenMode {
    let access = flags & libc::O_ACCMODE;
    OpenMode {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        truncate: flags & libc::O_TRUNC != 0,
    }
}

/// `open`: for writing with a grant, for reading without one until it has lasted.
pub async fn open(mount: &Mount, credential: Credential, ino: u64, flags: i32) -> Outcome<u64> {
    let mode = open_mode(flags);
    let (block_log2, session) = if mode.write || mode.truncate {
        mount.open_to_write(&credential, ino, mode).await?
    } else {
        let access = if flags & OPEN_TO_EXECUTE != 0 { libc::X_OK } else { libc::R_OK };
        (mount.open_to_read(&credential, ino, access).await?, None)
    };
    let (handle, file) = mount.files.open(ino, block_log2, credential, mode, (session, false));
    if session.is_none() {
        reading::hold_later(mount, &file);
    }
    Ok(handle)
}

/// `open` with O_CREAT.
pub async fn create(
    mount: &Mount,
    credential: Credential,
    (parent, name): (u64, Name),
    (mode, umask): (u16, u16),
    flags: i32,
) -> Outcome<(Attributes, u64)> {
    let open = open_mode(flags);
    let exclusive = flags & libc::O_EXCL != 0;
    let entropy = entropy()?;
    let body =
        OperationBody::Create { parent, name, mode, umask, exclusive, open: Some(open), ino: None, entropy };
    let (attributes, created, session) = mount.execute_for_grant(&credential, body).await?;
    let opened = (session, created);
    let (handle, file) = mount.files.open(attributes.ino, attributes.block_log2, credential, open, opened);
    if session.is_none() {
        reading::hold_later(mount, &file);
    }
    Ok((attributes, handle))
}
