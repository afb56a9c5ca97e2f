//! Writes down what clients did and saw, as the history that [`quorate_history::check`] judges.
//!
//! Invariant: every operation of a correct client and every read is one call; what hostile clients did is
//! taken from the chain when the history is closed; every executed operation has the place that the chain
//! shows, so the whole order is known.

use std::collections::BTreeMap;

use quorate_history::{Answer, CallId, Event, Guarantee, History, Operation, Place};
use quorate_protocol::{Envelope, Height, OperationBody, OperationResult, SessionId};

use crate::fake::{ABSENT, EXISTS, number};
use crate::ledger::Ledger;
use crate::machine::Execution;
use crate::oracle::{Verdict, Violation};
use crate::reader::{Read, Subject};
use crate::workload::nth_name;

/// The client of calls that nobody correct made.
const NOBODY: u64 = u64::MAX;
/// Clients and readers are counted apart.
const READERS_FROM: u64 = 1 << 32;

/// A history in the making.
#[derive(Debug)]
pub struct Scribe {
    execution: Execution,
    history: History,
    next: CallId,
    /// The first call of each envelope: that of its session's number, before those of its operations.
    calls: BTreeMap<(SessionId, u64), CallId>,
}

impl Scribe {
    /// Nothing happened yet.
    #[must_use]
    pub fn new(execution: Execution) -> Self {
        Self { execution, history: History::default(), next: 0, calls: BTreeMap::new() }
    }

    /// The history so far.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// A client sent an envelope for the first time.
    ///
    /// # Errors
    /// A [`Violation`] if the history contradicts itself.
    pub fn issued(&mut self, client: u8, now: u64, envelope: &Envelope) -> Verdict {
        self.calls.insert((envelope.body.session, envelope.body.first), self.next);
        self.asked(u64::from(client), now, envelope.body.session, envelope.next(), operations(envelope))
    }

    /// The calls of an envelope: its session's next number is put, and then each operation is executed.
    fn asked<'a>(
        &mut self,
        client: u64,
        at: u64,
        session: SessionId,
        next: u64,
        operations: impl Iterator<Item = &'a OperationBody>,
    ) -> Verdict {
        let put = Operation::Put { key: session_key(&session), value: next.to_string() };
        let calls: Vec<Operation> =
            std::iter::once(put).chain(operations.map(|body| self.operation(body))).collect();
        for operation in calls {
            let id = self.next;
            self.next += 1;
            self.record(Event::Call { id, client, at, operation, guarantee: Guarantee::Linearizable })?;
        }
        Ok(())
    }

    fn operation(&self, body: &OperationBody) -> Operation {
        let key = |name: &quorate_protocol::file::Name| name_key(name.as_bytes());
        match body {
            _ if self.execution == Execution::Real => Operation::Opaque,
            OperationBody::Create { name, exclusive, entropy, .. } => {
                let (key, value) = (key(name), number(entropy).to_string());
                if *exclusive { Operation::Create { key, value } } else { Operation::Put { key, value } }
            }
            OperationBody::Unlink { name, .. } => Operation::Remove { key: key(name) },
            OperationBody::Rename { name, new_name, .. } => {
                Operation::Move { from: key(name), to: key(new_name) }
            }
            _ => Operation::Opaque,
        }
    }

    /// A client knows that its envelope was executed at a height, with these results.
    ///
    /// # Errors
    /// A [`Violation`] if the history contradicts itself.
    pub fn answered(
        &mut self,
        at: u64,
        (session, first): (SessionId, u64),
        height: Height,
        results: &[OperationResult],
    ) -> Verdict {
        let Some(first) = self.calls.get(&(session, first)).copied() else { return Ok(()) };
        let place = Some(Place { height, index: None });
        let answers = std::iter::once(Answer::Done).chain(results.iter().map(answer));
        for (id, answer) in (first..).zip(answers) {
            self.record(Event::Return { id, at, answer, place })?;
        }
        Ok(())
    }

    /// A reader has read a value.
    ///
    /// # Errors
    /// A [`Violation`] if the history contradicts itself.
    pub fn read(&mut self, reader: u8, now: u64, read: Read) -> Verdict {
        let id = self.next;
        self.next += 1;
        let key = match read.subject {
            Subject::Name(number) => name_key(nth_name(number).as_bytes()),
            Subject::Session(session) => session_key(&session),
        };
        let (client, operation) = (READERS_FROM + u64::from(reader), Operation::Get { key });
        let guarantee = Guarantee::Linearizable;
        self.record(Event::Call { id, client, at: read.asked_at, operation, guarantee })?;
        let answer = read.value.map_or(Answer::Absent, |value| Answer::Value(value.to_string()));
        let place = Some(Place { height: read.height, index: None });
        self.record(Event::Return { id, at: now, answer, place })
    }

    /// The run is over: every executed operation gets its place, and the whole is judged. Gives the number of
    /// executed envelopes that no correct client had sent.
    ///
    /// # Errors
    /// A [`Violation`] if the history is not linearizable.
    pub fn close(&mut self, ledger: &Ledger) -> Result<u64, Violation> {
        let mut foreign = 0;
        for executed in ledger.executed() {
            let body = &executed.body;
            let known = self.calls.get(&(body.session, body.first)).copied();
            let first = known.unwrap_or(self.next);
            let count = body.operations.len() as u64;
            if known.is_none() {
                foreign += 1;
                let operations = body.operations.iter().map(|operation| &operation.body);
                self.asked(NOBODY, 0, body.session, body.first + count, operations)?;
            }
            // Twice as many places as operations: one more before each of them.
            let put = (first, 2 * executed.index);
            let each = (0..count).map(|number| (first + 1 + number, 2 * (executed.index + number) + 1));
            for (id, index) in std::iter::once(put).chain(each) {
                let place = Place { height: executed.height, index: Some(index) };
                self.record(Event::Executed { id, place })?;
            }
        }
        self.history.drop_unexecuted();
        match quorate_history::check(&self.history) {
            Ok(report) if report.undecided == 0 => Ok(foreign),
            Ok(report) => {
                Err(Violation { rule: "the order of a history is known", detail: format!("{report:?}") })
            }
            Err(violation) => {
                Err(Violation { rule: "histories are linearizable", detail: violation.to_string() })
            }
        }
    }

    fn record(&mut self, event: Event) -> Verdict {
        let told = self.history.record(event);
        told.map_err(|error| Violation { rule: "a history is one", detail: error.to_string() })
    }
}

fn operations(envelope: &Envelope) -> impl Iterator<Item = &OperationBody> {
    envelope.body.operations.iter().map(|operation| &operation.body)
}

fn name_key(name: &[u8]) -> String {
    format!("name/{}", String::from_utf8_lossy(name))
}

fn session_key(session: &SessionId) -> String {
    format!("session/{session}")
}

fn answer(result: &OperationResult) -> Answer {
    match result {
        OperationResult::Done(_) => Answer::Done,
        OperationResult::Failed(EXISTS) => Answer::Exists,
        OperationResult::Failed(ABSENT) => Answer::Absent,
        other => Answer::Other(format!("{other:?}")),
    }
}
