//! Keys and roles, signed statements, hashing domains, member sets, quorum arithmetic, certificates.
//!
//! Invariant: this is the only room that touches Ed25519. One signature rule holds everywhere
//! (`verify_strict` under a canonical key), every signature of the protocol covers a [`Statement`],
//! and every stored or signed form has exactly one encoding, described byte by byte in
//! `docs/SPEC/crypto.md`. The room is deterministic: no clock, randomness, threads or I/O.
#![forbid(unsafe_code)]

pub mod bitmap;
pub mod bounded;
pub mod certificate;
pub mod encoding;
pub mod hash;
pub mod keys;
pub mod members;
pub mod quorum;
pub mod scheme;
pub mod statement;

pub use bitmap::{BITMAP_BYTES_MAX, Bitmap};
pub use bounded::{Bounded, BoundedBytes, BoundedString, TooLong};
pub use certificate::{Certificate, CertificateBuilder, CertificateError, CertificateKind};
pub use encoding::{DecodeError, decode, encode};
pub use hash::{DomainHasher, HASH_BYTES, Hash, HexError, derive_hash};
pub use keys::{KeyError, NodeSeed, ParsedKey, PublicKey, Role, SecretKey, Signature};
pub use members::{ADDRESS_BYTES_MAX, Address, Member, MemberSet, MemberSetError};
pub use quorum::{MEMBERS_MAX, MEMBERS_MIN, faults, quorum, weak_quorum};
pub use scheme::{
    Ed25519Signer, Ed25519Verifier, KeyedHashSigner, KeyedHashVerifier, SignatureError, Signer, Verifier,
};
pub use statement::{STATEMENT_BYTES, Statement, StatementKind};
