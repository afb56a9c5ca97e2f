//! The disk thread: appends records and syncs them, so that no sync ever stops the network.
//!
//! Invariant: records reach the log in the order in which they were handed over; whatever waits is written
//! with one sync; a failed sync ends the process, because nobody can say what is on the disk then (PR7).

use quorate_consensus::Token;
use quorate_protocol::record::Record;
use quorate_store::log::Log;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Groups of records that may wait for the disk.
pub const WRITES_MAX: usize = 1024;

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
        append(&mut log, &first.records);
        while let Ok(next) = writes.try_recv() {
            token = next.token;
            append(&mut log, &next.records);
        }
        if let Err(error) = log.sync() {
            give_up("sync", &error);
        }
        durable(token);
    }
    if let Err(error) = log.close() {
        give_up("sync", &error);
    }
}

fn append(log: &mut Log, records: &[Record]) {
    if let Err(error) = log.append(records) {
        give_up("write", &error);
    }
}

/// Ends the process: after a failed write or sync the log's content is unknown, and only a restart, which
/// reads it again, may vote under this key.
fn give_up(what: &str, error: &dyn std::error::Error) -> ! {
    tracing::error!(%error, "the log cannot be {what}ed; this replica stops and must be started again when the disk is well");
    std::process::exit(crate::EXIT_DISK);
}
