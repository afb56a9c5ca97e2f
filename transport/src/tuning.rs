//! How QUIC is tuned: windows as budgets, timers for a local network, and every bound of this room.
//!
//! Invariant: the send window of a connection exceeds the sum of what its streams may have unread, so a
//! stream that nobody reads never stops another one of the same connection.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::error::TransportError;

/// Unread bytes of one stream. More would only fill the sockets' buffers, in which a vote then waits.
pub const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Unread bytes of one connection, and bytes that are sent but not acknowledged.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Unread bytes of a client's connection at a replica, so that uploads leave room for votes.
pub const CLIENT_WINDOW_BYTES: u32 = 2 << 20;
/// A connection is lost when nothing arrived for so long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// A sign of life is sent after so much silence.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Round trip that is assumed before the first measurement; a lost first packet is sent again after
/// about three of these.
pub const INITIAL_RTT: Duration = Duration::from_millis(30);
/// Bytes that may be on their way before the first acknowledgement.
pub const INITIAL_WINDOW_BYTES: u64 = 256 << 10;
/// UDP payload that is tried from the start; every Ethernet carries it.
pub const INITIAL_MTU_BYTES: u16 = 1452;
/// Largest UDP payload that is probed for: on loopback and with jumbo frames large messages then cost less
/// than half of the time. The system takes at most 64 KiB in one call, which QUIC fills with ten packets.
pub const MTU_BYTES_MAX: u16 = 6000;
/// Longest delay of an acknowledgement; with the default of 25 ms the loss of a last packet, which may be
/// a vote, would be noticed as much later.
pub const ACK_DELAY_MAX: Duration = Duration::from_millis(5);
/// Packets that may arrive before an acknowledgement of its own is sent: votes go both ways all the time and
/// carry it along.
pub const ACK_PACKETS: u32 = 10;
/// A dial is given up after so long.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// First pause between two dials; doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Longest pause between two dials.
pub const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A connection that lived so long makes the next pause short again; one that flaps does not.
pub const STEADY_AFTER: Duration = Duration::from_secs(1);
/// Bytes of the socket's buffers that are asked for; the system may grant less.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Priority of streams on which either side of a client's connection pushes: submissions and notices.
pub(crate) const PRIORITY_PUSHED: i32 = 2;

/// Priority of a request or reply on a client's connection: small ones overtake blocks.
pub(crate) const fn priority(is_large: bool) -> i32 {
    if is_large { 0 } else { 1 }
}

/// Why a connection is closed, as the other end sees it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// Nothing is wrong.
    Done,
    /// A newer connection of the same peer took over.
    Replaced,
    /// The other end broke a rule.
    Violation,
    /// No room for another connection.
    Busy,
    /// The other end is no member of the cluster.
    Stranger,
}

impl CloseCode {
    /// The code in the QUIC frame.
    #[must_use]
    pub fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Done => 0,
            Self::Replaced => 1,
            Self::Violation => 2,
            Self::Busy => 3,
            Self::Stranger => 4,
        })
    }
}

/// Streams that the other end may have open at once.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) bidirectional: u32,
    pub(crate) unidirectional: u32,
}

/// The transport configuration of every connection here.
pub(crate) fn transport_config(streams: Streams) -> Arc<TransportConfig> {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MTU_BYTES_MAX);
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.max_ack_delay(Some(ACK_DELAY_MAX)).ack_eliciting_threshold(ACK_PACKETS.into());
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams.bidirectional))
        .max_concurrent_uni_streams(VarInt::from_u32(streams.unidirectional))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .send_fairness(false)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(INITIAL_MTU_BYTES)
        .mtu_discovery_config(Some(discovery))
        .ack_frequency_config(Some(acknowledgements))
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(congestion));
    Arc::new(config)
}

/// Lets packets of [`MTU_BYTES_MAX`] in.
pub(crate) fn tune_endpoint(mut config: EndpointConfig) -> EndpointConfig {
    // Fails only below the minimum of 1200 bytes.
    let _ = config.max_udp_payload_size(MTU_BYTES_MAX);
    config
}

/// Opens the UDP socket of an end point, with large buffers: bursts beyond them are lost packets.
pub(crate) fn bind(address: SocketAddr) -> Result<UdpSocket, TransportError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // Asking is enough: with smaller buffers everything works, only slower.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        socket.bind(&SockAddr::from(address))?;
        Ok(socket.into())
    };
    open().map_err(|source| TransportError::Bind { address, source })
}
