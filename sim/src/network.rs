//! The virtual network: delay, jitter, loss, duplication, reordering, cuts in one or both directions.
//!
//! Invariant: it never changes or invents a message, and once it is calmed every message arrives after a
//! bounded delay.

use std::collections::{BTreeMap, BTreeSet};

use crate::random::Random;

/// Most copies of one message that arrive.
pub const COPIES_MAX: usize = 2;

/// An end point.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A replica by index.
    Replica(u8),
    /// A client by number.
    Client(u8),
    /// A reader by number.
    Reader(u8),
    /// A hostile client by number.
    Hostile(u8),
}

/// How the network behaves while it is not calm. Times in nanoseconds, chances in millionths.
#[derive(Copy, Clone, Debug)]
pub struct Weather {
    /// Chance that a message is lost.
    pub loss: u32,
    /// Chance that it arrives twice.
    pub duplication: u32,
    /// Chance that it is held back, so that later ones overtake it.
    pub reordering: u32,
    /// Longest time that it is held back.
    pub held: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub const CALM: Self = Self { loss: 0, duplication: 0, reordering: 0, held: 0 };
}

/// The links and what is wrong with them.
#[derive(Debug)]
pub struct Network {
    random: Random,
    latency: BTreeMap<(Address, Address), u64>,
    jitter: u64,
    in_order: bool,
    last: BTreeMap<(Address, Address), u64>,
    weather: Weather,
    /// Cut directions of links, by the number of the cut.
    cuts: BTreeMap<u64, BTreeSet<(Address, Address)>>,
    /// Added to the latency of single directions, until then.
    slow: BTreeMap<(Address, Address), (u64, u64)>,
}

impl Network {
    /// Links between all addresses, each direction with a latency of its own from `latency`.
    #[must_use]
    pub fn new(
        mut random: Random,
        addresses: &[Address],
        latency: (u64, u64),
        jitter: u64,
        in_order: bool,
        weather: Weather,
    ) -> Self {
        let mut links = BTreeMap::new();
        for from in addresses {
            for to in addresses {
                links.insert((*from, *to), random.between(latency.0, latency.1));
            }
        }
        Self {
            random,
            latency: links,
            jitter,
            in_order,
            last: BTreeMap::new(),
            weather,
            cuts: BTreeMap::new(),
            slow: BTreeMap::new(),
        }
    }

    /// When the copies of a message sent now arrive: none if it is lost.
    pub fn send(&mut self, now: u64, from: Address, to: Address) -> Vec<u64> {
        if self.is_cut(from, to) || self.random.chance(self.weather.loss) {
            return Vec::new();
        }
        let copies = if self.random.chance(self.weather.duplication) { COPIES_MAX } else { 1 };
        (0..copies).map(|_| self.arrival(now, from, to)).collect()
    }

    fn arrival(&mut self, now: u64, from: Address, to: Address) -> u64 {
        let latency = self.latency.get(&(from, to)).copied().unwrap_or(0);
        let extra =
            self.slow.get(&(from, to)).filter(|(_, until)| *until > now).map_or(0, |(extra, _)| *extra);
        let mut at = now + latency + extra + self.random.below(self.jitter + 1);
        if self.random.chance(self.weather.reordering) {
            return at + self.random.below(self.weather.held + 1);
        }
        if self.in_order {
            let last = self.last.entry((from, to)).or_insert(0);
            at = at.max(*last);
            *last = at;
        }
        at
    }

    /// Whether this direction of a link is cut now; what is under way there may be lost as well.
    #[must_use]
    pub fn is_cut(&self, from: Address, to: Address) -> bool {
        self.cuts.values().any(|links| links.contains(&(from, to)))
    }

    /// Cuts some directions of links, until the cut of this number is mended.
    pub fn cut(&mut self, number: u64, links: BTreeSet<(Address, Address)>) {
        self.cuts.insert(number, links);
    }

    /// Mends one cut.
    pub fn mend(&mut self, number: u64) {
        self.cuts.remove(&number);
    }

    /// Makes some directions of links slower by `extra` until then.
    pub fn slow(&mut self, links: impl IntoIterator<Item = (Address, Address)>, extra: u64, until: u64) {
        self.slow.extend(links.into_iter().map(|link| (link, (extra, until))));
    }

    /// Mends all links; the weather stays.
    pub fn mend_all(&mut self) {
        self.cuts.clear();
        self.slow.clear();
    }

    /// Changes the weather.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }
}
