//! A relay of datagrams between callers and one replica, like the translation of addresses in a router.
//!
//! Invariant: a direction holds at most [`HELD_MAX`] datagrams, more are lost; a relay serves at most
//! [`CALLERS_MAX`] callers, the latest; its threads end with it.

use super::RELAY_TICK;
use super::conditions::{Conditions, MILLION};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Datagrams that one direction of one caller holds back at once.
const HELD_MAX: usize = 8192;
/// Callers of one relay at once.
const CALLERS_MAX: usize = 64;
/// A datagram is no larger.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Sockets hold bursts of this many bytes.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// One direction of a link: its conditions now, and the dice for its losses.
pub(super) struct Direction {
    conditions: Mutex<Conditions>,
    dice: AtomicU64,
    lost: AtomicU64,
}

impl Direction {
    pub(super) fn new(seed: u64) -> Self {
        let dice = AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Self { conditions: Mutex::default(), dice, lost: AtomicU64::new(0) }
    }

    pub(super) fn set(&self, conditions: Conditions) {
        *self.conditions.lock().unwrap_or_else(PoisonError::into_inner) = conditions;
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// How much later the next datagram arrives, and how often; `None` if it never does.
    fn next(&self) -> Option<(Duration, usize)> {
        let conditions = *self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let Conditions { delay, loss, duplicate, cut } = conditions;
        let through = !cut && (loss == 0 || self.roll() >= loss);
        if !through {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        let twice = through && duplicate > 0 && self.roll() < duplicate;
        through.then_some((delay, if twice { 2 } else { 1 }))
    }

    /// A number below a million.
    fn roll(&self) -> u32 {
        let mut state = self.dice.load(Ordering::Relaxed);
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.dice.store(state, Ordering::Relaxed);
        u32::try_from((state >> 20) % u64::from(MILLION)).unwrap_or_default()
    }
}

/// A running relay.
pub(super) struct Relay {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Relay {
    /// Starts to lead datagrams to `target`, and its answers back.
    pub(super) fn start(target: SocketAddr, there: Arc<Direction>, back: Arc<Direction>) -> io::Result<Self> {
        let socket = open()?;
        let address = socket.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let mut front = Front {
            socket: Arc::new(socket),
            target,
            back,
            ended: Arc::clone(&ended),
            callers: BTreeMap::new(),
        };
        let stop = Arc::clone(&ended);
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            let socket = Arc::clone(&front.socket);
            carry(&socket, &there, &|| stop.load(Ordering::Relaxed), |from, bytes| {
                front.forward(from, bytes)
            });
        })?;
        Ok(Self { address, ended })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// The side to which callers send.
struct Front {
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    back: Arc<Direction>,
    ended: Arc<AtomicBool>,
    callers: BTreeMap<SocketAddr, Caller>,
}

/// What a caller's datagrams leave from.
struct Caller {
    socket: Arc<UdpSocket>,
    ended: Arc<AtomicBool>,
    since: Instant,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Front {
    fn forward(&mut self, from: SocketAddr, bytes: &[u8]) {
        if !self.callers.contains_key(&from) {
            self.admit(from);
        }
        if let Some(caller) = self.callers.get(&from) {
            // What the network does not take is lost, as everywhere.
            let _ = caller.socket.send_to(bytes, self.target);
        }
    }

    /// Gives a caller a socket of its own, to which the answers come.
    fn admit(&mut self, from: SocketAddr) {
        if self.callers.len() >= CALLERS_MAX {
            let oldest = self.callers.iter().min_by_key(|(_, caller)| caller.since).map(|(from, _)| *from);
            oldest.map(|oldest| self.callers.remove(&oldest));
        }
        let Ok(socket) = open().map(Arc::new) else { return };
        let ended = Arc::new(AtomicBool::new(false));
        let (front, back, own, stop, all) = (
            Arc::clone(&self.socket),
            Arc::clone(&self.back),
            Arc::clone(&socket),
            Arc::clone(&ended),
            Arc::clone(&self.ended),
        );
        let work = move || {
            let over = || stop.load(Ordering::Relaxed) || all.load(Ordering::Relaxed);
            carry(&own, &back, &over, |_, bytes| _ = front.send_to(bytes, from));
        };
        if std::thread::Builder::new().name("relay".to_owned()).spawn(work).is_ok() {
            self.callers.insert(from, Caller { socket, ended, since: Instant::now() });
        }
    }
}

fn open() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    // Asking is enough: with smaller buffers more is lost, which is what a relay is for.
    let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &SOCKET_BUFFER_BYTES);
    Ok(socket)
}

/// Takes datagrams from a socket and hands each on when its time has come, in order, until `ended`.
fn carry(
    socket: &UdpSocket,
    direction: &Direction,
    ended: &dyn Fn() -> bool,
    mut hand_on: impl FnMut(SocketAddr, &[u8]),
) {
    let mut held: VecDeque<(Instant, SocketAddr, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while !ended() {
        let now = Instant::now();
        while held.front().is_some_and(|(due, ..)| *due <= now) {
            if let Some((_, from, bytes)) = held.pop_front() {
                hand_on(from, &bytes);
            }
        }
        let next = held.front().map_or(RELAY_TICK, |(due, ..)| due.saturating_duration_since(now));
        // A time-out of zero would mean none.
        let patience = next.clamp(Duration::from_micros(100), RELAY_TICK);
        if socket.set_read_timeout(Some(patience)).is_err() {
            return;
        }
        // Fails when nothing came in time, or when a datagram of ours found nobody: neither ends the relay.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let bytes = buffer.get(..length).unwrap_or_default();
        let Some((delay, times)) = direction.next() else { continue };
        for _ in 0..times {
            if delay.is_zero() && held.is_empty() {
                hand_on(from, bytes);
            } else if held.len() < HELD_MAX {
                let due = Instant::now() + delay;
                // A shorter delay than before overtakes nothing.
                let due = held.back().map_or(due, |(last, ..)| due.max(*last));
                held.push_back((due, from, bytes.to_vec()));
            } else {
                direction.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_go_both_ways_late_or_not_at_all() {
        let replica = UdpSocket::bind("127.0.0.1:0").unwrap();
        replica.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        let [there, back] = [1, 2].map(|seed| Arc::new(Direction::new(seed)));
        let relay =
            Relay::start(replica.local_addr().unwrap(), Arc::clone(&there), Arc::clone(&back)).unwrap();
        let caller = UdpSocket::bind("127.0.0.1:0").unwrap();
        caller.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        let mut buffer = [0; 64];
        let mut trip = |word: &[u8]| -> Option<Duration> {
            let began = Instant::now();
            caller.send_to(word, relay.address()).unwrap();
            let (length, from) = replica.recv_from(&mut buffer).ok()?;
            assert_eq!(&buffer[..length], word);
            replica.send_to(word, from).unwrap();
            let (length, from) = caller.recv_from(&mut buffer).ok()?;
            assert_eq!((&buffer[..length], from), (word, relay.address()));
            Some(began.elapsed())
        };
        assert!(trip(b"at once").is_some());
        there.set(Conditions { delay: Duration::from_millis(60), ..Conditions::default() });
        back.set(Conditions { delay: Duration::from_millis(40), ..Conditions::default() });
        assert!(trip(b"late").unwrap() >= Duration::from_millis(100));
        back.set(Conditions::CUT);
        assert_eq!(trip(b"one way"), None);
        assert_eq!((there.lost(), back.lost()), (0, 1));
        back.set(Conditions::default());
        there.set(Conditions { loss: MILLION / 2, ..Conditions::default() });
        for _ in 0..40 {
            caller.send_to(b"dice", relay.address()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        let lost = there.lost();
        assert!((8..=32).contains(&lost), "{lost} of 40");
        while replica.recv_from(&mut buffer).is_ok() {}
        there.set(Conditions { duplicate: MILLION, ..Conditions::default() });
        caller.send_to(b"twice", relay.address()).unwrap();
        let mut arrived = || replica.recv_from(&mut buffer).ok().map(|(length, _)| length);
        assert_eq!([arrived(), arrived(), arrived()], [Some(5), Some(5), None]);
    }
}
