//! Forged pruned copies: each changed byte, each cut, and each broken rule of the form.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod common;

use common::{Model, Shown, bit, bytes, naive_copy, naive_inner, naive_leaf, small_model, trie_of};
use quorate_crypto::Hash;
use quorate_merkle::{
    Key, PROOF_BYTES_MAX, PROOF_NODES_MAX, PartialTrie, ProofError, ProveError, Touched, Trie,
};

const INNER: u8 = 1;
const LEAF: u8 = 2;
const PRUNED_LEAF: u8 = 3;
const STUB: u8 = 4;

fn key(bits: &[usize]) -> Key {
    let mut key = Key::MIN;
    bits.iter().for_each(|position| key.0[position / 8] |= 0x80 >> (position % 8));
    key
}

fn leaf(key: Key, value: &[u8]) -> Vec<u8> {
    [&[LEAF], &key.0[..], &(value.len() as u32).to_le_bytes(), value].concat()
}

fn pruned(key: Key) -> Vec<u8> {
    [&[PRUNED_LEAF], &key.0[..], &[0xaa; 32]].concat()
}

fn stub() -> Vec<u8> {
    [&[STUB][..], &[0xbb; 32]].concat()
}

fn inner(bit: u8, left: &[u8], right: &[u8]) -> Vec<u8> {
    [&[INNER, bit], left, right].concat()
}

fn refused(nodes: &[u8]) -> ProofError {
    PartialTrie::decode(&[&[1], nodes].concat()).unwrap_err()
}

fn accepted(nodes: &[u8]) -> Trie {
    let encoded = [&[1], nodes].concat();
    let copy = PartialTrie::decode(&encoded).unwrap();
    assert_eq!(PartialTrie::encode(&copy).unwrap(), encoded);
    copy
}

/// A proof with every kind of node.
fn small_proof() -> (Vec<u8>, Hash, Model) {
    let model = small_model();
    let trie = trie_of(&model);
    let keys: Vec<Key> = model.keys().copied().collect();
    let mut touched = Touched::new();
    touched.key(keys[2]);
    touched.range(keys[5], Some(keys[7]));
    let encoded = trie.prove(&touched).unwrap();
    for tag in [INNER, LEAF, PRUNED_LEAF, STUB] {
        assert!(encoded.contains(&tag));
    }
    (encoded, trie.root(), model)
}

/// RD4: every value of every byte of a proof, but the right one, is refused or leads to another root.
#[test]
fn rd4_every_changed_byte_is_noticed() {
    let (encoded, root, _) = small_proof();
    for position in 0..encoded.len() {
        let mut forged = encoded.clone();
        for value in (0..=255).filter(|value| *value != encoded[position]) {
            forged[position] = value;
            assert!(PartialTrie::verify(&forged, &root).is_err(), "byte {position} = {value}");
        }
    }
}

/// RD4: cut, lengthened, with a byte taken out or put in.
#[test]
fn rd4_every_cut_and_every_surplus_is_noticed() {
    let (encoded, root, _) = small_proof();
    for length in 0..encoded.len() {
        assert_eq!(PartialTrie::decode(&encoded[..length]).unwrap_err(), ProofError::Truncated);
        let mut shorter = encoded.clone();
        shorter.remove(length);
        assert!(PartialTrie::verify(&shorter, &root).is_err());
        for value in 0..=255 {
            let mut longer = encoded.clone();
            longer.insert(length, value);
            assert!(PartialTrie::verify(&longer, &root).is_err());
        }
    }
    for value in 0..=255 {
        let longer = [&encoded[..], &[value]].concat();
        assert_eq!(PartialTrie::decode(&longer).unwrap_err(), ProofError::Trailing);
    }
}

/// RD4: the children of any inner node change places.
#[test]
fn rd4_swapped_siblings_are_noticed() {
    /// Writes the copy with the children of the inner node number `swapped` the wrong way round.
    fn write(rows: &[(Key, &[u8])], swapped: usize, count: &mut usize) -> Vec<u8> {
        let [first, .., last] = rows else { return leaf(rows[0].0, rows[0].1) };
        let position = (0..256).find(|position| bit(&first.0, *position) != bit(&last.0, *position)).unwrap();
        let middle = rows.partition_point(|(key, _)| !bit(key, position));
        let number = *count;
        *count += 1;
        let (left, right) = (write(&rows[..middle], swapped, count), write(&rows[middle..], swapped, count));
        if number == swapped {
            inner(position as u8, &right, &left)
        } else {
            inner(position as u8, &left, &right)
        }
    }
    let model = small_model();
    let rows: Vec<_> = model.iter().map(|(key, value)| (*key, value.as_slice())).collect();
    for swapped in 0..rows.len() - 1 {
        assert_eq!(refused(&write(&rows, swapped, &mut 0)), ProofError::LeafMisplaced);
    }
    let right = [&[1], &write(&rows, usize::MAX, &mut 0)[..]].concat();
    PartialTrie::verify(&right, &trie_of(&model).root()).unwrap();
    // Two stubs' hashes swapped keep the form, and change the root.
    let shown = *model.keys().next().unwrap();
    let encoded = naive_copy(&model, |key| if *key == shown { Shown::Key } else { Shown::Nothing });
    let length = encoded.len();
    let mut forged = encoded.clone();
    forged[length - 32..].copy_from_slice(&encoded[length - 65..length - 33]);
    forged[length - 65..length - 33].copy_from_slice(&encoded[length - 32..]);
    assert_eq!(PartialTrie::verify(&forged, &trie_of(&model).root()).unwrap_err(), ProofError::RootMismatch);
}

#[test]
fn the_form_is_strict() {
    let (a, b) = (key(&[]), key(&[9]));
    accepted(&pruned(a));
    accepted(&inner(9, &leaf(a, b"a"), &pruned(b)));
    accepted(&inner(9, &stub(), &pruned(b)));
    accepted(&inner(3, &stub(), &inner(9, &stub(), &pruned(key(&[3, 9])))));
    assert_eq!(PartialTrie::decode(&[]).unwrap_err(), ProofError::Truncated);
    assert_eq!(PartialTrie::decode(&[2, 0]).unwrap_err(), ProofError::UnknownFormat(2));
    assert_eq!(refused(&[]), ProofError::Truncated);
    assert_eq!(refused(&[5]), ProofError::UnknownTag(5));
    assert_eq!(refused(&[0, 0]), ProofError::Trailing);
    // The empty trie is the child of no node.
    assert_eq!(refused(&inner(9, &[0], &pruned(b))), ProofError::UnknownTag(0));
    assert_eq!(refused(&inner(9, &pruned(a), &[0])), ProofError::UnknownTag(0));
    assert_eq!(refused(&stub()), ProofError::LoneStub);
    assert_eq!(refused(&inner(9, &stub(), &stub())), ProofError::PairOfStubs);
    assert_eq!(refused(&inner(8, &pruned(a), &inner(9, &stub(), &stub()))), ProofError::PairOfStubs);
    // Bits must rise.
    for bit in [9, 8, 0] {
        assert_eq!(refused(&inner(9, &inner(bit, &stub(), &stub()), &stub())), ProofError::BitNotRising);
    }
    // A value longer than the rest.
    let mut long = leaf(a, b"abc");
    long[33] = 4;
    assert_eq!(refused(&long), ProofError::Truncated);
    long[33..37].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(refused(&long), ProofError::Truncated);
}

/// ST11: a leaf counts only where its own bits lead, and only among leaves that share its prefix.
#[test]
fn st11_leaves_at_the_wrong_place() {
    let (a, b) = (key(&[]), key(&[9]));
    // On the wrong side of an ancestor, near or far.
    assert_eq!(refused(&inner(9, &pruned(b), &stub())), ProofError::LeafMisplaced);
    assert_eq!(refused(&inner(9, &stub(), &pruned(a))), ProofError::LeafMisplaced);
    assert_eq!(refused(&inner(9, &pruned(b), &pruned(a))), ProofError::LeafMisplaced);
    assert_eq!(
        refused(&inner(3, &inner(9, &stub(), &pruned(key(&[3, 9]))), &stub())),
        ProofError::LeafMisplaced
    );
    // Twice the same key.
    assert_eq!(refused(&inner(9, &pruned(a), &pruned(a))), ProofError::LeafMisplaced);
    // Right by all bits of the path, but the prefixes differ before the node branches.
    assert_eq!(refused(&inner(9, &pruned(a), &pruned(key(&[5, 9])))), ProofError::LeafMisplaced);
    assert_eq!(refused(&inner(9, &pruned(key(&[5])), &pruned(key(&[9])))), ProofError::LeafMisplaced);
    // The same with a stub between the two leaves, and below another node.
    let right = inner(12, &stub(), &pruned(key(&[5, 9, 12])));
    assert_eq!(refused(&inner(9, &pruned(a), &right)), ProofError::LeafMisplaced);
    let left = inner(12, &pruned(a), &stub());
    assert_eq!(refused(&inner(9, &left, &pruned(key(&[5, 9])))), ProofError::LeafMisplaced);
    accepted(&inner(9, &left, &pruned(b)));
}

/// A liar who knows the tree hides a key by routing around it: the form holds, the root does not.
#[test]
fn st11_a_path_around_a_live_key_has_another_root() {
    let (a, b, c) = (key(&[]), key(&[9]), key(&[9, 200]));
    let model = Model::from([(a, vec![1]), (b, vec![2]), (c, vec![3])]);
    let root = trie_of(&model).root();
    // The same hashes under a bit of the liar's choice, such that the walk of c ends in a.
    let right = naive_inner(200, naive_leaf(&b, &[2]), naive_leaf(&c, &[3]));
    for bit in 0..=255_u8 {
        let forged = [&[1, INNER, bit][..], &leaf(a, &[1]), &[STUB], &right].concat();
        let copy = PartialTrie::decode(&forged).unwrap();
        assert_eq!(copy.root() == root, bit == 9);
        assert_eq!(copy.get(&c) == Ok(None), bit != 9 && bit != 200);
    }
}

#[test]
fn the_bounds_hold() {
    let long = vec![1; PROOF_BYTES_MAX + 1];
    assert_eq!(PartialTrie::decode(&long).unwrap_err(), ProofError::TooManyBytes);
    // A comb of inner nodes cannot be deeper than the bits of a key.
    let comb: Vec<u8> = (0..=255).flat_map(|bit| [INNER, bit]).collect();
    assert_eq!(refused(&comb), ProofError::Truncated);
    assert_eq!(refused(&[&comb[..], &[INNER, 255]].concat()), ProofError::BitNotRising);

    let mut trie = Trie::new();
    for index in 0..(PROOF_NODES_MAX / 2 + 1) as u64 {
        let mut key = Key::MIN;
        key.0[..8].copy_from_slice(&index.to_be_bytes());
        trie.insert(key, bytes(b"")).unwrap();
    }
    let mut touched = Touched::new();
    touched.range(Key::MIN, None);
    assert_eq!(trie.prove(&touched), Err(ProveError::TooManyNodes));
    assert_eq!(PartialTrie::encode(&trie), Err(ProveError::TooManyNodes));
    // Two leaves fewer make exactly the bound less one.
    trie.remove(&Key::MIN).unwrap();
    let encoded = PartialTrie::encode(&trie).unwrap();
    assert_eq!(PartialTrie::decode(&encoded).unwrap().root(), trie.root());

    let mut trie = Trie::new();
    trie.insert(Key::MIN, bytes(&long)).unwrap();
    touched.key(Key::MIN);
    assert_eq!(trie.prove(&touched), Err(ProveError::TooManyBytes));
}

/// The parser's own bound on nodes, with more nodes in the bytes than it takes.
#[test]
fn the_parser_counts_nodes() {
    fn write(out: &mut Vec<u8>, bit: u8, depth: u8, prefix: Key) {
        if bit == depth {
            out.extend(pruned(prefix));
            return;
        }
        out.extend([INNER, bit]);
        write(out, bit + 1, depth, prefix);
        let mut right = prefix;
        right.0[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
        write(out, bit + 1, depth, right);
    }
    // 2^17 leaves: 2^18 - 1 nodes, within the bound, and one leaf parted once more: two nodes beyond it.
    let mut nodes = Vec::new();
    write(&mut nodes, 0, 17, Key::MIN);
    accepted(&nodes);
    let last = nodes.split_off(nodes.len() - 65);
    let key = Key(last[1..33].try_into().unwrap());
    let mut right = key;
    right.0[31] |= 1;
    nodes.extend(inner(255, &pruned(key), &pruned(right)));
    assert_eq!(refused(&nodes), ProofError::TooManyNodes);
}
