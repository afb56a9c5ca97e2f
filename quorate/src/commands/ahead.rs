//! Signatures checked ahead, on all processors, while an audit goes on height by height.
//!
//! Invariant: the auditor gets every height of the source in order, each with its own verdict on its signatures; at
//! most [`CHUNKS_AHEAD`] chunks of heights are in memory, whichever of the threads is slow.

use quorate_audit::{Signatures, Signed, SignedSource, Source, SourceError};
use quorate_crypto::encode;
use quorate_protocol::peer::CommittedBatch;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Heights that a thread takes at once, at most.
const CHUNK_HEIGHTS: usize = 64;
/// Operations after which a chunk is full.
const CHUNK_OPERATIONS: u64 = 4096;
/// Bytes of proposals after which a chunk is full.
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that are read, being checked, or checked and not used yet, for each thread.
const CHUNKS_AHEAD: usize = 4;

/// Heights that follow each other, and what the source said after the last of them.
struct Chunk<T> {
    heights: Vec<T>,
    end: Option<Result<(), SourceError>>,
}

/// Gives `audit` the heights of `source` with their signatures checked. All threads have ended when it returns.
pub fn run<T>(
    mut source: Box<dyn Source + Send>,
    signatures: &Signatures<'_>,
    audit: impl FnOnce(&mut dyn SignedSource) -> T,
) -> T {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let permitted = CHUNKS_AHEAD.saturating_mul(threads);
    let (permit, permits) = sync_channel(permitted);
    for _ in 0..permitted {
        // It has room for all of them.
        let _room = permit.try_send(());
    }
    let (read, unchecked) = channel();
    let unchecked = Mutex::new(unchecked);
    let (check, checked) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || fill(source.as_mut(), &permits, &read));
        for _ in 0..threads {
            let (check, unchecked) = (check.clone(), &unchecked);
            scope.spawn(move || work(signatures, unchecked, &check));
        }
        drop(check);
        audit(&mut Ahead {
            permit,
            checked,
            early: BTreeMap::new(),
            next: 0,
            heights: Vec::new().into_iter(),
            end: None,
        })
    })
}

/// Reads chunks as long as there are permits.
fn fill(source: &mut dyn Source, permits: &Receiver<()>, read: &Sender<(u64, Chunk<CommittedBatch>)>) {
    for number in 0.. {
        if permits.recv().is_err() {
            return;
        }
        let chunk = next_chunk(source);
        let last = chunk.end.is_some();
        if read.send((number, chunk)).is_err() || last {
            return;
        }
    }
}

fn next_chunk(source: &mut dyn Source) -> Chunk<CommittedBatch> {
    let (mut heights, mut operations, mut bytes) = (Vec::with_capacity(CHUNK_HEIGHTS), 0_u64, 0_usize);
    while heights.len() < CHUNK_HEIGHTS && operations < CHUNK_OPERATIONS && bytes < CHUNK_BYTES {
        match source.next() {
            Ok(Some(committed)) => {
                operations = operations.saturating_add(committed.batch.proposal.operation_count());
                bytes = bytes.saturating_add(encode(&committed.batch.proposal).len());
                heights.push(committed);
            }
            Ok(None) => return Chunk { heights, end: Some(Ok(())) },
            Err(error) => return Chunk { heights, end: Some(Err(error)) },
        }
    }
    Chunk { heights, end: None }
}

/// Checks chunks, in whatever order the threads come to them.
fn work(
    signatures: &Signatures<'_>,
    unchecked: &Mutex<Receiver<(u64, Chunk<CommittedBatch>)>>,
    check: &Sender<(u64, Chunk<Signed>)>,
) {
    loop {
        // One waits for the next chunk, the others for the lock.
        let next = unchecked.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, Chunk { heights, end })) = next else { return };
        // A panic is a defect of ours; the audit must end then, and not wait for this chunk for ever.
        let checked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            heights.into_iter().map(|committed| signatures.check(committed)).collect()
        }));
        let chunk = match checked {
            Ok(heights) => Chunk { heights, end },
            Err(_) => {
                let text = "the check of a signature has failed in this program".to_owned();
                Chunk { heights: Vec::new(), end: Some(Err(SourceError::Unavailable(text))) }
            }
        };
        if check.send((number, chunk)).is_err() {
            return;
        }
    }
}

/// The checked heights in order. When it goes, so do the threads.
struct Ahead {
    permit: SyncSender<()>,
    checked: Receiver<(u64, Chunk<Signed>)>,
    /// Chunks that were checked before the one that is next. No more than there are permits.
    early: BTreeMap<u64, Chunk<Signed>>,
    next: u64,
    heights: std::vec::IntoIter<Signed>,
    end: Option<Result<(), SourceError>>,
}

impl SignedSource for Ahead {
    fn next(&mut self) -> Result<Option<Signed>, SourceError> {
        loop {
            if let Some(signed) = self.heights.next() {
                return Ok(Some(signed));
            }
            if let Some(end) = &self.end {
                return end.clone().map(|()| None);
            }
            let Some(chunk) = self.early.remove(&self.next) else {
                let (number, chunk) = self.checked.recv().map_err(|_| {
                    SourceError::Unavailable("a thread that reads or checks has ended".to_owned())
                })?;
                self.early.insert(number, chunk);
                continue;
            };
            self.next = self.next.saturating_add(1);
            self.heights = chunk.heights.into_iter();
            self.end = chunk.end;
            // Whoever reads may have ended.
            let _read_on = self.permit.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_audit::{Auditor, Policy, Progress, Rule, Verdict, follow};
    use quorate_bench::history::History;
    use quorate_crypto::Ed25519Verifier;
    use quorate_protocol::Genesis;
    use std::ops::ControlFlow;

    /// More than all permits together cover.
    const HEIGHTS: u64 = 1500;

    fn history() -> (Genesis, Vec<CommittedBatch>) {
        let mut history = History::new();
        let heights = (0..HEIGHTS).map(|_| history.next_height(1)).collect();
        (history.genesis().clone(), heights)
    }

    fn audited(genesis: &Genesis, heights: Vec<Result<CommittedBatch, SourceError>>) -> (Verdict, Progress) {
        let verifier = Ed25519Verifier::new();
        let policy = Policy::STANDARD;
        let signatures = Signatures::new(genesis.cluster(), &genesis.members, &verifier, policy);
        let mut auditor = Auditor::new(genesis, &verifier, policy).unwrap();
        let verdict = run(Box::new(heights.into_iter()), &signatures, |heights| {
            follow(&mut auditor, heights, &mut |_, _| ControlFlow::Continue(()))
        });
        (verdict, auditor.progress())
    }

    #[test]
    fn heights_come_in_order_and_whole_whatever_the_threads_do() {
        let (genesis, heights) = history();
        let (verdict, progress) = audited(&genesis, heights.iter().cloned().map(Ok).collect());
        assert_eq!(verdict, Verdict::Holds);
        assert_eq!((progress.height, progress.signatures), (HEIGHTS, 3 * HEIGHTS));
        // The source gives out at a height that is in no chunk's corner.
        let gives_out = SourceError::Unavailable("gone".to_owned());
        let cut = heights.iter().take(777).cloned().map(Ok).chain([Err(gives_out)]).collect();
        let (verdict, _) = audited(&genesis, cut);
        assert_eq!(verdict, Verdict::CannotTell { height: 778, text: "gone".to_owned() });
    }

    #[test]
    fn chunks_are_bounded_in_bytes() {
        let mut history = History::new();
        let _registration = history.next_height(1);
        let mut height = history.next_height(1);
        let envelope = height.batch.proposal.envelopes[0].clone();
        let envelopes = vec![envelope; 1000];
        height.batch.proposal.envelopes = quorate_crypto::Bounded::try_from(envelopes).unwrap();
        let large = encode(&height.batch.proposal).len();
        let chunk = next_chunk(&mut std::iter::repeat_with(|| Ok(height.clone())));
        let held: usize = chunk.heights.iter().map(|height| encode(&height.batch.proposal).len()).sum();
        assert!(CHUNK_HEIGHTS * large > 2 * CHUNK_BYTES, "the number of heights bounds it already");
        assert!(held < CHUNK_BYTES + large, "{held}");
    }

    struct Panics;

    impl quorate_crypto::Verifier for Panics {
        fn verify(
            &self,
            _: &quorate_crypto::PublicKey,
            _: &quorate_crypto::Statement,
            _: &quorate_crypto::Signature,
        ) -> Result<(), quorate_crypto::SignatureError> {
            panic!("a defect");
        }
    }

    #[test]
    fn a_thread_that_panics_ends_the_audit() {
        let (genesis, heights) = history();
        let policy = Policy::STANDARD;
        let signatures = Signatures::new(genesis.cluster(), &genesis.members, &Panics, policy);
        let mut auditor = Auditor::new(&genesis, &Panics, policy).unwrap();
        let heights = Box::new(heights.into_iter().map(Ok));
        let verdict = run(heights, &signatures, |heights| {
            follow(&mut auditor, heights, &mut |_, _| ControlFlow::Continue(()))
        });
        assert!(matches!(verdict, Verdict::CannotTell { height: 1, .. }), "{verdict:?}");
    }

    #[test]
    fn the_first_height_that_does_not_hold_ends_it() {
        let (genesis, mut heights) = history();
        for height in [1200, 601, 602] {
            let signatures = &mut heights[height - 1].certificate.signatures;
            let mut forged = signatures.to_vec();
            forged.swap(0, 2);
            *signatures = forged.try_into().unwrap();
        }
        let (verdict, progress) = audited(&genesis, heights.into_iter().map(Ok).collect());
        let Verdict::Broken(breach) = verdict else { panic!("{verdict:?}") };
        assert_eq!((breach.height, breach.rule), (601, Rule::Certificate));
        assert_eq!(progress.height, 600);
    }
}
