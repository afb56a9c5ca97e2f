//! Grants whose callers are gone: an open or a create that was executed after its caller had stopped waiting.
//!
//! Invariant: nobody holds a grant that nobody knows of. What its caller was told to have an unknown outcome, and
//! what nobody waits for any more, gives its grant back in the same session as soon as its outcome is known; an
//! unlinked file would keep its content until the session ends otherwise.

use quorate_protocol::operation::OpenMode;
use quorate_protocol::{Credential, Operation, OperationBody, Reply};
use tokio::sync::oneshot;

use super::Pipeline;
use crate::batch::{Job, Waiter};

/// What gives back the grant that an operation took, if it took one.
pub(super) fn release_of(operation: &Operation, reply: &Reply) -> Option<OperationBody> {
    let Reply::Inode { attributes, .. } = reply else { return None };
    let mode = match &operation.body {
        OperationBody::Open { mode, .. } | OperationBody::Reopen { mode, .. } => *mode,
        OperationBody::Create { open, .. } => (*open)?,
        _ => return None,
    };
    let mode = OpenMode { truncate: false, ..mode };
    Some(OperationBody::Release { ino: attributes.ino, mode, count: 1 })
}

impl Pipeline {
    /// Queues what gives grants back, as who took them. It lasts until the session ends.
    pub(super) fn give_back(&mut self, orphans: Vec<(Credential, OperationBody)>) {
        for (credential, body) in orphans {
            let (done, _) = oneshot::channel();
            let waiter = Waiter::new(done, None);
            self.push(Job { credential, body, requires: 0, opens_group: true, waiter });
        }
    }
}
