//! What this client knows to be committed, and whom it has caught.
//!
//! Invariants: a header is trusted only under a commit certificate that was checked, or because its hash
//! was checked before; the floor never falls; every check that fails names the replica that sent the
//! answer, in a counter and a log line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_crypto::{Certificate, CertificateError, CertificateKind, Hash, MemberSet, Verifier};
use quorate_protocol::{BatchTime, Header, Height, ReplicaIndex, View};

/// Verified header hashes that are remembered; beyond this the lowest is forgotten.
pub const VERIFIED_HEADERS_MAX: usize = 4096;
/// Verified prepare certificates that are remembered; beyond this the lowest is forgotten.
pub const VERIFIED_PREPARED_MAX: usize = 256;

/// Why a header or certificate is not believed: the fault of the replica that sent it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustFault {
    /// Of another cluster.
    #[error("a header of another cluster")]
    Cluster,
    /// Height 0 under another hash than that of the genesis header.
    #[error("another genesis header")]
    Genesis,
    /// No certificate, and the header is not known.
    #[error("a header without certificate")]
    NoCertificate,
    /// The certificate certifies something else.
    #[error("a certificate that does not belong to its header")]
    OtherHeader,
    /// A prepare certificate where a commit certificate is needed.
    #[error("a header that is prepared, not committed")]
    NotCommitted,
    /// The certificate does not hold.
    #[error("a certificate that does not hold: {0}")]
    Certificate(#[from] CertificateError),
    /// Another header was certified at this height: more than f replicas are Byzantine.
    #[error("two certified headers at height {0}: the cluster has forked")]
    Fork(Height),
}

/// How often a replica was caught.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misbehaviour {
    /// Answers and votes that failed a check.
    pub lies: u64,
    /// The last check that failed.
    pub last: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    floor: Height,
    time: BatchTime,
    headers: BTreeMap<Height, Hash>,
    prepared: BTreeSet<(Height, View, Hash)>,
    caught: Vec<Misbehaviour>,
}

/// The verified knowledge of one client.
pub struct Trust {
    cluster: Hash,
    members: MemberSet,
    verifier: Box<dyn Verifier>,
    genesis: Hash,
    known: Mutex<Known>,
}

impl Trust {
    /// Knows the genesis header alone.
    #[must_use]
    pub fn new(cluster: Hash, members: MemberSet, genesis: &Header, verifier: Box<dyn Verifier>) -> Self {
        let caught = vec![Misbehaviour::default(); members.n()];
        let hash = genesis.hash();
        let headers = BTreeMap::from([(0, hash)]);
        let known = Known { time: genesis.time, headers, caught, ..Known::default() };
        Self { cluster, members, verifier, genesis: hash, known: Mutex::new(known) }
    }

    /// The highest height that is known to be committed.
    #[must_use]
    pub fn floor(&self) -> Height {
        self.known().floor
    }

    /// The highest batch time seen in a certified header.
    #[must_use]
    pub fn time(&self) -> BatchTime {
        self.known().time
    }

    /// Whether another header of this height is known to be certified.
    pub(crate) fn contradicts(&self, height: Height, hash: &Hash) -> bool {
        self.known().headers.get(&height).is_some_and(|known| known != hash)
    }

    /// Whether this hash is known to be that of the committed header of `height`.
    #[must_use]
    pub fn is_committed(&self, height: Height, hash: &Hash) -> bool {
        self.known().headers.get(&height) == Some(hash)
    }

    /// The verifier for all signatures.
    #[must_use]
    pub fn verifier(&self) -> &dyn Verifier {
        self.verifier.as_ref()
    }

    /// Checks that `header` is committed, by its certificate unless its hash is known already, and raises
    /// the floor. Returns the header's hash.
    ///
    /// # Errors
    /// [`TrustFault`], the fault of whoever sent header and certificate.
    pub fn verify_header(
        &self,
        header: &Header,
        certificate: Option<&Certificate>,
    ) -> Result<Hash, TrustFault> {
        let hash = header.hash();
        if header.height == 0 {
            return if hash == self.genesis { Ok(hash) } else { Err(TrustFault::Genesis) };
        }
        if header.cluster != self.cluster {
            return Err(TrustFault::Cluster);
        }
        if !self.is_committed(header.height, &hash) {
            self.verify_pair(header, &hash, certificate)?;
        }
        let mut known = self.known();
        known.commit(header.height, hash)?;
        known.time = known.time.max(header.time);
        Ok(hash)
    }

    /// Checks that what came with a header certifies it, whatever is known already: somebody who knows nothing
    /// is to be shown both. With the genesis header comes nothing.
    ///
    /// # Errors
    /// [`TrustFault`], the fault of whoever sent them.
    pub fn verify_for_others(
        &self,
        header: &Header,
        certificate: Option<&Certificate>,
    ) -> Result<(), TrustFault> {
        match (header.height, certificate) {
            (0, None) => Ok(()),
            (0, Some(_)) => Err(TrustFault::OtherHeader),
            _ => self.verify_pair(header, &header.hash(), certificate),
        }
    }

    fn verify_pair(
        &self,
        header: &Header,
        hash: &Hash,
        certificate: Option<&Certificate>,
    ) -> Result<(), TrustFault> {
        let certificate = certificate.ok_or(TrustFault::NoCertificate)?;
        let named = (certificate.epoch, certificate.height, certificate.header_hash);
        if named != (header.epoch, header.height, *hash) {
            return Err(TrustFault::OtherHeader);
        }
        if certificate.kind != CertificateKind::Commit {
            return Err(TrustFault::NotCommitted);
        }
        Ok(certificate.verify(&self.cluster, &self.members, self.verifier())?)
    }

    /// Checks a certificate of either kind by itself. A commit certificate raises the floor.
    ///
    /// # Errors
    /// [`TrustFault`], the fault of whoever sent it.
    pub fn verify_certificate(&self, certificate: &Certificate) -> Result<(), TrustFault> {
        let Certificate { kind, view, height, header_hash, .. } = certificate;
        let prepared = (*height, *view, *header_hash);
        match kind {
            CertificateKind::Commit if self.is_committed(*height, header_hash) => return Ok(()),
            CertificateKind::Prepare if self.known().prepared.contains(&prepared) => return Ok(()),
            CertificateKind::Commit | CertificateKind::Prepare => {}
        }
        certificate.verify(&self.cluster, &self.members, self.verifier())?;
        let mut known = self.known();
        match kind {
            CertificateKind::Commit => known.commit(*height, *header_hash),
            CertificateKind::Prepare => {
                known.prepared.insert(prepared);
                if known.prepared.len() > VERIFIED_PREPARED_MAX {
                    known.prepared.pop_first();
                }
                Ok(())
            }
        }
    }

    /// Checks a commit certificate by itself, and raises the floor.
    ///
    /// # Errors
    /// [`TrustFault`], the fault of whoever sent it.
    pub(crate) fn verify_committed(&self, certificate: &Certificate) -> Result<(), TrustFault> {
        if certificate.kind != CertificateKind::Commit {
            return Err(TrustFault::NotCommitted);
        }
        self.verify_certificate(certificate)
    }

    /// Whether a height is so close to the floor that its header is not forgotten once it is known.
    pub(crate) fn is_recent(&self, height: Height) -> bool {
        height.saturating_add(VERIFIED_HEADERS_MAX as u64 / 2) > self.floor()
    }

    /// Takes a commit certificate whose signatures the caller has checked.
    ///
    /// # Errors
    /// [`TrustFault::Fork`].
    pub fn adopt(&self, certificate: &Certificate) -> Result<(), TrustFault> {
        self.known().commit(certificate.height, certificate.header_hash)
    }

    /// Names a replica whose answer or vote failed a check.
    pub fn accuse(&self, replica: ReplicaIndex, reason: &dyn std::fmt::Display) {
        let mut known = self.known();
        let Some(caught) = known.caught.get_mut(usize::from(replica)) else { return };
        caught.lies = caught.lies.saturating_add(1);
        caught.last = Some(reason.to_string());
        let lies = caught.lies;
        drop(known);
        // One line for the first, then ever more rarely: a liar must not fill the disk.
        if lies.is_power_of_two() {
            tracing::warn!(replica, lies, "replica caught: {reason}");
        }
    }

    /// How often each replica was caught, by index.
    #[must_use]
    pub fn misbehaviour(&self) -> Vec<Misbehaviour> {
        self.known().caught.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No code panics while it holds the lock; should one, the knowledge is still consistent.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn commit(&mut self, height: Height, hash: Hash) -> Result<(), TrustFault> {
        if self.headers.get(&height).is_some_and(|known| *known != hash) {
            tracing::error!(height, "two certified headers at one height: the cluster has forked");
            return Err(TrustFault::Fork(height));
        }
        self.headers.insert(height, hash);
        if self.headers.len() > VERIFIED_HEADERS_MAX {
            self.headers.pop_first();
        }
        self.floor = self.floor.max(height);
        Ok(())
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Trust(cluster {}, floor {})", self.cluster, self.floor())
    }
}

#[cfg(test)]
mod tests;
