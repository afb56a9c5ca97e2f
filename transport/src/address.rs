//! HOST:PORT texts and the socket addresses that they stand for.
//!
//! Invariant: an address only says where to knock; nothing is trusted because of it.

use std::net::SocketAddr;

use crate::error::TransportError;

/// Splits HOST:PORT; an IPv6 host is in brackets. Does not look the host up.
pub(crate) fn split_address(text: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("no colon between host and port")?;
    let port = port.parse().map_err(|_| "the port is no number below 65536")?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or("no closing bracket after the host")?,
        None if host.contains(':') => return Err("an IPv6 host needs brackets"),
        None => host,
    };
    if host.is_empty() { Err("no host") } else { Ok((host, port)) }
}

/// Looks an address up; IPv4 first, which every kind of socket here can reach.
pub(crate) async fn resolve(text: &str) -> Result<SocketAddr, TransportError> {
    let failed = |reason: String| TransportError::Address { address: text.to_owned(), reason };
    let (host, port) = split_address(text).map_err(|reason| failed(reason.to_owned()))?;
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| failed(error.to_string()))?;
    // A stable minimum: all IPv4 addresses come before IPv6, in the order of the resolver.
    found.min_by_key(SocketAddr::is_ipv6).ok_or_else(|| failed("the host has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_told_apart() {
        assert_eq!(split_address("127.0.0.1:7000"), Ok(("127.0.0.1", 7000)));
        assert_eq!(split_address("[::1]:7000"), Ok(("::1", 7000)));
        assert_eq!(split_address("replica-1.example:65535"), Ok(("replica-1.example", 65535)));
        for bad in ["", "host", ":1", "host:", "host:65536", "::1:7000", "[::1:7000", "[]:1", "host:x"] {
            assert!(split_address(bad).is_err(), "{bad:?} passed");
        }
    }
}
