//! Decoders of everything that is sent, signed or stored in the canonical encoding.
//!
//! Properties, for any bytes: decoding does not panic and holds memory in proportion to the input (A12); what
//! it accepts encodes to the same bytes (CR4); with a byte more or a byte less it is refused; and what then
//! looks at the decoded value (the door, the checks of certificates and proofs) does not panic either.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_audit::Court;
use quorate_consensus::{NoEnvelopes, door};
use quorate_crypto::*;
use quorate_merkle::{InclusionPath, LogFrontier};
use quorate_metadata::rows as metadata;
use quorate_metadata::rows::Row;
use quorate_protocol::blocks::*;
use quorate_protocol::client::*;
use quorate_protocol::evidence::{
    Contradiction, EvidenceKind, EvidenceOffer, EvidencePage, Proof, SignedDigest,
};
use quorate_protocol::peer::{Announcement, Batch, CommittedBatch};
use quorate_protocol::query::{Query, ReadRequest};
use quorate_protocol::record::Record;
use quorate_protocol::view_change::*;
use quorate_protocol::*;

use crate::memory::decoding;
use crate::samples;
use crate::source::Source;

/// A type by its name, and its decoder.
pub type Named = (&'static str, fn(&[u8]));

macro_rules! types {
    ($($type:ty),+ $(,)?) => { &[$((stringify!($type), |bytes| { let _ = canonical::<$type>(bytes); })),+] };
}

macro_rules! row_types {
    ($($type:ty),+ $(,)?) => { &[$((stringify!($type), row::<$type>)),+] };
}

/// What `crypto` offers to others as bytes.
pub const CRYPTO: &[Named] = types![
    Certificate,
    Bitmap,
    MemberSet,
    Member,
    PublicKey,
    Signature,
    Statement,
    StatementKind,
    CertificateKind,
    Hash,
    Address,
];

/// What is signed, hashed or sent as a part of messages.
pub const SIGNED: &[Named] = types![
    Envelope,
    Proposal,
    Header,
    Genesis,
    PrePrepare,
    Vote,
    Resign,
    ViewChange,
    NewView,
    Suspect,
    Operation,
    Credential,
    ReceiptLeaf,
    BlockReceipt,
    BlockDescriptor,
    BlockEvidence,
    ReadRequest,
    Query,
    Announcement,
    Batch,
    CommittedBatch,
    EnvelopeResults,
    ReadAnswer,
    ReplicaStatus,
    InclusionPath,
    LogFrontier,
    Timestamp,
    EvidenceOffer,
    EvidencePage,
];

/// The values of the state's rows.
pub const ROWS: &[Named] = row_types![
    metadata::Inode,
    metadata::DirectoryKey,
    metadata::Entry,
    metadata::Link,
    metadata::Content,
    metadata::Xattr,
    metadata::SymlinkTarget,
    metadata::Grants,
    metadata::Block,
    metadata::Totals,
    metadata::CounterRow,
    metadata::ParametersRow,
    metadata::Presence,
    metadata::Released,
    quorate_execution::rows::SessionRow,
    quorate_execution::rows::PrincipalRow,
    quorate_execution::rows::SessionIdRow,
    quorate_execution::rows::PrincipalKeyRow,
    quorate_execution::rows::MembersRow,
    quorate_execution::rows::OutageRow,
];

/// Decodes, and checks what must hold of any decoder.
fn canonical<T: BorshSerialize + BorshDeserialize>(bytes: &[u8]) -> Option<T> {
    let value = decoding(bytes.len(), || decode::<T>(bytes).ok())?;
    assert!(encode(&value) == bytes, "another encoding of the same value (CR4)");
    let longer = [bytes, &[0]].concat();
    assert!(decode::<T>(&longer).is_err(), "a byte too many is accepted");
    if let Some((_, shorter)) = bytes.split_last() {
        assert!(decode::<T>(shorter).is_err(), "a byte less is accepted");
    }
    Some(value)
}

fn row<T: Row>(bytes: &[u8]) {
    if let Ok(row) = decoding(bytes.len(), || T::from_value(bytes)) {
        assert!(row.to_value()[..] == *bytes, "another encoding of the same row (CR4)");
        assert!(T::from_value(&[bytes, &[0]].concat()).is_err(), "a byte too many is accepted");
    }
}

fn one_of(types: &[Named], data: &[u8]) {
    let mut source = Source::new(data);
    types[source.below(types.len())].1(source.rest());
}

pub fn crypto(data: &[u8]) {
    one_of(CRYPTO, data);
    // A key that may be registered can be used; one of small order neither (CR2).
    if let Ok(key) = decode::<PublicKey>(data.get(1..).unwrap_or_default()) {
        assert!(key.parse().is_ok() || key.validate().is_err());
    }
}

pub fn signed(data: &[u8]) {
    one_of(SIGNED, data);
}

pub fn rows(data: &[u8]) {
    one_of(ROWS, data);
}

pub fn record(data: &[u8]) {
    canonical::<Record>(data);
}

pub fn notice(data: &[u8]) {
    canonical::<Notice>(data);
}

/// A message of a peer, which then meets the door of a replica.
pub fn peer(data: &[u8]) {
    let Some(message) = canonical::<PeerMessage>(data) else { return };
    let cluster = samples::cluster();
    // At most a few signatures are tried before one fails, and none of them is of this cluster's keys unless
    // the input says so.
    let _ = door::verify(&cluster.configuration, &cluster.verifier, &NoEnvelopes, 1, message);
}

/// A client's request; an envelope in it meets the door.
pub fn client_request(data: &[u8]) {
    let cluster = samples::cluster();
    match canonical::<ClientRequest>(data) {
        Some(ClientRequest::Submit { envelope, .. }) => {
            let _ = door::verify_envelope(&cluster.configuration, &cluster.verifier, &NoEnvelopes, envelope);
        }
        Some(ClientRequest::Await { certificate }) => {
            let _ = door::verify_certificate(&cluster.configuration, &cluster.verifier, certificate);
        }
        _ => {}
    }
}

/// A replica's reply; what a client checks of it is checked.
pub fn client_reply(data: &[u8]) {
    let cluster = samples::cluster();
    let certificate = match canonical::<ClientReply>(data) {
        Some(ClientReply::Results(results)) => {
            let operations = results.results.len();
            let digest = results.envelope;
            let _ = quorate_execution::verify_results_of(&results, &digest, u64::MAX, operations, &digest);
            results.certificate
        }
        Some(ClientReply::Read(answer)) => {
            let _ = quorate_execution::PartialState::verify(&answer.header, &answer.proof);
            answer.certificate
        }
        Some(ClientReply::Highest { certificate, .. }) => certificate,
        Some(ClientReply::Status(status)) => status.certificate,
        _ => None,
    };
    if let Some(certificate) = certificate {
        let _ = certificate.verify(&cluster.id, cluster.configuration.members(), &cluster.verifier);
    }
}

/// A certificate of one to all members, spoilt by what the input says. It is accepted exactly if it is of the
/// set's epoch, its bitmap has the exact length and no bit of nobody (CR6), its signatures are as many as its
/// signers, a quorum of them, and every one holds (AU8).
pub fn certificate(data: &[u8]) {
    let mut source = Source::new(data);
    let n = source.choose(&[4, 5, 6, 7, 9, 10, 13, 31]);
    let set = samples::members(n);
    let (view, height, header) = (source.number(), source.number(), Hash([source.byte(); 32]));
    let kind = source.choose(&[CertificateKind::Prepare, CertificateKind::Commit]);
    let signers: Vec<u8> = (0..n).filter(|_| source.byte() & 3 != 0).collect();
    let mut certificate = samples::certificate(n, kind, (0, view, height), header, &signers);
    for _ in 0..source.below(4) {
        spoil(&mut source, &mut certificate);
    }
    let members = &set.members;
    let statement = certificate.statement(&samples::cluster().id);
    let bits = certificate.signers.as_bytes();
    let fits = bits.len() == usize::from(n).div_ceil(8)
        && (0..bits.len() * 8).all(|bit| bits[bit / 8] & (1 << (bit % 8)) == 0 || bit < usize::from(n));
    let signers: Vec<u8> = certificate.signers.iter().collect();
    let good = |(index, signature): (&u8, &Signature)| {
        let key = members.get(*index).map(|member| member.consensus);
        key.is_some_and(|key| set.verifier.verify(&key, &statement, signature).is_ok())
    };
    let expected = certificate.epoch == members.epoch()
        && fits
        && signers.len() == certificate.signatures.len()
        && signers.len() >= members.quorum()
        && signers.iter().zip(&certificate.signatures).all(good);
    let verdict = certificate.verify(&samples::cluster().id, members, &set.verifier);
    assert_eq!(verdict.is_ok(), expected, "{certificate:?}: {verdict:?}");
    assert_eq!(decode::<Certificate>(&encode(&certificate)).as_ref(), Ok(&certificate));
}

fn spoil(source: &mut Source<'_>, certificate: &mut Certificate) {
    match source.below(8) {
        0 => certificate.epoch ^= u64::from(source.byte()),
        1 => certificate.view ^= u64::from(source.byte()),
        2 => certificate.height ^= u64::from(source.byte()),
        3 => certificate.header_hash.0[source.below(32)] ^= source.byte(),
        4 => {
            let bits = [certificate.signers.as_bytes(), source.some(2)].concat();
            certificate.signers = Bitmap::from_bytes(&bits).unwrap_or_else(|_| Bitmap::empty(0));
        }
        5 => {
            let mut bits = certificate.signers.as_bytes().to_vec();
            let place = source.below(256);
            let length = bits.len().max(1);
            if let Some(byte) = bits.get_mut(place / 8 % length) {
                *byte ^= 1 << (place % 8);
            }
            certificate.signers = Bitmap::from_bytes(&bits).unwrap_or_else(|_| Bitmap::empty(0));
        }
        6 => {
            let length = certificate.signatures.len().max(1);
            if let Some(signature) = certificate.signatures.as_mut_slice().get_mut(source.below(length)) {
                signature.0[source.below(64)] ^= source.byte();
            }
        }
        _ => {
            let mut signatures = certificate.signatures.clone().into_inner();
            match signatures.first().copied() {
                Some(first) if source.flag() => signatures.push(first),
                _ => drop(signatures.pop()),
            }
            certificate.signatures = Bounded::try_from(signatures).unwrap_or_default();
        }
    }
}

fn court() -> Court<'static> {
    let cluster = samples::cluster();
    Court {
        cluster: cluster.id,
        members: cluster.configuration.members(),
        genesis: cluster.configuration.genesis(),
        verifier: &cluster.verifier,
    }
}

/// Evidence as it is sent, and as a file: one encoding of each, and a judgment without a panic.
pub fn evidence(data: &[u8]) {
    if let Ok(evidence) = decoding(data.len(), || Evidence::from_file(data)) {
        assert!(evidence.to_file() == data, "another file of the same evidence (CR4)");
    }
    if let Some(evidence) = canonical::<Evidence>(data) {
        assert_eq!(Evidence::from_file(&evidence.to_file()).as_ref(), Ok(&evidence));
        let _ = (court().judge(&evidence).is_ok(), evidence.place());
        // The same of this cluster, so that the judgment goes deeper.
        let _ = court()
            .judge(&Evidence { cluster: samples::cluster().id, epoch: 0, version: 1, ..evidence })
            .is_ok();
    }
}

/// Two statements that replicas of this cluster may have signed, shown as a contradiction: it convicts exactly
/// who signed both of them, as what they are shown as, for two different things (AU9, A6).
pub fn contradiction(data: &[u8]) {
    let mut source = Source::new(data);
    let cluster = samples::cluster().id;
    let kinds =
        [StatementKind::PrePrepare, StatementKind::Prepare, StatementKind::Commit, StatementKind::ViewChange];
    let mut signed = || {
        let kind = kinds[source.below(4)];
        let (signer, view, height) =
            (source.byte() % 4, u64::from(source.byte() % 6), u64::from(source.byte() % 3));
        let digest = Hash([source.byte() % 3; 32]);
        let statement = Statement { cluster, epoch: 0, kind, view, height, digest };
        let mut signature = samples::sign(4, signer, &statement);
        signature.0[0] ^= u8::from(source.below(16) == 1);
        SignedDigest { digest, signature }
    };
    let (one, other) = (signed(), signed());
    let (view, height) = (u64::from(source.byte() % 6), u64::from(source.byte() % 3));
    let mut both = Contradiction::new(view, height, one, other);
    if source.below(8) == 1 {
        std::mem::swap(&mut both.low, &mut both.high);
    }
    let culprit = source.byte() % 5;
    let proofs = [Proof::ConflictingPrePrepare, Proof::ConflictingPrepare, Proof::ConflictingCommit];
    let shown = source.below(3);
    let evidence = Evidence::new(cluster, 0, culprit, proofs[shown](both));
    let members = samples::members(4);
    let holds = |signed: &SignedDigest| {
        let statement =
            Statement { cluster, epoch: 0, kind: kinds[shown], view, height, digest: signed.digest };
        let key = members.members.get(culprit).map(|member| member.consensus);
        key.is_some_and(|key| members.verifier.verify(&key, &statement, &signed.signature).is_ok())
    };
    let leads =
        evidence.kind() != EvidenceKind::ConflictingPrePrepare || members.members.leader(view) == culprit;
    let expected = both.low.digest < both.high.digest && holds(&both.low) && holds(&both.high) && leads;
    let verdict = court().judge(&evidence);
    assert_eq!(verdict.is_ok(), expected, "{evidence:?}: {verdict:?}");
}
