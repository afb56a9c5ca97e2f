//! Seeds, roles, secret and public keys, and the one rule for signatures.
//!
//! Invariant: a signature is accepted only by the rule of `verify_strict` under a public key in canonical form that
//! is not of small order, so every correct party reaches the same verdict on every crafted signature.
//! Secrets are wiped when dropped and never printed.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::{Signer as _, Verifier as _};
use zeroize::Zeroizing;

use crate::hash::{HexError, array_from_hex};
use crate::scheme::SignatureError;

/// Bytes in a seed and in a secret key.
pub const SECRET_BYTES: usize = 32;
/// Bytes in a public key: an Ed25519 point in compressed form (RFC 8032).
pub const PUBLIC_KEY_BYTES: usize = 32;
/// Bytes in a signature: R, then s (RFC 8032).
pub const SIGNATURE_BYTES: usize = 64;

/// The y coordinates of the eight points of small order, in canonical form: of order 4, 1, 2, 8 and 8.
#[rustfmt::skip]
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    [
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    ],
    [
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    ],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
        0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
        0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// What a derived key is for. One key serves one role.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Votes, proposals, view changes.
    Consensus,
    /// Identity of the QUIC end point.
    Transport,
    /// Receipts for stored blocks.
    Blocks,
    /// Plain note signatures (type 0x01) on heads of the log.
    LogNote,
    /// Cosignatures (type 0x04) on heads of the log.
    LogCosignature,
    /// Envelopes of a client.
    Principal,
    /// Short-lived keys of one client session.
    Session,
}

impl Role {
    /// Every role, in the order of declaration.
    pub const ALL: [Self; 7] = [
        Self::Consensus,
        Self::Transport,
        Self::Blocks,
        Self::LogNote,
        Self::LogCosignature,
        Self::Principal,
        Self::Session,
    ];

    /// BLAKE3 derive-key context under which the role's key comes from the seed; part of the format.
    pub const fn context(self) -> &'static str {
        match self {
            Self::Consensus => "quorate key v1 consensus",
            Self::Transport => "quorate key v1 transport",
            Self::Blocks => "quorate key v1 blocks",
            Self::LogNote => "quorate key v1 log note",
            Self::LogCosignature => "quorate key v1 log cosignature",
            Self::Principal => "quorate key v1 principal",
            Self::Session => "quorate key v1 session",
        }
    }
}

/// The one secret of a node, from which the keys of all roles are derived.
#[derive(Clone)]
pub struct NodeSeed(Zeroizing<[u8; SECRET_BYTES]>);

impl NodeSeed {
    /// Takes 32 bytes from a cryptographic source of randomness. The caller wipes its own copy.
    pub fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A copy of the seed, for storing it; wiped when dropped.
    pub fn to_bytes(&self) -> Zeroizing<[u8; SECRET_BYTES]> {
        self.0.clone()
    }

    /// The secret key of a role: BLAKE3 derive-key over the seed under [`Role::context`].
    pub fn derive(&self, role: Role) -> SecretKey {
        let secret = Zeroizing::new(blake3::derive_key(role.context(), self.0.as_slice()));
        SecretKey::from_bytes(&secret)
    }
}

impl fmt::Debug for NodeSeed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NodeSeed(secret)")
    }
}

/// An Ed25519 secret key (RFC 8032), wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// Any 32 bytes are a secret key; they must come from a seed or from randomness.
    pub fn from_bytes(bytes: &[u8; SECRET_BYTES]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(bytes))
    }

    /// A copy of the secret, for storing it; wiped when dropped.
    pub fn to_bytes(&self) -> Zeroizing<[u8; SECRET_BYTES]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs raw bytes. Only for foreign formats with a domain of their own (log notes, certificates of
    /// the transport); the protocol signs statements through [`crate::scheme::Signer`].
    pub fn sign_bytes(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretKey(of {})", self.public())
    }
}

/// Why bytes are refused as a public key. The fault of whoever offers the key.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The y coordinate is not reduced, or zero carries a sign.
    #[error("public key is not in canonical form")]
    NotCanonical,
    /// No point of the curve has this y coordinate.
    #[error("public key is no point of the curve")]
    NotOnCurve,
    /// The point has order 1, 2, 4 or 8: signatures under it hold for almost any message.
    #[error("public key is weak (small order)")]
    SmallOrder,
    /// The point has a small-order component: verifiers with other rules may disagree about signatures.
    #[error("public key is not in the prime-order group")]
    MixedOrder,
}

/// An Ed25519 public key as bytes; not yet known to be a usable one.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct PublicKey(pub [u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    /// Reads 64 hexadecimal digits of either case. The key is not validated.
    ///
    /// # Errors
    /// [`HexError`] for any other length or character.
    pub fn from_hex(text: &str) -> Result<Self, HexError> {
        array_from_hex(text).map(Self)
    }

    /// The bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.0
    }

    /// The check at registration of a member or principal: canonical, on the curve, and in the
    /// prime-order group. Costs some ten times as much as [`PublicKey::parse`].
    ///
    /// # Errors
    /// [`KeyError`] says which of these fails.
    pub fn validate(&self) -> Result<(), KeyError> {
        let point = self.parse()?.0.to_edwards();
        if point.is_torsion_free() { Ok(()) } else { Err(KeyError::MixedOrder) }
    }

    /// Decompresses the key for verifying: canonical, on the curve, not of small order.
    ///
    /// # Errors
    /// [`KeyError`] says which of these fails.
    pub fn parse(&self) -> Result<ParsedKey, KeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| KeyError::NotOnCurve)?;
        // The library takes y >= p as well, and a sign on x = 0; compressing again shows both.
        if key.to_edwards().compress().to_bytes() != self.0 {
            return Err(KeyError::NotCanonical);
        }
        if key.is_weak() {
            return Err(KeyError::SmallOrder);
        }
        Ok(ParsedKey(key))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl AsRef<[u8]> for PublicKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A public key ready for verifying: decompressed, canonical, not weak. Keep it where keys repeat.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ParsedKey(ed25519_dalek::VerifyingKey);

impl ParsedKey {
    /// The key as bytes.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.to_bytes())
    }

    /// The signature rule: that of `verify_strict`, which refuses s >= L, R of small order or not canonical,
    /// and uses the equation without cofactor. Its verdict is reached without decompressing R (ADR 9):
    /// `verify` compares R with the canonical form of the point that it computes, so only a canonical R is
    /// left, and whether that one is of small order can be seen from its bytes.
    ///
    /// # Errors
    /// [`SignatureError::Invalid`] if the signature does not hold.
    pub fn verify_bytes(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        let mut y = *signature.r_bytes();
        if let Some(last) = y.last_mut() {
            *last &= 0x7f;
        }
        if SMALL_ORDER_Y.contains(&y) {
            return Err(SignatureError::Invalid);
        }
        self.0.verify(message, &signature).map_err(|_| SignatureError::Invalid)
    }
}

/// An Ed25519 signature as bytes.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; SIGNATURE_BYTES]);

impl Signature {
    /// All zeros; no key accepts it.
    pub const ZERO: Self = Self([0; SIGNATURE_BYTES]);

    /// Reads 128 hexadecimal digits of either case.
    ///
    /// # Errors
    /// [`HexError`] for any other length or character.
    pub fn from_hex(text: &str) -> Result<Self, HexError> {
        array_from_hex(text).map(Self)
    }

    /// The bytes of the signature.
    pub const fn as_bytes(&self) -> &[u8; SIGNATURE_BYTES] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
