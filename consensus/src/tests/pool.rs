//! The pool and the vote table against whatever order of calls; configurations that are refused.

use std::collections::BTreeSet;

use proptest::prelude::*;
use quorate_crypto::Hash;
use quorate_protocol::{BatchTime, Proposal, VoteKind};

use super::harness::{Net, session_of};
use crate::door::Verified;
use crate::pool::{Pool, Room};
use crate::tally::{Added, Standing, VoteTable};
use crate::{Configuration, ConfigurationError, Monotonic, Parameters, PoolBounds};

#[derive(Clone, Debug)]
enum Call {
    Insert { client: u8, first: u64 },
    Select { envelopes: usize },
    Commit { consume: bool },
    NewView,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => (0..4_u8, 0..6_u64).prop_map(|(client, first)| Call::Insert { client, first }),
        2 => (1..4_usize).prop_map(|envelopes| Call::Select { envelopes }),
        2 => any::<bool>().prop_map(|consume| Call::Commit { consume }),
        1 => Just(Call::NewView),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_pool_stays_consistent_and_offers_each_envelope_once(calls in prop::collection::vec(call(), 1..80)) {
        let net = Net::new(4);
        let bounds = PoolBounds { envelopes: 12, envelopes_per_session: 4, ..PoolBounds::default() };
        let mut pool = Pool::new(bounds);
        let mut next = [0_u64; 4];
        let mut offered: BTreeSet<(u8, u64)> = BTreeSet::new();
        let mut batches: Vec<Vec<(u8, u64)>> = Vec::new();
        for (now, call) in (0..).zip(calls) {
            let now = Monotonic(now);
            match call {
                Call::Insert { client, first } => {
                    let envelope = Verified::new(net.envelope(client, first, 1, 0), Hash::ZERO);
                    let wanted = pool.would_take(envelope.value(), next[usize::from(client)]);
                    let taken = pool.insert(envelope, next[usize::from(client)], now);
                    prop_assert!(taken || !wanted, "what is wanted is taken");
                }
                Call::Select { envelopes } => {
                    let taken = pool.select(Room { envelopes, operations: 100, bytes: 1 << 20 });
                    let keys = |session| (0..4).find(|client| session_of(*client) == session).unwrap();
                    let taken: Vec<(u8, u64)> =
                        taken.iter().map(|e| (keys(e.body.session), e.body.first)).collect();
                    for (client, first) in &taken {
                        prop_assert!(offered.insert((*client, *first)), "offered twice in one view");
                    }
                    batches.push(taken);
                }
                Call::Commit { consume } => {
                    let Some(batch) = (!batches.is_empty()).then(|| batches.remove(0)) else { continue };
                    let mut advanced = Vec::new();
                    for (client, first) in &batch {
                        let at = &mut next[usize::from(*client)];
                        if consume && *at == *first {
                            *at += 1;
                            advanced.push((session_of(*client), *at));
                        } else {
                            // A skipped one is out until its client sends it again.
                            offered.retain(|(other, _)| other != client);
                        }
                    }
                    let envelopes: Vec<_> = batch.iter().map(|(c, f)| net.envelope(*c, *f, 1, 0)).collect();
                    let (parent, time) = (Hash::ZERO, BatchTime(1));
                    let proposal = Proposal { parent, time, envelopes: envelopes.try_into().unwrap() };
                    pool.commit(&proposal, &advanced, time, now);
                }
                Call::NewView => {
                    pool.reset_projection();
                    offered.clear();
                    batches.clear();
                }
            }
            prop_assert!(pool.is_consistent());
            prop_assert!(pool.len() <= 12);
        }
    }

    #[test]
    fn the_first_vote_stays_and_quorums_are_of_one_kind_view_and_height(
        votes in prop::collection::vec((0..4_u8, any::<bool>(), 0..3_u64, 1..3_u64, 0..2_u8), 1..60),
        liar in 0..5_u8,
    ) {
        let net = Net::new(4);
        let mut table = VoteTable::default();
        let mut model = std::collections::BTreeMap::new();
        for (replica, commit, view, height, header) in votes {
            let kind = if commit { VoteKind::Commit } else { VoteKind::Prepare };
            let header = Hash([header; 32]);
            let first = *model.entry((replica, kind, view, height)).or_insert(header);
            let holds = |vote: &quorate_protocol::Vote| vote.replica != liar;
            let added = table.add(net.vote(replica, kind, view, height, header), Standing::Unchecked, &holds);
            prop_assert_eq!(first != header && added == Added::New, false);
            for wanted in [Hash([0; 32]), Hash([1; 32])] {
                let count = model.iter().filter(|((r, k, v, h), known)| *r != liar && {
                    (*k, *v, *h, **known) == (kind, view, height, wanted)
                });
                let quorum = table.quorum((kind, view, height), 3, &holds).quorum;
                prop_assert!(quorum.iter().all(|(_, votes)| votes.len() == 3 && votes.iter().all(|v| v.0 != liar)));
                let found = quorum.is_some_and(|(known, _)| known == wanted);
                prop_assert_eq!(found, count.count() >= 3);
            }
        }
    }
}

#[test]
fn configurations_out_of_range_are_refused() {
    let net = Net::new(4);
    let configure = |me, window, parameters| {
        let (members, genesis) = (net.configuration.members().clone(), net.configuration.genesis().clone());
        Configuration::new(*net.configuration.cluster(), members, me, genesis, window, parameters).err()
    };
    let parameters = Parameters::default();
    assert_eq!(configure(3, 64, parameters), None);
    assert_eq!(configure(4, 4, parameters), Some(ConfigurationError::NotAMember(4)));
    assert_eq!(configure(0, 0, parameters), Some(ConfigurationError::Window(0)));
    assert_eq!(configure(0, 65, parameters), Some(ConfigurationError::Window(65)));
    let mut small = parameters;
    small.proposal.bytes = 1000;
    assert_eq!(configure(0, 4, small), Some(ConfigurationError::Bound("proposal.bytes")));
    let mut hasty = parameters;
    hasty.timeouts.resend = 0;
    assert_eq!(configure(0, 4, hasty), Some(ConfigurationError::Timeout("resend")));
}
