//! The bytes of a log segment: its header and the frames of its records.
//!
//! Invariant: whatever these functions accept they would write again byte for byte. A frame is bound to
//! all frames before it by its chain value, and to its segment by the salt of its checksum, which nobody
//! outside knows, so that bytes stored inside a record cannot pose as a frame. `docs/SPEC/store.md` gives
//! every offset.

use quorate_crypto::{Hash, derive_hash};
use quorate_protocol::ReplicaIndex;

use crate::directory::{Identity, Marker};
use crate::fields::{array, is_zero, u32_at, u64_at};

/// Version of the segment format.
pub const SEGMENT_VERSION: u32 = 1;
/// First bytes of a segment.
pub const SEGMENT_MAGIC: &[u8; 8] = b"qrt-log\n";
/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: u32 = 128;
/// First bytes of a frame.
pub const FRAME_MAGIC: &[u8; 4] = b"qfrm";
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: u32 = 64;
/// Frames start at multiples of this.
pub const FRAME_ALIGNMENT: u32 = 8;
/// Bytes of one record's canonical encoding: twice the largest proposal, which is more than it, its
/// header and its certificates.
pub const RECORD_BYTES_MAX: u32 = 8 << 20;

const HEADER_CONTEXT: &str = "quorate log segment v1";
const CHAIN_CONTEXT: &str = "quorate log chain v1";
const SEGMENT_CHECKSUM_AT: usize = 96;

// Fields of a frame: magic, checksum of the rest of the fixed part, checksum of payload and padding,
// length (24 bits), kind, number, synced mark, chain value.
const HEADER_CRC_AT: usize = 4;
const COVERED_FROM: usize = 8;
const PAYLOAD_CRC_AT: usize = 8;
const LENGTH_AT: usize = 12;
const NUMBER_AT: usize = 16;
const SYNCED_AT: usize = 24;
const CHAIN_AT: usize = 32;
const KIND_SHIFT: u32 = 24;

/// The chain value before the first record of a log.
#[must_use]
pub fn first_chain(marker: &Marker) -> Hash {
    let replica = [marker.identity.replica];
    derive_hash(CHAIN_CONTEXT, &[&marker.identity.cluster.0, &replica, &marker.seed])
}

/// What the checksums of a segment's frames start from, if it begins at this chain value.
#[must_use]
pub fn salt(chain: &Hash) -> u32 {
    u32_at(&chain.0, 0)
}

/// The header of a segment that is in use; a segment prepared ahead holds zeros in its place.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log it is.
    pub identity: Identity,
    /// Position of the segment in the log, from 0.
    pub segment: u32,
    /// Number of the first record in it; all records below it were synced before this header was
    /// written.
    pub first: u64,
    /// Bytes of the segment; its file has as many from before its first use, so a shorter one was cut.
    pub bytes: u32,
    /// Chain value of the record before the first one.
    pub chain: Hash,
}

/// Bytes that are no header of this format.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// All zeros: prepared, not in use.
    Unused,
    /// Neither zeros nor a header.
    Invalid,
    /// Written by a later release.
    Newer(u32),
}

impl SegmentHeader {
    /// What the checksums of the segment's frames start from.
    #[must_use]
    pub fn salt(&self) -> u32 {
        salt(&self.chain)
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        bytes.extend_from_slice(SEGMENT_MAGIC);
        bytes.extend_from_slice(&SEGMENT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.push(self.identity.replica);
        bytes.extend_from_slice(&[0; 3]);
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.identity.cluster.0);
        bytes.extend_from_slice(&self.chain.0);
        let checksum = derive_hash(HEADER_CONTEXT, &[&bytes]);
        bytes.extend_from_slice(&checksum.0);
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderFault`] tells unused, invalid and newer apart.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES as usize).ok_or(HeaderFault::Invalid)?;
        if is_zero(bytes) {
            return Err(HeaderFault::Unused);
        }
        let (body, checksum) = bytes.split_at_checked(SEGMENT_CHECKSUM_AT).ok_or(HeaderFault::Invalid)?;
        if !bytes.starts_with(SEGMENT_MAGIC) || derive_hash(HEADER_CONTEXT, &[body]).0.as_slice() != checksum
        {
            return Err(HeaderFault::Invalid);
        }
        let version = u32_at(body, 8);
        if version > SEGMENT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        let [replica]: [ReplicaIndex; 1] = array(body, 24);
        let header = Self {
            identity: Identity { cluster: Hash(array(body, 32)), replica },
            segment: u32_at(body, 12),
            first: u64_at(body, 16),
            bytes: u32_at(body, 28),
            chain: Hash(array(body, 64)),
        };
        if header.encode() == bytes { Ok(header) } else { Err(HeaderFault::Invalid) }
    }
}

/// What a frame is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A record.
    Record,
    /// Nothing but a synced mark, at the end of what is synced; the next frame is written over it.
    Mark,
}

/// The fixed part of a frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Record or mark.
    pub kind: FrameKind,
    /// Bytes of the payload; 0 in a mark.
    pub length: u32,
    /// Number of the record in the log, from 0; in a mark, of the next record.
    pub number: u64,
    /// The synced mark: every record below this number was durable when the frame was written.
    pub synced: u64,
    /// The chain value: a hash of this frame under the chain value before it.
    pub chain: Hash,
}

impl FrameHeader {
    /// Bytes of the whole frame, padding included.
    #[must_use]
    pub fn frame_bytes(&self) -> u32 {
        frame_bytes(self.length)
    }
}

/// Bytes of a frame with a payload of `length` bytes, at most [`RECORD_BYTES_MAX`].
#[must_use]
pub fn frame_bytes(length: u32) -> u32 {
    length.saturating_add(FRAME_HEADER_BYTES).next_multiple_of(FRAME_ALIGNMENT)
}

/// Appends a frame to `out` and returns its chain value. The payload is at most [`RECORD_BYTES_MAX`]
/// bytes, which the caller has checked.
pub fn encode_frame(
    out: &mut Vec<u8>,
    kind: FrameKind,
    (number, synced): (u64, u64),
    (salt, previous): (u32, &Hash),
    payload: &[u8],
) -> Hash {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    assert!(length <= RECORD_BYTES_MAX, "callers check the length of a record");
    let mut fixed = [0; FRAME_HEADER_BYTES as usize];
    put(&mut fixed, 0, FRAME_MAGIC);
    put(&mut fixed, LENGTH_AT, &(length | kind_number(kind) << KIND_SHIFT).to_le_bytes());
    put(&mut fixed, NUMBER_AT, &number.to_le_bytes());
    put(&mut fixed, SYNCED_AT, &synced.to_le_bytes());
    let chain = chain_value(previous, &fixed, payload);
    put(&mut fixed, CHAIN_AT, &chain.0);
    let padding = [0; FRAME_ALIGNMENT as usize];
    let padding = padding.get(..padding_bytes(length)).unwrap_or_default();
    put(&mut fixed, PAYLOAD_CRC_AT, &crc(salt, &[payload, padding]).to_le_bytes());
    let covered = crc(salt, &[fixed.get(COVERED_FROM..).unwrap_or_default()]);
    put(&mut fixed, HEADER_CRC_AT, &covered.to_le_bytes());
    out.extend_from_slice(&fixed);
    out.extend_from_slice(payload);
    out.extend_from_slice(padding);
    chain
}

/// The fixed part of a frame of the segment with this salt, if its own checksum holds. Whoever does not
/// know the salt cannot write one, so it proves alone that this log wrote it, whatever follows it.
#[must_use]
pub fn decode_frame_header(salt: u32, bytes: &[u8]) -> Option<FrameHeader> {
    let bytes = bytes.get(..FRAME_HEADER_BYTES as usize)?;
    if !bytes.starts_with(FRAME_MAGIC)
        || crc(salt, &[bytes.get(COVERED_FROM..)?]) != u32_at(bytes, HEADER_CRC_AT)
    {
        return None;
    }
    let length = u32_at(bytes, LENGTH_AT) & !(u32::MAX << KIND_SHIFT);
    let kind = match u32_at(bytes, LENGTH_AT) >> KIND_SHIFT {
        1 if length <= RECORD_BYTES_MAX => FrameKind::Record,
        2 if length == 0 => FrameKind::Mark,
        _ => return None,
    };
    let (number, synced) = (u64_at(bytes, NUMBER_AT), u64_at(bytes, SYNCED_AT));
    (synced <= number).then_some(FrameHeader {
        kind,
        length,
        number,
        synced,
        chain: Hash(array(bytes, CHAIN_AT)),
    })
}

/// Whether payload and padding of the whole frame `bytes` have the right checksum.
#[must_use]
pub fn verify_payload(salt: u32, header: &FrameHeader, bytes: &[u8]) -> bool {
    let Some((fixed, rest)) = bytes.split_at_checked(FRAME_HEADER_BYTES as usize) else {
        return false;
    };
    let padding = rest.get(header.length as usize..);
    bytes.len() == header.frame_bytes() as usize
        && padding.is_some_and(is_zero)
        && crc(salt, &[rest]) == u32_at(fixed, PAYLOAD_CRC_AT)
}

/// Whether the chain value of a frame follows from `previous`.
#[must_use]
pub fn follows(previous: &Hash, header: &FrameHeader, bytes: &[u8]) -> bool {
    let Some((fixed, rest)) = bytes.split_at_checked(FRAME_HEADER_BYTES as usize) else {
        return false;
    };
    rest.get(..header.length as usize)
        .is_some_and(|payload| chain_value(previous, fixed, payload) == header.chain)
}

/// CRC-32 (ISO-HDLC) of the parts, with the salt in place of the initial value.
fn crc(salt: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// BLAKE3 keyed with the previous value, over length and kind, number, synced mark, and payload.
fn chain_value(previous: &Hash, fixed: &[u8], payload: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_keyed(&previous.0);
    hasher.update(fixed.get(LENGTH_AT..CHAIN_AT).unwrap_or_default());
    hasher.update(payload);
    Hash(*hasher.finalize().as_bytes())
}

const fn kind_number(kind: FrameKind) -> u32 {
    match kind {
        FrameKind::Record => 1,
        FrameKind::Mark => 2,
    }
}

const fn padding_bytes(length: u32) -> usize {
    (length.next_multiple_of(FRAME_ALIGNMENT) - length) as usize
}

fn put(target: &mut [u8], at: usize, source: &[u8]) {
    for (to, from) in target.iter_mut().skip(at).zip(source) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    fn header() -> SegmentHeader {
        let identity = Identity { cluster: Hash([7; 32]), replica: 2 };
        SegmentHeader { identity, segment: 3, first: 11, bytes: 4096, chain: Hash([9; 32]) }
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, FrameKind::Record, (5, 4), (1234, &Hash([1; 32])), payload);
        bytes
    }

    #[test]
    fn header_round_trip_and_every_flip_is_refused() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES as usize);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), Err(HeaderFault::Invalid), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&[0; 128]), Err(HeaderFault::Unused));
        assert_eq!(SegmentHeader::decode(&bytes[..127]), Err(HeaderFault::Invalid));
    }

    #[test]
    fn a_newer_header_says_so() {
        let mut body = header().encode()[..SEGMENT_CHECKSUM_AT].to_vec();
        body[8] = 2;
        let checksum = derive_hash(HEADER_CONTEXT, &[&body]);
        body.extend_from_slice(&checksum.0);
        assert_eq!(SegmentHeader::decode(&body), Err(HeaderFault::Newer(2)));
    }

    #[test]
    fn frames_hold_and_every_flip_is_found() {
        for length in 0..20 {
            let payload: Vec<u8> = (0..length).collect();
            let bytes = frame(&payload);
            let fixed = decode_frame_header(1234, &bytes).unwrap();
            assert_eq!((fixed.number, fixed.synced, fixed.length), (5, 4, u32::from(length)));
            assert!(verify_payload(1234, &fixed, &bytes) && follows(&Hash([1; 32]), &fixed, &bytes));
            assert!(decode_frame_header(1235, &bytes).is_none() && !follows(&Hash([2; 32]), &fixed, &bytes));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let passes = decode_frame_header(1234, &flipped)
                    .is_some_and(|fixed| verify_payload(1234, &fixed, &flipped));
                assert!(!passes, "length {length} bit {bit}");
            }
        }
    }
}
