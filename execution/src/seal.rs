//! From the changes of a batch to the state after it, and to its header.
//!
//! Invariant: the header is a function of the parent state and the proposal: no view, no signature, no order
//! of execution other than that of the proposal. Only rows whose value differs count as changed.

use quorate_crypto::{DomainHasher, Hash, encode};
use quorate_merkle::{Key as TrieKey, Trie, rfc6962, value_hash};
use quorate_metadata::keys;
use quorate_metadata::rows::{ParametersRow, Row};
use quorate_protocol::header::HEADER_VERSION;
use quorate_protocol::{BatchTime, Header, Height, ReceiptLeaf, SessionId};

use crate::batch::{Environment, Executed};
use crate::results::Receipts;
use crate::state::{Parts, State};
use crate::static_check::StaticFault;
use crate::view::Changes;

/// The realm of every row for now: realms get their behaviour later (rule S6).
const REALM: u32 = 0;

/// Puts the state after a batch together. `batch` is its height, time and digest of its proposal.
pub(crate) fn seal(
    parent: &State,
    environment: &Environment<'_>,
    batch: (Height, BatchTime, Hash),
    mut changes: Changes,
    leaves: Vec<ReceiptLeaf>,
    advanced: Vec<(SessionId, u64)>,
) -> Result<Executed, StaticFault> {
    let (height, time, proposal) = batch;
    let operation_count =
        u32::try_from(leaves.len()).map_err(|_| StaticFault::ProposalOperations(leaves.len()))?;
    let receipts = Receipts::new(leaves).map_err(|_| StaticFault::LogFull)?;
    let mut log = parent.log().clone();
    log.append(&encode(parent.header())).map_err(|_| StaticFault::LogFull)?;
    let row_count = differing(parent, &mut changes);
    let trie = applied(parent.trie(), &changes);
    let (touched_root, touched_count) = touched(&changes);
    let header = Header {
        version: HEADER_VERSION,
        cluster: environment.cluster,
        epoch: environment.members.epoch(),
        height,
        time,
        previous: parent.hash(),
        proposal,
        state_root: trie.root(),
        receipts_root: receipts.root(),
        first_operation: parent.next_operation(),
        operation_count,
        log_root: log.root(),
        members: environment.members.digest(),
        touched_root,
        touched_count,
    };
    let changed = changes.get(&keys::parameters()).and_then(Option::as_ref);
    let changed = changed.and_then(|value| ParametersRow::from_value(value).ok());
    let parameters = changed.map_or_else(|| parent.parameters().clone(), |row| row.parameters);
    let cluster = environment.cluster;
    let state = State::from_parts(Parts { cluster, trie, header, log, parameters, row_count });
    let wake_at = state.wake_at();
    Ok(Executed { state, receipts, changes, advanced, wake_at })
}

/// Drops the changes that change nothing, and counts the rows after the others.
fn differing(parent: &State, changes: &mut Changes) -> u64 {
    let mut count = parent.row_count();
    changes.retain(|key, after| {
        // A full trie always answers; a pruned one was asked before.
        let before = parent.trie().get(&TrieKey(*key)).unwrap_or(None);
        count = match (&before, &after) {
            (None, Some(_)) => count.saturating_add(1),
            (Some(_), None) => count.saturating_sub(1),
            _ => count,
        };
        before != *after
    });
    count
}

/// The trie with the changes.
pub(crate) fn applied(trie: &Trie, changes: &Changes) -> Trie {
    let mut after = trie.clone();
    let keys: Vec<TrieKey> = changes.keys().map(|key| TrieKey(*key)).collect();
    // A full trie lacks nothing, and of a pruned one `Base::changing` has asked for each of these keys.
    let _complete = after.apply(keys.iter().zip(changes.values()));
    after
}

/// Root and number of leaves of what a batch touched, by realm (rule S9): for each realm its number, how many
/// rows differ, and the digest of their keys with the hashes of their new values, in order.
fn touched(changes: &Changes) -> (Hash, u32) {
    if changes.is_empty() {
        return (rfc6962::empty_root(), 0);
    }
    let mut hasher = DomainHasher::new("quorate touched v1");
    for (key, value) in changes {
        hasher.part(key);
        match value {
            Some(value) => hasher.part(&value_hash(value).0),
            None => hasher.part(&[]),
        };
    }
    let leaf = encode(&(REALM, changes.len() as u64, hasher.finish()));
    (rfc6962::root(&[rfc6962::leaf_hash(&leaf)]), 1)
}
