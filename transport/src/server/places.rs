//! Who may stay connected: places for clients.
//!
//! Invariant: strangers, which are all whose principal the cluster is not known to have, take up no more than half
//! of all places, and those of one source address no more than an eighth of that; so whoever has a principal finds
//! a place however many connections anybody opens. Where strangers are too many, the one that has been one for
//! longest gives way, but none before it had the time to show who it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ConnectionId;

/// A stranger keeps its place for so long at least.
const STRANGER_TIME_MIN: Duration = Duration::from_secs(5);
/// The share of all places that strangers may take up: one of so many.
const STRANGERS_SHARE: usize = 2;
/// The share of these that one source may take up.
const SOURCE_SHARE: usize = 8;
/// Bits of an IPv6 address that one source has to itself.
const IPV6_HOST_BITS: u32 = 64;

/// All places.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    all: usize,
    known: BTreeSet<ConnectionId>,
    /// By age, because identifiers ascend.
    strangers: BTreeMap<ConnectionId, Stranger>,
    sources: BTreeMap<IpAddr, usize>,
}

struct Stranger {
    source: IpAddr,
    since: Instant,
    /// Closes its connection.
    close: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Stranger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stranger").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    id: ConnectionId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.known.remove(&self.id);
        drop(state.take(&self.id));
    }
}

/// What counts as one source.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> IPV6_HOST_BITS << IPV6_HOST_BITS))
        }
        canonical => canonical,
    }
}

impl State {
    const fn strangers_max(&self) -> usize {
        self.all.div_ceil(STRANGERS_SHARE)
    }

    const fn source_max(&self) -> usize {
        self.strangers_max().div_ceil(SOURCE_SHARE)
    }

    /// Takes a stranger out.
    fn take(&mut self, id: &ConnectionId) -> Option<Stranger> {
        let stranger = self.strangers.remove(id)?;
        if let Some(count) = self.sources.get_mut(&stranger.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sources.remove(&stranger.source);
            }
        }
        Some(stranger)
    }

    /// The oldest stranger, of one source or of any, leaves if it has had its time.
    fn give_way(&mut self, source: Option<IpAddr>, now: Instant) -> Option<Stranger> {
        let may = |stranger: &Stranger| source.is_none_or(|source| stranger.source == source);
        let (id, oldest) = self.strangers.iter().find(|(_, stranger)| may(stranger))?;
        let id = *id;
        let due = now.saturating_duration_since(oldest.since) >= STRANGER_TIME_MIN;
        due.then(|| self.take(&id)).flatten()
    }
}

impl Places {
    pub(super) fn new(all: usize) -> Self {
        let state =
            State { all, known: BTreeSet::new(), strangers: BTreeMap::new(), sources: BTreeMap::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, which is a stranger's; `None` if there is none. `close` closes the connection.
    pub(super) fn enter(
        &self,
        id: ConnectionId,
        address: IpAddr,
        now: Instant,
        close: impl FnOnce() + Send + 'static,
    ) -> Option<Place> {
        let source = source_of(address);
        let mut state = self.lock();
        let of_source = state.sources.get(&source).copied().unwrap_or(0);
        let is_full = state.strangers.len() >= state.strangers_max()
            || state.known.len().saturating_add(state.strangers.len()) >= state.all;
        let leaves = if of_source >= state.source_max() {
            Some(state.give_way(Some(source), now)?)
        } else if is_full {
            Some(state.give_way(None, now)?)
        } else {
            None
        };
        state.strangers.insert(id, Stranger { source, since: now, close: Box::new(close) });
        let count = state.sources.entry(source).or_default();
        *count = count.saturating_add(1);
        drop(state);
        if let Some(stranger) = leaves {
            (stranger.close)();
        }
        Some(Place { places: self.clone(), id })
    }

    /// The cluster has the principal of this connection: it keeps its place.
    pub(super) fn admit(&self, id: ConnectionId) {
        let mut state = self.lock();
        if state.take(&id).is_some() {
            state.known.insert(id);
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct Door {
        places: Places,
        began: Instant,
        next: u64,
        closed: Arc<AtomicU64>,
    }

    impl Door {
        fn new(all: usize) -> Self {
            Self { places: Places::new(all), began: Instant::now(), next: 0, closed: Arc::default() }
        }

        fn call(&mut self, host: u8, second: u64) -> Option<Place> {
            let (id, closed) = (ConnectionId(self.next), Arc::clone(&self.closed));
            self.next += 1;
            let address = IpAddr::from([10, 0, 0, host]);
            let now = self.began + Duration::from_secs(second);
            self.places.enter(id, address, now, move || {
                closed.fetch_add(1, Ordering::Relaxed);
            })
        }
    }

    /// Hazards A5, RX7.
    #[test]
    fn a5_strangers_leave_half_of_all_places_to_those_who_are_known() {
        let mut door = Door::new(64);
        let held: Vec<Place> = (0..200).filter_map(|call| door.call(call as u8, 0)).collect();
        assert_eq!(held.len(), 32, "strangers from everywhere");
        // Each of them may turn out to be known, and then makes room for the next.
        let mut known = Vec::new();
        for place in held {
            door.places.admit(place.id);
            known.push(place);
            known.extend(door.call(201, 0).inspect(|place| door.places.admit(place.id)));
        }
        assert_eq!(known.len(), 64);
        assert!(door.call(202, 100).is_none(), "nobody who is known gives way");
        drop(known.pop());
        assert!(door.call(202, 100).is_some());
        assert_eq!(door.closed.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a5_one_source_has_a_share_and_who_stays_a_stranger_gives_way() {
        let mut door = Door::new(64);
        let mut held: Vec<Place> = (0..10).filter_map(|_| door.call(1, 0)).collect();
        assert_eq!(held.len(), 4, "an eighth of the half");
        assert!(door.call(1, 4).is_none(), "they have their time");
        held.extend((2..30).filter_map(|host| door.call(host, 4)));
        assert_eq!(held.len(), 32);
        // The oldest one leaves, of the same source or of all.
        held.extend(door.call(1, 5));
        held.extend(door.call(77, 5));
        assert_eq!((held.len(), door.closed.load(Ordering::Relaxed)), (34, 2));
        let strangers = door.places.lock().strangers.keys().map(|id| id.0).take(2).collect::<Vec<_>>();
        assert_eq!(strangers, [2, 3]);
        // Who left gives nothing back a second time.
        drop(held);
        let state = door.places.lock();
        assert!(state.known.is_empty() && state.strangers.is_empty() && state.sources.is_empty());
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_hosts() {
        let source = |text: &str| source_of(text.parse().unwrap_or(IpAddr::from([0; 4])));
        assert_eq!(source("2001:db8::1"), source("2001:db8::2:3"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }
}
