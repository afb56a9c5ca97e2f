//! Frames from memory: what was written comes back, and nothing else is accepted.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use proptest::prelude::*;
use quorate_protocol::PeerMessage;
use quorate_protocol::client::ClientRequest;

use super::*;
use crate::error::Fault;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// All bodies of a stream of bytes, and how it ended.
fn read_all(bytes: &[u8], bound: usize) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
    block_on(async {
        let mut reader = FrameReader::new(bytes, bound);
        let mut bodies = Vec::new();
        loop {
            let length = match reader.length().await {
                Ok(Some(length)) => length,
                Ok(None) => return (bodies, Ok(())),
                Err(error) => return (bodies, Err(error)),
            };
            match reader.body(length).await {
                Ok(body) => bodies.push(body.to_vec()),
                Err(error) => return (bodies, Err(error)),
            }
        }
    })
}

#[test]
fn frame_is_a_little_endian_length_and_the_encoding() {
    let frame = encode_frame(&PeerMessage::FetchNewView { view: 0x0102 }).unwrap();
    assert_eq!(hex::encode(&frame), "090000000c0201000000000000");
}

#[test]
fn a_claim_above_the_bound_is_refused_without_memory() {
    for claim in [101_u32, 1 << 24, u32::MAX] {
        let (bodies, end) = read_all(&claim.to_le_bytes(), 100);
        assert!(bodies.is_empty());
        assert!(matches!(end, Err(FrameError::TooLarge { bytes, bound: 100 }) if bytes == claim as usize));
    }
    // The room's own bound holds whatever the caller allows.
    let (_, end) = read_all(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes(), usize::MAX);
    assert!(matches!(end, Err(FrameError::TooLarge { .. })));
}

#[test]
fn values_above_the_bound_are_the_callers_fault() {
    let error = encode_frame(&vec![0_u8; FRAME_BYTES_MAX]).unwrap_err();
    assert_eq!(error.fault(), Fault::Caller);
    assert!(encode_frame(&vec![0_u8; FRAME_BYTES_MAX - 4]).is_ok());
}

#[test]
fn large_bodies_come_back_and_truncated_ones_do_not() {
    let body = vec![9_u8; 300_000];
    let frame = encode_frame(&body).unwrap();
    let twice = [frame.clone(), frame.clone()].concat();
    let (bodies, end) = read_all(&twice, FRAME_BYTES_MAX);
    assert!(end.is_ok());
    assert!(bodies.len() == 2 && bodies.iter().all(|bytes| bytes[4..] == body));
    for cut in [1, 3, 5, 40_000, frame.len() - 1] {
        let (bodies, end) = read_all(&frame[..cut], FRAME_BYTES_MAX);
        assert!(bodies.is_empty() && matches!(end, Err(FrameError::Truncated)), "{cut}");
    }
}

proptest! {
    #[test]
    fn frames_come_back(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..20)) {
        let mut bytes = Vec::new();
        for body in &bodies {
            bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
            bytes.extend_from_slice(body);
        }
        let (read, end) = read_all(&bytes, 2000);
        prop_assert!(end.is_ok());
        prop_assert_eq!(read, bodies);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let (bodies, _) = read_all(&bytes, 1000);
        for body in bodies {
            let _ = decode_body::<PeerMessage>(&body);
            let _ = decode_body::<ClientRequest>(&body);
        }
        let _ = decode_body::<PeerMessage>(&bytes);
        let _ = decode_body::<quorate_protocol::client::ClientReply>(&bytes);
    }
}
