//! The receipts tree against RFC 6962 read literally, and the forgeries that rs_merkle alone accepts.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

#[path = "common/reference.rs"]
mod reference;

use std::collections::BTreeSet;

use proptest::prelude::*;
use quorate_crypto::{Bounded, Hash, decode, encode};
use quorate_merkle::rfc6962::{empty_root, leaf_hash, node_hash, root};
use quorate_merkle::{
    InclusionPath, PATH_HASHES_MAX, PATH_INDICES_MAX, RECEIPTS_MAX, ReceiptsError, ReceiptsTree,
    verify_inclusion, verify_inclusion_of_many,
};
use rs_merkle::{Hasher, MerkleProof};

/// What a user of rs_merkle writes who adds no check of his own.
#[derive(Clone)]
struct Plain;

impl Hasher for Plain {
    type Hash = [u8; 32];

    fn hash(data: &[u8]) -> [u8; 32] {
        leaf_hash(data).0
    }

    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        right.map_or(*left, |right| node_hash(&Hash(*left), &Hash(*right)).0)
    }
}

fn plain_accepts(root: &Hash, count: usize, leaves: &[(u32, &[u8])], path: &[Hash]) -> bool {
    let indices: Vec<usize> = leaves.iter().map(|(index, _)| *index as usize).collect();
    let hashes: Vec<[u8; 32]> = leaves.iter().map(|(_, leaf)| leaf_hash(leaf).0).collect();
    let proof = MerkleProof::<Plain>::new(path.iter().map(|hash| hash.0).collect());
    proof.verify(root.0, &indices, &hashes, count)
}

fn path_of(hashes: Vec<Hash>) -> InclusionPath {
    InclusionPath { hashes: Bounded::try_from(hashes).unwrap() }
}

fn tree(count: usize) -> (Vec<Vec<u8>>, ReceiptsTree) {
    let leaves = reference::leaves(count);
    let tree = ReceiptsTree::from_leaves(&leaves).unwrap();
    (leaves, tree)
}

#[test]
fn roots_and_paths_are_those_of_rfc_6962() {
    for count in (0..70).chain([127, 128, 129, 1000, 1023, 1025]) {
        let (leaves, tree) = tree(count);
        assert_eq!(tree.root(), reference::root(&leaves));
        assert_eq!(tree.count() as usize, count);
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        assert_eq!(root(&hashes), reference::root(&leaves));
        for index in (0..count).step_by(count / 70 + 1) {
            let path = tree.prove(index as u32).unwrap();
            assert_eq!(path.hashes.as_slice(), reference::path(index, &leaves));
            let verified = verify_inclusion(&tree.root(), index as u32, count as u32, &leaves[index], &path);
            assert_eq!(verified, Ok(()));
        }
        assert_eq!(tree.prove(count as u32), Err(ReceiptsError::OutOfRange));
    }
    assert_eq!(tree(0).1.root(), empty_root());
}

#[test]
fn one_path_for_every_set_of_indices() {
    for count in 1..=9_u32 {
        let (leaves, tree) = tree(count as usize);
        for set in 1_u32..1 << count {
            let indices: Vec<u32> = (0..count).filter(|index| set >> index & 1 == 1).collect();
            let path = tree.prove_many(&indices).unwrap();
            let chosen: Vec<(u32, &[u8])> =
                indices.iter().map(|index| (*index, &leaves[*index as usize][..])).collect();
            assert_eq!(verify_inclusion_of_many(&tree.root(), count, &chosen, &path), Ok(()));
            // One hash less, one more, each hash changed, each leaf changed.
            let hashes = path.hashes.as_slice().to_vec();
            let verify =
                |hashes: Vec<Hash>| verify_inclusion_of_many(&tree.root(), count, &chosen, &path_of(hashes));
            assert_eq!(verify([&hashes[..], &[Hash([0; 32])]].concat()), Err(ReceiptsError::WrongLength));
            for position in 0..hashes.len() {
                let mut shorter = hashes.clone();
                shorter.remove(position);
                assert_eq!(verify(shorter), Err(ReceiptsError::WrongLength));
                let mut other = hashes.clone();
                other[position].0[7] ^= 1;
                assert_eq!(verify(other), Err(ReceiptsError::RootMismatch));
            }
            for position in 0..chosen.len() {
                let mut other = chosen.clone();
                other[position].1 = b"another receipt";
                let verified = verify_inclusion_of_many(&tree.root(), count, &other, &path);
                assert_eq!(verified, Err(ReceiptsError::RootMismatch));
            }
        }
    }
}

/// Known forgery: one index several times. rs_merkle hashes the first two leaves into their parent and lets
/// the others stand for anything.
#[test]
fn rd4_duplicate_indices_are_refused() {
    let (leaves, tree) = tree(2);
    let chosen: [(u32, &[u8]); 3] = [(0, &leaves[0]), (0, &leaves[1]), (0, b"a receipt that never was")];
    let unread = [Hash([0x5a; 32]); 3];
    assert!(plain_accepts(&tree.root(), 2, &chosen, &unread));
    for length in 0..=unread.len() {
        let path = path_of(unread[..length].to_vec());
        let verified = verify_inclusion_of_many(&tree.root(), 2, &chosen, &path);
        assert_eq!(verified, Err(ReceiptsError::NotAscending));
    }
    assert_eq!(tree.prove_many(&[1, 1]), Err(ReceiptsError::NotAscending));
}

/// Known forgery: hashes that nobody reads. rs_merkle takes what it needs and drops the rest.
#[test]
fn rd4_surplus_hashes_are_refused() {
    let (leaves, tree) = tree(5);
    let chosen: [(u32, &[u8]); 1] = [(3, &leaves[3])];
    let mut hashes = tree.prove(3).unwrap().hashes.into_inner();
    hashes.push(Hash([0x5a; 32]));
    assert!(plain_accepts(&tree.root(), 5, &chosen, &hashes));
    let verified = verify_inclusion(&tree.root(), 3, 5, &leaves[3], &path_of(hashes));
    assert_eq!(verified, Err(ReceiptsError::WrongLength));
}

/// Known forgery: a leaf count, and with it an index, that the header does not say. rs_merkle believes it.
#[test]
fn rd4_a_wrong_leaf_count_is_refused() {
    let (leaves, tree) = tree(3);
    // The last of three leaves stands alone on its level; the same hash is also the second of two.
    let path = tree.prove(2).unwrap().hashes.into_inner();
    let (signed_count, claimed_count, claimed_index) = (3, 2, 1);
    assert!(plain_accepts(&tree.root(), claimed_count, &[(claimed_index, &leaves[2])], &path));
    let verify = |index, path: &[Hash]| {
        verify_inclusion(&tree.root(), index, signed_count, &leaves[2], &path_of(path.to_vec()))
    };
    assert_eq!(verify(2, &path), Ok(()));
    assert_eq!(verify(claimed_index, &path), Err(ReceiptsError::WrongLength));
    assert_eq!(verify(3, &path), Err(ReceiptsError::OutOfRange));
    assert_eq!(verify(u32::MAX, &path), Err(ReceiptsError::OutOfRange));
}

/// Known forgery: a sparse set of unsorted indices. rs_merkle sorts them silently.
#[test]
fn rd4_unsorted_indices_are_refused() {
    let (leaves, tree) = tree(6);
    let path = tree.prove_many(&[1, 4]).unwrap();
    let chosen: [(u32, &[u8]); 2] = [(4, &leaves[4]), (1, &leaves[1])];
    assert!(plain_accepts(&tree.root(), 6, &chosen, path.hashes.as_slice()));
    let verified = verify_inclusion_of_many(&tree.root(), 6, &chosen, &path);
    assert_eq!(verified, Err(ReceiptsError::NotAscending));
    assert_eq!(tree.prove_many(&[4, 1]), Err(ReceiptsError::NotAscending));
}

/// RD4, CR5: an inner node is no leaf, since leaves are hashed under another prefix.
#[test]
fn cr5_a_node_is_not_a_leaf() {
    let (leaves, tree) = tree(4);
    let pair = [leaf_hash(&leaves[0]).0, leaf_hash(&leaves[1]).0].concat();
    let path = path_of(vec![node_hash(&leaf_hash(&leaves[2]), &leaf_hash(&leaves[3]))]);
    assert_eq!(verify_inclusion(&tree.root(), 0, 2, &pair, &path), Err(ReceiptsError::RootMismatch));
}

#[test]
fn the_bounds_hold() {
    let root = Hash([1; 32]);
    let nothing = InclusionPath::default();
    assert_eq!(
        verify_inclusion(&root, 0, RECEIPTS_MAX + 1, b"", &nothing),
        Err(ReceiptsError::TooManyLeaves)
    );
    assert_eq!(verify_inclusion(&empty_root(), 0, 0, b"", &nothing), Err(ReceiptsError::OutOfRange));
    assert_eq!(verify_inclusion_of_many(&root, 3, &[], &nothing), Err(ReceiptsError::IndexCount));
    let many: Vec<(u32, &[u8])> = (0..=PATH_INDICES_MAX as u32).map(|index| (index, &b""[..])).collect();
    assert_eq!(verify_inclusion_of_many(&root, 5000, &many, &nothing), Err(ReceiptsError::IndexCount));
    let too_many = vec![root; RECEIPTS_MAX as usize + 1];
    assert!(matches!(ReceiptsTree::new(too_many), Err(ReceiptsError::TooManyLeaves)));
    // The longest path there is: every 1024th of 2^20 leaves.
    let tree = ReceiptsTree::new(vec![root; RECEIPTS_MAX as usize]).unwrap();
    let indices: Vec<u32> = (0..1024).map(|index| index * 1024).collect();
    assert_eq!(tree.prove_many(&indices).unwrap().hashes.len(), PATH_HASHES_MAX);
}

proptest! {
    #[test]
    fn several_receipts_of_large_batches(
        count in 1..400_u32,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let (leaves, tree) = tree(count as usize);
        let indices: BTreeSet<u32> = picks.iter().map(|pick| pick.index(count as usize) as u32).collect();
        let indices: Vec<u32> = indices.into_iter().collect();
        let path = tree.prove_many(&indices).unwrap();
        let chosen: Vec<(u32, &[u8])> =
            indices.iter().map(|index| (*index, &leaves[*index as usize][..])).collect();
        prop_assert_eq!(verify_inclusion_of_many(&tree.root(), count, &chosen, &path), Ok(()));
        prop_assert_eq!(decode::<InclusionPath>(&encode(&path)).unwrap(), path);
    }
}
