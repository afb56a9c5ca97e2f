//! The evidence that replicas hold against each other.
//!
//! Invariant: what comes is decoded and bounded, and nothing else: whoever asks judges every piece himself.

use std::sync::Arc;
use std::time::Duration;

use quorate_crypto::{Hash, encode};
use quorate_protocol::client::{ClientReply, ClientRequest};
use quorate_protocol::limits::EVIDENCE_BYTES_MAX;
use quorate_protocol::{Evidence, ReplicaIndex};

use crate::core::Core;
use crate::race::Race;

/// Pieces that are taken of one replica; many more than a correct one holds.
pub const EVIDENCE_PIECES_MAX: usize = 2048;
/// Bytes that are taken of one replica, beside its last page.
pub const EVIDENCE_TOTAL_BYTES_MAX: usize = 8 * EVIDENCE_BYTES_MAX;
/// How long a replica has for one page.
const PAGE_PATIENCE: Duration = Duration::from_secs(10);

/// What one replica shows.
#[derive(Clone, Debug)]
pub struct ShownEvidence {
    /// The replica.
    pub replica: ReplicaIndex,
    /// What it holds, ascending by digest, or why it shows nothing.
    pub pieces: Result<Vec<Evidence>, String>,
}

/// Asks all replicas; the answers are in order of index.
pub(crate) async fn evidence(core: &Arc<Core>) -> Vec<ShownEvidence> {
    let mut race = Race::new();
    for replica in core.members.indices() {
        race.push(replica, pages(core, replica));
    }
    let mut shown = Vec::with_capacity(core.members.n());
    while let Some((replica, pieces)) = race.next().await {
        shown.push(ShownEvidence { replica, pieces });
    }
    shown.sort_by_key(|shown| shown.replica);
    shown
}

/// Page by page, each after the last piece of the one before.
async fn pages(core: &Core, replica: ReplicaIndex) -> Result<Vec<Evidence>, String> {
    let (mut pieces, mut bytes, mut after) = (Vec::new(), 0_usize, Hash::ZERO);
    loop {
        let request = core.request(replica, Arc::new(ClientRequest::Evidence { after }));
        let page = match tokio::time::timeout(PAGE_PATIENCE, request).await {
            Ok(Ok(ClientReply::Evidence(page))) => page,
            Ok(Ok(ClientReply::Refused { text, .. })) => {
                return Err(String::from_utf8_lossy(&text).into_owned());
            }
            Ok(Ok(_)) => return Err("it answers something else".to_owned()),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer in time".to_owned()),
        };
        let more = page.more && !page.pieces.is_empty();
        for piece in page.pieces {
            let digest = piece.digest();
            if digest <= after {
                return Err("its evidence is not in order".to_owned());
            }
            after = digest;
            bytes = bytes.saturating_add(encode(&piece).len());
            pieces.push(piece);
        }
        if pieces.len() > EVIDENCE_PIECES_MAX || bytes > EVIDENCE_TOTAL_BYTES_MAX {
            return Err("it shows more evidence than a replica keeps".to_owned());
        }
        if !more {
            return Ok(pieces);
        }
    }
}
