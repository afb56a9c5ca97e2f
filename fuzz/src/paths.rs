//! Paths of the RFC 6962 trees: receipts, the log of headers, the results of an envelope.
//!
//! Property: whatever a liar makes of an honest path, indices and leaves, what is accepted under the true root
//! and size is true; and the honest path is accepted.

use quorate_crypto::{Bounded, Hash, encode};
use quorate_execution::{Receipts, verify_results_of};
use quorate_merkle::log::{consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
use quorate_merkle::{InclusionPath, LogFrontier, ReceiptsTree, rfc6962, verify_inclusion_of_many};
use quorate_protocol::client::EnvelopeResults;
use quorate_protocol::{OperationResult, ReceiptLeaf, Reply, SkipReason};

use crate::samples;
use crate::source::Source;

/// Leaves of a tree.
const LEAVES_MAX: usize = 70;

fn leaves(source: &mut Source<'_>) -> Vec<Vec<u8>> {
    let few = source.byte();
    (0..1 + source.below(LEAVES_MAX))
        .map(|index| vec![u8::try_from(index).expect("few leaves") % (few | 1), few])
        .collect()
}

/// Changes a list of hashes.
fn spoil(source: &mut Source<'_>, hashes: &mut Vec<Hash>, known: &[Hash]) {
    let place = usize::from(source.byte()) % (hashes.len() + 1);
    let other = known.get(usize::from(source.byte()) % known.len().max(1)).copied().unwrap_or(Hash::ZERO);
    match source.below(6) {
        0 => hashes.truncate(place),
        1 => hashes.insert(place, other),
        2 if place < hashes.len() => hashes[place] = other,
        3 if place < hashes.len() => hashes[place].0[source.below(32)] ^= source.byte(),
        4 if place + 1 < hashes.len() => hashes.swap(place, place + 1),
        5 if place < hashes.len() => drop(hashes.remove(place)),
        _ => {}
    }
}

/// The receipts' tree: several leaves under one path.
pub fn receipts(data: &[u8]) {
    let mut source = Source::new(data);
    let leaves = leaves(&mut source);
    let count = u32::try_from(leaves.len()).expect("few leaves");
    let tree = ReceiptsTree::from_leaves(&leaves).expect("few leaves");
    let root = tree.root();
    let hashes: Vec<Hash> = leaves.iter().map(|leaf| rfc6962::leaf_hash(leaf)).collect();
    assert_eq!(root, rfc6962::root(&hashes), "two implementations of one tree");
    let mut indices: Vec<u32> = (0..1 + source.below(6)).map(|_| u32::from(source.byte()) % count).collect();
    indices.sort_unstable();
    indices.dedup();
    let honest = tree.prove_many(&indices).expect("ascending indices in range");
    let mut asked: Vec<(u32, Vec<u8>)> =
        indices.iter().map(|index| (*index, leaves[*index as usize].clone())).collect();
    let borrowed = |asked: &[(u32, Vec<u8>)], path: &InclusionPath, count: u32| {
        let asked: Vec<(u32, &[u8])> = asked.iter().map(|(index, leaf)| (*index, leaf.as_slice())).collect();
        verify_inclusion_of_many(&root, count, &asked, path)
    };
    assert_eq!(borrowed(&asked, &honest, count), Ok(()));
    let mut path = honest.hashes.clone().into_inner();
    for _ in 0..source.below(4) {
        let place = usize::from(source.byte()) % asked.len().max(1);
        match source.below(6) {
            0 => spoil(&mut source, &mut path, &hashes),
            1 if place < asked.len() => asked[place].0 = u32::from(source.byte()),
            2 if place < asked.len() => asked[place].1 = leaves[source.below(leaves.len())].clone(),
            3 if place < asked.len() => drop(asked.remove(place)),
            4 if place < asked.len() => asked.insert(place, asked[place].clone()),
            5 => asked.push((u32::from(source.byte()), leaves[source.below(leaves.len())].clone())),
            _ => {}
        }
    }
    let Ok(hashes) = Bounded::try_from(path) else { return };
    let path = InclusionPath { hashes };
    // The count is the signed header's, so what another one leads to proves nothing; it must not panic.
    let _ = borrowed(&asked, &path, u32::from(source.byte()) << source.below(25));
    if borrowed(&asked, &path, count).is_ok() {
        for (index, leaf) in &asked {
            assert_eq!(leaves.get(*index as usize), Some(leaf), "a forged receipt");
        }
        assert!(asked.is_sorted_by(|a, b| a.0 < b.0), "one receipt twice");
    }
}

/// The log of headers: inclusion, consistency, and the frontier.
pub fn log(data: &[u8]) {
    let mut source = Source::new(data);
    let leaves = leaves(&mut source);
    let hashes: Vec<Hash> = leaves.iter().map(|leaf| rfc6962::leaf_hash(leaf)).collect();
    let size = hashes.len() as u64;
    let root = rfc6962::root(&hashes);
    let mut frontier = LogFrontier::new();
    for leaf in &leaves {
        frontier.append(leaf).expect("a short log");
    }
    assert_eq!((frontier.root(), frontier.size()), (root, size));
    assert_eq!(quorate_crypto::decode::<LogFrontier>(&encode(&frontier)), Ok(frontier));

    let index = u64::from(source.byte()) % size;
    let mut proof = inclusion_proof(&hashes, index).expect("in range");
    let leaf = hashes[usize::try_from(index).expect("a short log")];
    assert_eq!(verify_inclusion(&root, size, index, &leaf, &proof), Ok(()));
    for _ in 0..source.below(3) {
        spoil(&mut source, &mut proof, &hashes);
    }
    let claimed = (u64::from(source.byte()), hashes[source.below(hashes.len())]);
    if verify_inclusion(&root, size, claimed.0, &claimed.1, &proof).is_ok() {
        let truth = hashes.get(usize::try_from(claimed.0).expect("a byte"));
        assert_eq!(truth, Some(&claimed.1), "a forged header");
    }

    let old = u64::from(source.byte()) % (size + 1);
    let part = |size: u64| rfc6962::root(&hashes[..usize::try_from(size).expect("a short log")]);
    let mut proof = consistency_proof(&hashes, old).expect("in range");
    assert_eq!(verify_consistency(&part(old), old, &root, size, &proof), Ok(()));
    for _ in 0..source.below(3) {
        spoil(&mut source, &mut proof, &hashes);
    }
    let (claimed, of) = (u64::from(source.byte()), u64::from(source.byte()) % (size + 1));
    let old_root = part(of);
    if verify_consistency(&old_root, claimed, &root, size, &proof).is_ok() {
        assert!(claimed <= size && old_root == part(claimed), "a forged past");
    }
    let _ = verify_consistency(&old_root, source.number(), &root, source.number(), &proof);
    let _ = verify_inclusion(&root, source.number(), source.number(), &leaf, &proof);
}

fn result(source: &mut Source<'_>) -> OperationResult {
    match source.below(5) {
        0 => OperationResult::Done(Reply::Empty),
        1 => OperationResult::Failed(u16::from(source.byte())),
        2 => OperationResult::Skipped(SkipReason::Gap { next: u64::from(source.byte()) }),
        3 => OperationResult::Done(Reply::NeedsFold { ino: u64::from(source.byte()), index: 0 }),
        _ => OperationResult::Skipped(SkipReason::Budget),
    }
}

/// The results of one envelope among those of a batch, with every path.
pub fn results(data: &[u8]) {
    let mut source = Source::new(data);
    let mut leaves = Vec::new();
    let mut envelopes = Vec::new();
    for number in 0..1 + source.below(5) {
        let number = u8::try_from(number).expect("few envelopes");
        let (session, first) = (Hash([number % 3; 32]), u64::from(source.byte() & 7));
        let envelope = Hash([100 + number; 32]);
        let operations = 1 + source.below(5);
        envelopes.push((leaves.len(), session, first, operations, envelope));
        for index in 0..u32::try_from(operations).expect("few operations") {
            let sequence = first + u64::from(index);
            leaves.push(ReceiptLeaf { session, sequence, envelope, index, result: result(&mut source) });
        }
    }
    let receipts = Receipts::new(leaves.clone()).expect("few leaves");
    let count = u32::try_from(leaves.len()).expect("few leaves");
    let header = quorate_protocol::Header {
        receipts_root: receipts.root(),
        operation_count: count,
        ..samples::header()
    };
    let (start, session, first, operations, envelope) = envelopes[source.below(envelopes.len())];
    let index = u32::try_from(start).expect("few leaves");
    let honest = receipts.results(&header, index, None).expect("an envelope of the batch");
    assert_eq!(verify_results_of(&honest, &session, first, operations, &envelope), Ok(()));
    let mut lie = honest;
    for _ in 0..source.below(4) {
        spoil_results(&mut source, &mut lie);
    }
    let asked = envelopes[source.below(envelopes.len())];
    if verify_results_of(&lie, &asked.1, asked.2, asked.3, &asked.4).is_ok() {
        let truth: Vec<_> = leaves[asked.0..asked.0 + asked.3].iter().map(|leaf| &leaf.result).collect();
        assert_eq!(lie.results.iter().collect::<Vec<_>>(), truth, "forged results");
    }
}

fn spoil_results(source: &mut Source<'_>, lie: &mut EnvelopeResults) {
    let place = source.below(256) % lie.results.len().max(1);
    match source.below(7) {
        0 => lie.first_index = u32::from(source.byte()),
        1 => lie.envelope = Hash([100 + source.byte() % 8; 32]),
        2 => {
            if let Some(changed) = lie.results.as_mut_slice().get_mut(place) {
                *changed = result(source);
            }
        }
        3 => {
            let mut paths = lie.paths.clone().into_inner();
            if let Some(path) = paths.get_mut(place) {
                let known: Vec<Hash> = path.iter().copied().collect();
                let mut hashes = known.clone();
                spoil(source, &mut hashes, &known);
                *path = Bounded::try_from(hashes).unwrap_or_default();
            }
            lie.paths = Bounded::try_from(paths).unwrap_or_default();
        }
        4 => {
            let mut results = lie.results.clone().into_inner();
            results.pop();
            lie.results = Bounded::try_from(results).unwrap_or_default();
        }
        5 => lie.paths.as_mut_slice().reverse(),
        _ => lie.results.as_mut_slice().reverse(),
    }
}
