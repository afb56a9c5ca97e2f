//! Who plays: the keys of replicas and clients, in both signature schemes.
//!
//! Invariant: keys are the same in every run, so that deriving them costs once per process; what differs
//! between runs is the genesis nonce, hence the cluster's identifier in every signature.

use std::sync::{Arc, OnceLock};

use quorate_crypto::{
    Address, Bounded, Ed25519Signer, Ed25519Verifier, KeyedHashSigner, KeyedHashVerifier, Member, MemberSet,
    NodeSeed, PublicKey, Role, SecretKey, Signer, Verifier,
};
use quorate_protocol::BatchTime;
use quorate_protocol::genesis::{GENESIS_VERSION, Genesis, Parameters};
use quorate_protocol::operation::PrincipalRights;

/// Most replicas of a simulated cluster.
pub const REPLICAS_MAX: usize = 13;
/// Batch time of every simulated genesis: 2025-01-01 in nanoseconds since 1970.
pub const GENESIS_TIME: BatchTime = BatchTime(1_735_689_600_000_000_000);
/// Batch time that no run reaches, and to which a registration may still be valid: half a day later.
pub const REGISTRATION_END: BatchTime = GENESIS_TIME.plus(12 * 3600 * 1_000_000_000);
/// Batch time that no run reaches.
pub const NEVER: BatchTime = BatchTime(4_000_000_000_000_000_000);

/// How statements are signed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A keyed hash: fast, and enough where nobody forges.
    KeyedHash,
    /// What the real cluster uses.
    Ed25519,
}

struct Secrets {
    replicas: Vec<SecretKey>,
    members: Vec<Member>,
    principal: SecretKey,
    stranger: SecretKey,
}

fn secrets() -> &'static Secrets {
    static SECRETS: OnceLock<Secrets> = OnceLock::new();
    SECRETS.get_or_init(|| {
        let seeds: Vec<_> =
            (0..=REPLICAS_MAX as u8 + 1).map(|index| NodeSeed::from_bytes([index + 1; 32])).collect();
        let (clients, replicas) = (&seeds[REPLICAS_MAX], &seeds[..REPLICAS_MAX]);
        let member = |(index, seed)| {
            let address = Address::try_from(format!("replica-{index}:1")).unwrap_or_default();
            Member::from_seed(seed, address)
        };
        Secrets {
            replicas: replicas.iter().map(|seed| seed.derive(Role::Consensus)).collect(),
            members: replicas.iter().enumerate().map(member).collect(),
            principal: clients.derive(Role::Principal),
            stranger: seeds[REPLICAS_MAX + 1].derive(Role::Principal),
        }
    })
}

/// The member set of a cluster of `n`, at most [`REPLICAS_MAX`].
///
/// # Panics
/// If `n` is out of range.
#[must_use]
pub fn members(n: usize) -> MemberSet {
    let members = secrets().members[..n].to_vec();
    MemberSet::new_unchecked_keys(0, members).unwrap_or_else(|error| panic!("simulated members: {error}"))
}

/// The genesis of a cluster of `n` with this nonce.
#[must_use]
pub fn genesis(n: usize, nonce: [u8; 32]) -> Genesis {
    Genesis {
        version: GENESIS_VERSION,
        nonce,
        time: GENESIS_TIME,
        members: members(n),
        principal: secrets().principal.public(),
        rights: PrincipalRights {
            anyone: true,
            administrator: true,
            auditor: true,
            uids: Bounded::new(),
            gids: Bounded::new(),
            squash_root: None,
            realms: Bounded::new(),
        },
        // Sessions outlive every run: what expires them is tested where time is.
        parameters: Parameters { session_lifetime: 1 << 60, ..Parameters::default() },
        root: (0, 0, 0o755),
        entropy: [7; 16],
    }
}

fn signer_of(scheme: Scheme, secret: &SecretKey) -> Arc<dyn Signer> {
    match scheme {
        Scheme::KeyedHash => Arc::new(KeyedHashSigner::new(secret)),
        Scheme::Ed25519 => Arc::new(Ed25519Signer::new(secret.clone())),
    }
}

/// The signers of all replicas, by index.
#[must_use]
pub fn replica_signers(scheme: Scheme, n: usize) -> Vec<Arc<dyn Signer>> {
    static SIGNERS: [OnceLock<Vec<Arc<dyn Signer>>>; 2] = [OnceLock::new(), OnceLock::new()];
    let all = SIGNERS[scheme as usize]
        .get_or_init(|| secrets().replicas.iter().map(|secret| signer_of(scheme, secret)).collect());
    all[..n].to_vec()
}

/// The signer of every client's envelopes: the first principal.
#[must_use]
pub fn client_signer(scheme: Scheme) -> Arc<dyn Signer> {
    static SIGNERS: [OnceLock<Arc<dyn Signer>>; 2] = [OnceLock::new(), OnceLock::new()];
    SIGNERS[scheme as usize].get_or_init(|| signer_of(scheme, &secrets().principal)).clone()
}

/// The first principal's key.
#[must_use]
pub fn principal() -> PublicKey {
    secrets().principal.public()
}

/// The signer of somebody whom the genesis does not name.
#[must_use]
pub fn stranger_signer(scheme: Scheme) -> Arc<dyn Signer> {
    static SIGNERS: [OnceLock<Arc<dyn Signer>>; 2] = [OnceLock::new(), OnceLock::new()];
    SIGNERS[scheme as usize].get_or_init(|| signer_of(scheme, &secrets().stranger)).clone()
}

/// A verifier that knows everybody.
#[must_use]
pub fn verifier(scheme: Scheme) -> Arc<dyn Verifier> {
    static VERIFIERS: [OnceLock<Arc<dyn Verifier>>; 2] = [OnceLock::new(), OnceLock::new()];
    VERIFIERS[scheme as usize]
        .get_or_init(|| {
            let everybody = secrets().replicas.iter().chain([&secrets().principal, &secrets().stranger]);
            match scheme {
                Scheme::KeyedHash => Arc::new(KeyedHashVerifier::new(everybody)),
                Scheme::Ed25519 => {
                    let keys: Vec<_> = everybody.map(SecretKey::public).collect();
                    Arc::new(Ed25519Verifier::with_keys(keys))
                }
            }
        })
        .clone()
}
