//! Memory that a piece of work holds at its worst, counted at the allocator.
//!
//! Invariant: what a peer, a client or a disk sends costs memory in proportion to its own length, and never on
//! the word of a number in it (hazard A12).

/// Bytes that decoding may hold whatever the length of the input: room that bounded collections reserve ahead
/// of their elements, one for each level of nesting.
const DECODER_FIXED: usize = 512 << 10;
/// Bytes in memory for one byte of input: an operation without arguments has 5 bytes, and takes as much room
/// as any other one.
const DECODER_RATIO: usize = 96;

/// Does `work`, which must hold no more than `limit` bytes at any time.
pub fn bounded<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let mut result = None;
    let used = allocation_counter::measure(|| result = Some(work()));
    assert!(
        used.bytes_max <= limit as u64,
        "{} bytes were held at once, {limit} are allowed (A12)",
        used.bytes_max
    );
    result.expect("the work was done")
}

/// Does the decoding of `length` bytes.
pub fn decoding<T>(length: usize, work: impl FnOnce() -> T) -> T {
    bounded(DECODER_FIXED + DECODER_RATIO * length, work)
}
