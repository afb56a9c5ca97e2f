//! Views: a trie under the changes of a batch under those of one operation; and a trie that notes what is asked.
//!
//! Invariants: a row is read from the newest layer that knows it; what an operation put counts only after
//! [`Overlay::keep`], so a failed one leaves nothing behind; every access is charged, and once the budget is
//! used up nothing more is answered, so the work of an operation is bounded whatever it asks for (rule R5).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_merkle::{Key as TrieKey, Touched, Trie};
use quorate_metadata::{Key, Missing, View};

/// Rows that differ from those of the state below: `None` is a row taken out.
pub type Changes = BTreeMap<Key, Option<Arc<[u8]>>>;

/// A row's value.
pub(crate) type Value = Arc<[u8]>;

/// Cost of one access to a row, beside that of its bytes.
pub const COST_OF_ACCESS: u64 = 1;
/// Bytes of a value that cost as much as one access.
pub const BYTES_PER_COST: usize = 1024;

/// Where the reads of an overlay end.
pub(crate) trait Base {
    fn get(&self, key: &Key) -> Result<Option<Value>, Missing>;

    /// The first row at or after `from` and below `end` that is not hidden.
    fn next(
        &self,
        from: &Key,
        end: Option<&Key>,
        hidden: &dyn Fn(&Key) -> bool,
    ) -> Result<Option<(Key, Value)>, Missing>;

    /// Told at the end which rows a batch puts or takes out; what they were before is asked then as well.
    fn changing(&self, _changes: &Changes) {}
}

impl Base for Trie {
    fn get(&self, key: &Key) -> Result<Option<Value>, Missing> {
        Trie::get(self, &TrieKey(*key)).map_err(|missing| Missing(missing.0.0))
    }

    fn next(
        &self,
        from: &Key,
        end: Option<&Key>,
        hidden: &dyn Fn(&Key) -> bool,
    ) -> Result<Option<(Key, Value)>, Missing> {
        let end = end.map(|end| TrieKey(*end));
        for row in self.scan(&TrieKey(*from), end.as_ref()) {
            let (key, value) = row.map_err(|missing| Missing(missing.0.0))?;
            if !hidden(&key.0) {
                return Ok(Some((key.0, value)));
            }
        }
        Ok(None)
    }
}

/// A trie that notes what it was asked, so that a pruned copy can answer the same questions.
pub(crate) struct Recorder<'a> {
    trie: &'a Trie,
    touched: RefCell<Touched>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(trie: &'a Trie) -> Self {
        Recorder { trie, touched: RefCell::new(Touched::new()) }
    }

    /// What was asked.
    pub(crate) fn into_touched(self) -> Touched {
        self.touched.into_inner()
    }
}

impl Base for Recorder<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>, Missing> {
        self.touched.borrow_mut().key(TrieKey(*key));
        Base::get(self.trie, key)
    }

    fn next(
        &self,
        from: &Key,
        end: Option<&Key>,
        hidden: &dyn Fn(&Key) -> bool,
    ) -> Result<Option<(Key, Value)>, Missing> {
        let found = Base::next(self.trie, from, end, hidden)?;
        let mut touched = self.touched.borrow_mut();
        match &found {
            Some((key, _)) => touched.range_through(TrieKey(*from), &TrieKey(*key)),
            None => touched.range(TrieKey(*from), end.map(|end| TrieKey(*end))),
        }
        Ok(found)
    }

    fn changing(&self, changes: &Changes) {
        let mut touched = self.touched.borrow_mut();
        for key in changes.keys() {
            touched.key(TrieKey(*key));
        }
    }
}

/// A pruned copy that notes whether it lacked anything that was asked: then nothing that came of it counts.
pub(crate) struct Pruned<'a> {
    trie: &'a Trie,
    lacks: Cell<Option<Missing>>,
}

impl<'a> Pruned<'a> {
    pub(crate) fn new(trie: &'a Trie) -> Self {
        Pruned { trie, lacks: Cell::new(None) }
    }

    /// The first row that it lacked.
    pub(crate) fn lacks(&self) -> Option<Missing> {
        self.lacks.get()
    }

    fn noted<T>(&self, answer: Result<T, Missing>) -> Result<T, Missing> {
        answer.inspect_err(|missing| self.lacks.set(self.lacks.get().or(Some(*missing))))
    }
}

impl Base for Pruned<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>, Missing> {
        self.noted(Base::get(self.trie, key))
    }

    fn next(
        &self,
        from: &Key,
        end: Option<&Key>,
        hidden: &dyn Fn(&Key) -> bool,
    ) -> Result<Option<(Key, Value)>, Missing> {
        self.noted(Base::next(self.trie, from, end, hidden))
    }

    fn changing(&self, changes: &Changes) {
        for key in changes.keys() {
            // Noted where it is lacking.
            let _answer = self.get(key);
        }
    }
}

/// The changes of a batch, and of the operation at work, over a base.
pub(crate) struct Overlay<'a, B: Base> {
    base: &'a B,
    batch: Changes,
    operation: Changes,
    spent: Cell<u64>,
    limit: u64,
}

impl<'a, B: Base> Overlay<'a, B> {
    /// Nothing changed yet, and no limit.
    pub(crate) fn new(base: &'a B) -> Self {
        Overlay {
            base,
            batch: Changes::new(),
            operation: Changes::new(),
            spent: Cell::new(0),
            limit: u64::MAX,
        }
    }

    /// Starts an operation that may spend `limit` more.
    pub(crate) fn begin(&mut self, limit: u64) {
        self.operation.clear();
        self.limit = self.spent.get().saturating_add(limit);
    }

    /// What the operation at work has changed.
    pub(crate) fn pending(&self) -> &Changes {
        &self.operation
    }

    /// Keeps what the operation changed.
    pub(crate) fn keep(&mut self) {
        // Not `append`, which rebuilds the whole map for each operation.
        self.batch.extend(std::mem::take(&mut self.operation));
        self.limit = u64::MAX;
    }

    /// Drops what the operation changed.
    pub(crate) fn drop_operation(&mut self) {
        self.operation.clear();
        self.limit = u64::MAX;
    }

    /// Whether the operation at work has used up its budget.
    pub(crate) fn exhausted(&self) -> bool {
        self.spent.get() > self.limit
    }

    /// What was spent since the overlay was made.
    pub(crate) fn spent(&self) -> u64 {
        self.spent.get()
    }

    /// Charges for work that is no access, such as checking signatures.
    pub(crate) fn charge(&self, cost: u64) {
        self.spent.set(self.spent.get().saturating_add(cost));
    }

    fn charge_value(&self, value: Option<&Value>) {
        let units = value.map_or(0, |value| value.len() / BYTES_PER_COST);
        self.charge(COST_OF_ACCESS.saturating_add(units as u64));
    }

    /// All changes that were kept.
    pub(crate) fn into_changes(self) -> Changes {
        self.batch
    }

    /// What the layers say of a row: nothing, or its value, `None` for one that was taken out.
    fn change(&self, key: &Key) -> Option<&Option<Value>> {
        self.operation.get(key).or_else(|| self.batch.get(key))
    }

    /// The first row from `from` on and below `end` that a layer has put.
    fn first_put(&self, layer: &Changes, from: &Key, end: Option<&Key>) -> Option<Key> {
        let mut keys = layer.range(*from..).map(|(key, _)| *key);
        let mut inside = keys.by_ref().take_while(|key| end.is_none_or(|end| key < end));
        inside.find(|key| {
            let is_put = matches!(self.change(key), Some(Some(_)));
            self.charge(if is_put { 0 } else { COST_OF_ACCESS });
            is_put
        })
    }
}

impl<B: Base> View for Overlay<'_, B> {
    fn get(&self, key: &Key) -> Result<Option<Value>, Missing> {
        if self.exhausted() {
            return Err(Missing(*key));
        }
        let value = match self.change(key) {
            Some(change) => change.clone(),
            None => self.base.get(key)?,
        };
        self.charge_value(value.as_ref());
        Ok(value)
    }

    fn next(&self, from: &Key, end: Option<&Key>) -> Result<Option<(Key, Value)>, Missing> {
        if self.exhausted() {
            return Err(Missing(*from));
        }
        if end.is_some_and(|end| end <= from) {
            return Ok(None);
        }
        let taken_out = |key: &Key| {
            let hidden = matches!(self.change(key), Some(None));
            self.charge(if hidden { COST_OF_ACCESS } else { 0 });
            hidden
        };
        let below = self.base.next(from, end, &taken_out)?;
        let candidates = [
            self.first_put(&self.operation, from, end),
            self.first_put(&self.batch, from, end),
            below.as_ref().map(|(key, _)| *key),
        ];
        let Some(key) = candidates.into_iter().flatten().min() else {
            self.charge_value(None);
            return Ok(None);
        };
        let value = match self.change(&key) {
            Some(change) => change.clone(),
            None => below.map(|(_, value)| value),
        };
        self.charge_value(value.as_ref());
        Ok(value.map(|value| (key, value)))
    }

    fn put(&mut self, key: Key, value: Value) {
        self.charge_value(Some(&value));
        self.operation.insert(key, Some(value));
    }

    fn delete(&mut self, key: Key) {
        self.charge_value(None);
        self.operation.insert(key, None);
    }
}

#[cfg(test)]
mod tests;
