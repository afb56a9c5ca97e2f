//! Parsers of bytes that come by a stream or lie in files that people handle: frames, cluster and key files.

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use quorate_audit::{
    ANCHOR_BYTES_MAX, ANCHOR_MAGIC, Anchor, BundleReader, BundleWriter, Judgement, ProvenAnswer, Receipt,
    Source as _, Transition, operation_details, result_details,
};
use quorate_crypto::Ed25519Verifier;
use quorate_protocol::limits::FRAME_BYTES_MAX;
use quorate_transport::frame::{FrameError, FrameReader};
use quorate_transport::{ClusterFile, KeyFile, PolicyFile};
use tokio::io::{AsyncRead, ReadBuf};

use crate::memory::{bounded, decoding};
use crate::samples;
use crate::source::Source;

/// Frames read before the target ends.
const FRAMES_MAX: usize = 64;
/// What a reader may hold besides twice the bytes that arrived: its buffers of read-ahead.
const READER_FIXED: usize = 256 << 10;

/// A stream that hands out its bytes in pieces of these sizes, over and over.
struct Stream<'a> {
    bytes: &'a [u8],
    pieces: [usize; 3],
    next: usize,
}

impl AsyncRead for Stream<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let piece = self.pieces[self.next % self.pieces.len()].min(buffer.remaining()).min(self.bytes.len());
        self.next += 1;
        let (given, rest) = self.bytes.split_at(piece);
        buffer.put_slice(given);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// The outcome of something that never waits.
fn now<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("a stream that is always ready was waited for"),
    }
}

/// What a reader must find in `bytes`, computed without one: the bodies, and whether the end is a clean one.
fn expected(mut bytes: &[u8], bound: usize) -> (Vec<&[u8]>, bool) {
    let mut bodies = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if length > bound || length > rest.len() {
            return (bodies, false);
        }
        let (body, rest) = rest.split_at(length);
        bodies.push(body);
        bytes = rest;
    }
    (bodies, bytes.is_empty())
}

/// A stream of frames that arrives in pieces of any size: the reader finds what is there and nothing else, and
/// holds memory for what arrived, not for what a length announces (A12).
pub fn frames(data: &[u8]) {
    let mut source = Source::new(data);
    let size = |source: &mut Source<'_>| 1 + usize::from(source.byte()) * source.choose(&[1, 1, 7, 513]);
    let pieces = [size(&mut source), size(&mut source), size(&mut source)];
    let bound = source.choose(&[0, 1, 9, 100, 40_000, 70_000, FRAME_BYTES_MAX, usize::MAX]);
    let bytes = source.rest();
    let (bodies, clean) = expected(bytes, bound.min(FRAME_BYTES_MAX));
    let mut reader = FrameReader::new(Stream { bytes, pieces, next: 0 }, bound);
    let limit = READER_FIXED + 4 * bytes.len();
    for number in 0..FRAMES_MAX {
        let found = bounded(limit, || match now(reader.length()) {
            Ok(Some(length)) => now(reader.body(length)).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        });
        match (found, bodies.get(number)) {
            (Ok(Some(found)), Some(body)) => assert!(found[..] == **body, "frame {number} is another one"),
            (Ok(None), None) => return assert!(clean, "a broken end passes for a clean one"),
            (Err(FrameError::TooLarge { .. } | FrameError::Truncated), None) => return assert!(!clean),
            (found, wanted) => panic!("frame {number}: {found:?} instead of {wanted:?}"),
        }
    }
}

/// `cluster.toml`: what parses is written and parsed again to the same.
pub fn cluster_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(file) = decoding(data.len(), || ClusterFile::parse(text).ok()).ok_or(()) {
        assert_eq!(ClusterFile::parse(&file.to_toml()).as_ref().ok(), Some(&file));
    }
}

/// A policy: what parses is written and parsed again to the same, and says nothing that its genesis does not.
pub fn policy_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(policy) = decoding(data.len(), || PolicyFile::parse(text).ok()).ok_or(()) {
        assert_eq!(PolicyFile::parse(&policy.to_toml()).as_ref().ok(), Some(&policy));
        assert!(text.contains(&policy.genesis().cluster().to_string()));
    }
}

/// A key file: what reads is written and read again to the same key, and no other file can be read or exposed.
pub fn key_file(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, again) = (directory.path().join("key"), directory.path().join("again"));
    fs::write(&path, data).expect("writing to a temporary directory");
    assert!(KeyFile::read(&path).is_err(), "a key file that others may read");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changing a mode");
    if let Ok(key) = bounded(READER_FIXED + 64 * data.len(), || KeyFile::read(&path)) {
        key.write(&again).expect("writing a key");
        let read = KeyFile::read(&again).expect("reading what was written");
        assert_eq!((read.kind(), read.public()), (key.kind(), key.public()));
        same_secret(&read, &key);
    }
}

fn same_secret(left: &KeyFile, right: &KeyFile) {
    match (left, right) {
        (KeyFile::Node(left), KeyFile::Node(right)) => same(&*left.to_bytes(), &*right.to_bytes()),
        (KeyFile::Principal(left), KeyFile::Principal(right)) => same(&*left.to_bytes(), &*right.to_bytes()),
        _ => panic!("a key of another kind"),
    }
}

fn same<T: PartialEq + Debug>(left: &T, right: &T) {
    assert_eq!(left, right);
}

/// A bundle: what is read of it, written again, is what was there, and nothing is held for what a length announces.
pub fn bundle(data: &[u8]) {
    let cluster = samples::cluster().id;
    let Ok(mut reader) = BundleReader::new(data, &cluster) else { return };
    let mut writer = BundleWriter::new(Vec::new(), &cluster).expect("memory takes bytes");
    let whole = loop {
        match decoding(data.len(), || reader.next()) {
            Ok(Some(committed)) => writer.add(&committed).expect("what was read can be written"),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    let written = writer.finish().expect("memory takes bytes");
    let heights = written.len() - 4;
    assert!(!whole || written == data, "a bundle reads as another one");
    assert_eq!(written.get(..heights), data.get(..heights), "heights read as others");
}

/// A file with a proven answer: what is read is written again to the same bytes, and checking it never panics.
pub fn proven(data: &[u8]) {
    let Ok(read) = decoding(data.len(), || ProvenAnswer::from_file(data)) else { return };
    assert_eq!(read.to_file(), data, "a proof reads as another one");
    let _ = read.check(&crate::chain::genesis(), &Ed25519Verifier::new());
}

/// A transition: what is read is written again to the same bytes; executing it on whatever copy never panics, and
/// what three correct replicas signed convicts none of them.
pub fn transition(data: &[u8]) {
    let Ok(read) = decoding(data.len(), || Transition::from_file(data)) else { return };
    assert_eq!(read.to_file(), data, "a transition reads as another one");
    let judged = read.judge(&crate::chain::genesis(), &Ed25519Verifier::new());
    assert!(!matches!(judged, Ok(Judgement::Broken { .. })), "correct replicas are convicted");
}

/// An anchor: what is read is written again to the same bytes; under any checksum, checking it never panics.
pub fn anchor(data: &[u8]) {
    if let Ok(read) = decoding(data.len(), || Anchor::from_file(data)) {
        assert_eq!(read.to_file(), data, "an anchor reads as another one");
        let _ = read.check(&crate::chain::genesis(), &Ed25519Verifier::new());
    }
    // No fuzzer finds a checksum: what lies between is tried under its own.
    let Some(body) = data.strip_prefix(ANCHOR_MAGIC.as_slice()) else { return };
    let Ok(read) = decoding(data.len(), || quorate_crypto::decode::<Anchor>(body)) else { return };
    let file = read.to_file();
    if file.len() <= ANCHOR_BYTES_MAX {
        assert_eq!(Anchor::from_file(&file).as_ref().ok(), Some(&read));
    }
    let _ = read.check(&crate::chain::genesis(), &Ed25519Verifier::new());
}

/// A receipt: what is read is written again to the same bytes; checking and describing it never panics.
pub fn receipt(data: &[u8]) {
    let Ok(read) = decoding(data.len(), || Receipt::from_file(data)) else { return };
    assert_eq!(read.to_file(), data, "a receipt reads as another one");
    let _ = read.check(&crate::chain::genesis(), &Ed25519Verifier::new());
    let _ = result_details(&read.result);
    for operation in &read.envelope.body.operations {
        let _ = operation_details(&operation.body);
    }
}
