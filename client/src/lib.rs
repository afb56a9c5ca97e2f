//! The verified client: sessions, envelopes, certificates, proofs, blocks.
//!
//! Invariant: nothing that a single replica says reaches a caller. A write's result stands under a commit
//! certificate of Q replicas, a read's answer under a root that such a certificate names, a block under
//! its identifier. A replica whose answer fails a check is named (counter and log line), and the request
//! goes to another one: a failed check never becomes ENOENT or stale data.
//!
//! Outline, all within one tokio runtime of either flavour; [`Client`] is cheap to clone:
//!
//! ```text
//! connect   Client::connect(ClusterFile, SecretKey, ClientOptions)        registers a session, keeps it alive
//! write     execute(&credential, body) -> Reply                           waits for the certificate
//!           execute_many(&credential, Vec<Step>) -> Vec<Result<Reply>>    with `requires` between the steps
//!           submit(&credential, body) -> Pending                          queued now, in order; future of Reply
//! read      read(&credential, Query, Freshness) -> Answer                 read_certified: with header
//! content   read_range(&credential, &FileRead) -> FileData                holes are zeros, clipped at the size
//!           write_ranges(&credential, &FileWrite, Vec<DirtyRange>) -> Attributes
//!           append(&credential, &FileWrite, Vec<u8>) -> (offset, Attributes)
//!           put_blocks, get_block                                         what these are made of
//! cluster   status(), history(from), floor(), cluster(), parameters(), session(), misbehaviour()
//! end       close()                                                       CloseSession, within a bounded time
//! ```
#![forbid(unsafe_code)]

mod bars;
mod batch;
mod blocks;
mod client;
mod core;
pub mod error;
pub mod evidence;
pub mod file;
pub mod heads;
mod heights;
mod network;
pub mod observer;
pub mod options;
mod pipeline;
mod question;
mod race;
mod read;
pub mod replicas;
mod session;
pub mod status;
pub mod tally;
pub mod trust;

pub use client::{Certified, Client, Freshness, Pending, Sessions, Step};
pub use error::ClientError;
pub use evidence::ShownEvidence;
pub use file::{DirtyRange, FileData, FileRead, FileWrite};
pub use heads::ShownHeads;
pub use observer::Observer;
pub use options::ClientOptions;
pub use replicas::Replicas;
pub use status::{ClusterStatus, ReplicaState};
pub use trust::Misbehaviour;
