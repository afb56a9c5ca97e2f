//! Stands in for execution: envelopes in order of their session consume numbers, all others are skipped.

use std::collections::BTreeMap;

use quorate_crypto::{Hash, derive_hash};
use quorate_protocol::{Header, Proposal, SessionId};

/// What an honest replica computes after a block.
#[derive(Clone)]
pub struct State {
    pub header: Header,
    pub sessions: BTreeMap<SessionId, u64>,
}

impl State {
    pub fn genesis(header: Header) -> Self {
        Self { header, sessions: BTreeMap::new() }
    }

    /// The state after a proposal with this digest; another one than an honest replica's if `wrong`.
    pub fn execute(&self, digest: Hash, proposal: &Proposal, wrong: bool) -> Self {
        let mut sessions = self.sessions.clone();
        for envelope in &proposal.envelopes {
            let next = sessions.entry(envelope.body.session).or_insert(0);
            if *next == envelope.body.first && envelope.body.valid_until >= proposal.time {
                *next = envelope.next();
            }
        }
        let parent = &self.header;
        let fault: &[u8] = if wrong { b"wrong" } else { b"" };
        let header = Header {
            height: parent.height + 1,
            time: proposal.time,
            // The genesis header names no cluster; its `proposal` is the cluster.
            cluster: if parent.height == 0 { parent.proposal } else { parent.cluster },
            previous: parent.hash(),
            proposal: digest,
            state_root: derive_hash("quorate fuzz state", &[&parent.state_root.0, &digest.0, fault]),
            first_operation: parent.first_operation + u64::from(parent.operation_count),
            operation_count: u32::try_from(proposal.operation_count()).expect("few operations"),
            ..parent.clone()
        };
        Self { header, sessions }
    }

    pub fn advanced_since(&self, before: &Self) -> Vec<(SessionId, u64)> {
        let moved = |(id, next): &(&SessionId, &u64)| before.sessions.get(*id) != Some(*next);
        self.sessions.iter().filter(moved).map(|(id, next)| (*id, *next)).collect()
    }
}
