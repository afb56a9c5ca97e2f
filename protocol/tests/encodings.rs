//! Every signed, stored or sent type: its bytes are pinned, it survives a round trip, and no prefix,
//! extension or flipped byte of it decodes to something that would encode differently.
//!
//! `QUORATE_BLESS=1 cargo nextest run -p quorate-protocol` writes the golden file anew; a change of it
//! is a change of format and needs a version and a line in `docs/SPEC/`.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::*;
use quorate_protocol::blocks::*;
use quorate_protocol::client::*;
use quorate_protocol::evidence::*;
use quorate_protocol::file::*;
use quorate_protocol::genesis::{Genesis, Parameters};
use quorate_protocol::limits::{OPERATIONS_PER_ENVELOPE_MAX, OPERATIONS_PER_PROPOSAL_MAX};
use quorate_protocol::log_head::*;
use quorate_protocol::operation::*;
use quorate_protocol::peer::*;
use quorate_protocol::query::*;
use quorate_protocol::record::Record;
use quorate_protocol::time::SetTime;
use quorate_protocol::view_change::*;
use quorate_protocol::*;
use std::fmt::Write as _;

fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32])
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn operations() -> Vec<OperationBody> {
    let entropy = [7; 16];
    let receipt = BlockReceipt {
        epoch: 0,
        replica: 2,
        body: BlockReceiptBody { session: hash(1), expires: BatchTime(99), count: 1, root: hash(2) },
        signature: Signature([3; 64]),
    };
    let evidence = BlockEvidence {
        blocks: vec![BlockGrant {
            descriptor: BlockDescriptor::copies(b"content"),
            index: 0,
            path: vec![hash(4)].try_into().unwrap(),
        }]
        .try_into()
        .unwrap(),
        receipts: vec![receipt].try_into().unwrap(),
    };
    let inline = BoundedBytes::try_from(b"bytes".to_vec()).unwrap();
    let open = OpenMode { read: true, write: true, truncate: false };
    let (parent, mode, umask, ino) = (1, 0o644, 0o022, None);
    vec![
        OperationBody::Null,
        OperationBody::Register { nonce: [9; 32] },
        OperationBody::CloseSession,
        OperationBody::PutPrincipal { key: secret(5).public(), rights: rights() },
        OperationBody::RemovePrincipal { principal: 3 },
        OperationBody::Create {
            parent,
            name: name("a"),
            mode,
            umask,
            exclusive: true,
            open: Some(open),
            ino,
            entropy,
        },
        OperationBody::Mkdir { parent, name: name("d"), mode, umask, ino: Some(77), entropy },
        OperationBody::Symlink {
            parent,
            name: name("s"),
            target: BoundedBytes::try_from(b"to".to_vec()).unwrap(),
            ino,
            entropy,
        },
        OperationBody::Mknod {
            parent,
            name: name("n"),
            node: SpecialFile::CharacterDevice(259),
            mode,
            umask,
            ino,
            entropy,
        },
        OperationBody::Link { ino: 5, parent, name: name("l") },
        OperationBody::Unlink { parent, name: name("u") },
        OperationBody::Rmdir { parent, name: name("r") },
        OperationBody::Rename {
            parent,
            name: name("x"),
            new_parent: 8,
            new_name: name("y"),
            mode: RenameMode::Exchange,
        },
        OperationBody::SetAttributes {
            ino: 5,
            mode: Some(0o4755),
            uid: Some(1),
            gid: None,
            size: Some(10),
            atime: SetTime::Now,
            mtime: SetTime::To(Timestamp { seconds: -1, nanoseconds: 999_999_999 }),
            authority: Authority::Grant,
            token: Some(4),
        },
        OperationBody::SetXattr {
            ino: 5,
            name: BoundedBytes::try_from(b"user.k".to_vec()).unwrap(),
            value: BoundedBytes::try_from(b"v".to_vec()).unwrap(),
            mode: SetXattrMode::Create,
            entropy,
        },
        OperationBody::RemoveXattr { ino: 5, name: BoundedBytes::try_from(b"user.k".to_vec()).unwrap() },
        OperationBody::Open { ino: 5, mode: open },
        OperationBody::Release { ino: 5, mode: open, count: 2 },
        OperationBody::Write {
            ino: 5,
            at: WriteAt::Append,
            pieces: vec![
                Piece::Inline(inline.clone()),
                Piece::Block { id: hash(6), offset: 1, length: 2 },
                Piece::Zero(3),
            ]
            .try_into()
            .unwrap(),
            evidence: evidence.clone(),
            authority: Authority::Grant,
            token: None,
            entropy,
        },
        OperationBody::Fold {
            ino: 5,
            index: 1,
            expected: hash(7),
            segments: vec![Segment { start: 0, length: 5, source: SegmentSource::Inline(inline) }]
                .try_into()
                .unwrap(),
            evidence,
            authority: Authority::Check,
            entropy,
        },
        OperationBody::Renew { until: BatchTime(5) },
    ]
}

fn rights() -> PrincipalRights {
    PrincipalRights {
        anyone: true,
        administrator: true,
        auditor: false,
        uids: vec![1, 2].try_into().unwrap(),
        gids: vec![3].try_into().unwrap(),
        squash_root: Some((65_534, 65_534)),
        realms: Bounded::default(),
    }
}

fn envelope() -> Envelope {
    let operations: Vec<Operation> = operations()
        .into_iter()
        .map(|body| Operation { credential: 0, requires: 1, at: None, body })
        .collect();
    EnvelopeBody {
        cluster: hash(1),
        session: hash(2),
        key: secret(3).public(),
        first: 4,
        valid_until: BatchTime(5),
        credentials: vec![Credential {
            uid: 0,
            gid: 0,
            groups: Groups::Listed(vec![1, 2].try_into().unwrap()),
        }]
        .try_into()
        .unwrap(),
        operations: operations.try_into().unwrap(),
    }
    .sign(&Ed25519Signer::new(secret(3)))
}

fn proposal() -> Proposal {
    Proposal { parent: hash(1), time: BatchTime(2), envelopes: vec![envelope()].try_into().unwrap() }
}

fn header() -> Header {
    Header {
        version: 1,
        cluster: hash(1),
        epoch: 0,
        height: 7,
        time: BatchTime(2),
        previous: hash(3),
        proposal: hash(4),
        state_root: hash(5),
        receipts_root: hash(6),
        first_operation: 100,
        operation_count: 21,
        log_root: hash(7),
        members: hash(8),
        touched_root: hash(9),
        touched_count: 2,
    }
}

fn certificate(kind: CertificateKind) -> Certificate {
    let votes = [0u8, 1, 3].map(|index| (index, Signature([index; 64])));
    Certificate::assemble(kind, &members(), 2, 7, hash(1), votes).unwrap()
}

fn members() -> MemberSet {
    let members = (1..=4u8)
        .map(|index| Member::from_seed(&NodeSeed::from_bytes([index; 32]), "127.0.0.1:7000".parse_address()))
        .collect();
    MemberSet::new(0, members).unwrap()
}

trait ParseAddress {
    fn parse_address(&self) -> Address;
}
impl ParseAddress for str {
    fn parse_address(&self) -> Address {
        Address::try_from(self.to_owned()).unwrap()
    }
}

fn genesis() -> Genesis {
    Genesis {
        version: 1,
        nonce: [1; 32],
        time: BatchTime(2),
        members: members(),
        principal: secret(3).public(),
        rights: rights(),
        parameters: Parameters::default(),
        root: (0, 0, 0o755),
        entropy: [4; 16],
    }
}

fn vote() -> Vote {
    Vote {
        kind: VoteKind::Commit,
        epoch: 0,
        view: 1,
        height: 2,
        header: hash(3),
        replica: 1,
        signature: Signature([4; 64]),
    }
}

fn view_change() -> ViewChange {
    ViewChange {
        claim: SignedClaim {
            body: ViewChangeBody {
                epoch: 0,
                view: 3,
                rank: Rank { view: 2, height: 7 },
                header: hash(1),
                committed: 6,
                replica: 1,
            },
            signature: Signature([5; 64]),
        },
        certificate: Some(certificate(CertificateKind::Prepare)),
    }
}

fn new_view() -> NewView {
    NewView {
        epoch: 0,
        view: 3,
        claims: vec![view_change().claim].try_into().unwrap(),
        base: view_change().certificate,
        signature: Signature([6; 64]),
    }
}

fn pieces() -> Vec<Evidence> {
    let side = |byte| SignedDigest { digest: hash(byte), signature: Signature([byte; 64]) };
    let both = Contradiction::new(3, 9, side(2), side(1));
    assert_eq!(both, Contradiction::new(3, 9, side(1), side(2)), "one fact, one encoding");
    let pre_prepare = || PrePrepare {
        epoch: 0,
        view: 3,
        height: 8,
        proposal: Proposal { envelopes: Bounded::default(), ..proposal() },
        signature: Signature([1; 64]),
    };
    let certificate = || certificate(CertificateKind::Commit);
    let certified = ParentWitness::Certified { header: header(), certificate: certificate() };
    let parent = ParentWitness::Proposed(pre_prepare().proposal);
    let proofs = [
        Proof::ConflictingPrePrepare(both),
        Proof::ConflictingPrepare(both),
        Proof::ConflictingCommit(both),
        Proof::ViewChangeOmission { claim: view_change().claim, commit: vote() },
        Proof::TimeRegression { pre_prepare: pre_prepare(), parent: ParentWitness::Genesis },
        Proof::TimeRegression { pre_prepare: pre_prepare(), parent: certified },
        Proof::TimeRegression { pre_prepare: pre_prepare(), parent },
        Proof::InvalidProposal { pre_prepare: pre_prepare(), envelope: 2 },
        Proof::BadExecution {
            vote: vote(),
            header: header(),
            certified: Header { state_root: hash(0xAA), ..header() },
            certificate: certificate(),
        },
        Proof::conflicting_head(9, side(2), side(1)),
        Proof::UnfoundedCommit { commit: vote(), certificate: certificate() },
    ];
    proofs.into_iter().map(|proof| Evidence::new(hash(9), 0, 3, proof)).collect()
}

/// Encodes, checks the round trip, and returns the bytes.
fn pin<T: BorshSerialize + BorshDeserialize + PartialEq + std::fmt::Debug>(
    out: &mut String,
    label: &str,
    value: &T,
) {
    let bytes = encode(value);
    assert_eq!(&decode::<T>(&bytes).unwrap(), value, "{label}");
    for cut in 0..bytes.len().min(256) {
        assert!(decode::<T>(&bytes[..cut]).is_err(), "{label}: a prefix of {cut} bytes decodes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode::<T>(&longer).is_err(), "{label}: a trailing byte is accepted");
    for position in 0..bytes.len() {
        for flip in [1u8, 0x80, 0xFF] {
            let mut changed = bytes.clone();
            changed[position] ^= flip;
            if let Ok(other) = decode::<T>(&changed) {
                assert_eq!(encode(&other), changed, "{label}: byte {position} is malleable (CR4)");
            }
        }
    }
    if bytes.len() <= 512 {
        writeln!(out, "{label} {}", hex::encode(&bytes)).unwrap();
    } else {
        writeln!(out, "{label} blake3:{} {} bytes", blake3::hash(&bytes).to_hex(), bytes.len()).unwrap();
    }
}

#[test]
fn golden_cr4_every_type_has_one_encoding() {
    let mut out = String::new();
    for body in operations() {
        let debug = format!("{body:?}");
        let label = debug.split([' ', '{']).next().unwrap().to_owned();
        pin(
            &mut out,
            &format!("operation.{label}"),
            &Operation { credential: 0, requires: 0, at: None, body },
        );
    }
    let mode = OpenMode { read: true, write: true, truncate: false };
    let reopen = OperationBody::Reopen { ino: 2, mode };
    let reopen = Operation { credential: 0, requires: 0, at: None, body: reopen };
    pin(&mut out, "operation.Reopen", &reopen);
    pin(&mut out, "envelope", &envelope());
    pin(&mut out, "proposal", &proposal());
    pin(&mut out, "header", &header());
    pin(&mut out, "vote", &vote());
    pin(&mut out, "genesis", &genesis());
    let batch =
        Batch { header: header(), proposal: Proposal { envelopes: Bounded::default(), ..proposal() } };
    let committed =
        CommittedBatch { batch: batch.clone(), certificate: certificate(CertificateKind::Commit) };
    let pre_prepare = PrePrepare {
        epoch: 0,
        view: 1,
        height: 2,
        proposal: batch.proposal.clone(),
        signature: Signature([1; 64]),
    };
    for (label, message) in [
        ("pre-prepare", PeerMessage::PrePrepare(pre_prepare)),
        ("votes", PeerMessage::Votes(vec![vote()].try_into().unwrap())),
        ("suspect", PeerMessage::Suspect(Suspect { epoch: 0, view: 1, reason: Suspicion::Restarted })),
        (
            "suspect-disconnected",
            PeerMessage::Suspect(Suspect { epoch: 0, view: 1, reason: Suspicion::Disconnected }),
        ),
        ("resign", PeerMessage::Resign(Resign { epoch: 0, view: 1, signature: Signature([2; 64]) })),
        ("view-change", PeerMessage::ViewChange(view_change())),
        ("new-view", PeerMessage::NewView(new_view())),
        ("certificate", PeerMessage::Certificate(certificate(CertificateKind::Commit))),
        ("announce", PeerMessage::Announce(Announcement { epoch: 0, view: 1, entered: true, committed: 2 })),
        ("fetch-committed", PeerMessage::FetchCommitted { from: 3 }),
        ("committed", PeerMessage::Committed(vec![committed].try_into().unwrap())),
        ("fetch-batches", PeerMessage::FetchBatches { header: hash(1), above: 2 }),
        ("batches", PeerMessage::Batches(vec![batch.clone()].try_into().unwrap())),
        ("fetch-new-view", PeerMessage::FetchNewView { view: 2 }),
        ("fetch-block", PeerMessage::FetchBlock { id: hash(1) }),
        (
            "block",
            PeerMessage::Block {
                descriptor: BlockDescriptor::copies(b"x"),
                content: BoundedBytes::try_from(b"x".to_vec()).unwrap(),
            },
        ),
        (
            "proposed",
            PeerMessage::Proposed(ProposalStatement {
                epoch: 0,
                view: 1,
                height: 2,
                signed: SignedDigest { digest: hash(1), signature: Signature([2; 64]) },
            }),
        ),
        (
            "offer-evidence",
            PeerMessage::OfferEvidence(
                vec![EvidenceOffer { digest: hash(1), culprit: 3, kind: EvidenceKind::UnfoundedCommit }]
                    .try_into()
                    .unwrap(),
            ),
        ),
        ("fetch-evidence", PeerMessage::FetchEvidence { digest: hash(1) }),
        ("evidence", PeerMessage::Evidence(Box::new(pieces().remove(0)))),
    ] {
        pin(&mut out, &format!("peer.{label}"), &message);
    }
    for (index, piece) in pieces().iter().enumerate() {
        pin(&mut out, &format!("evidence.{index}.{}", piece.kind()), piece);
        writeln!(out, "evidence.{index}.digest {}", piece.digest()).unwrap();
        writeln!(out, "evidence.{index}.file blake3:{}", blake3::hash(&piece.to_file()).to_hex()).unwrap();
    }
    for (label, record) in [
        ("entered", Record::Entered { epoch: 0, view: 1 }),
        ("proposed", Record::Proposed { height: 7, batch }),
        ("voted", Record::Voted(vote())),
        ("prepared", Record::Prepared(certificate(CertificateKind::Prepare))),
        ("committed", Record::Committed(certificate(CertificateKind::Commit))),
        ("view-change", Record::ViewChange(view_change())),
        ("new-view", Record::NewView(new_view())),
    ] {
        pin(&mut out, &format!("record.{label}"), &record);
    }
    let read = ReadRequest {
        at: ReadAt::Fresh(3),
        credential: Credential { uid: 1, gid: 2, groups: Groups::OfPrincipal },
        query: Query::Lookup { parent: 1, name: name("a") },
    };
    pin(&mut out, "client.read", &ClientRequest::Read(read.clone()));
    let past = ReadRequest { at: ReadAt::Exactly(2), query: Query::Totals, ..read };
    pin(&mut out, "client.read-past", &ClientRequest::Read(past));
    let block = ClientRequest::GetBlock {
        ino: 5,
        index: 1,
        id: hash(1),
        credential: Credential { uid: 1, gid: 2, groups: Groups::OfPrincipal },
        session: None,
        at: Some(2),
    };
    pin(&mut out, "client.block-past", &block);
    pin(&mut out, "client.header", &ClientRequest::Header { height: 5 });
    pin(&mut out, "client.highest", &ClientRequest::Highest { known: 4 });
    let answer = ReadAnswer {
        header: header(),
        certificate: Some(certificate(CertificateKind::Commit)),
        proof: BoundedBytes::try_from(vec![1, 2, 3]).unwrap(),
    };
    pin(&mut out, "client.answer", &ClientReply::Read(answer));
    let certified = CertifiedHeader { header: header(), certificate: None };
    pin(&mut out, "client.certified-header", &ClientReply::Header(certified));
    let refused = ClientReply::Refused {
        refusal: Refusal::NotRetained { horizon: 3, applied: 9 },
        text: BoundedBytes::try_from(b"gone".to_vec()).unwrap(),
    };
    pin(&mut out, "client.not-retained", &refused);
    pin(&mut out, "client.evidence", &ClientRequest::Evidence { after: hash(1) });
    let page = EvidencePage { pieces: pieces().try_into().unwrap(), more: true };
    pin(&mut out, "client.evidence-page", &ClientReply::Evidence(page));
    pin(&mut out, "client.log-heads", &ClientRequest::LogHeads);
    let head = LogHead { size: 9, root: hash(1) };
    let head = SignedLogHead { head, note: Signature([2; 64]), time: 7, cosignature: Signature([3; 64]) };
    let heads = vec![head].try_into().unwrap();
    pin(&mut out, "client.signed-log-heads", &ClientReply::LogHeads(heads));
    pin(&mut out, "notice.commits", &Notice::Commits(vec![vote()].try_into().unwrap()));
    pin(&mut out, "notice.certified", &Notice::Certified(certificate(CertificateKind::Commit)));

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/encodings.txt");
    if std::env::var_os("QUORATE_BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap();
        std::fs::write(path, &out).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (line, (have, want)) in out.lines().zip(golden.lines()).enumerate() {
        assert_eq!(have, want, "line {line} of the golden file: the format changed");
    }
    assert_eq!(out.lines().count(), golden.lines().count());
}

#[test]
fn an_evidence_file_is_whole_or_refused() {
    for piece in pieces() {
        let bytes = piece.to_file();
        assert_eq!(Evidence::from_file(&bytes), Ok(piece));
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(Evidence::from_file(&changed).is_err(), "byte {position}");
        }
        assert!((0..bytes.len()).all(|cut| Evidence::from_file(&bytes[..cut]).is_err()));
        assert!(Evidence::from_file(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
    let numbers: Vec<u8> = EvidenceKind::ALL.iter().map(|kind| encode(kind)[0]).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for piece in pieces() {
        // Version, cluster, epoch, culprit, then the kind's number.
        assert_eq!(encode(&piece)[1 + 32 + 8 + 1], piece.kind() as u8);
    }
}

#[test]
fn names_are_what_posix_allows() {
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
        assert!(Name::new(bad).is_err());
    }
    assert!(Name::new(&[0xFF; 255]).is_ok());
    assert!(decode::<Name>(&encode(&b"..".to_vec())).is_err());
}

#[test]
fn au4_a_vote_of_one_kind_is_no_vote_of_another() {
    let signer = Ed25519Signer::new(secret(1));
    let mut signed = vote();
    signed.signature = signer.sign(&signed.statement(hash(9)));
    let verifier = Ed25519Verifier::new();
    let key = signer.public();
    assert!(verifier.verify(&key, &signed.statement(hash(9)), &signed.signature).is_ok());
    let changes: [fn(&mut Vote); 5] = [
        |vote| vote.kind = VoteKind::Prepare,
        |vote| vote.epoch += 1,
        |vote| vote.view += 1,
        |vote| vote.height += 1,
        |vote| vote.header = Hash([0xEE; 32]),
    ];
    for change in changes {
        let mut other = signed.clone();
        change(&mut other);
        assert!(verifier.verify(&key, &other.statement(hash(9)), &other.signature).is_err());
    }
    assert!(verifier.verify(&key, &signed.statement(hash(8)), &signed.signature).is_err());
}

proptest::proptest! {
    #[test]
    fn garbage_never_panics_and_never_grows(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        let _ = decode::<PeerMessage>(&bytes);
        let _ = decode::<ClientRequest>(&bytes);
        let _ = decode::<ClientReply>(&bytes);
        let _ = decode::<Notice>(&bytes);
        let _ = decode::<Record>(&bytes);
        let _ = decode::<Genesis>(&bytes);
        let _ = decode::<Envelope>(&bytes);
    }
}

/// A12: operations are counted as they are read, not when all of them are in memory.
#[test]
fn a12_a_proposal_of_too_many_operations_is_refused_while_it_is_read() {
    let null = Operation { credential: 0, requires: 0, at: None, body: OperationBody::Null };
    let full = vec![null; OPERATIONS_PER_ENVELOPE_MAX];
    let with = |count: usize| {
        let body = EnvelopeBody { operations: full.clone().try_into().unwrap(), ..envelope().body };
        let one = Envelope { body, ..envelope() };
        Proposal { envelopes: vec![one; count].try_into().unwrap(), ..proposal() }
    };
    let most = OPERATIONS_PER_PROPOSAL_MAX / OPERATIONS_PER_ENVELOPE_MAX;
    let allowed = with(most);
    assert_eq!(decode::<Proposal>(&encode(&allowed)), Ok(allowed));
    // What follows the first operation too many is not read: there it is not even well formed.
    let mut bytes = encode(&with(most + 1));
    bytes.extend([0xff; 64]);
    let counted = decode::<Proposal>(&bytes);
    assert!(
        matches!(&counted, Err(DecodeError::Malformed(why)) if why.contains("operations")),
        "{counted:?}"
    );
    // A claim beyond the bound is refused before anything is read.
    let claim = [encode(&proposal())[..40].to_vec(), u32::MAX.to_le_bytes().to_vec()].concat();
    let counted = decode::<Proposal>(&claim);
    assert!(matches!(&counted, Err(DecodeError::Malformed(why)) if why.contains("envelopes")), "{counted:?}");
}
