//! Whether a peer's process still has its port, as the peer's machine says.
//!
//! QUIC notices a dead peer by its silence alone, which lasts for [`crate::tuning::IDLE_TIMEOUT`]. A machine
//! answers a datagram to a port that nobody listens on with "port unreachable", and the system reports that on
//! a socket that is connected to the port. So a process that was killed is known to be gone within
//! some 50 ms; a machine that is gone, or a firewall that swallows either datagram, says nothing.
//!
//! Invariant: this only ever ends a connection early, which is dialled again; it takes [`REFUSALS`] in a row. While
//! datagrams of the peer arrive nothing is sent, and after a time of silence without refusal very little.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use quinn::Connection;
use tokio::net::UdpSocket;

/// How often is looked whether the peer is silent, and how soon a silent one is asked again.
const INTERVAL: Duration = Duration::from_millis(20);
/// How often a peer is asked that has been silent for long: nothing is going on.
const INTERVAL_IDLE: Duration = Duration::from_millis(200);
/// Questions without a refusal after which a silent peer is one with nothing to say.
const QUESTIONS: u32 = 10;
/// Refusals in a row that are believed.
const REFUSALS: u32 = 2;
/// No QUIC packet is so short: whoever listens drops it unseen.
const QUESTION: [u8; 1] = [0];

/// Ends when the port of the other end of a connection was refused; never otherwise.
pub(crate) async fn refused(connection: &Connection) {
    let Ok(socket) = open(connection.remote_address()).await else {
        return std::future::pending().await;
    };
    let arrived = || connection.stats().udp_rx.datagrams;
    let (mut before, mut questions, mut refusals) = (arrived(), 0_u32, 0_u32);
    loop {
        tokio::time::sleep(if questions < QUESTIONS { INTERVAL } else { INTERVAL_IDLE }).await;
        let now = arrived();
        if now != before {
            (before, questions, refusals) = (now, 0, 0);
            continue;
        }
        refusals = if was_refused(&socket) { refusals.saturating_add(1) } else { 0 };
        if refusals >= REFUSALS {
            return;
        }
        questions = if refusals > 0 { 0 } else { questions.saturating_add(1) };
        // What a full buffer does not take is asked next time.
        let _ = socket.try_send(&QUESTION);
    }
}

async fn open(remote: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(remote).await?;
    Ok(socket)
}

/// Whether the last question was refused.
fn was_refused(socket: &UdpSocket) -> bool {
    let error = socket.take_error().ok().flatten();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_refused_and_another_is_not() {
        let peer = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let socket = open(peer.local_addr().expect("an address")).await.expect("a socket");
        let ask = async || {
            let _ = socket.try_send(&QUESTION);
            tokio::time::sleep(INTERVAL).await;
            was_refused(&socket)
        };
        assert!(!ask().await && !ask().await);
        drop(peer);
        assert!(ask().await && ask().await);
    }
}
