//! What each client may cost this replica.
//!
//! Invariant: a connection gets no more messages and bytes, and a principal over all its connections no more
//! signature checks, out of this replica than its budgets say; those who have proved no principal that the
//! cluster knows share one budget (hazards A1, A5). Who is beyond a budget is read more slowly; whose signatures
//! do not hold again and again loses the connection. No other client's budget is touched.

use crate::budgets::bucket::{Bucket, Rate};
use quorate_crypto::PublicKey;
use quorate_transport::ConnectionId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Messages of one connection.
pub const MESSAGES: Rate = Rate { burst: 16_384, per_second: 16_384 };
/// Bytes of one connection.
pub const BYTES: Rate = Rate { burst: 256 << 20, per_second: 512 << 20 };
/// Signatures checked for one principal.
pub const CHECKS: Rate = Rate { burst: 16_384, per_second: 16_384 };
/// Signatures checked for all who have proved no principal that the cluster knows.
pub const STRANGERS_CHECKS: Rate = Rate { burst: 2048, per_second: 1024 };
/// Signatures checked for one connection that did not hold. A correct client has none.
pub const WASTED_CHECKS: Rate = Rate { burst: 16, per_second: 1 };
/// Envelopes of one connection that can have no effect. A correct client has a few, when it sends again what is
/// over, or when a replica has yet to hear of a session: they cost no check, but they cost reading.
pub const USELESS: Rate = Rate { burst: 1024, per_second: 256 };
/// Principals whose budgets are remembered; those with nothing to make good are forgotten first.
pub const PRINCIPALS_MAX: usize = 1024;

#[derive(Debug)]
struct Connection {
    messages: Bucket,
    bytes: Bucket,
    wasted: Bucket,
    useless: Bucket,
}

impl Connection {
    fn new() -> Self {
        Self {
            messages: Bucket::new(MESSAGES),
            bytes: Bucket::new(BYTES),
            wasted: Bucket::new(WASTED_CHECKS),
            useless: Bucket::new(USELESS),
        }
    }
}

/// What becomes of a connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    GoOn,
    /// Nothing is read of it for so long.
    Pause(Duration),
    /// It has sent what no correct client sends, and ends.
    Close,
}

impl Verdict {
    fn after(wait: Duration) -> Self {
        if wait.is_zero() { Self::GoOn } else { Self::Pause(wait) }
    }
}

/// The accounts.
#[derive(Debug)]
pub struct ClientBudgets {
    connections: BTreeMap<ConnectionId, Connection>,
    /// Signature checks of principals that the cluster knows.
    principals: BTreeMap<PublicKey, Bucket>,
    strangers: Bucket,
}

impl Default for ClientBudgets {
    fn default() -> Self {
        Self {
            connections: BTreeMap::new(),
            principals: BTreeMap::new(),
            strangers: Bucket::new(STRANGERS_CHECKS),
        }
    }
}

impl ClientBudgets {
    /// A message of so many bytes has arrived.
    pub fn arrived(&mut self, connection: ConnectionId, bytes: usize, now: Instant) -> Verdict {
        let account = self.connections.entry(connection).or_insert_with(Connection::new);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Verdict::after(account.messages.charge(1, now).max(account.bytes.charge(bytes, now)))
    }

    /// For how long no signature is checked for this principal, or for one who is none: what needs it is dropped.
    pub fn must_wait(&self, principal: Option<&PublicKey>, now: Instant) -> Option<Duration> {
        let wait = match principal {
            Some(key) => self.principals.get(key).map_or(Duration::ZERO, |bucket| bucket.wait(now)),
            None => self.strangers.wait(now),
        };
        (!wait.is_zero()).then_some(wait)
    }

    /// So many signatures were checked for a connection; whether they held.
    pub fn checked(
        &mut self,
        (connection, principal): (ConnectionId, Option<&PublicKey>),
        (checks, held): (u64, bool),
        now: Instant,
    ) -> Verdict {
        let wait = match principal {
            Some(key) => self.of_principal(key, now).charge(checks, now),
            None => self.strangers.charge(checks, now),
        };
        let account = self.connections.entry(connection).or_insert_with(Connection::new);
        if !held && !account.wasted.charge(checks.max(1), now).is_zero() {
            return Verdict::Close;
        }
        Verdict::after(wait)
    }

    /// An envelope was dropped that can have no effect.
    pub fn useless(&mut self, connection: ConnectionId, now: Instant) -> Verdict {
        let account = self.connections.entry(connection).or_insert_with(Connection::new);
        Verdict::after(account.useless.charge(1, now))
    }

    fn of_principal(&mut self, key: &PublicKey, now: Instant) -> &mut Bucket {
        if self.principals.len() >= PRINCIPALS_MAX && !self.principals.contains_key(key) {
            // Who owes something could only shed that by being forgotten, so the others go first.
            self.principals.retain(|_, bucket| !bucket.is_full(now));
            if self.principals.len() >= PRINCIPALS_MAX {
                self.principals.pop_first();
            }
        }
        self.principals.entry(*key).or_insert_with(|| Bucket::new(CHECKS))
    }

    /// A connection has ended. What its principal owes stays owed.
    pub fn closed(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u16) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        PublicKey(bytes)
    }

    /// Hazard A5: a flood is slowed to its budget, and no other connection is.
    #[test]
    fn a5_a_flood_of_one_connection_slows_that_one_alone() {
        let (mut budgets, began) = (ClientBudgets::default(), Instant::now());
        let mut verdicts = (0..20_000).map(|_| budgets.arrived(ConnectionId(1), 10, began));
        assert!(verdicts.by_ref().take(16_384).all(|verdict| verdict == Verdict::GoOn));
        assert!(verdicts.all(|verdict| matches!(verdict, Verdict::Pause(_))));
        assert_eq!(budgets.arrived(ConnectionId(2), 10, began), Verdict::GoOn);
        // By its bytes as well.
        let wait = (0..100).map(|_| budgets.arrived(ConnectionId(3), 16 << 20, began)).last();
        assert!(matches!(wait, Some(Verdict::Pause(wait)) if wait > Duration::from_secs(2)));
        (1..=3).for_each(|connection| budgets.closed(ConnectionId(connection)));
        assert!(budgets.connections.is_empty());
    }

    /// Hazards A1, A5: what can have no effect is read more slowly after a while, of that connection alone.
    #[test]
    fn a5_envelopes_that_can_have_no_effect_slow_their_connection() {
        let (mut budgets, began) = (ClientBudgets::default(), Instant::now());
        for number in 0..2 * USELESS.burst {
            let paused = matches!(budgets.useless(ConnectionId(1), began), Verdict::Pause(_));
            assert_eq!(paused, number >= USELESS.burst, "{number}");
        }
        assert_eq!(budgets.useless(ConnectionId(2), began), Verdict::GoOn);
        assert_eq!(budgets.arrived(ConnectionId(2), 10, began), Verdict::GoOn);
    }

    /// Hazard A5: many connections, or new ones, give a principal no more checks.
    #[test]
    fn a5_a_principal_has_one_budget_over_all_its_connections() {
        let (mut budgets, began) = (ClientBudgets::default(), Instant::now());
        let mut checks = 0_u64;
        while budgets.must_wait(Some(&key(1)), began).is_none() {
            let connection = ConnectionId(checks);
            budgets.checked((connection, Some(&key(1))), (100, true), began);
            budgets.closed(connection);
            checks += 100;
        }
        assert!(checks <= CHECKS.burst + 200);
        assert!(budgets.must_wait(Some(&key(2)), began).is_none());
        assert!(budgets.must_wait(None, began).is_none());
        // Others do not make it be forgotten before it has made good what it owes.
        for number in 2..5000 {
            budgets.checked((ConnectionId(0), Some(&key(number))), (1, true), began);
            assert!(budgets.principals.len() <= PRINCIPALS_MAX);
        }
    }

    /// Hazards A1, A5: strangers share a budget, and whose signatures do not hold loses the connection.
    #[test]
    fn a1_bad_signatures_end_the_connection_after_a_few() {
        let (mut budgets, began) = (ClientBudgets::default(), Instant::now());
        let mut checks = 0;
        for connection in 0..10_000 {
            let connection = ConnectionId(connection);
            while budgets.must_wait(None, began).is_none() {
                checks += 1;
                if budgets.checked((connection, None), (1, false), began) == Verdict::Close {
                    break;
                }
            }
            budgets.closed(connection);
        }
        assert!(checks <= STRANGERS_CHECKS.burst + 1, "{checks}");
        assert!(budgets.must_wait(Some(&key(1)), began).is_none(), "principals are not strangers");
        let mut verdict = Verdict::GoOn;
        let mut count = 0;
        while verdict != Verdict::Close {
            verdict = budgets.checked((ConnectionId(1), Some(&key(1))), (1, false), began);
            count += 1;
        }
        assert_eq!(count, WASTED_CHECKS.burst + 1);
    }
}
