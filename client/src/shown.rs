//! What each replica shows by itself, for who compares them with each other.
//!
//! Invariant: what comes is decoded and bounded, and nothing else: whoever asks judges it himself, also when it
//! contradicts what this client knows.

use std::sync::Arc;

use quorate_protocol::client::{ClientReply, ClientRequest};
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Height, ReplicaIndex};

use crate::core::Core;
use crate::race::Race;

/// Asks one replica for committed heights from this one on.
pub(crate) async fn history_of(
    core: &Core,
    replica: ReplicaIndex,
    from: Height,
) -> Result<Vec<CommittedBatch>, String> {
    match core.request(replica, Arc::new(ClientRequest::History { from })).await {
        Ok(ClientReply::History(batches)) => Ok(batches.into_inner()),
        Ok(ClientReply::Refused { text, .. }) => Err(String::from_utf8_lossy(&text).into_owned()),
        Ok(_) => Err("it answers something else".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Asks all replicas whether they have sent a COMMIT for this height or a higher one; who does not answer is left out.
pub(crate) async fn have_voted_for(core: &Core, height: Height) -> Vec<(ReplicaIndex, bool)> {
    let request = Arc::new(ClientRequest::Highest { known: height.saturating_sub(1) });
    let mut race = Race::new();
    for replica in core.members.indices() {
        race.push(replica, core.request(replica, Arc::clone(&request)));
    }
    let mut answers = Vec::with_capacity(core.members.n());
    while let Some((replica, reply)) = race.next().await {
        if let Ok(ClientReply::Highest { height: highest, .. }) = reply {
            answers.push((replica, highest >= height));
        }
    }
    answers
}
