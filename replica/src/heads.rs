//! Signing heads of the log, off the path of everything else (rule R6).
//!
//! Invariants: a head is signed only of a height whose commit certificate this replica verified and whose record
//! is synced; what is signed extends what was signed before, which the signer knows because it appends header by
//! header to one frontier and compares its root with the certified `log_root`; sizes only grow; head and signatures
//! are synced before anybody is shown them. Whatever contradicts that halts the signer for good, and nothing else.
//!
//! Which heads: of the first height in each second of batch time, which is the same height at every replica; and of
//! the last height, when no further one came for a while. So a quorum signs the same heads without being asked, and
//! who asks takes of the last ones what he needs: nobody's question can hinder another's, or make work.

use crate::error::ReplicaError;
use quorate_audit::tlog::HeadSigner;
use quorate_consensus::Token;
use quorate_crypto::{Hash, encode};
use quorate_merkle::LogFrontier;
use quorate_protocol::limits::LOG_HEADS_MAX;
use quorate_protocol::log_head::{LogHead, SignedLogHead, SignedLogHeads};
use quorate_protocol::{BatchTime, Header, Height};
use quorate_store::directory::Directory;
use quorate_store::heads::HeadStore;
use quorate_store::log::Archive;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nanoseconds of batch time in which one head is signed, while heights come.
pub const HEAD_INTERVAL: u64 = 1_000_000_000;
/// How long no height has come when the last one's head is signed.
const QUIET: Duration = Duration::from_secs(1);
/// Headers that may wait for the signer's thread; what is beyond that is read from the log again.
const HEADERS_MAX: usize = 4096;
/// Pieces of work that may wait for the thread.
const WORK_MAX: usize = 16;

/// Consecutive headers, and whether the head that the last one completes is signed.
struct Work {
    headers: Vec<Header>,
    sign: bool,
}

/// The signer's handle, which the loop has.
pub struct HeadKeeper {
    /// Committed, but not yet known to be synced.
    waiting: VecDeque<(Token, Header)>,
    /// Synced, and not handed to the thread.
    ready: Vec<Header>,
    /// The second of batch time of the last height.
    second: u64,
    /// Since when no height has come that is not signed.
    quiet_since: Option<Instant>,
    signed: Arc<Mutex<SignedLogHeads>>,
    work: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl HeadKeeper {
    /// Starts the thread at the committed header, which the log has, and the frontier below it.
    ///
    /// # Errors
    /// [`ReplicaError::Recovery`] when a head was signed of a height that the log does not have any more: it has
    /// lost its end (rule R2). [`ReplicaError::Io`] when the system has no thread to give.
    pub fn start(
        directory: &Directory,
        signer: HeadSigner,
        (header, log): (&Header, &LogFrontier),
        archive: Archive,
    ) -> Result<Self, ReplicaError> {
        let signed = Arc::new(Mutex::new(SignedLogHeads::new()));
        let (work, waiting) = sync_channel(WORK_MAX);
        let mut keeper = Self {
            waiting: VecDeque::new(),
            ready: Vec::new(),
            second: second_of(header.time),
            // The genesis is under no certificate.
            quiet_since: (header.height > 0).then(Instant::now),
            signed: Arc::clone(&signed),
            work: None,
            thread: None,
        };
        let (store, heads) = match HeadStore::open(directory) {
            Ok(opened) => opened,
            Err(error) => {
                halt(&error.to_string());
                return Ok(keeper);
            }
        };
        let mut thread = Signing { signer, store, archive, frontier: log.clone(), heads, shown: signed };
        match thread.append(header).and_then(|()| thread.check_last(header)) {
            Ok(()) => thread.show(),
            Err(Contradiction::LogLost { height }) => {
                let committed = header.height;
                let what =
                    format!("its log head was signed, but the log ends at {committed}: its end is lost");
                return Err(ReplicaError::Recovery { height, what });
            }
            Err(contradiction) => {
                halt(&contradiction.to_string());
                return Ok(keeper);
            }
        }
        let no_thread = |source| ReplicaError::Io { what: "no thread", source };
        let run = move || thread.work(&waiting);
        keeper.thread =
            Some(std::thread::Builder::new().name("heads".to_owned()).spawn(run).map_err(no_thread)?);
        keeper.work = Some(work);
        Ok(keeper)
    }

    /// Takes a committed height, which the log has when the records up to `token` are durable.
    pub fn committed(&mut self, token: Token, header: Header) {
        if self.work.is_some() {
            self.waiting.push_back((token, header));
        }
    }

    /// The log is durable up to `token`.
    pub fn durable(&mut self, token: Token, now: Instant) {
        while self.waiting.front().is_some_and(|(needed, _)| *needed <= token) {
            let Some((_, header)) = self.waiting.pop_front() else { return };
            let second = second_of(header.time);
            let sign = second != self.second;
            self.second = second;
            self.ready.push(header);
            self.quiet_since = Some(now);
            if sign || self.ready.len() >= HEADERS_MAX {
                self.hand_over(sign);
            }
        }
    }

    /// Lets the last head be signed when no height has come for a while.
    pub fn look_after(&mut self, now: Instant) {
        if self.quiet_since.is_some_and(|since| now.duration_since(since) >= QUIET) && self.hand_over(true) {
            self.quiet_since = None;
        }
    }

    /// Whether the thread had room. Headers that it has no room for wait, or are read from the log again.
    fn hand_over(&mut self, sign: bool) -> bool {
        let Some(work) = &self.work else { return false };
        let headers = std::mem::take(&mut self.ready);
        match work.try_send(Work { headers, sign }) {
            Ok(()) => true,
            Err(std::sync::mpsc::TrySendError::Full(Work { headers, .. })) => {
                self.ready = headers;
                if self.ready.len() >= HEADERS_MAX {
                    self.ready.clear();
                }
                false
            }
            // The signer has halted.
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => {
                self.work = None;
                self.waiting.clear();
                false
            }
        }
    }

    /// Whether heads are signed no more until the next start.
    pub fn is_halted(&self) -> bool {
        self.work.is_none() || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Size of the last head that was signed; 0 before the first one.
    pub fn last_size(&self) -> u64 {
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.iter().last().map_or(0, |signed| signed.head.size)
    }

    /// The last heads that were signed, ascending by size.
    pub fn signed(&self) -> SignedLogHeads {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for HeadKeeper {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const fn second_of(time: BatchTime) -> u64 {
    time.0 / HEAD_INTERVAL
}

fn halt(why: &str) {
    tracing::error!(
        why,
        "this replica signs no heads of the log any more: keep its directory for examination, and find out who is wrong"
    );
}

/// What keeps the signer from signing anything.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Contradiction {
    /// The log has not the height whose head was signed.
    #[error("a head was signed of height {height}, which the log does not have")]
    LogLost { height: Height },
    /// The certified log has another root at a size that was signed.
    #[error("the head of size {size} was signed with root {signed}, the certified log has {certified}")]
    Root { size: u64, signed: Hash, certified: Hash },
    /// A header does not continue those before it.
    #[error("the header of height {height} has log root {certified}, those before it have {ours}")]
    Header { height: Height, certified: Hash, ours: Hash },
    /// A header cannot be had.
    #[error("the header of height {height} cannot be read: {text}")]
    Missing { height: Height, text: String },
    /// What was to be synced may not be.
    #[error("{0}")]
    Disk(String),
}

/// What the thread has.
struct Signing {
    signer: HeadSigner,
    store: HeadStore,
    archive: Archive,
    /// Over all headers that were taken in.
    frontier: LogFrontier,
    /// The last heads that were signed, ascending by size.
    heads: Vec<SignedLogHead>,
    shown: Arc<Mutex<SignedLogHeads>>,
}

impl Signing {
    /// Whether the last head that was signed is one of the log as it is certified.
    fn check_last(&self, newest: &Header) -> Result<(), Contradiction> {
        let Some(LogHead { size, root }) = self.heads.last().map(|signed| signed.head) else { return Ok(()) };
        if size > self.frontier.size() {
            return Err(Contradiction::LogLost { height: size.saturating_sub(1) });
        }
        let certified = if size == self.frontier.size() {
            self.frontier.root()
        } else if size == newest.height {
            newest.log_root
        } else {
            self.stored(size)?.log_root
        };
        if certified == root { Ok(()) } else { Err(Contradiction::Root { size, signed: root, certified }) }
    }

    /// A certified header out of the log.
    fn stored(&self, height: Height) -> Result<Header, Contradiction> {
        let missing = |text: String| Contradiction::Missing { height, text };
        let batch = self.archive.committed_batch(height).map_err(|error| missing(error.to_string()))?;
        Ok(batch.ok_or_else(|| missing("it is not in the log".to_owned()))?.batch.header)
    }

    fn work(mut self, waiting: &Receiver<Work>) {
        for Work { headers, sign } in waiting.iter() {
            let taken = headers.iter().try_for_each(|header| self.take_in(header));
            if let Err(contradiction) = taken.and_then(|()| if sign { self.sign(now()) } else { Ok(()) }) {
                return halt(&contradiction.to_string());
            }
        }
    }

    /// Appends a header, and before it those that did not come.
    fn take_in(&mut self, header: &Header) -> Result<(), Contradiction> {
        while self.frontier.size() < header.height {
            let missed = self.stored(self.frontier.size())?;
            self.append(&missed)?;
        }
        if self.frontier.size() == header.height { self.append(header) } else { Ok(()) }
    }

    /// The log below a header is what the quorum that certified the header computed.
    fn append(&mut self, header: &Header) -> Result<(), Contradiction> {
        let (height, certified, ours) = (header.height, header.log_root, self.frontier.root());
        if height != self.frontier.size() || certified != ours {
            return Err(Contradiction::Header { height, certified, ours });
        }
        let full = |error: quorate_merkle::LogError| Contradiction::Disk(error.to_string());
        self.frontier.append(&encode(header)).map(|_| ()).map_err(full)
    }

    /// Signs the head of all that was taken in, unless it is signed.
    fn sign(&mut self, time: u64) -> Result<(), Contradiction> {
        let head = LogHead { size: self.frontier.size(), root: self.frontier.root() };
        match self.heads.last().map(|signed| signed.head) {
            Some(last) if last.size > head.size => return Ok(()),
            Some(last) if last.size == head.size && last.root == head.root => return Ok(()),
            Some(LogHead { size, root }) if size == head.size => {
                return Err(Contradiction::Root { size, signed: root, certified: head.root });
            }
            _ => {}
        }
        let signed = self.signer.sign(head, time).map_err(|error| Contradiction::Disk(error.to_string()))?;
        if self.heads.len() >= LOG_HEADS_MAX {
            self.heads.remove(0);
        }
        self.heads.push(signed);
        let heads = SignedLogHeads::try_from(self.heads.clone());
        let heads = heads.map_err(|error| Contradiction::Disk(error.to_string()))?;
        // Synced first: a signature that leaves can never be forgotten.
        self.store.save(&heads).map_err(|error| Contradiction::Disk(error.to_string()))?;
        self.show();
        tracing::debug!(size = head.size, "a head of the log is signed");
        Ok(())
    }

    fn show(&self) {
        let heads = SignedLogHeads::try_from(self.heads.clone()).unwrap_or_default();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = heads;
    }
}

/// The wall clock in seconds.
fn now() -> u64 {
    crate::provision::now().0 / 1_000_000_000
}

#[cfg(test)]
mod tests;
