//! The disk thread: appends records and syncs them, so that no sync ever stops the network.
//!
//! Invariant: records reach the log in the order in which they were handed over; whatever waits is written
//! with one sync, up to a bound on the bytes of one; a failed sync ends the process, because nobody can say what is on the disk then (PR7).

use quorate_consensus::Token;
use quorate_protocol::record::Record;
use quorate_store::log::Log;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Groups of records that may wait for the disk.
pub const WRITES_MAX: usize = 1024;

/// Bytes that are appended before a sync, whatever else waits: some records more stay far below what the log
/// takes between two syncs, however long the disk stalls.
const SYNC_BYTES: usize = 16 << 20;

/// The groups of one turn of the loop, in order.
pub struct Write {
    /// The last token of the turn.
    pub token: Token,
    /// Its records, and those of all tokens of the turn before it.
    pub records: Vec<Record>,
}

/// The thread's handle.
pub struct Disk {
    writes: Option<SyncSender<Write>>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// Starts the thread; `durable` is called on it with the last token that a sync covered.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(log: Log, durable: impl Fn(Token) + Send + 'static) -> std::io::Result<Self> {
        let (writes, waiting) = sync_channel(WRITES_MAX);
        let thread = std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || work(log, &waiting, durable))?;
        Ok(Self { writes: Some(writes), thread: Some(thread) })
    }

    /// Hands records over. Waits when [`WRITES_MAX`] turns are not written yet: a replica that votes
    /// faster than its disk takes must slow down.
    pub fn write(&self, write: Write) {
        if let Some(writes) = &self.writes {
            // Fails only when the thread has ended, and it ends the process before that.
            let _ = writes.send(write);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(mut log: Log, writes: &Receiver<Write>, durable: impl Fn(Token)) {
    while let Ok(first) = writes.recv() {
        let mut token = first.token;
        append(&mut log, first.records);
        while log.buffered_bytes() < SYNC_BYTES
            && let Ok(next) = writes.try_recv()
        {
            token = next.token;
            append(&mut log, next.records);
        }
        sync(&mut log);
        durable(token);
    }
    if let Err(error) = log.close() {
        give_up("sync", &error);
    }
}

/// Appends one record after the other, with syncs between them where they are large. That tears nothing
/// apart: a crash may always leave the first ones of those that wait.
fn append(log: &mut Log, records: Vec<Record>) {
    for record in records {
        if log.buffered_bytes() >= SYNC_BYTES {
            sync(log);
        }
        if let Err(error) = log.append(&[record]) {
            give_up("write", &error);
        }
    }
}

fn sync(log: &mut Log) {
    if let Err(error) = log.sync() {
        give_up("sync", &error);
    }
}

/// Ends the process: after a failed write or sync the log's content is unknown, and only a restart, which
/// reads it again, may vote under this key.
fn give_up(what: &str, error: &dyn std::error::Error) -> ! {
    tracing::error!(%error, "the log cannot be {what}ed; this replica stops and must be started again when the disk is well");
    std::process::exit(crate::EXIT_DISK);
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::{Bitmap, Bounded, Certificate, CertificateKind, Hash, Signature};
    use quorate_store::directory::{Directory, Identity};
    use quorate_store::log::{BUFFERED_BYTES_MAX, LogOptions};
    use std::cell::Cell;

    /// As large as a certificate gets, with its size.
    fn large_record() -> (Record, usize) {
        let record = Record::Prepared(Certificate {
            kind: CertificateKind::Prepare,
            epoch: 0,
            view: 0,
            height: 1,
            header_hash: Hash([9; 32]),
            signers: Bitmap::empty(32),
            signatures: Bounded::try_from(vec![Signature([7; 64]); 32]).unwrap(),
        });
        let bytes = quorate_crypto::encode(&record).len();
        (record, bytes)
    }

    #[test]
    fn more_than_the_log_takes_between_two_syncs_may_wait_for_the_disk() {
        let place = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: Hash([1; 32]), replica: 0 };
        let directory = Directory::create(place.path(), identity).unwrap();
        let log = Log::open(&directory, LogOptions::default()).unwrap();
        let (record, bytes) = large_record();
        let count = BUFFERED_BYTES_MAX / bytes + 1;
        // Many turns while the disk stalled, and one that is too large by itself.
        let (writes, waiting) = sync_channel(WRITES_MAX);
        for token in 0..512 {
            let records = vec![record.clone(); count / 512 + 1];
            writes.send(Write { token: Token(token), records }).unwrap();
        }
        writes.send(Write { token: Token(512), records: vec![record; count] }).unwrap();
        drop(writes);
        let durable = Cell::new(None);
        work(log, &waiting, |token| {
            assert!(durable.replace(Some(token)) < Some(token));
        });
        assert_eq!(durable.get(), Some(Token(512)));
        let log = Log::open(&directory, LogOptions::default()).unwrap();
        assert_eq!(log.count(), (512 * (count / 512 + 1) + count) as u64);
    }
}
