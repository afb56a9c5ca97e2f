//! Free loopback ports for the replicas of a local cluster.
//!
//! Invariant: the ports of one call are distinct, because all are held until all are chosen.

use std::net::UdpSocket;

/// `count` addresses on 127.0.0.1 whose UDP ports nobody uses at this moment.
///
/// # Errors
/// The system's, when it has no port to give.
pub fn free_addresses(count: usize) -> std::io::Result<Vec<String>> {
    let sockets: Vec<UdpSocket> =
        (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    sockets.iter().map(|socket| Ok(socket.local_addr()?.to_string())).collect()
}

/// Whether nobody uses this UDP address at this moment.
#[must_use]
pub fn is_free(address: &str) -> bool {
    UdpSocket::bind(address).is_ok()
}
