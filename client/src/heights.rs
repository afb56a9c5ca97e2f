//! Heights of the past by number and by time.
//!
//! Invariant: a header that is handed out is certified; the height of a time is found between two certified headers,
//! so that no replica can name another one.

use std::sync::Arc;

use quorate_protocol::client::{CertifiedHeader, ClientReply, ClientRequest};
use quorate_protocol::{BatchTime, Header, Height};

use crate::core::Core;
use crate::error::ClientError;

/// Asks replicas for a header until one gives it with its certificate.
pub(crate) async fn header(core: &Arc<Core>, height: Height) -> Result<Header, ClientError> {
    core.first_verified(ClientRequest::Header { height }, "a header", |reply| match reply {
        ClientReply::Header(found) => Some(check(core, height, found)),
        _ => None,
    })
    .await
}

fn check(core: &Core, height: Height, found: CertifiedHeader) -> Result<Header, String> {
    let CertifiedHeader { header, certificate } = found;
    if header.height != height {
        return Err(format!("the header of height {} where {height} was asked for", header.height));
    }
    core.trust.verify_header(&header, certificate.as_ref()).map_err(|fault| fault.to_string())?;
    Ok(header)
}

/// The last header whose time is not above `time`, up to the floor. Times rise with heights (rule S8), so that
/// halving finds it in as many questions as the floor has bits, 64 at most.
pub(crate) async fn height_at(core: &Arc<Core>, time: BatchTime) -> Result<Header, ClientError> {
    let mut found = header(core, 0).await?;
    if found.time > time {
        return Err(ClientError::Invalid("that time is before the genesis of the cluster"));
    }
    // The lowest height that is known to be later, or not known at all.
    let mut beyond = core.floor().saturating_add(1);
    while beyond.saturating_sub(found.height) > 1 {
        let middle = found.height.saturating_add(beyond.saturating_sub(found.height) / 2);
        let between = header(core, middle).await?;
        if between.time > time {
            beyond = middle;
        } else {
            found = between;
        }
    }
    Ok(found)
}
