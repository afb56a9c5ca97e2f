//! The heads of the log that replicas signed.
//!
//! Invariant: what comes is decoded and bounded, and nothing else: whoever asks checks every signature himself.

use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::ReplicaIndex;
use quorate_protocol::client::{ClientReply, ClientRequest};
use quorate_protocol::log_head::SignedLogHead;

use crate::core::Core;
use crate::race::Race;

/// How long a replica has for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The heads that one replica shows.
#[derive(Clone, Debug)]
pub struct ShownHeads {
    /// The replica.
    pub replica: ReplicaIndex,
    /// Its last ones, or why it shows none.
    pub heads: Result<Vec<SignedLogHead>, String>,
}

/// Asks all replicas; the answers are in order of index.
pub(crate) async fn heads(core: &Arc<Core>) -> Vec<ShownHeads> {
    let mut race = Race::new();
    for replica in core.members.indices() {
        race.push(replica, of_one(core, replica));
    }
    let mut shown = Vec::with_capacity(core.members.n());
    while let Some((replica, heads)) = race.next().await {
        shown.push(ShownHeads { replica, heads });
    }
    shown.sort_by_key(|shown| shown.replica);
    shown
}

async fn of_one(core: &Core, replica: ReplicaIndex) -> Result<Vec<SignedLogHead>, String> {
    let request = core.request(replica, Arc::new(ClientRequest::LogHeads));
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(ClientReply::LogHeads(heads))) => Ok(heads.into_inner()),
        Ok(Ok(ClientReply::Refused { text, .. })) => Err(String::from_utf8_lossy(&text).into_owned()),
        Ok(Ok(_)) => Err("it answers something else".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
