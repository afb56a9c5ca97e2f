//! What sequential execution gives: keys and values, and of which keys it is not known.
//!
//! Invariant: a key that is in doubt is never compared; nothing is in doubt of which the order is known.

use std::collections::BTreeMap;

use crate::event::{Answer, Key, Operation, Value};

/// Why it is not known what a key holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Operations of one height whose order within it is not known: until something overwrites the key.
    Order,
    /// An operation of which it is not known whether and where it was executed: for good.
    Execution,
}

/// Keys and values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    values: BTreeMap<Key, Value>,
    doubts: BTreeMap<Key, Doubt>,
}

/// Whether an answer is what sequential execution gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It is.
    Right,
    /// It is not: this would have been.
    Wrong(Answer),
    /// A key is in doubt.
    Undecided,
}

impl Tree {
    /// From here on it is not known what a key holds.
    pub(crate) fn doubt(&mut self, key: &Key, doubt: Doubt) {
        if self.doubts.get(key) != Some(&Doubt::Execution) {
            self.doubts.insert(key.clone(), doubt);
        }
    }

    fn is_known(&self, key: &Key) -> bool {
        !self.doubts.contains_key(key)
    }

    fn set(&mut self, key: &Key, value: Option<Value>) {
        if self.doubts.get(key) == Some(&Doubt::Order) {
            self.doubts.remove(key);
        }
        match value {
            Some(value) => self.values.insert(key.clone(), value),
            None => self.values.remove(key),
        };
    }

    /// Executes an operation and compares the answer, if there is one.
    pub(crate) fn apply(&mut self, operation: &Operation, answer: Option<&Answer>) -> Judgement {
        let expected = self.execute(operation);
        match (answer, expected) {
            (Some(answer), Some(expected)) if *answer != expected => Judgement::Wrong(expected),
            (Some(_), None) if *operation != Operation::Opaque => Judgement::Undecided,
            _ => Judgement::Right,
        }
    }

    /// The answer that is due; `None` if any other one may be right as well.
    fn execute(&mut self, operation: &Operation) -> Option<Answer> {
        match operation {
            Operation::Put { key, value } => {
                self.set(key, Some(value.clone()));
                Some(Answer::Done)
            }
            Operation::Create { key, .. } | Operation::Get { key } if !self.is_known(key) => None,
            Operation::Create { key, .. } if self.values.contains_key(key) => Some(Answer::Exists),
            Operation::Create { key, value } => {
                self.set(key, Some(value.clone()));
                Some(Answer::Done)
            }
            Operation::Remove { key } => {
                let was = self.is_known(key).then(|| self.values.contains_key(key));
                self.set(key, None);
                was.map(|was| if was { Answer::Done } else { Answer::Absent })
            }
            Operation::Move { from, to } => {
                // Whether or not it was there, it is not there afterwards.
                let known = self.is_known(from);
                let value = self.values.get(from).cloned();
                self.set(from, None);
                match value {
                    _ if !known => {
                        self.doubt(to, Doubt::Order);
                        None
                    }
                    None => Some(Answer::Absent),
                    value => {
                        self.set(to, value);
                        Some(Answer::Done)
                    }
                }
            }
            Operation::Get { key } => {
                Some(self.values.get(key).cloned().map_or(Answer::Absent, Answer::Value))
            }
            Operation::List { .. } | Operation::Opaque => None,
        }
    }

    /// Compares the answer of a list: what is known to be there must be in it, and nothing else but what is
    /// in doubt.
    pub(crate) fn judge_list(&self, prefix: &Key, answer: &Answer) -> Judgement {
        let expected: Vec<Key> =
            with_prefix(&self.values, prefix).filter(|key| self.is_known(key)).cloned().collect();
        let Answer::Keys(keys) = answer else { return Judgement::Wrong(Answer::Keys(expected)) };
        let known: Vec<Key> = keys.iter().filter(|key| self.is_known(key)).cloned().collect();
        if known != expected {
            return Judgement::Wrong(Answer::Keys(expected));
        }
        let doubts = with_prefix(&self.doubts, prefix).next().is_some();
        if doubts { Judgement::Undecided } else { Judgement::Right }
    }
}

fn with_prefix<'a, T>(map: &'a BTreeMap<Key, T>, prefix: &'a Key) -> impl Iterator<Item = &'a Key> {
    map.range(prefix.clone()..).map(|(key, _)| key).take_while(move |key| key.starts_with(prefix))
}
