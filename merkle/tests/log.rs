//! The commit log against RFC 6962 read literally.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

#[path = "common/reference.rs"]
mod reference;

use quorate_crypto::{Hash, decode, encode};
use quorate_merkle::log::{
    LOG_PROOF_HASHES_MAX, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion,
};
use quorate_merkle::rfc6962::{empty_root, leaf_hash};
use quorate_merkle::{LOG_SIZE_MAX, LogError, LogFrontier};

const LEAVES: usize = 40;

fn hashes(leaves: &[Vec<u8>]) -> Vec<Hash> {
    leaves.iter().map(|leaf| leaf_hash(leaf)).collect()
}

#[test]
fn the_frontier_has_the_root_of_rfc_6962() {
    let leaves = reference::leaves(300);
    let mut frontier = LogFrontier::new();
    assert_eq!(frontier.root(), empty_root());
    for (index, leaf) in leaves.iter().enumerate() {
        assert_eq!(frontier.append(leaf), Ok(index as u64));
        assert_eq!(frontier.size(), index as u64 + 1);
        assert_eq!(frontier.root(), reference::root(&leaves[..=index]));
        assert_eq!(frontier.peaks().len() as u32, frontier.size().count_ones());
        assert_eq!(decode::<LogFrontier>(&encode(&frontier)).unwrap(), frontier);
    }
}

/// CR4: a frontier has one encoding; peaks that do not fit the size are refused.
#[test]
fn cr4_a_frontier_that_does_not_fit_its_size_is_refused() {
    let encoded = |size: u64, count: u32, peaks: usize| {
        [&size.to_le_bytes()[..], &count.to_le_bytes(), &vec![7; 32 * peaks]].concat()
    };
    for size in [0_u64, 1, 2, 3, 6, 7, LOG_SIZE_MAX - 1, LOG_SIZE_MAX, LOG_SIZE_MAX + 1, u64::MAX] {
        for count in 0..66_u32 {
            let fits = count == size.count_ones() && size <= LOG_SIZE_MAX;
            assert_eq!(decode::<LogFrontier>(&encoded(size, count, count as usize)).is_ok(), fits);
        }
    }
    assert!(decode::<LogFrontier>(&encoded(3, 2, 1)).is_err());
    assert!(decode::<LogFrontier>(&encoded(3, 2, 3)).is_err());
    let mut full: LogFrontier = decode(&encoded(LOG_SIZE_MAX, 1, 1)).unwrap();
    let before = full.clone();
    assert_eq!(full.append(b"one more"), Err(LogError::Size));
    assert_eq!(full, before);
}

#[test]
fn inclusion_of_every_leaf_at_every_size() {
    let leaves = reference::leaves(LEAVES);
    let hashes = hashes(&leaves);
    for size in 1..=LEAVES {
        let root = reference::root(&leaves[..size]);
        for index in 0..size {
            let proof = inclusion_proof(&hashes[..size], index as u64).unwrap();
            assert_eq!(proof, reference::path(index, &leaves[..size]));
            for claimed in 0..=size {
                let verified = verify_inclusion(&root, size as u64, claimed as u64, &hashes[index], &proof);
                assert_eq!(verified.is_ok(), claimed == index);
            }
        }
        assert_eq!(inclusion_proof(&hashes[..size], size as u64), Err(LogError::OutOfRange));
    }
    assert_eq!(verify_inclusion(&empty_root(), 0, 0, &hashes[0], &[]), Err(LogError::OutOfRange));
}

#[test]
fn consistency_of_every_pair_of_sizes() {
    let leaves = reference::leaves(LEAVES);
    let hashes = hashes(&leaves);
    let roots: Vec<Hash> = (0..=LEAVES).map(|size| reference::root(&leaves[..size])).collect();
    for new in 0..=LEAVES {
        for old in 0..=new {
            let proof = consistency_proof(&hashes[..new], old as u64).unwrap();
            let expected = if old == 0 { Vec::new() } else { reference::subproof(old, &leaves[..new], true) };
            assert_eq!(proof, expected);
            let verify = |old_root: &Hash, new_root: &Hash, proof: &[Hash]| {
                verify_consistency(old_root, old as u64, new_root, new as u64, proof)
            };
            assert_eq!(verify(&roots[old], &roots[new], &proof), Ok(()));
            let other = Hash([9; 32]);
            assert!(verify(&other, &roots[new], &proof).is_err());
            // From the empty log on, everything is consistent.
            assert_eq!(verify(&roots[old], &other, &proof).is_ok(), old == 0 && new > 0);
            let longer = [&proof[..], &[other]].concat();
            assert_eq!(verify(&roots[old], &roots[new], &longer), Err(LogError::WrongLength));
            for position in 0..proof.len() {
                let mut forged = proof.clone();
                forged[position].0[31] ^= 0x80;
                assert_eq!(verify(&roots[old], &roots[new], &forged), Err(LogError::RootMismatch));
                forged.remove(position);
                assert!(verify(&roots[old], &roots[new], &forged).is_err());
            }
        }
        assert_eq!(consistency_proof(&hashes[..new], new as u64 + 1), Err(LogError::OutOfRange));
    }
    assert_eq!(verify_consistency(&roots[2], 2, &roots[1], 1, &[]), Err(LogError::OutOfRange));
}

/// RD4: a proof of another length than the sizes require is refused, whatever it leads to.
#[test]
fn rd4_cut_and_surplus_log_proofs_are_refused() {
    let leaves = reference::leaves(11);
    let hashes = hashes(&leaves);
    let root = reference::root(&leaves);
    let proof = inclusion_proof(&hashes, 6).unwrap();
    for length in 0..proof.len() {
        let verified = verify_inclusion(&root, 11, 6, &hashes[6], &proof[..length]);
        assert_eq!(verified, Err(LogError::WrongLength));
    }
    let longer = [&proof[..], &[root]].concat();
    assert_eq!(verify_inclusion(&root, 11, 6, &hashes[6], &longer), Err(LogError::WrongLength));
    // A subtree's root shown as a leaf, with the path from there.
    let pair = reference::root(&leaves[6..8]);
    assert_eq!(verify_inclusion(&root, 11, 6, &pair, &proof[1..]), Err(LogError::WrongLength));
}

#[test]
fn the_bounds_hold() {
    let hash = Hash([1; 32]);
    let largest = vec![hash; LOG_PROOF_HASHES_MAX];
    assert_eq!(verify_inclusion(&hash, LOG_SIZE_MAX + 1, 0, &hash, &[]), Err(LogError::Size));
    assert_eq!(verify_inclusion(&hash, LOG_SIZE_MAX, 0, &hash, &largest), Err(LogError::WrongLength));
    assert_eq!(verify_inclusion(&hash, LOG_SIZE_MAX, 0, &hash, &largest[1..]), Err(LogError::RootMismatch));
    assert_eq!(verify_consistency(&hash, 1, &hash, LOG_SIZE_MAX + 1, &[]), Err(LogError::Size));
    let old = LOG_SIZE_MAX / 2 + 1;
    assert_eq!(verify_consistency(&hash, old, &hash, LOG_SIZE_MAX, &largest), Err(LogError::RootMismatch));
    let too_long = vec![hash; LOG_PROOF_HASHES_MAX + 1];
    assert_eq!(verify_consistency(&hash, old, &hash, LOG_SIZE_MAX, &too_long), Err(LogError::WrongLength));
}
