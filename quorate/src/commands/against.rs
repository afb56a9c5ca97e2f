//! A live cluster against what was seen of it before: was it rolled back, or has it forked?
//!
//! Invariant: a fork is two certified heads, which anybody can check. A roll-back is seen by who asks: Q replicas say
//! that they never voted for a height that Q replicas are certified to have voted for, so a correct one has
//! forgotten it. Fewer answers tell nothing.

use crate::commands::compare::{fork_json, fork_text, head_json};
use quorate_audit::{Anchor, Fork, Head, HeadFault, Heads};
use quorate_client::{ClusterStatus, Observer};
use quorate_protocol::{Genesis, ReplicaIndex};
use std::fmt;

/// What came of it.
pub enum Against {
    /// What was seen is a part of what the cluster shows.
    Holds,
    /// It shows another history.
    Forked(Fork),
    /// It has lost what was seen.
    RolledBack {
        /// What was seen.
        seen: Box<Head>,
        /// The highest that it shows.
        shown: Box<Head>,
    },
    /// Why it cannot be told.
    CannotTell(String),
}

impl Against {
    /// Whether the cluster must not be relied on.
    pub const fn is_alarm(&self) -> bool {
        matches!(self, Self::Forked(_) | Self::RolledBack { .. })
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Holds => serde_json::json!({ "verdict": "holds" }),
            Self::Forked(fork) => serde_json::json!({ "verdict": "forked", "conflict": fork_json(fork) }),
            Self::RolledBack { seen, shown } => serde_json::json!({
                "verdict": "rolled back", "seen": head_json(seen), "shown": head_json(shown),
            }),
            Self::CannotTell(why) => serde_json::json!({ "verdict": "cannot tell", "text": why }),
        }
    }
}

impl fmt::Display for Against {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => write!(formatter, "what was seen before is a part of what the cluster shows"),
            Self::Forked(fork) => {
                write!(
                    formatter,
                    "forked: the cluster does not show the history that was seen before\n{}",
                    fork_text(fork)
                )
            }
            Self::RolledBack { seen, shown } => write!(
                formatter,
                "rolled back: the cluster has lost heights that were seen before\nseen:  {seen}\nshown: {shown}"
            ),
            Self::CannotTell(why) => {
                write!(formatter, "it cannot be told whether what was seen before is a part of it: {why}")
            }
        }
    }
}

/// The certified heads that replicas show, and who shows each.
pub fn certified(genesis: &Genesis, status: &ClusterStatus) -> Vec<(ReplicaIndex, Head)> {
    let verifier = crate::commands::trust::verifier(genesis);
    let shown = status.replicas.iter().filter_map(|state| {
        let status = state.status.as_ref().ok()?;
        Some((state.replica, Head { header: status.header.clone(), certificate: status.certificate.clone() }))
    });
    shown.filter(|(_, head)| head.check(genesis, &verifier).is_ok()).collect()
}

/// Compares what replicas show with what was seen.
pub async fn against(
    observer: &Observer,
    genesis: &Genesis,
    seen: &Anchor,
    shown: &[(ReplicaIndex, Head)],
) -> Against {
    let verifier = crate::commands::trust::verifier(genesis);
    let mut heads = Heads::new(genesis, &verifier);
    let height = seen.head.header.height;
    for head in std::iter::once(&seen.head).chain(shown.iter().map(|(_, head)| head)) {
        match heads.add(head) {
            Ok(()) => {}
            Err(HeadFault::Fork(fork)) => return Against::Forked(fork),
            Err(HeadFault::NoHead(error)) => return Against::CannotTell(error.to_string()),
        }
    }
    let Some((_, top)) = shown.iter().max_by_key(|(_, head)| head.header.height) else {
        return Against::CannotTell("no replica shows a certified head".to_owned());
    };
    if top.header.height < height {
        return is_lost(observer, genesis, &seen.head, top).await;
    }
    if top.header.height == height || height == 0 {
        return Against::Holds;
    }
    // All of them: one that still has the old history must not stand for those that have another one.
    let (mut why, mut agrees) = (None, false);
    for (replica, _) in shown.iter().filter(|(_, head)| head.header.height > height) {
        let then = match observer.history_of(*replica, height).await {
            Ok(batches) => batches.first().map(Head::of).filter(|head| head.header.height == height),
            Err(text) => {
                why = Some(text);
                continue;
            }
        };
        match then.map(|head| heads.add(&head)) {
            Some(Ok(())) => agrees = true,
            Some(Err(HeadFault::Fork(fork))) => return Against::Forked(fork),
            Some(Err(HeadFault::NoHead(error))) => why = Some(error.to_string()),
            None => why = Some(format!("another height than {height}")),
        }
    }
    match why {
        _ if agrees => Against::Holds,
        why => Against::CannotTell(format!("no replica shows height {height}: {}", why.unwrap_or_default())),
    }
}

/// Whether a quorum knows nothing of what was seen.
async fn is_lost(observer: &Observer, genesis: &Genesis, seen: &Head, shown: &Head) -> Against {
    let answers = observer.have_voted_for(seen.header.height).await;
    let ignorant = answers.iter().filter(|(_, voted)| !voted).count();
    if ignorant >= genesis.members.quorum() {
        let [seen, shown] = [seen, shown].map(|head| Box::new(head.clone()));
        return Against::RolledBack { seen, shown };
    }
    Against::CannotTell(format!(
        "height {} was seen, height {} is the highest that is shown, and {} of {} replicas that answer have voted for more",
        seen.header.height,
        shown.header.height,
        answers.len() - ignorant,
        answers.len()
    ))
}
