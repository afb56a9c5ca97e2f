//! Parsers of the store's files: log segments, packs of blocks, values of the state.
//!
//! Property of everything that is checksummed or chained: whatever is done to an honest file, what is read
//! back is what was written there, up to the first thing that is refused (PR6).

use quorate_crypto::{Hash, encode};
use quorate_protocol::BatchTime;
use quorate_protocol::blocks::BlockDescriptor;
use quorate_protocol::record::Record;
use quorate_store::blocks::pack::{BLOCK_HEADER_BYTES, Checker, PackHeader, Place};
use quorate_store::segment::{
    FRAME_HEADER_BYTES, FrameKind, SEGMENT_HEADER_BYTES, SegmentHeader, decode_frame_header, encode_frame,
    first_chain, follows, verify_payload,
};
use quorate_store::state::format;
use quorate_store::{Identity, LogReader, Marker};

use crate::memory::bounded;
use crate::source::Source;

const HEADER: usize = SEGMENT_HEADER_BYTES as usize;
const FRAME: usize = FRAME_HEADER_BYTES as usize;
/// Bytes of a segment in these tests.
const SEGMENT_BYTES: u32 = 8192;
/// What reading a log may hold besides the segments: windows, paths, names.
const READER_FIXED: usize = 4 << 20;

fn marker() -> Marker {
    Marker { identity: Identity { cluster: Hash([7; 32]), replica: 2 }, seed: [5; 32] }
}

/// Changes bytes as disks, crashes and people do.
fn damage(source: &mut Source<'_>, bytes: &mut Vec<u8>) {
    let place = |source: &mut Source<'_>, length: usize| {
        let at = usize::from(source.byte()) | usize::from(source.byte()) << 8;
        at % length.max(1)
    };
    let at = place(source, bytes.len());
    let length = usize::from(source.byte()).min(bytes.len().saturating_sub(at));
    match source.below(6) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= source.byte();
            }
        }
        1 => bytes.truncate(at),
        2 => bytes[at..at + length].fill(0),
        3 => {
            let from = place(source, bytes.len() - length + 1);
            bytes.copy_within(from..from + length, at);
        }
        4 => {
            // Fewer bytes than a chain value has: a fuzzer sees what a checksum is compared with, and would
            // forge one as long as it may write all of it.
            let given = source.some(length.min(12));
            bytes[at..at + given.len()].copy_from_slice(given);
        }
        _ => drop(bytes.drain(at..at + length)),
    }
}

/// One segment of frames around payloads that the input chooses, damaged as it says; or the input as it is.
pub fn segment(data: &[u8]) {
    let mut source = Source::new(data);
    let salt = u32::from(source.byte());
    let _ = SegmentHeader::decode(source.rest());
    if let Some(header) = decode_frame_header(salt, source.rest()) {
        let _ = verify_payload(salt, &header, source.rest());
        let _ = follows(&Hash([source.byte(); 32]), &header, source.rest());
    }
    let chain = Hash([source.byte(); 32]);
    let header = SegmentHeader {
        identity: marker().identity,
        segment: u32::from(source.byte()),
        first: source.number() >> 1,
        bytes: SEGMENT_BYTES,
        chain,
    };
    let mut bytes = header.encode();
    let payloads: Vec<Vec<u8>> = (0..source.below(5)).map(|_| source.some(200).to_vec()).collect();
    let mut previous = chain;
    for (number, payload) in (header.first..).zip(&payloads) {
        let synced = number.saturating_sub(u64::from(source.byte() & 3));
        let place = (header.salt(), &previous);
        previous = encode_frame(&mut bytes, FrameKind::Record, (number, synced), place, payload);
    }
    for _ in 0..source.below(4) {
        damage(&mut source, &mut bytes);
    }
    if let Ok(found) = SegmentHeader::decode(&bytes) {
        assert_eq!(found, header);
    }
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    let mut previous = chain;
    for payload in &payloads {
        let Some(fixed) = decode_frame_header(header.salt(), rest) else { return };
        let Some(frame) = rest.get(..fixed.frame_bytes() as usize) else { return };
        if !verify_payload(header.salt(), &fixed, frame) || !follows(&previous, &fixed, frame) {
            return;
        }
        assert!(frame[FRAME..FRAME + fixed.length as usize] == payload[..], "another record is accepted");
        previous = fixed.chain;
        rest = &rest[frame.len()..];
    }
}

/// A log of two segments in a directory, damaged as the input says and read by the reader that recovery and
/// audit use.
pub fn log_reader(data: &[u8]) {
    let mut source = Source::new(data);
    let marker = marker();
    let mut chain = first_chain(&marker);
    let mut number = 0;
    let mut records = Vec::new();
    let directory = tempfile::tempdir().expect("a temporary directory");
    for segment in 0..1 + source.below(3) {
        let segment = u32::try_from(segment).expect("a small number");
        let header =
            SegmentHeader { identity: marker.identity, segment, first: number, bytes: SEGMENT_BYTES, chain };
        let mut bytes = header.encode();
        for _ in 0..source.below(4) {
            let record = Record::Entered { epoch: 0, view: source.number() };
            let synced = number.saturating_sub(u64::from(source.byte() & 3));
            let place = (header.salt(), &chain);
            chain = encode_frame(&mut bytes, FrameKind::Record, (number, synced), place, &encode(&record));
            records.push(record);
            number += 1;
        }
        if source.flag() {
            let place = (header.salt(), &chain);
            encode_frame(&mut bytes, FrameKind::Mark, (number, number), place, &[]);
        }
        bytes.resize(SEGMENT_BYTES as usize, 0);
        if source.flag() {
            damage(&mut source, &mut bytes);
        }
        let path = directory.path().join(format!("{segment:010}.log"));
        std::fs::write(path, bytes).expect("writing to a temporary directory");
    }
    let read = bounded(READER_FIXED, || {
        let Ok(reader) = LogReader::open_segments(directory.path()) else { return Vec::new() };
        reader.map_while(Result::ok).map(|(_, record)| record).take(records.len() + 1).collect()
    });
    assert!(records.starts_with(&read), "records that were not written: {read:?}");
}

/// Packs of blocks and values of the state: bytes of any kind, and honest ones with a change.
pub fn values(data: &[u8]) {
    let mut source = Source::new(data);
    let checker = Checker::new(&marker());
    let place = Place { pack: u32::from(source.byte()), page: u32::from(source.byte()) };
    let bytes = source.rest();
    let _ = checker.check_pack(place.pack, bytes);
    let _ = (checker.decode(place, bytes).is_some(), checker.decode_gap(place, bytes).is_some());
    state_values(bytes);

    let mut pack = checker.pack_header(place.pack);
    let descriptor = BlockDescriptor::copies(source.some(100));
    let (synced, expires) = (u32::from(source.byte()), BatchTime(source.number()));
    let mut block = checker.encode(place, &descriptor, synced, expires);
    assert_eq!(block.len(), BLOCK_HEADER_BYTES);
    let pages = 1 + u32::from(source.byte());
    let mut gap = checker.encode_gap(place, pages);
    let elsewhere = Place { pack: place.pack, page: place.page + 1 };
    assert!(checker.decode(elsewhere, &block).is_none(), "a block poses as one at another place");
    for bytes in [&mut pack, &mut block, &mut gap] {
        if source.flag() {
            damage(&mut source, bytes);
        }
    }
    if checker.check_pack(place.pack, &pack) == PackHeader::Ours {
        assert!(checker.pack_header(place.pack).starts_with(&pack[..112]));
    }
    if let Some(fixed) = checker.decode(place, &block) {
        assert_eq!((fixed.id, fixed.descriptor, fixed.synced), (descriptor.id(), descriptor, synced));
        assert_eq!(fixed.expires, expires);
    }
    if let Some(found) = checker.decode_gap(place, &gap) {
        assert_eq!(found, pages);
    }
}

fn state_values(bytes: &[u8]) {
    if let Some(value) = format::decode_value(bytes) {
        assert_eq!(format::encode_value(value.as_deref()), bytes);
    }
    if let Some((height, header, frontier)) = format::decode_applied(bytes) {
        assert_eq!(format::encode_applied(height, &header, &frontier), bytes);
    }
    if let Some((horizon, snapshots)) = format::decode_retained(bytes) {
        assert_eq!(format::encode_retained(horizon, snapshots), bytes);
    }
    if let Some((key, height)) = format::split_version_key(bytes) {
        assert_eq!(format::version_key(&key, height)[..], *bytes);
    }
    if let Some((height, key)) = format::split_change_key(bytes) {
        assert_eq!(format::change_key(height, &key)[..], *bytes);
    }
}
