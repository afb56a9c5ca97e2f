//! A head: a header with what vouches for it, a commit certificate or, for height 0, the genesis.
//!
//! Invariant: a header is believed only under a certificate of exactly its height and hash, with a quorum of
//! valid signatures of members, or when it is the one that the genesis makes.

use quorate_crypto::{Certificate, CertificateError, CertificateKind, Hash, Verifier};
use quorate_protocol::{Genesis, Header};

use crate::evidence::genesis_header;

/// Why nothing vouches for a header. The fault of whoever shows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHead {
    /// The genesis that is trusted is none.
    #[error("the genesis is refused: {0}")]
    Genesis(String),
    /// There is no certificate, and the header is not the genesis.
    #[error("the header of height {0} has no certificate")]
    Uncertified(u64),
    /// The certificate is of another header, or only says that it was prepared.
    #[error("the certificate is not a commit certificate of this header")]
    OtherHeader,
    /// The certificate does not hold.
    #[error("the certificate does not hold: {0}")]
    Certificate(#[from] CertificateError),
}

/// Checks that a header of the genesis' cluster is committed, and returns its hash.
///
/// # Errors
/// [`NoHead`], the first thing that does not hold.
pub fn check_head(
    header: &Header,
    certificate: Option<&Certificate>,
    genesis: &Genesis,
    verifier: &dyn Verifier,
) -> Result<Hash, NoHead> {
    let hash = header.hash();
    let Some(certificate) = certificate else {
        let first = genesis_header(genesis).map_err(|error| NoHead::Genesis(error.to_string()))?;
        return if *header == first { Ok(hash) } else { Err(NoHead::Uncertified(header.height)) };
    };
    let named = (certificate.kind, certificate.height, certificate.header_hash);
    if named != (CertificateKind::Commit, header.height, hash) {
        return Err(NoHead::OtherHeader);
    }
    certificate.verify(&genesis.cluster(), &genesis.members, verifier)?;
    Ok(hash)
}
