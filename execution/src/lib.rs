//! A batch to its header: sessions, principals, metadata, trie overlay, roots; full, partial and stateless.
//!
//! [`State`] is the state after a height. [`State::execute`] makes the next one from a proposal, and
//! [`State::answer`] answers a question with a pruned copy, which [`check_answer`] reads on the client. Both
//! sides run `quorate_metadata` over a view of a trie. Invariant: everything is a function of its arguments;
//! no clock, randomness, threads or I/O. `docs/SPEC/execution.md` says the rules and formats.
#![forbid(unsafe_code)]

pub mod rows;

mod batch;
mod blocks;
mod expiry;
mod genesis;
mod past;
mod principals;
mod read;
mod results;
mod seal;
mod sessions;
mod state;
mod stateless;
mod static_check;
mod view;

pub use batch::{
    BATCH_COST_MAX, BUDGET_ERRNO, COST_OF_SIGNATURE, ENVELOPE_COST_MAX, Environment, Executed,
    OPERATION_COST_MAX, Watch,
};
pub use expiry::{DUE_PER_BATCH_MAX, GRACE, OUTAGE_GAP, RELEASES_PER_CALL_MAX, SUSPICION_STEP};
pub use genesis::{BLOCK_LOG2_MIN, GenesisError, RULES_VERSION, SESSION_LIFETIME_MIN};
pub use past::PastState;
pub use principals::resolve;
pub use quorate_metadata::{Answer, Errno, Key};
pub use read::{AnswerError, AnswerFault, Answered, PartialState, SessionSummary, check_answer};
pub use results::{Receipts, ResultsFault, verify_path, verify_results, verify_results_of};
pub use sessions::{Admission, REGISTRATION_VALIDITY_MAX, SESSIONS_PER_PRINCIPAL_MAX};
pub use state::{RestoreError, State};
pub use stateless::{StatelessFault, WitnessError, execute_stateless};
pub use static_check::{BATCH_TIME_MAX, StaticFault, check_envelope, check_static, minimum_time};
pub use view::{BYTES_PER_COST, COST_OF_ACCESS, Changes};
