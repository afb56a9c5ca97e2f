//! Frames that cannot be decoded, to peers and clients.
//!
//! Invariant: every frame here breaks a rule that a decoder or reader of frames checks.

use super::liar::Liar;
use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_protocol::PeerMessage;
use quorate_protocol::peer::Announcement;
use quorate_transport::faults::Fate;
use quorate_transport::frame::encode_frame;
use std::time::Duration;

/// How often each peer gets a piece of junk; each costs it a connection.
const PACE: Duration = Duration::from_millis(50);
/// One of so many answers to clients is junk.
const ANSWER_SHARE: u64 = 3;
/// How many kinds of junk there are.
const JUNK_KINDS: u64 = 6;
/// Lanes between replicas.
const LANES: u64 = 3;

/// Sends junk for ever.
pub(super) fn junk(liar: &Liar) {
    loop {
        for to in liar.others() {
            let turn = liar.next_turn();
            let lane = u8::try_from(turn / JUNK_KINDS % LANES).unwrap_or_default();
            liar.network.slip_bytes(to, lane, piece(turn));
        }
        std::thread::sleep(PACE);
    }
}

/// An answer to a client, or junk in its place.
pub(super) fn reply(turn: u64, _frame: &Bytes) -> Fate {
    if turn.is_multiple_of(ANSWER_SHARE) { Fate::Instead(piece(turn / ANSWER_SHARE)) } else { Fate::AsItIs }
}

/// One piece of junk.
pub(super) fn piece(turn: u64) -> Bytes {
    let announcement =
        PeerMessage::Announce(Announcement { epoch: 0, view: turn, entered: true, committed: turn });
    let valid = encode_frame(&announcement).unwrap_or_default();
    let body = valid.get(4..).unwrap_or_default();
    match turn % JUNK_KINDS {
        // A type that does not exist, with noise after it.
        0 => framed(400, &[0xFF; 400]),
        // More bytes than the value has.
        1 => framed(body.len() + 3, &[body, &[1, 2, 3]].concat()),
        // Fewer.
        2 => framed(body.len() - 1, body.get(..body.len() - 1).unwrap_or_default()),
        // A length beyond every bound.
        3 => framed(usize::try_from(u32::MAX).unwrap_or_default(), body),
        // A collection that claims to be longer than its bound.
        4 => framed(9, &[1, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]),
        // Nothing at all.
        _ => framed(0, &[]),
    }
}

fn framed(length: usize, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(body.len() + 4);
    frame.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
    frame.put_slice(body);
    frame.freeze()
}
