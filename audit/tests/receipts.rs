//! Receipts: what a file says is what the batch answered, and no changed byte of one holds.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use quorate_audit::{Auditor, NoHead, NoReceipt, Policy, Receipt};
use quorate_crypto::{Ed25519Verifier, derive_hash};
use quorate_merkle::ReceiptsError;
use quorate_protocol::{Genesis, OperationBody, OperationResult, Reply, SkipReason};

/// All receipts of the chain, in order of the operations.
fn receipts() -> (Genesis, Vec<Receipt>) {
    let (genesis, chain) = chain();
    let verifier = Ed25519Verifier::new();
    let mut auditor = Auditor::new(&genesis, &verifier, Policy::FULL).unwrap();
    let mut all = Vec::new();
    for committed in &chain {
        auditor.check(committed).unwrap();
        let receipts = auditor.receipts().unwrap();
        let count = committed.batch.header.operation_count;
        assert_eq!(receipts.leaves().len(), count as usize);
        all.extend((0..count).map(|position| Receipt::of(committed, receipts, position).unwrap()));
        assert_eq!(Receipt::of(committed, receipts, count), None);
    }
    (genesis, all)
}

#[test]
fn every_operation_has_a_receipt_that_holds() {
    let (genesis, receipts) = receipts();
    let verifier = Ed25519Verifier::new();
    assert_eq!(receipts.iter().map(Receipt::number).collect::<Vec<_>>(), (1..8).collect::<Vec<_>>());
    for receipt in &receipts {
        let read = Receipt::from_file(&receipt.to_file()).unwrap();
        assert_eq!(&read, receipt);
        let operation = read.check(&genesis, &verifier).unwrap();
        assert_eq!(Some(operation), receipt.operation());
        assert_eq!(receipt.time().0, receipt.header.time.0 + u64::from(receipt.position));
    }
    // Sequence numbers, envelopes of two operations, two envelopes in a batch, one of them without an effect.
    let sequences: Vec<_> = receipts.iter().map(|receipt| receipt.sequence().unwrap()).collect();
    assert_eq!(sequences, [0, 1, 2, 3, 4, 4, 5]);
    let second = &receipts[2];
    assert_eq!((second.index, second.position, second.header.height), (1, 1, 2));
    assert!(matches!(second.result, OperationResult::Done(Reply::Inode { created: true, .. })));
    assert_eq!(receipts[4].result, OperationResult::Failed(17));
    assert!(matches!(receipts[5].result, OperationResult::Skipped(SkipReason::Duplicate { .. })));
    assert!(matches!(receipts[6].operation().unwrap().body, OperationBody::CloseSession));
}

#[test]
fn what_is_put_together_from_true_parts_proves_nothing() {
    let (genesis, receipts) = receipts();
    let verifier = Ed25519Verifier::new();
    let changed = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = receipts[2].clone();
        change(&mut receipt);
        receipt.check(&genesis, &verifier).map(|_| ())
    };
    let path = |error: ReceiptsError| Err(NoReceipt::Path(error));
    // The other operation of the envelope, another result, another place.
    assert_eq!(changed(&|receipt| receipt.index = 0), path(ReceiptsError::RootMismatch));
    assert_eq!(changed(&|receipt| receipt.index = 2), Err(NoReceipt::Index(2)));
    let failed = OperationResult::Failed(1);
    assert_eq!(changed(&|receipt| receipt.result = failed.clone()), path(ReceiptsError::RootMismatch));
    assert_eq!(changed(&|receipt| receipt.position = 0), path(ReceiptsError::RootMismatch));
    assert_eq!(changed(&|receipt| receipt.position = 2), path(ReceiptsError::OutOfRange));
    assert_eq!(changed(&|receipt| receipt.path = Default::default()), path(ReceiptsError::WrongLength));
    // Another height's header and certificate, with or without each other; another envelope; another cluster.
    let other = &receipts[4];
    let header = |receipt: &mut Receipt| receipt.header = other.header.clone();
    let certificate = |receipt: &mut Receipt| receipt.certificate = other.certificate.clone();
    assert_eq!(changed(&header), Err(NoHead::OtherHeader.into()));
    assert_eq!(changed(&certificate), Err(NoHead::OtherHeader.into()));
    let both = |receipt: &mut Receipt| {
        header(receipt);
        certificate(receipt);
    };
    assert_eq!(changed(&both), path(ReceiptsError::RootMismatch));
    let envelope = |receipt: &mut Receipt| receipt.envelope = receipts[0].envelope.clone();
    assert_eq!(changed(&envelope), Err(NoReceipt::Index(1)));
    let foreign = |receipt: &mut Receipt| receipt.envelope.body.cluster.0[0] ^= 1;
    assert_eq!(changed(&foreign), Err(NoReceipt::ForeignEnvelope));
    let unsigned = |receipt: &mut Receipt| receipt.envelope.body.first += 1;
    assert!(matches!(changed(&unsigned), Err(NoReceipt::Envelope(_))));
    let resigned = |receipt: &mut Receipt| {
        let mut body = receipt.envelope.body.clone();
        body.first += 1;
        receipt.envelope = body.sign(&principal());
    };
    assert_eq!(
        changed(&resigned),
        path(ReceiptsError::RootMismatch),
        "another envelope of the same principal"
    );
    let elsewhere = Genesis { nonce: [9; 32], ..genesis.clone() };
    let of = receipts[2].header.cluster;
    assert_eq!(receipts[2].check(&elsewhere, &verifier).map(|_| ()), Err(NoReceipt::Cluster(of)));
}

#[test]
fn no_receipt_with_a_changed_byte_holds() {
    let (genesis, receipts) = receipts();
    let verifier = Ed25519Verifier::new();
    let mut bytes = receipts[2].to_file();
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            bytes[at] ^= bit;
            let read = Receipt::from_file(&bytes);
            let held = read.and_then(|read| read.check(&genesis, &verifier).map(|_| ()));
            assert!(held.is_err(), "byte {at}, bit {bit}");
            bytes[at] ^= bit;
        }
    }
    for length in 0..bytes.len() {
        assert!(Receipt::from_file(&bytes[..length]).is_err(), "{length} bytes");
    }
    bytes.push(0);
    assert!(matches!(Receipt::from_file(&bytes), Err(NoReceipt::Encoding(_))));
    assert_eq!(Receipt::from_file(&bytes[1..]), Err(NoReceipt::Magic));
}

/// The format is bound: receipts that were handed out must be read for ever.
#[test]
fn a_receipt_is_these_bytes() {
    let (_, receipts) = receipts();
    let bytes = receipts[2].to_file();
    assert_eq!(&bytes[..19], b"quorate receipt v1\n");
    let digest = derive_hash("quorate test golden", &[&bytes]).to_string();
    assert_eq!(
        (bytes.len(), digest.as_str()),
        (1060, "1ee105d58577bd3f97c6c1b5f33c13c729cafed5103a70f2bde7838679e809ed")
    );
}
