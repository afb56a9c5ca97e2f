//! The state and header of height 0.
//!
//! Invariant: both are functions of the genesis alone, so its hash, the cluster's identifier, names them.

use quorate_crypto::{Hash, KeyError};
use quorate_merkle::{LogFrontier, Trie, rfc6962};
use quorate_metadata::rows::{BLOCK_LOG2_MAX, put};
use quorate_metadata::{Error, keys};
use quorate_protocol::genesis::{GENESIS_VERSION, Genesis, Parameters};
use quorate_protocol::header::HEADER_VERSION;
use quorate_protocol::limits::{INLINE_PIECE_BYTES_MAX, WINDOW_MAX};
use quorate_protocol::{BatchTime, Header};

use crate::principals;
use crate::rows::MembersRow;
use crate::seal::applied;
use crate::state::{Parts, State};
use crate::static_check::BATCH_TIME_MAX;
use crate::view::Overlay;

/// The version of the execution rules that this program knows (rule S10).
pub const RULES_VERSION: u32 = 1;
/// Least binary logarithm of a block size: 4 KiB.
pub const BLOCK_LOG2_MIN: u8 = 12;
/// Shortest life of a session without renewal, in nanoseconds: a millisecond.
pub const SESSION_LIFETIME_MIN: u64 = 1_000_000;
/// Global number of the first operation: what genesis makes has version 0.
const FIRST_OPERATION: u64 = 1;

/// Why a genesis starts no cluster: the fault of whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Another format.
    #[error("unknown version {0} of the genesis")]
    Version(u8),
    /// A time that batches cannot follow.
    #[error("the time of the genesis leaves the range")]
    Time(BatchTime),
    /// The first principal's key is refused.
    #[error("the first principal's key: {0}")]
    Principal(KeyError),
    /// Its rights are not in canonical form, or hold an identity that is none.
    #[error("the first principal's rights are not canonical")]
    Rights,
    /// A parameter is out of its bounds.
    #[error("parameter {0} is out of its bounds")]
    Parameter(&'static str),
    /// The filesystem refuses to start from it.
    #[error("the filesystem refuses the genesis: {0}")]
    Filesystem(Error),
}

impl State {
    /// The state at height 0.
    ///
    /// # Errors
    /// [`GenesisError`], the fault of whoever made the genesis.
    pub fn genesis(genesis: &Genesis) -> Result<Self, GenesisError> {
        check(genesis)?;
        let empty = Trie::new();
        let mut overlay = Overlay::new(&empty);
        overlay.begin(u64::MAX);
        fill(&mut overlay, genesis).map_err(GenesisError::Filesystem)?;
        overlay.keep();
        let changes = overlay.into_changes();
        let trie = applied(&empty, &changes);
        let row_count = changes.values().filter(|value| value.is_some()).count() as u64;
        let log = LogFrontier::new();
        let cluster = genesis.cluster();
        let header = Header {
            version: HEADER_VERSION,
            cluster: Hash::ZERO,
            epoch: genesis.members.epoch(),
            height: 0,
            time: genesis.time,
            previous: Hash::ZERO,
            proposal: cluster,
            state_root: trie.root(),
            receipts_root: rfc6962::empty_root(),
            first_operation: FIRST_OPERATION,
            operation_count: 0,
            log_root: log.root(),
            members: genesis.members.digest(),
            touched_root: rfc6962::empty_root(),
            touched_count: 0,
        };
        let parameters = genesis.parameters.clone();
        Ok(Self::from_parts(Parts { cluster, trie, header, log, parameters, row_count }))
    }
}

fn fill(overlay: &mut Overlay<'_, Trie>, genesis: &Genesis) -> Result<(), Error> {
    quorate_metadata::genesis(overlay, genesis);
    principals::register(overlay, &genesis.principal, genesis.rights.clone())?;
    let members = MembersRow { members: genesis.members.clone() };
    put(overlay, keys::members(genesis.members.epoch()), &members);
    Ok(())
}

fn check(genesis: &Genesis) -> Result<(), GenesisError> {
    if genesis.version != GENESIS_VERSION {
        return Err(GenesisError::Version(genesis.version));
    }
    if genesis.time > BATCH_TIME_MAX {
        return Err(GenesisError::Time(genesis.time));
    }
    genesis.principal.validate().map_err(GenesisError::Principal)?;
    if !principals::rights_are_canonical(&genesis.rights) {
        return Err(GenesisError::Rights);
    }
    check_parameters(&genesis.parameters)
}

fn check_parameters(parameters: &Parameters) -> Result<(), GenesisError> {
    let window = 1..=WINDOW_MAX;
    let inline = usize::try_from(parameters.inline_bytes_max).unwrap_or(usize::MAX);
    let bounds = [
        ("rules_version", parameters.rules_version == RULES_VERSION),
        ("window", window.contains(&u64::from(parameters.window))),
        ("block_log2", (BLOCK_LOG2_MIN..=BLOCK_LOG2_MAX).contains(&parameters.block_log2)),
        ("inline_bytes_max", inline <= INLINE_PIECE_BYTES_MAX),
        ("session_lifetime", parameters.session_lifetime >= SESSION_LIFETIME_MIN),
        ("reclaim_rows_per_batch", parameters.reclaim_rows_per_batch > 0),
    ];
    match bounds.into_iter().find(|(_, holds)| !holds) {
        Some((name, _)) => Err(GenesisError::Parameter(name)),
        None => Ok(()),
    }
}
