//! A generated chain holds; one byte flipped anywhere in it breaks the height that it belongs to.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use proptest::prelude::*;
use quorate_audit::{
    BUNDLE_HEIGHT_BYTES_MAX, BundleReader, BundleWriter, NoAnswer, NoBundle, NoHead, Policy, Progress,
    ProvenAnswer, Report, Rule, SourceError, Verdict, verify,
};
use quorate_crypto::{Bounded, Certificate, CertificateKind, Ed25519Verifier, Signer, decode, encode};
use quorate_execution::{Answer, Errno, State};
use quorate_protocol::client::ReadAnswer;
use quorate_protocol::file::Name;
use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::query::Query;
use quorate_protocol::{BatchTime, Credential, Genesis, Groups, Header};

fn audit(genesis: &Genesis, chain: &[CommittedBatch], policy: Policy) -> Report {
    let mut source = chain.iter().cloned().map(Ok);
    verify(genesis, &Ed25519Verifier::new(), &mut source, policy, &mut |_| ())
}

/// The height and rule that an audit names.
fn broken(report: &Report) -> (u64, Rule) {
    match &report.verdict {
        Verdict::Broken(breach) => {
            assert_eq!(report.progress.height + 1, breach.height, "everything below holds");
            (breach.height, breach.rule)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chain_holds() {
    let (genesis, chain) = chain();
    for policy in [Policy::FULL, Policy::STANDARD, Policy { envelopes: false, replay: false }] {
        let mut steps = Vec::new();
        let mut source = chain.iter().cloned().map(Ok);
        let mut progress = |progress: &Progress| steps.push(progress.height);
        let report = verify(&genesis, &Ed25519Verifier::new(), &mut source, policy, &mut progress);
        assert_eq!(report.verdict, Verdict::Holds);
        assert_eq!(report.verdict.exit_code(), 0);
        assert_eq!(report.progress, Progress { height: 6, operations: 7, signatures: 21 });
        assert_eq!(report.head.as_ref(), Some(&chain[5].batch.header));
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    }
    assert_eq!(audit(&genesis, &[], Policy::FULL).verdict, Verdict::Holds);
}

/// A part of a stored height.
#[derive(Clone, Copy, Debug)]
enum Part {
    Header,
    Certificate,
    Proposal,
}

/// The chain with one bit of a part's encoding flipped at a height; `None` when it does not decode any more,
/// which the source refuses by itself.
fn flipped(
    chain: &[CommittedBatch],
    index: usize,
    part: Part,
    at: usize,
    bit: u8,
) -> Option<Vec<CommittedBatch>> {
    let flip = |mut bytes: Vec<u8>| {
        let position = at % bytes.len();
        bytes[position] ^= bit;
        bytes
    };
    let mut forged = chain.to_vec();
    let committed = &mut forged[index];
    match part {
        Part::Header => committed.batch.header = decode(&flip(encode(&committed.batch.header))).ok()?,
        Part::Certificate => committed.certificate = decode(&flip(encode(&committed.certificate))).ok()?,
        Part::Proposal => committed.batch.proposal = decode(&flip(encode(&committed.batch.proposal))).ok()?,
    }
    Some(forged)
}

const SHALLOW: Policy = Policy { envelopes: false, replay: false };

#[test]
fn every_flipped_byte_of_a_header_breaks_its_height() {
    let (genesis, chain) = chain();
    for index in 0..chain.len() {
        for at in 0..encode(&chain[index].batch.header).len() {
            let forged = flipped(&chain, index, Part::Header, at, 1).expect("any bytes are a header");
            assert_eq!(broken(&audit(&genesis, &forged, SHALLOW)).0, index as u64 + 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn one_flipped_bit_breaks_its_height(
        index in 0..6_usize,
        part in prop::sample::select(vec![Part::Header, Part::Certificate, Part::Proposal]),
        at in any::<usize>(),
        bit in 0..8_u32,
    ) {
        let (genesis, chain) = whole();
        if let Some(forged) = flipped(chain, index, part, at, 1 << bit) {
            let report = audit(genesis, &forged, SHALLOW);
            prop_assert_eq!(broken(&report).0, index as u64 + 1);
            prop_assert_eq!(report.verdict.exit_code(), 1);
        }
    }
}

/// The chain, made once.
fn whole() -> &'static (Genesis, Vec<CommittedBatch>) {
    static CHAIN: std::sync::OnceLock<(Genesis, Vec<CommittedBatch>)> = std::sync::OnceLock::new();
    CHAIN.get_or_init(chain)
}

#[test]
fn missing_repeated_and_swapped_heights_break_the_first_one_that_is_wrong() {
    let (genesis, chain) = chain();
    let order = |indices: &[usize]| {
        let chain: Vec<_> = indices.iter().map(|index| chain[*index].clone()).collect();
        broken(&audit(&genesis, &chain, Policy::STANDARD))
    };
    assert_eq!(order(&[0, 2, 3]), (2, Rule::Continuity));
    assert_eq!(order(&[0, 0, 1]), (2, Rule::Continuity));
    assert_eq!(order(&[1]), (1, Rule::Continuity));
    let mut other = genesis.clone();
    other.nonce = [9; 32];
    assert_eq!(broken(&audit(&other, &chain, Policy::STANDARD)), (1, Rule::Cluster));
}

#[test]
fn certificates_need_a_quorum_of_valid_signatures_on_this_header() {
    let (genesis, chain) = chain();
    let header = &chain[3].batch.header;
    let with = |certificate: Certificate| {
        let mut forged = chain.clone();
        forged[3].certificate = certificate;
        audit(&genesis, &forged, Policy::STANDARD)
    };
    assert_eq!(with(certify(&genesis, header, 9, &[1, 2, 3])).verdict, Verdict::Holds);
    assert_eq!(broken(&with(chain[2].certificate.clone())), (4, Rule::Certificate));
    let mut prepare = certify(&genesis, header, 0, &[1, 2, 3]);
    prepare.kind = CertificateKind::Prepare;
    assert_eq!(broken(&with(prepare)), (4, Rule::Certificate));
    let mut two = certify(&genesis, header, 0, &[1, 2, 3]);
    two.signers = quorate_crypto::Bitmap::from_bytes(&[0b0110]).unwrap();
    two.signatures = Bounded::try_from(two.signatures[..2].to_vec()).unwrap();
    assert_eq!(broken(&with(two)), (4, Rule::Certificate));
    let mut wrong = certify(&genesis, header, 0, &[0, 1, 2, 3]);
    wrong.signatures.as_mut_slice()[2].0[3] ^= 1;
    let report = with(wrong);
    let Verdict::Broken(breach) = report.verdict else { panic!("it holds") };
    assert_eq!((breach.height, breach.replica, breach.rule), (4, Some(2), Rule::Certificate));
    assert!(breach.to_string().starts_with("height 4 breaks the rule certificate"), "{breach}");
}

/// What a quorum of liars could sign: the header is theirs, so only deeper checks find it.
#[test]
fn a_lying_quorum_is_caught_by_the_checks_beyond_signatures() {
    let (genesis, chain) = chain();
    let forged = |index: usize, change: &dyn Fn(&mut Batch), policy: Policy| {
        let mut forged = chain[..=index].to_vec();
        change(&mut forged[index].batch);
        forged[index].certificate = certify(&genesis, &forged[index].batch.header, 0, &[0, 1, 2]);
        audit(&genesis, &forged, policy)
    };
    let header = |index: usize, change: &dyn Fn(&mut Header), policy: Policy| {
        forged(index, &|batch| change(&mut batch.header), policy)
    };
    type Change = fn(&mut Header);
    let shallow: [(Change, Rule); 10] = [
        (|header| header.version = 2, Rule::Version),
        (|header| header.cluster.0[0] ^= 1, Rule::Cluster),
        (|header| header.epoch = 1, Rule::Epoch),
        (|header| header.height = 7, Rule::Continuity),
        (|header| header.previous.0[0] ^= 1, Rule::Previous),
        (|header| header.proposal.0[0] ^= 1, Rule::ProposalDigest),
        (|header| header.time.0 += 1, Rule::Time),
        (|header| header.first_operation += 1, Rule::Operations),
        (|header| header.log_root.0[0] ^= 1, Rule::LogRoot),
        (|header| header.members.0[0] ^= 1, Rule::Members),
    ];
    for (change, rule) in shallow {
        let report = header(1, &change, SHALLOW);
        assert_eq!(broken(&report), (2, rule));
    }
    let deep: [Change; 4] = [
        |header| header.state_root.0[0] ^= 1,
        |header| header.receipts_root.0[0] ^= 1,
        |header| header.touched_root.0[0] ^= 1,
        |header| header.touched_count += 1,
    ];
    for change in deep {
        assert_eq!(header(1, &change, Policy::STANDARD).verdict, Verdict::Holds, "only replay can tell");
        assert_eq!(broken(&header(1, &change, Policy::FULL)), (2, Rule::Execution));
    }
    // An envelope that its principal never signed.
    let unsigned = |batch: &mut Batch| {
        batch.proposal.envelopes.as_mut_slice()[0].signature.0[1] ^= 1;
        batch.header.proposal = batch.proposal.digest(&genesis.cluster(), 0, 2);
    };
    assert_eq!(broken(&forged(1, &unsigned, Policy::STANDARD)), (2, Rule::EnvelopeSignature));
    let late = |batch: &mut Batch| {
        batch.proposal.time = BatchTime(1);
        batch.header.time = BatchTime(1);
        batch.header.proposal = batch.proposal.digest(&genesis.cluster(), 0, 2);
    };
    assert_eq!(broken(&forged(1, &late, Policy::STANDARD)), (2, Rule::Proposal));
}

#[test]
fn a_source_that_fails_is_no_verdict_and_one_that_is_damaged_is() {
    let (genesis, chain) = chain();
    let with = |error: SourceError| {
        let mut source = chain[..3].iter().cloned().map(Ok).chain([Err(error)]);
        verify(&genesis, &Ed25519Verifier::new(), &mut source, Policy::STANDARD, &mut |_| ())
    };
    let gone = with(SourceError::Unavailable("no connection".to_owned()));
    assert_eq!(gone.verdict, Verdict::CannotTell { height: 4, text: "no connection".to_owned() });
    assert_eq!((gone.verdict.exit_code(), gone.progress.height), (2, 3));
    let damaged = |height| with(SourceError::Damaged { height, text: "checksum".to_owned() });
    assert_eq!(broken(&damaged(None)), (4, Rule::Readable));
    assert_eq!(broken(&damaged(Some(4))), (4, Rule::Readable));
    let mut bad = genesis.clone();
    bad.version = 9;
    assert_eq!(audit(&bad, &chain, Policy::STANDARD).verdict.exit_code(), 2);
}

fn bundle(genesis: &Genesis, chain: &[CommittedBatch]) -> Vec<u8> {
    let mut writer = BundleWriter::new(Vec::new(), &genesis.cluster()).unwrap();
    chain.iter().for_each(|committed| writer.add(committed).unwrap());
    writer.finish().unwrap()
}

fn audit_bundle(genesis: &Genesis, bytes: &[u8]) -> Result<Report, NoBundle> {
    let mut source = BundleReader::new(bytes, &genesis.cluster())?;
    Ok(verify(genesis, &Ed25519Verifier::new(), &mut source, Policy::FULL, &mut |_| ()))
}

#[test]
fn a_bundle_holds_what_was_put_in() {
    let (genesis, chain) = chain();
    let report = audit_bundle(&genesis, &bundle(&genesis, &chain)).unwrap();
    assert_eq!(report, audit(&genesis, &chain, Policy::FULL));
    assert_eq!(report.verdict, Verdict::Holds);
    assert_eq!(audit_bundle(&genesis, &bundle(&genesis, &[])).unwrap().verdict, Verdict::Holds);
}

#[test]
fn a_bundle_cut_anywhere_holds_as_far_as_it_goes() {
    let (genesis, chain) = chain();
    let whole = bundle(&genesis, &chain);
    let ends: Vec<_> = (0..=chain.len()).map(|count| bundle(&genesis, &chain[..count]).len() - 4).collect();
    for length in 0..whole.len() {
        match audit_bundle(&genesis, &whole[..length]) {
            Err(NoBundle::Magic) => assert!(length < ends[0], "{length}"),
            Ok(report) => {
                let heights = ends[1..].iter().filter(|end| **end <= length).count() as u64;
                assert_eq!(report.progress.height, heights, "{length}");
                assert_eq!(report.verdict.exit_code(), 2, "{length}: {:?}", report.verdict);
            }
            Err(other) => panic!("{length}: {other}"),
        }
    }
}

#[test]
fn every_changed_byte_of_a_bundle_is_noticed() {
    let (genesis, chain) = chain();
    let mut bytes = bundle(&genesis, &chain[..3]);
    for at in 0..bytes.len() {
        bytes[at] ^= 0x20;
        match audit_bundle(&genesis, &bytes) {
            Err(NoBundle::Magic) => assert!(at < 18),
            Err(NoBundle::Cluster(_)) => assert!((18..50).contains(&at)),
            Err(other) => panic!("{at}: {other}"),
            Ok(report) => assert_ne!(report.verdict, Verdict::Holds, "{at}"),
        }
        bytes[at] ^= 0x20;
    }
    bytes.push(0);
    assert_eq!(broken(&audit_bundle(&genesis, &bytes).unwrap()), (4, Rule::Readable));
}

#[test]
fn a_bundle_takes_no_memory_for_what_it_announces() {
    let (genesis, _) = chain();
    let empty = bundle(&genesis, &[]);
    let with_length = |length: u32| {
        let mut bytes = empty[..empty.len() - 4].to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.push(7);
        audit_bundle(&genesis, &bytes).unwrap()
    };
    assert_eq!(with_length(BUNDLE_HEIGHT_BYTES_MAX).verdict.exit_code(), 2);
    assert_eq!(broken(&with_length(BUNDLE_HEIGHT_BYTES_MAX + 1)), (1, Rule::Readable));
}

/// What the last height says of a path below the root.
fn proven(path: &[&str]) -> (Genesis, State, ProvenAnswer) {
    let (genesis, chain, state) = chain_and_state();
    let names = path.iter().map(|name| Name::new(name.as_bytes()).unwrap());
    let query = Query::Walk { start: 1, components: Bounded::try_collect(names).unwrap() };
    let (key, credential) =
        (principal().public(), Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal });
    let proof = state.answer(&key, &credential, &query).unwrap().proof.try_into().unwrap();
    let last = chain.last().unwrap();
    let answer =
        ReadAnswer { header: last.batch.header.clone(), certificate: Some(last.certificate.clone()), proof };
    let cluster = genesis.cluster();
    (genesis, state, ProvenAnswer { cluster, key, credential, query, answer })
}

#[test]
fn an_answer_is_proven_to_whoever_has_the_genesis() {
    let verifier = Ed25519Verifier::new();
    let walk = |path: &[&str]| {
        let (genesis, _, proven) = proven(path);
        let read = ProvenAnswer::from_file(&proven.to_file()).unwrap();
        assert_eq!(read, proven);
        read.check(&genesis, &verifier).unwrap().unwrap()
    };
    match walk(&["a"]) {
        Answer::Walk { found, stopped: None } => assert_eq!((found.len(), found[0].mode), (1, 0o755)),
        other => panic!("{other:?}"),
    }
    match walk(&["a", "nothing"]) {
        Answer::Walk { found, stopped: Some(Errno::ENOENT) } => assert_eq!(found.len(), 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_certifies_an_answer_is_a_commit_certificate_of_its_header() {
    let verifier = Ed25519Verifier::new();
    let (genesis, _, good) = proven(&["a"]);
    let (_, chain) = chain();
    let mut bad = good.clone();
    bad.answer.certificate = None;
    assert_eq!(bad.check(&genesis, &verifier), Err(NoHead::Uncertified(6).into()));
    bad.answer.certificate = Some(chain[4].certificate.clone());
    assert_eq!(bad.check(&genesis, &verifier), Err(NoHead::OtherHeader.into()));
    bad.answer.certificate = Some(certify(&genesis, &good.answer.header, 1, &[0, 1, 2]));
    assert!(bad.check(&genesis, &verifier).is_ok(), "any quorum will do");
    if let Some(certificate) = &mut bad.answer.certificate {
        certificate.kind = CertificateKind::Prepare;
    }
    assert_eq!(bad.check(&genesis, &verifier), Err(NoHead::OtherHeader.into()));
    // The proof of one height under the certified header of another.
    let mut old = good.clone();
    old.answer.header = chain[3].batch.header.clone();
    old.answer.certificate = Some(chain[3].certificate.clone());
    assert!(matches!(old.check(&genesis, &verifier), Err(NoAnswer::Answer(_))));
    let other = Genesis { nonce: [9; 32], ..genesis };
    assert_eq!(good.check(&other, &verifier), Err(NoAnswer::Cluster(good.cluster)));
}

#[test]
fn a_file_with_a_changed_byte_proves_nothing_that_is_not_true() {
    let verifier = Ed25519Verifier::new();
    let (genesis, state, good) = proven(&["a", "nothing"]);
    let mut bytes = good.to_file();
    let mut refused = 0;
    for at in 0..bytes.len() {
        bytes[at] ^= 0x01;
        match ProvenAnswer::from_file(&bytes).and_then(|read| Ok((read.check(&genesis, &verifier)?, read))) {
            Err(_) => refused += 1,
            // Another question about the same state: what is said of it is what the state says.
            Ok((said, read)) => {
                assert_eq!(read.answer, good.answer, "{at}");
                assert_ne!(
                    (&read.key, &read.credential, &read.query),
                    (&good.key, &good.credential, &good.query)
                );
                // Of a principal whose rows are left out the credential stands for itself.
                let truth = |key| state.answer(key, &read.credential, &read.query).unwrap().outcome;
                assert!(said == truth(&read.key) || said == truth(&good.key), "{at}: {said:?}");
            }
        }
        bytes[at] ^= 0x01;
    }
    assert!(refused > bytes.len() - 120, "{refused} of {}", bytes.len());
    bytes.push(0);
    assert!(matches!(ProvenAnswer::from_file(&bytes), Err(NoAnswer::Encoding(_))));
    assert_eq!(ProvenAnswer::from_file(&bytes[1..]), Err(NoAnswer::Magic));
}
