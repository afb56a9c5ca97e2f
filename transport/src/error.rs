//! What goes wrong between two ends of a connection, and whose fault it is.
//!
//! Invariant: every error names a fault, so that a caller knows whether to correct itself, to blame and
//! leave the other end, to try again, or to report a defect of this program.

use std::io;
use std::net::SocketAddr;

use quorate_crypto::DecodeError;

/// Whose fault an error is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The caller asked for what cannot be done.
    Caller,
    /// The other end broke a rule or is not who it should be.
    Peer,
    /// Nobody answers, or the way is broken; trying again may help.
    Network,
    /// The local system or this program.
    Ours,
}

/// Bytes that are no frame. The fault of whoever sent them, except [`FrameError::TooLargeToSend`].
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced length is above the bound; nothing was allocated for it.
    #[error("a frame of {bytes} bytes where at most {bound} are allowed")]
    TooLarge {
        /// Announced length.
        bytes: usize,
        /// Allowed length.
        bound: usize,
    },
    /// The caller's value encodes to more than the bound.
    #[error("cannot send {bytes} bytes in one frame, at most {bound} fit")]
    TooLargeToSend {
        /// Encoded length.
        bytes: usize,
        /// Allowed length.
        bound: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// Whole, but not the encoding of the expected type.
    #[error("frame does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// The stream was reset or its connection lost.
    #[error("stream lost: {0}")]
    Lost(#[from] io::Error),
    /// Bytes after the only frame of the stream, or a stream that may not exist.
    #[error("stream breaks the protocol: {0}")]
    Protocol(&'static str),
}

impl FrameError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::TooLargeToSend { .. } => Fault::Caller,
            Self::Lost(_) => Fault::Network,
            Self::TooLarge { .. } | Self::Truncated | Self::Decode(_) | Self::Protocol(_) => Fault::Peer,
        }
    }
}

/// Why a connection cannot be had or a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The UDP port cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The text is no HOST:PORT, or the host has no address.
    #[error("cannot resolve the address {address:?}: {reason}")]
    Address {
        /// The text.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration contradicts itself.
    #[error("transport configuration: {0}")]
    Configuration(&'static str),
    /// The TLS library refuses what this program built.
    #[error("TLS set-up: {0}")]
    Tls(String),
    /// The other end proved another key than the pinned one, or none.
    #[error("{address} is not the replica that it should be: {reason}")]
    WrongIdentity {
        /// Whom we called.
        address: SocketAddr,
        /// What the handshake said.
        reason: String,
    },
    /// The other end refused the connection or this principal.
    #[error("the replica refuses: {0}")]
    Refused(String),
    /// No answer within the time allowed.
    #[error("no answer within the time allowed")]
    Timeout,
    /// There is no connection at this moment.
    #[error("not connected")]
    NotConnected,
    /// The connection is lost.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The outgoing queue is full.
    #[error("too much is queued for this replica already")]
    Congested,
    /// A frame is bad.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl TransportError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Address { .. } | Self::Configuration(_) => Fault::Caller,
            Self::Bind { .. } | Self::Tls(_) => Fault::Ours,
            Self::WrongIdentity { .. } | Self::Refused(_) => Fault::Peer,
            Self::Timeout | Self::NotConnected | Self::Lost(_) | Self::Congested => Fault::Network,
            Self::Frame(error) => error.fault(),
        }
    }
}

impl TransportError {
    /// Tells a wrong key from a lost connection when a dial fails.
    pub(crate) fn of_handshake(address: SocketAddr, error: &quinn::ConnectionError) -> Self {
        match error {
            quinn::ConnectionError::TransportError(cause) if is_crypto(u64::from(cause.code)) => {
                Self::WrongIdentity { address, reason: cause.to_string() }
            }
            quinn::ConnectionError::ConnectionClosed(close) if is_crypto(u64::from(close.error_code)) => {
                Self::Refused(close.to_string())
            }
            quinn::ConnectionError::ApplicationClosed(close) => Self::Refused(close.to_string()),
            other => Self::Lost(other.to_string()),
        }
    }
}

/// Codes 0x100 to 0x1ff are TLS alerts (RFC 9001, section 4.8).
const fn is_crypto(code: u64) -> bool {
    matches!(code, 0x100..=0x1ff)
}
