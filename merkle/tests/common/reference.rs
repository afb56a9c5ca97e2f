//! RFC 6962 section 2.1 read literally: recursive, from the leaves themselves.
#![allow(dead_code, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use quorate_crypto::Hash;
use sha2::{Digest, Sha256};

fn sha256(parts: &[&[u8]]) -> Hash {
    Hash(Sha256::digest(parts.concat()).into())
}

/// The largest power of two below `n`.
fn split(n: usize) -> usize {
    (0..).map(|exponent| 1 << exponent).take_while(|power| *power < n).last().unwrap_or(0)
}

/// MTH.
pub fn root(leaves: &[Vec<u8>]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => sha256(&[&[0], leaf]),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            sha256(&[&[1], &root(left).0, &root(right).0])
        }
    }
}

/// PATH.
pub fn path(index: usize, leaves: &[Vec<u8>]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    if index < left.len() {
        [path(index, left), vec![root(right)]].concat()
    } else {
        [path(index - left.len(), right), vec![root(left)]].concat()
    }
}

/// SUBPROOF; PROOF(m, D) is `subproof(m, D, true)`.
pub fn subproof(old: usize, leaves: &[Vec<u8>], known: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if known { Vec::new() } else { vec![root(leaves)] };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    if old <= left.len() {
        [subproof(old, left, known), vec![root(right)]].concat()
    } else {
        [subproof(old - left.len(), right, false), vec![root(left)]].concat()
    }
}

pub fn leaves(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| format!("leaf {index}").into_bytes()).collect()
}
