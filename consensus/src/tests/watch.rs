//! What the lockstep network checks of every message that an honest replica sends.
//!
//! Invariant: it sees a message before the wire does, and compares it with what is synced at that moment.

use quorate_protocol::record::Record;
use quorate_protocol::{Height, PeerMessage, ReplicaIndex, View, VoteKind};

use super::harness::Net;

impl Net {
    /// No honest replica may contradict itself on the wire.
    pub fn watch(&mut self, from: ReplicaIndex, message: &PeerMessage) {
        match message {
            PeerMessage::Votes(votes) => {
                for vote in votes.iter().filter(|vote| vote.replica == from) {
                    let key = (from, vote.view, vote.height, vote.kind);
                    let first = *self.votes.entry(key).or_insert(vote.header);
                    assert_eq!(first, vote.header, "two different votes of {from}: {vote:?}");
                    let log = &self.nodes[usize::from(from)].log;
                    let recorded = match vote.kind {
                        // Nothing of its own: it must be forbidden by what is not there yet.
                        VoteKind::Prepare => log.len(),
                        VoteKind::Commit => log
                            .iter()
                            .position(|r| matches!(r, Record::Voted(known) if known == vote))
                            .expect("a COMMIT leaves after its record is synced"),
                    };
                    let left = log.iter().position(|record| {
                        matches!(record, Record::ViewChange(known) if known.claim.body.view > vote.view)
                    });
                    assert!(left.is_none_or(|left| recorded < left), "{from} votes below its VIEW-CHANGE");
                    let view = vote.view;
                    let entered =
                        |r: &Record| matches!(r, Record::Entered { view: known, .. } if *known == view);
                    assert!(log.iter().take(recorded).any(entered), "{from} votes in a view not entered");
                    let grounds = |record: &Record| match record {
                        Record::Prepared(certificate) => {
                            certificate.view == vote.view && certificate.height >= vote.height
                        }
                        _ => vote.kind == VoteKind::Prepare,
                    };
                    assert!(
                        log.iter().take(recorded).any(grounds),
                        "{from} COMMITs on a certificate that is lost"
                    );
                }
            }
            PeerMessage::ViewChange(message) if message.claim.body.replica == from => {
                let node = &self.nodes[usize::from(from)];
                let durable = |r: &Record| matches!(r, Record::ViewChange(known) if known == message);
                assert!(node.log.iter().any(durable), "VIEW-CHANGE of {from} before its record");
            }
            _ => {}
        }
    }

    /// How many heights of a view a replica has sent votes of this kind for.
    pub fn votes_sent(&self, from: ReplicaIndex, view: View, kind: VoteKind) -> usize {
        let of_kind =
            |key: &&(ReplicaIndex, View, Height, VoteKind)| (key.0, key.1, key.3) == (from, view, kind);
        self.votes.keys().filter(of_kind).count()
    }
}
