//! The proof that a client connection belongs to a principal (rule S6).
//!
//! Invariant: a proof holds for one cluster, one replica and one TLS connection. It covers TLS keying
//! material that both ends export, so a replica that receives it cannot replay it to another one.

use quorate_crypto::{
    Hash, PublicKey, Signature, SignatureError, Signer, Statement, StatementKind, Verifier, derive_hash,
};
use quorate_protocol::ReplicaIndex;
use quorate_protocol::client::ClientRequest;

/// Label of the exported keying material (RFC 5705, RFC 8446 section 7.5); its context is the cluster id.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-quorate-connection-proof";
/// Bytes of exported keying material.
pub const EXPORTER_BYTES: usize = 32;

/// Domain of the digest in the statement.
const DIGEST_CONTEXT: &str = "quorate connection proof v1";

/// Keying material of one connection, equal at both ends and known to nobody else.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct Exporter(pub [u8; EXPORTER_BYTES]);

impl Exporter {
    /// Exports it from an established connection; `None` if TLS refuses, which it does not.
    pub(crate) fn of(connection: &quinn::Connection, cluster: &Hash) -> Option<Self> {
        let mut bytes = [0; EXPORTER_BYTES];
        connection.export_keying_material(&mut bytes, EXPORTER_LABEL, &cluster.0).ok()?;
        Some(Self(bytes))
    }
}

/// What the principal signs: no epoch, view or height; the digest covers replica and exporter.
#[must_use]
pub fn connection_statement(cluster: &Hash, replica: ReplicaIndex, exporter: &Exporter) -> Statement {
    Statement {
        cluster: *cluster,
        epoch: 0,
        kind: StatementKind::ConnectionProof,
        view: 0,
        height: 0,
        digest: derive_hash(DIGEST_CONTEXT, &[&[replica], &exporter.0]),
    }
}

/// The first request of a connection.
#[must_use]
pub fn prove(
    signer: &dyn Signer,
    cluster: &Hash,
    replica: ReplicaIndex,
    exporter: &Exporter,
) -> ClientRequest {
    let signature = signer.sign(&connection_statement(cluster, replica, exporter));
    ClientRequest::Prove { key: signer.public(), signature }
}

/// Checks the first request of a connection.
///
/// # Errors
/// [`SignatureError`] if the proof does not hold here.
pub fn check(
    verifier: &dyn Verifier,
    key: &PublicKey,
    signature: &Signature,
    cluster: &Hash,
    replica: ReplicaIndex,
    exporter: &Exporter,
) -> Result<(), SignatureError> {
    verifier.verify(key, &connection_statement(cluster, replica, exporter), signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::{Ed25519Signer, Ed25519Verifier, SecretKey};

    #[test]
    fn golden_statement() {
        let statement = connection_statement(&Hash([1; 32]), 3, &Exporter([2; 32]));
        assert_eq!(
            statement.digest.to_string(),
            "632cc3cfb5f5687a93d07a19819fd50f1fbcf12222d7c7d353bb52edd5e41ff3"
        );
        assert_eq!((statement.epoch, statement.view, statement.height), (0, 0, 0));
        assert_eq!(statement.kind.number(), 11);
    }

    #[test]
    fn a_proof_holds_for_one_cluster_replica_and_connection() {
        let signer = Ed25519Signer::new(SecretKey::from_bytes(&[7; 32]));
        let (cluster, exporter) = (Hash([1; 32]), Exporter([2; 32]));
        let ClientRequest::Prove { key, signature } = prove(&signer, &cluster, 3, &exporter) else {
            panic!("prove makes a Prove");
        };
        let verifier = Ed25519Verifier::new();
        let holds = |cluster: &Hash, replica, exporter: &Exporter| {
            check(&verifier, &key, &signature, cluster, replica, exporter).is_ok()
        };
        assert!(holds(&cluster, 3, &exporter));
        assert!(!holds(&Hash([9; 32]), 3, &exporter));
        assert!(!holds(&cluster, 2, &exporter));
        assert!(!holds(&cluster, 3, &Exporter([3; 32])));
    }
}
