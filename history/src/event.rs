//! Calls and returns as plain data, and their form in text.
//!
//! Invariant: a [`History`] holds each call once, and an outcome only for a call that it holds.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};

use serde::{Deserialize, Serialize};

/// Most calls of one history.
pub const CALLS_MAX: usize = 10_000_000;
/// Most bytes of one line of text.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// Number of a call, given by whoever records the history.
pub type CallId = u64;
/// What is written and read: a path, or any other name.
pub type Key = String;
/// What a key holds: a content, or its digest.
pub type Value = String;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Sets a key, whether or not it is there. Answer: `Done`.
    Put {
        /// The key.
        key: Key,
        /// What it holds afterwards.
        value: Value,
    },
    /// Makes a key. Answer: `Done`, or `Exists` if it is there.
    Create {
        /// The key.
        key: Key,
        /// What it holds afterwards.
        value: Value,
    },
    /// Removes a key. Answer: `Done`, or `Absent` if it is not there.
    Remove {
        /// The key.
        key: Key,
    },
    /// Gives what a key holds another key, in place of what that held. Answer: `Done`, or `Absent`.
    Move {
        /// The key that goes.
        from: Key,
        /// The key that comes.
        to: Key,
    },
    /// Reads a key. Answer: `Value`, or `Absent`.
    Get {
        /// The key.
        key: Key,
    },
    /// Reads all keys that begin with a prefix. Answer: `Keys`.
    List {
        /// The prefix.
        prefix: Key,
    },
    /// Something else that is ordered and changes no key. Any answer will do.
    Opaque,
}

impl Operation {
    /// Whether it reads a state as it is after a height, and is not ordered itself.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::List { .. })
    }

    /// The keys that it names.
    #[must_use]
    pub fn keys(&self) -> Vec<&Key> {
        match self {
            Self::Put { key, .. } | Self::Create { key, .. } | Self::Remove { key } | Self::Get { key } => {
                vec![key]
            }
            Self::Move { from, to } => vec![from, to],
            Self::List { .. } | Self::Opaque => Vec::new(),
        }
    }
}

/// What a client was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// It was done.
    Done,
    /// The key is there already.
    Exists,
    /// The key is not there.
    Absent,
    /// What the key holds.
    Value(Value),
    /// The keys, ascending.
    Keys(Vec<Key>),
    /// Something that is not compared.
    Other(String),
}

/// What a read promises.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// It sees everything that ended before it began, whoever did it.
    #[default]
    Linearizable,
    /// It sees everything that the same client saw end before it began.
    Session,
}

/// Where an operation was executed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The height.
    pub height: u64,
    /// Its order within the height, if that is known.
    #[serde(default)]
    pub index: Option<u64>,
}

/// One line of a history. Times are of one clock for all clients, in any unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A client asks.
    Call {
        /// Which call.
        id: CallId,
        /// Who.
        client: u64,
        /// When.
        at: u64,
        /// For what.
        operation: Operation,
        /// What a read promises.
        #[serde(default)]
        guarantee: Guarantee,
    },
    /// A client is answered.
    Return {
        /// Which call.
        id: CallId,
        /// When.
        at: u64,
        /// What.
        answer: Answer,
        /// Where it was executed; for a read, the height of the state that it saw. If it is not known,
        /// reads and writes of the key are judged by their times alone.
        #[serde(default)]
        place: Option<Place>,
    },
    /// A call was executed, as the chain shows, whether or not its client was answered.
    Executed {
        /// Which call.
        id: CallId,
        /// Where.
        place: Place,
    },
}

/// What a client was told of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When.
    pub end: u64,
    /// The answer.
    pub answer: Answer,
    /// Where, if it was told.
    pub place: Option<Place>,
}

/// One call with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who.
    pub client: u64,
    /// When it began.
    pub start: u64,
    /// What it asks for.
    pub operation: Operation,
    /// What a read promises.
    pub guarantee: Guarantee,
    /// The answer; `None` if none came.
    pub outcome: Option<Outcome>,
    /// Where the chain shows it.
    pub executed: Option<Place>,
}

impl Call {
    /// Where it was executed, by the chain, or else by what the client was told.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.executed.or_else(|| self.outcome.as_ref().and_then(|outcome| outcome.place))
    }
}

/// A history that is none.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// A line is not an event.
    #[error("line {line}: {source}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Two calls have one number.
    #[error("call {0} is there twice")]
    Twice(CallId),
    /// A return or execution of a call that is not there.
    #[error("nothing is known of call {0}")]
    Unknown(CallId),
    /// A second answer.
    #[error("call {0} has two answers or places")]
    Answered(CallId),
    /// It ended before it began.
    #[error("call {0} ends before it begins")]
    Backwards(CallId),
    /// More than [`CALLS_MAX`] calls.
    #[error("more than {CALLS_MAX} calls")]
    TooLong,
    /// A line is longer than [`LINE_BYTES_MAX`].
    #[error("line {0} has more than {LINE_BYTES_MAX} bytes")]
    LongLine(usize),
    /// The text cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Calls by number.
#[derive(Clone, Debug, Default)]
pub struct History {
    calls: BTreeMap<CallId, Call>,
}

impl History {
    /// The calls.
    #[must_use]
    pub const fn calls(&self) -> &BTreeMap<CallId, Call> {
        &self.calls
    }

    /// Adds an event.
    ///
    /// # Errors
    /// [`Malformed`] if it contradicts what is there.
    pub fn record(&mut self, event: Event) -> Result<(), Malformed> {
        match event {
            Event::Call { id, client, at, operation, guarantee } => {
                if self.calls.len() >= CALLS_MAX {
                    return Err(Malformed::TooLong);
                }
                let call = Call { client, start: at, operation, guarantee, outcome: None, executed: None };
                if self.calls.insert(id, call).is_some() {
                    return Err(Malformed::Twice(id));
                }
            }
            Event::Return { id, at, answer, place } => {
                let call = self.calls.get_mut(&id).ok_or(Malformed::Unknown(id))?;
                if at < call.start {
                    return Err(Malformed::Backwards(id));
                }
                if call.outcome.replace(Outcome { end: at, answer, place }).is_some() {
                    return Err(Malformed::Answered(id));
                }
            }
            Event::Executed { id, place } => {
                let call = self.calls.get_mut(&id).ok_or(Malformed::Unknown(id))?;
                if call.executed.replace(place).is_some() {
                    return Err(Malformed::Answered(id));
                }
            }
        }
        Ok(())
    }

    /// Leaves out the calls that were not executed: ordered, without an answer, and without a place. For
    /// whoever has given a place to everything that the whole chain holds.
    pub fn drop_unexecuted(&mut self) {
        self.calls
            .retain(|_, call| call.operation.is_read() || call.outcome.is_some() || call.executed.is_some());
    }

    /// Reads events, one JSON object per line; empty lines are passed over.
    ///
    /// # Errors
    /// [`Malformed`] names the first line that is wrong.
    pub fn read(mut text: impl BufRead) -> Result<Self, Malformed> {
        let mut history = Self::default();
        let mut line = String::new();
        for number in 1.. {
            line.clear();
            if text.by_ref().take(LINE_BYTES_MAX + 1).read_line(&mut line)? == 0 {
                break;
            }
            if line.len() as u64 > LINE_BYTES_MAX {
                return Err(Malformed::LongLine(number));
            }
            if line.trim().is_empty() {
                continue;
            }
            let event =
                serde_json::from_str(&line).map_err(|source| Malformed::Line { line: number, source })?;
            history.record(event)?;
        }
        Ok(history)
    }

    /// The events in the form that [`History::read`] takes, by number of the call.
    ///
    /// # Errors
    /// [`Malformed::Io`] if they cannot be written.
    pub fn write(&self, mut text: impl Write) -> Result<(), Malformed> {
        for (id, call) in &self.calls {
            for event in call.events(*id) {
                let line = serde_json::to_string(&event).map_err(std::io::Error::from)?;
                writeln!(text, "{line}")?;
            }
        }
        Ok(())
    }
}

impl Call {
    fn events(&self, id: CallId) -> Vec<Event> {
        let Self { client, start, operation, guarantee, outcome, executed } = self.clone();
        let mut events = vec![Event::Call { id, client, at: start, operation, guarantee }];
        events.extend(outcome.map(|Outcome { end, answer, place }| Event::Return {
            id,
            at: end,
            answer,
            place,
        }));
        events.extend(executed.map(|place| Event::Executed { id, place }));
        events
    }
}
