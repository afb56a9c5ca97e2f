//! Free loopback ports for the replicas of a local cluster.
//!
//! Invariants: the ports of one call are distinct, because all are held until all are chosen. They lie outside of the range
//! from which the system gives sockets any port, as long as one is free there: a replica that is down for a moment must
//! find its port again, and not a client of somebody else on it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, UdpSocket};

/// Ports below this one are for well-known services.
const FIRST_PORT: u16 = 10_000;
/// Where Linux says from which port on it chooses itself, and what it says by default.
const SYSTEM_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const SYSTEM_FIRST_DEFAULT: u16 = 32_768;
/// Ports that are tried for each one that is wanted, before the system chooses.
const ATTEMPTS_MAX: usize = 256;

/// `count` addresses on 127.0.0.1 whose UDP ports nobody uses at this moment.
///
/// # Errors
/// The system's, when it has no port to give.
pub fn free_addresses(count: usize) -> std::io::Result<Vec<String>> {
    let range = FIRST_PORT..system_first();
    let sockets: Vec<UdpSocket> = (0..count).map(|_| free_socket(&range)).collect::<Result<_, _>>()?;
    sockets.iter().map(|socket| Ok(socket.local_addr()?.to_string())).collect()
}

fn free_socket(range: &std::ops::Range<u16>) -> std::io::Result<UdpSocket> {
    let mut tries = (0..ATTEMPTS_MAX).filter_map(|_| {
        // Many clusters are made at once by tests: each begins elsewhere.
        let random = RandomState::new().build_hasher().finish();
        let place = random.checked_rem(u64::try_from(range.len()).ok()?)?;
        let port = range.start.checked_add(u16::try_from(place).ok()?)?;
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()
    });
    tries.next().map_or_else(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)), Ok)
}

/// The first port that the system gives by itself.
fn system_first() -> u16 {
    let range = std::fs::read_to_string(SYSTEM_RANGE).unwrap_or_default();
    range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(SYSTEM_FIRST_DEFAULT)
}

/// Whether nobody uses this UDP address at this moment.
#[must_use]
pub fn is_free(address: &str) -> bool {
    UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(range: &std::ops::Range<u16>, count: usize) -> Vec<u16> {
        let sockets: Vec<UdpSocket> = (0..count).map(|_| free_socket(range).unwrap()).collect();
        sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
    }

    #[test]
    fn ports_are_distinct_and_not_among_those_that_the_system_gives() {
        let addresses = free_addresses(13).unwrap();
        assert!(addresses.iter().all(|address| is_free(address)));
        let mut found = ports(&(FIRST_PORT..system_first()), 50);
        assert!(found.iter().all(|port| *port >= FIRST_PORT && *port < system_first()));
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 50);
    }

    /// Also where there is no such range.
    #[test]
    fn the_system_chooses_when_nothing_else_is_free() {
        assert_eq!(ports(&(FIRST_PORT..FIRST_PORT), 3).len(), 3);
    }
}
