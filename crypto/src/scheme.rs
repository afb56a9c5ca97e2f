//! Signing and verifying statements, behind traits so that the simulator may use a fast keyed hash.
//!
//! Invariant: what is signed is always a statement's preimage. Everything outside the simulator uses
//! the Ed25519 pair; both schemes share their keys, so member sets and genesis do not depend on the
//! choice.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::keys::{KeyError, ParsedKey, PublicKey, SECRET_BYTES, SIGNATURE_BYTES, SecretKey, Signature};
use crate::statement::Statement;

/// Most parsed keys that an [`Ed25519Verifier`] keeps; further ones are parsed at each use.
pub const PARSED_KEYS_MAX: usize = 1024;

/// Why a signature is refused. The fault of whoever sent it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The signature does not hold for this statement under this key.
    #[error("signature does not hold")]
    Invalid,
    /// No signature can hold under this key.
    #[error("signature under an unusable key: {0}")]
    Key(#[from] KeyError),
    /// The simulation's verifier was not told of this key.
    #[error("signature under a key that is not registered")]
    UnknownKey,
}

/// Signs statements under one key.
pub trait Signer: Send + Sync {
    /// Signs. Whoever calls has made durable what the statement commits to.
    fn sign(&self, statement: &Statement) -> Signature;

    /// The key under which the signatures verify.
    fn public(&self) -> PublicKey;
}

/// Verifies statements under any key.
pub trait Verifier: Send + Sync {
    /// Checks one signature on one statement.
    ///
    /// # Errors
    /// [`SignatureError`] says whether the key or the signature is bad.
    fn verify(
        &self,
        key: &PublicKey,
        statement: &Statement,
        signature: &Signature,
    ) -> Result<(), SignatureError>;
}

/// The real scheme: Ed25519 over the preimage.
#[derive(Clone, Debug)]
pub struct Ed25519Signer {
    secret: SecretKey,
    public: PublicKey,
}

impl Ed25519Signer {
    /// Signs with `secret`.
    pub fn new(secret: SecretKey) -> Self {
        let public = secret.public();
        Self { secret, public }
    }
}

impl Signer for Ed25519Signer {
    fn sign(&self, statement: &Statement) -> Signature {
        self.secret.sign_bytes(&statement.preimage())
    }

    fn public(&self) -> PublicKey {
        self.public
    }
}

/// The real scheme: `verify_strict` over the preimage, with keys that repeat parsed once.
#[derive(Clone, Debug, Default)]
pub struct Ed25519Verifier {
    parsed: BTreeMap<PublicKey, ParsedKey>,
}

impl Ed25519Verifier {
    /// A verifier that parses every key at each use.
    pub fn new() -> Self {
        Self::default()
    }

    /// A verifier that keeps the first [`PARSED_KEYS_MAX`] usable ones of `keys` parsed. The verdicts
    /// are those of [`Ed25519Verifier::new`].
    pub fn with_keys(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        let parsed = keys
            .into_iter()
            .filter_map(|key| key.parse().ok().map(|parsed| (key, parsed)))
            .take(PARSED_KEYS_MAX)
            .collect();
        Self { parsed }
    }
}

impl Verifier for Ed25519Verifier {
    fn verify(
        &self,
        key: &PublicKey,
        statement: &Statement,
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        let preimage = statement.preimage();
        match self.parsed.get(key) {
            Some(parsed) => parsed.verify_bytes(&preimage, signature),
            None => key.parse()?.verify_bytes(&preimage, signature),
        }
    }
}

/// SIMULATION ONLY: a keyed hash in place of a signature. Whoever can verify can also forge.
#[derive(Clone)]
pub struct KeyedHashSigner {
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    public: PublicKey,
}

impl KeyedHashSigner {
    /// SIMULATION ONLY. Signs with the same secret, and under the same public key, as
    /// [`Ed25519Signer::new`] would, so that one member set serves both schemes.
    pub fn new(secret: &SecretKey) -> Self {
        Self { secret: secret.to_bytes(), public: secret.public() }
    }
}

impl Signer for KeyedHashSigner {
    fn sign(&self, statement: &Statement) -> Signature {
        keyed_hash(&self.secret, statement)
    }

    fn public(&self) -> PublicKey {
        self.public
    }
}

impl fmt::Debug for KeyedHashSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyedHashSigner(of {})", self.public)
    }
}

/// SIMULATION ONLY: holds the secrets of all signers and computes their keyed hashes again.
#[derive(Clone, Default)]
pub struct KeyedHashVerifier {
    secrets: BTreeMap<PublicKey, Zeroizing<[u8; SECRET_BYTES]>>,
}

impl KeyedHashVerifier {
    /// SIMULATION ONLY. Knows the signers of `secrets`, whose number the simulation bounds.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        let secrets = secrets.into_iter().map(|secret| (secret.public(), secret.to_bytes())).collect();
        Self { secrets }
    }

    /// SIMULATION ONLY. The same for signers that were built already.
    pub fn from_signers<'a>(signers: impl IntoIterator<Item = &'a KeyedHashSigner>) -> Self {
        let secrets = signers.into_iter().map(|signer| (signer.public, signer.secret.clone())).collect();
        Self { secrets }
    }
}

impl Verifier for KeyedHashVerifier {
    fn verify(
        &self,
        key: &PublicKey,
        statement: &Statement,
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        let secret = self.secrets.get(key).ok_or(SignatureError::UnknownKey)?;
        if keyed_hash(secret, statement) == *signature { Ok(()) } else { Err(SignatureError::Invalid) }
    }
}

impl fmt::Debug for KeyedHashVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyedHashVerifier({} keys)", self.secrets.len())
    }
}

/// 64 bytes of keyed BLAKE3 output over the preimage.
fn keyed_hash(secret: &[u8; SECRET_BYTES], statement: &Statement) -> Signature {
    let mut bytes = [0; SIGNATURE_BYTES];
    blake3::Hasher::new_keyed(secret).update(&statement.preimage()).finalize_xof().fill(&mut bytes);
    Signature(bytes)
}
