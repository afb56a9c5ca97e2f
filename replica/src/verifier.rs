//! The verifier of this replica: remembers what held, and counts what it checked.
//!
//! Invariant: the verdict is that of the scheme, always; only signatures that held are remembered, under a hash
//! of key, statement and signature, and a bounded number of them. So the same bytes are checked once, wherever
//! they turn up again: an envelope in a proposal, a vote in a certificate, a certificate in a NEW-VIEW (hazards
//! RX2, RX9).

use quorate_crypto::{
    Ed25519Verifier, Hash, PublicKey, Signature, SignatureError, Statement, Verifier, derive_hash,
};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Signatures that are remembered at least, and at most twice as many.
pub const REMEMBERED_MIN: usize = 16_384;

const CONTEXT: &str = "quorate verified signature v1";

/// What held lately, in two generations: when the young one is full, the old one is forgotten.
#[derive(Debug, Default)]
struct Memory {
    young: HashSet<Hash>,
    old: HashSet<Hash>,
}

/// Remembers and counts.
#[derive(Debug)]
pub struct RememberingVerifier {
    scheme: Ed25519Verifier,
    memory: Mutex<Memory>,
    checks: AtomicU64,
}

impl RememberingVerifier {
    /// Over a scheme.
    pub fn new(scheme: Ed25519Verifier) -> Self {
        Self { scheme, memory: Mutex::default(), checks: AtomicU64::new(0) }
    }

    /// Signatures that were really checked so far.
    pub fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    /// No code panics while it holds the lock.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verifier for RememberingVerifier {
    fn verify(
        &self,
        key: &PublicKey,
        statement: &Statement,
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        let name = derive_hash(CONTEXT, &[&key.0, &statement.preimage(), &signature.0]);
        let known = {
            let memory = self.memory();
            memory.young.contains(&name) || memory.old.contains(&name)
        };
        if known {
            return Ok(());
        }
        self.checks.fetch_add(1, Ordering::Relaxed);
        self.scheme.verify(key, statement, signature)?;
        let mut memory = self.memory();
        if memory.young.len() >= REMEMBERED_MIN {
            memory.old = std::mem::take(&mut memory.young);
        }
        memory.young.insert(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::{Ed25519Signer, SecretKey, Signer as _, StatementKind};

    fn statement(height: u64) -> Statement {
        Statement {
            cluster: Hash([1; 32]),
            epoch: 0,
            kind: StatementKind::Commit,
            view: 0,
            height,
            digest: Hash([2; 32]),
        }
    }

    /// Hazards RX2, RX9: the same bytes cost one check; anything else has its own verdict.
    #[test]
    fn rx2_the_same_bytes_are_checked_once_and_nothing_else_profits() {
        let signer = Ed25519Signer::new(SecretKey::from_bytes(&[3; 32]));
        let other = Ed25519Signer::new(SecretKey::from_bytes(&[4; 32])).public();
        let verifier = RememberingVerifier::new(Ed25519Verifier::new());
        let (key, signature) = (signer.public(), signer.sign(&statement(1)));
        for _ in 0..10 {
            assert!(verifier.verify(&key, &statement(1), &signature).is_ok());
        }
        assert_eq!(verifier.checks(), 1);
        for byte in 0..64 {
            let mut bad = signature;
            bad.0[byte] ^= 1;
            assert!(verifier.verify(&key, &statement(1), &bad).is_err());
        }
        assert!(verifier.verify(&key, &statement(2), &signature).is_err());
        assert!(verifier.verify(&other, &statement(1), &signature).is_err());
        let before = verifier.checks();
        assert!(verifier.verify(&other, &statement(1), &signature).is_err());
        assert_eq!(verifier.checks(), before + 1, "what does not hold is not remembered");
    }

    /// Hazard RX1.
    #[test]
    fn what_is_remembered_is_bounded() {
        let signer = Ed25519Signer::new(SecretKey::from_bytes(&[3; 32]));
        let verifier = RememberingVerifier::new(Ed25519Verifier::with_keys([signer.public()]));
        // As after many that held: filling it by signing takes too long.
        for number in 0..REMEMBERED_MIN as u64 {
            verifier.memory().young.insert(derive_hash("test", &[&number.to_le_bytes()]));
        }
        for height in 0..3 {
            let signature = signer.sign(&statement(height));
            assert!(verifier.verify(&signer.public(), &statement(height), &signature).is_ok());
        }
        let memory = verifier.memory();
        assert_eq!((memory.young.len(), memory.old.len()), (3, REMEMBERED_MIN));
    }
}
