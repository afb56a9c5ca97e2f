//! What a caller chooses about its client, and the bounds that it cannot choose.
//!
//! Invariant: everything that waits or is kept inside a client is bounded by a constant here or by an
//! option.

use std::time::Duration;

/// Envelopes of a session in flight at once. Every further operation waits and joins the next envelope.
pub const ENVELOPES_IN_FLIGHT_MAX: usize = 4;
/// While an envelope is in flight another one follows only after this time, or when so many operations wait.
/// What is sent in one envelope costs one height instead of several; on a long line several are under way.
pub const FOLLOW_AFTER: Duration = Duration::from_millis(10);
/// The next envelope waits for three quarters of the callers that are expected back, but no longer than this
/// part of what the last envelope took: one height then serves more operations.
pub const GATHER_DIVISOR: u32 = 4;
/// Longest such wait.
pub const GATHER_MAX: Duration = Duration::from_millis(4);
/// Operations for which another envelope is worth its height.
pub const FOLLOW_OPERATIONS: usize = 256;
/// Operations that wait for an envelope; beyond this `execute` waits before it queues.
pub const OPERATIONS_WAITING_MAX: usize = 4096;
/// Clusters of at most this size get each envelope on all replicas, so that nobody starves a client unseen.
pub const BROADCAST_REPLICAS_MAX: usize = 7;
/// First wait before an envelope is sent again, byte-identical, to all replicas.
pub const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The same for the first envelope of a session, which some replicas may not know yet.
pub const RETRY_FRESH: Duration = Duration::from_millis(40);
/// Longest wait between two sendings of an envelope.
pub const RETRY_MAX: Duration = Duration::from_secs(8);
/// After a COMMIT or results that complete nothing, certified results are asked for after as long as envelopes took
/// lately, within these bounds.
pub const RESULTS_WAIT_MIN: Duration = Duration::from_millis(8);
/// The upper one, which also holds while nothing was measured.
pub const RESULTS_WAIT: Duration = Duration::from_millis(40);
/// How long one request to one replica may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A read that is not answered after this time goes to another replica as well.
pub const HEDGE_DELAY: Duration = Duration::from_millis(150);
/// Most rounds of the linearizable question in flight; later readers share the next one.
pub const QUESTION_ROUNDS_MAX: usize = 2;
/// Blocks fetched at once for one read of a file.
pub const BLOCK_FETCHES_MAX: usize = 8;
/// Bytes of blocks in one request to store them.
pub const PUT_BLOCKS_BYTES_MAX: usize = 8 << 20;
/// Bytes of blocks on their way to one replica; what is more waits, and goes to the others alone when they are
/// enough. A replica that reads slowly costs this much memory twice, as blocks and as a frame.
pub const UPLOAD_BYTES_MAX: usize = 6 * PUT_BLOCKS_BYTES_MAX;
/// How long `close` waits for the session to end.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `Some`: a call without an answer after this time fails with `ClientError::Deadline` (soft, like
    /// NFS `soft,timeo`). `None`: it waits for as long as it takes (hard).
    pub deadline: Option<Duration>,
    /// While reads go on, the cluster is asked this often for its highest height in the background: an
    /// answer of `Freshness::Floor` is at most this old, plus one round trip. Zero: never.
    pub question_interval: Duration,
    /// Runs of at most this many bytes are written into the state itself, longer ones as blocks.
    /// Cut to the cluster's `inline_bytes_max`.
    pub inline_limit: usize,
    /// Bytes of file blocks kept in memory.
    pub block_cache_bytes: usize,
    /// How long `connect` waits for a registered session.
    pub connect_timeout: Duration,
    /// Whether a session is registered at all: without one the client can read, but not write.
    pub session: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: Some(Duration::from_secs(30)),
            question_interval: Duration::from_secs(1),
            inline_limit: 4096,
            block_cache_bytes: 64 << 20,
            connect_timeout: Duration::from_secs(30),
            session: true,
        }
    }
}
