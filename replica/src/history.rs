//! The committed past: certificates and receipts of the last heights in memory, everything in the log.
//!
//! Invariant: what is served is committed; receipts are those of the height's own execution. The log and the
//! database are read by a thread of its own, so that nobody who asks for the past delays the present.

use crate::inbound::bounded;
use crate::keeper::stored_receipts;
use quorate_crypto::Certificate;
use quorate_execution::{Executed, Receipts};
use quorate_protocol::client::EnvelopeResults;
use quorate_protocol::peer::CommittedBatch;
use quorate_protocol::{Header, Height};
use quorate_store::log::Archive;
use quorate_store::state::State as Database;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Heights whose receipts are kept in memory.
pub const RECENT_HEIGHTS_MAX: usize = 512;
/// Questions about the past that may wait for the thread.
const QUESTIONS_MAX: usize = 128;

struct Recent {
    header: Header,
    certificate: Certificate,
    receipts: Receipts,
}

/// A question about the past, which answers whoever asked it.
type Question = Box<dyn FnOnce(&Past) + Send>;

/// The past of this replica.
pub struct History {
    recent: VecDeque<Recent>,
    questions: Option<SyncSender<Question>>,
    thread: Option<JoinHandle<()>>,
}

impl History {
    /// Over the log's archive and the receipts in the state database.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(archive: Archive, database: Arc<Database>) -> std::io::Result<Self> {
        let (questions, waiting) = sync_channel(QUESTIONS_MAX);
        let past = Past { archive, database };
        let thread =
            std::thread::Builder::new().name("history".to_owned()).spawn(move || work(&past, &waiting))?;
        Ok(Self { recent: VecDeque::new(), questions: Some(questions), thread: Some(thread) })
    }

    /// Adds a committed height.
    pub fn committed(&mut self, executed: &Arc<Executed>, certificate: Certificate) {
        if self.recent.len() >= RECENT_HEIGHTS_MAX {
            self.recent.pop_front();
        }
        let header = executed.state.header().clone();
        self.recent.push_back(Recent { header, certificate, receipts: executed.receipts.clone() });
    }

    /// Gives `answer` the results of the envelope whose first operation has this index of a height's batch,
    /// as long as the height's receipts are kept: at once if they are in memory.
    pub fn results(
        &self,
        height: Height,
        index: u32,
        answer: impl FnOnce(Option<EnvelopeResults>) + Send + 'static,
    ) {
        match self.recent(height) {
            Some(recent) => {
                let certificate = Some(recent.certificate.clone());
                answer(recent.receipts.results(&recent.header, index, certificate));
            }
            None => self.ask(move |past| answer(past.results(height, index))),
        }
    }

    /// The header of one of the last heights, with its certificate.
    pub fn recent_header(&self, height: Height) -> Option<(Header, Certificate)> {
        self.recent(height).map(|recent| (recent.header.clone(), recent.certificate.clone()))
    }

    fn recent(&self, height: Height) -> Option<&Recent> {
        let first = self.recent.front()?.header.height;
        self.recent.get(usize::try_from(height.checked_sub(first)?).ok()?)
    }

    /// Gives `answer` committed heights from `from` on, bounded for one message; none when there is none or
    /// the disk fails, in which case another replica is asked.
    pub fn committed_from(&self, from: Height, answer: impl FnOnce(Vec<CommittedBatch>) + Send + 'static) {
        self.ask(move |past| answer(past.committed_from(from)));
    }

    /// Drops the question when too many wait: whoever asked it asks again, or somebody else.
    fn ask(&self, question: impl FnOnce(&Past) + Send + 'static) {
        if let Some(questions) = &self.questions
            && questions.try_send(Box::new(question)).is_err()
        {
            tracing::debug!("too many questions about the past wait");
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(past: &Past, questions: &Receiver<Question>) {
    for question in questions.iter() {
        question(past);
    }
}

/// What is read from the disk.
struct Past {
    archive: Archive,
    database: Arc<Database>,
}

impl Past {
    fn results(&self, height: Height, index: u32) -> Option<EnvelopeResults> {
        let receipts = Receipts::new(stored_receipts(&self.database, height)?).ok()?;
        let batch = self.archive.committed_batch(height).ok()??;
        receipts.results(&batch.batch.header, index, Some(batch.certificate))
    }

    fn committed_from(&self, from: Height) -> Vec<CommittedBatch> {
        bounded(
            |height| match self.archive.committed_batch(height) {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(height, %error, "a committed height cannot be read from the log");
                    None
                }
            },
            from,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::Hash;
    use quorate_store::directory::{Directory, Identity};
    use quorate_store::log::{Log, LogOptions};
    use quorate_store::state::StateOptions;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn who_asks_for_the_past_does_not_wait_for_the_disk() {
        let place = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: Hash([1; 32]), replica: 0 };
        let directory = Directory::create(place.path(), identity).unwrap();
        let log = Log::open(&directory, LogOptions::default()).unwrap();
        let database = Arc::new(Database::open(&directory, &StateOptions::default()).unwrap());
        let history = History::start(log.archive(), database).unwrap();
        let (go_on, stalled) = channel::<()>();
        history.ask(move |_| stalled.recv().unwrap());
        // Many more than may wait; none of them holds this thread up.
        let (answer, answers) = channel();
        for height in 1..1000 {
            let answer = answer.clone();
            history.results(height, 0, move |results| answer.send(results.is_none()).unwrap());
            history.committed_from(height, |batches| assert!(batches.is_empty()));
        }
        drop(answer);
        assert!(answers.try_recv().is_err(), "the disk has not answered yet");
        go_on.send(()).unwrap();
        assert_eq!(answers.recv_timeout(Duration::from_secs(10)), Ok(true));
        assert!(answers.iter().count() < QUESTIONS_MAX, "the others were dropped");
    }
}
