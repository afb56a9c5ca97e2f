//! TLS 1.3 with raw public keys (RFC 7250): no certificates, no authorities, no expiry.
//!
//! Invariant: the only identity is an Ed25519 key; it must be the pinned one (of a replica that we call)
//! or a member's transport key (of a replica that calls us), and its signature over the handshake is
//! checked by the one rule of the crypto room. There is no resumption: each connection proves its keys.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use quorate_crypto::{Hash, PublicKey, SecretKey, Signature, derive_hash};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureAlgorithm, SignatureScheme,
};

use crate::error::TransportError;

/// Application protocol between replicas.
pub(crate) const PEER_PROTOCOL: &[u8] = b"quorate-peer/3";
/// Application protocol between a client and a replica.
pub(crate) const CLIENT_PROTOCOL: &[u8] = b"quorate-client/3";
/// The name that TLS wants to hear; it identifies nobody.
pub(crate) const SERVER_NAME: &str = "quorate.invalid";

/// DER of an Ed25519 SubjectPublicKeyInfo (RFC 8410) up to the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The SubjectPublicKeyInfo of a key.
fn to_spki(key: &PublicKey) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), key.as_bytes()].concat()
}

/// The key in a SubjectPublicKeyInfo, if it is an Ed25519 one.
pub(crate) fn from_spki(bytes: &[u8]) -> Option<PublicKey> {
    let key = bytes.strip_prefix(&SPKI_PREFIX)?;
    Some(PublicKey(key.try_into().ok()?))
}

/// Our own key, as TLS signs with it.
#[derive(Debug, Clone)]
struct TransportKey {
    secret: SecretKey,
    spki: Vec<u8>,
}

impl SigningKey for TransportKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        if offered.contains(&SignatureScheme::ED25519) { Some(Box::new(self.clone())) } else { None }
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki.as_slice()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TransportKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.secret.sign_bytes(message).0.to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

fn certified_key(secret: &SecretKey) -> Arc<CertifiedKey> {
    let spki = to_spki(&secret.public());
    let chain = vec![CertificateDer::from(spki.clone())];
    Arc::new(CertifiedKey::new(chain, Arc::new(TransportKey { secret: secret.clone(), spki })))
}

/// The keys that the other end may have.
#[derive(Debug)]
struct Pinned(Vec<PublicKey>);

impl Pinned {
    fn check_key(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        let key = from_spki(end_entity).ok_or(CertificateError::BadEncoding)?;
        if self.0.contains(&key) { Ok(()) } else { Err(CertificateError::UnknownIssuer.into()) }
    }

    fn check_signature(
        message: &[u8],
        end_entity: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = || Error::from(CertificateError::BadSignature);
        let key = from_spki(end_entity).ok_or(CertificateError::BadEncoding)?;
        let signature = signed.signature().try_into().map(Signature).map_err(|_| bad())?;
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(bad());
        }
        let parsed = key.parse().map_err(|_| bad())?;
        parsed.verify_bytes(message, &signature).map_err(|_| bad())?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

fn no_tls12() -> Error {
    PeerIncompatible::Tls12NotOffered.into()
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_key(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    /// Clients are anonymous; that a peer is not is checked when its protocol is known.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_key(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Speaks raw public keys, but has none.
#[derive(Debug)]
struct Anonymous;

impl ResolvesClientCert for Anonymous {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// ring, with the fastest cipher on machines with AES instructions first.
fn provider() -> Arc<CryptoProvider> {
    use rustls::crypto::ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_256_GCM_SHA384];
    Arc::new(CryptoProvider { cipher_suites, ..rustls::crypto::ring::default_provider() })
}

fn failed(error: impl std::fmt::Display) -> TransportError {
    TransportError::Tls(error.to_string())
}

/// The accepting side: our key, and the members whose keys are welcome.
pub(crate) fn server_config(
    secret: &SecretKey,
    members: Vec<PublicKey>,
) -> Result<Arc<QuicServerConfig>, TransportError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(Arc::new(Pinned(members)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified_key(secret))));
    config.alpn_protocols = vec![PEER_PROTOCOL.to_vec(), CLIENT_PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(failed)?))
}

/// The calling side: whom we expect, and our own key if we are a replica ourselves.
pub(crate) fn client_config(
    pinned: PublicKey,
    secret: Option<&SecretKey>,
    protocol: &[u8],
) -> Result<Arc<QuicClientConfig>, TransportError> {
    let identity: Arc<dyn ResolvesClientCert> = match secret {
        Some(secret) => Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified_key(secret))),
        None => Arc::new(Anonymous),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(vec![pinned])))
        .with_client_cert_resolver(identity);
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(failed)?))
}

/// The key that the other end of a connection proved, if any.
pub(crate) fn proven_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    from_spki(identity.first()?)
}

/// The application protocol of a connection.
pub(crate) fn protocol(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    data.protocol
}

/// Configuration of a replica's end point. Its reset key depends on nothing but the node's secret, so a
/// restarted replica can tell its peers at once that their old connections are gone.
pub(crate) fn endpoint_config(secret: &SecretKey) -> EndpointConfig {
    let key = derive_hash("quorate stateless reset key v1", &[secret.to_bytes().as_slice()]);
    let mut config = EndpointConfig::new(Arc::new(ResetKey(key)));
    config.cid_generator(|| Box::<Identifiers>::default());
    config
}

/// Makes the tokens of stateless resets (RFC 9000, section 10.3).
struct ResetKey(Hash);

impl ResetKey {
    fn token(&self, data: &[u8]) -> Hash {
        derive_hash("quorate stateless reset token v1", &[&self.0.0, data])
    }
}

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        for (out, byte) in signature_out.iter_mut().zip(self.token(data).0) {
            *out = byte;
        }
    }

    fn signature_len(&self) -> usize {
        quorate_crypto::HASH_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        if self.token(data).0 == signature { Ok(()) } else { Err(quinn::crypto::CryptoError) }
    }
}

/// Connection identifiers without meaning. Unlike the library's own they are recognised by nobody, so
/// that packets of connections from before a restart are answered with a reset.
#[derive(Default)]
struct Identifiers {
    random: RandomState,
    count: u64,
}

impl ConnectionIdGenerator for Identifiers {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count = self.count.wrapping_add(1);
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.count);
        ConnectionId::new(&hasher.finish().to_le_bytes())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ed25519_keys_of_the_exact_form_are_read() {
        let key = SecretKey::from_bytes(&[5; 32]).public();
        let spki = to_spki(&key);
        assert_eq!(from_spki(&spki), Some(key));
        assert_eq!(from_spki(&[]), None);
        for length in 0..spki.len() {
            assert_eq!(from_spki(&spki[..length]), None);
        }
        assert_eq!(from_spki(&[spki.as_slice(), &[0]].concat()), None);
        let mut other = spki;
        other[8] = 0x71;
        assert_eq!(from_spki(&other), None);
    }

    #[test]
    fn reset_tokens_survive_a_restart_and_differ_between_nodes() {
        let key = |byte| ResetKey(derive_hash("quorate test", &[&[byte]]));
        assert_eq!(key(1).token(b"id"), key(1).token(b"id"));
        assert_ne!(key(1).token(b"id"), key(2).token(b"id"));
    }
}
