//! Bounded collections and canonical decoding: one value, one encoding (hazard CR4).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io::{self, Read};

use borsh::{BorshDeserialize, BorshSerialize};
use proptest::prelude::*;
use quorate_crypto::{
    Bounded, BoundedBytes, BoundedString, DecodeError, Hash, PublicKey, Signature, TooLong, decode, encode,
};

fn malformed<T>(result: Result<T, DecodeError>) -> bool {
    matches!(result, Err(DecodeError::Malformed(_)))
}

/// A type whose decoder accepts what its encoder never writes.
#[derive(Debug, PartialEq, Eq)]
struct LowerCase(u8);

impl BorshSerialize for LowerCase {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.0.to_ascii_lowercase().serialize(writer)
    }
}

impl BorshDeserialize for LowerCase {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        u8::deserialize_reader(reader).map(|byte| Self(byte.to_ascii_lowercase()))
    }
}

#[test]
fn cr4_decode_refuses_what_it_would_encode_otherwise() {
    assert_eq!(decode(b"a"), Ok(LowerCase(b'a')));
    assert_eq!(decode::<LowerCase>(b"A"), Err(DecodeError::NotCanonical));
}

#[test]
fn cr4_decode_consumes_everything() {
    let bytes = encode(&7u64);
    assert_eq!(decode(&bytes), Ok(7u64));
    assert_eq!(decode::<u64>(&[&bytes[..], &[0]].concat()), Err(DecodeError::TrailingBytes(1)));
    for length in 0..bytes.len() {
        assert!(malformed(decode::<u64>(&bytes[..length])), "{length}");
    }
}

#[test]
fn cr4_unordered_or_repeated_map_keys_are_refused() {
    use std::collections::BTreeMap;
    let ordered = [2, 0, 0, 0, 1, 9, 2, 9];
    assert_eq!(decode::<BTreeMap<u8, u8>>(&ordered), Ok(BTreeMap::from([(1, 9), (2, 9)])));
    for bytes in [[2, 0, 0, 0, 2, 9, 1, 9], [2, 0, 0, 0, 1, 9, 1, 9]] {
        assert!(decode::<BTreeMap<u8, u8>>(&bytes).is_err());
    }
}

#[test]
fn cr4_options_and_booleans_have_two_forms_each() {
    assert_eq!(decode(&[0]), Ok(None::<u8>));
    assert_eq!(decode(&[1]), Ok(true));
    for byte in 2..=u8::MAX {
        assert!(malformed(decode::<bool>(&[byte])));
        assert!(malformed(decode::<Option<u8>>(&[byte, 0])));
    }
}

#[test]
fn bounds_hold_when_building() {
    let long = TooLong { length: 4, bound: 3 };
    assert_eq!(Bounded::<u16, 3>::try_from(vec![1, 2, 3, 4]), Err(long));
    assert_eq!(Bounded::<u16, 3>::try_collect(0..), Err(long));
    assert_eq!(BoundedBytes::<3>::try_from(vec![0; 4]), Err(long));
    assert_eq!(BoundedBytes::<3>::try_from(&[0; 4][..]), Err(long));
    assert_eq!(BoundedString::<3>::try_from("four"), Err(long));
    assert_eq!(BoundedString::<3>::try_from("four".to_owned()), Err(long));
    // Bounds count bytes, not characters.
    assert!(BoundedString::<3>::try_from("\u{e9}\u{e9}").is_err());

    let mut full = Bounded::<u16, 3>::try_from(vec![1, 2, 3]).unwrap();
    assert_eq!(full.push(4), Err(long));
    assert_eq!(full.into_inner(), [1, 2, 3]);
}

#[test]
fn bounds_hold_when_decoding() {
    // (u32 length 4, then four elements) under a bound of three.
    assert!(malformed(decode::<Bounded<u8, 3>>(&[4, 0, 0, 0, 1, 2, 3, 4])));
    assert!(malformed(decode::<BoundedBytes<3>>(&[4, 0, 0, 0, 1, 2, 3, 4])));
    assert!(malformed(decode::<BoundedString<3>>(b"\x04\0\0\0four")));
    assert!(malformed(decode::<BoundedString<3>>(b"\x02\0\0\0\xff\xff")), "not UTF-8");
    // Fewer elements than the length says.
    assert!(malformed(decode::<Bounded<u8, 9>>(&[4, 0, 0, 0, 1, 2, 3])));
    assert!(malformed(decode::<BoundedBytes<9>>(&[4, 0, 0, 0, 1, 2, 3])));
}

/// Counts the bytes that a decoder asks of it.
struct Endless(u64);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(0xFF);
        self.0 += buffer.len() as u64;
        Ok(buffer.len())
    }
}

/// A12: a length is a claim, and costs nothing.
#[test]
fn a_length_beyond_the_bound_is_refused_before_the_elements_are_read() {
    let mut reader = Endless(0);
    assert!(Bounded::<u64, 1_000_000>::deserialize_reader(&mut reader).is_err());
    assert_eq!(reader.0, 4);
    let mut reader = Endless(0);
    assert!(BoundedBytes::<1_000_000>::deserialize_reader(&mut reader).is_err());
    assert_eq!(reader.0, 4);
}

/// A12, RX8: room is made as elements arrive.
#[test]
fn a_large_claim_with_a_short_body_is_refused() {
    const MAX: usize = u32::MAX as usize;
    let claim = [0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3];
    assert!(malformed(decode::<BoundedBytes<MAX>>(&claim)));
    assert!(malformed(decode::<Bounded<Hash, MAX>>(&claim)));
    assert!(malformed(decode::<Bounded<u8, MAX>>(&claim)));
}

#[test]
fn encodings_are_those_of_plain_collections() {
    assert_eq!(encode(&Bounded::<u16, 4>::try_from(vec![1, 2]).unwrap()), [2, 0, 0, 0, 1, 0, 2, 0]);
    assert_eq!(encode(&BoundedBytes::<4>::try_from(vec![8, 9]).unwrap()), [2, 0, 0, 0, 8, 9]);
    assert_eq!(encode(&BoundedString::<4>::try_from("hi").unwrap()), b"\x02\0\0\0hi");
    assert_eq!(encode(&Hash([5; 32])), [5; 32]);
    assert_eq!(encode(&PublicKey([6; 32])), [6; 32]);
    assert_eq!(encode(&Signature([7; 64])), [7; 64]);
}

#[test]
fn long_bytes_are_shown_short() {
    let shown = format!("{:?}", BoundedBytes::<100>::try_from(vec![0xAB; 40]).unwrap());
    assert_eq!(shown, format!("{}..", "ab".repeat(32)));
    assert_eq!(format!("{:?}", BoundedBytes::<100>::try_from(vec![0xAB; 2]).unwrap()), "abab");
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40), length in 0u8..9) {
        let framed = [&[length, 0, 0, 0], &bytes[..]].concat();
        if let Ok(value) = decode::<Bounded<u16, 8>>(&framed) {
            prop_assert_eq!(encode(&value), framed.clone());
        }
        if let Ok(value) = decode::<Bounded<Option<bool>, 8>>(&framed) {
            prop_assert_eq!(encode(&value), framed.clone());
        }
        if let Ok(value) = decode::<(BoundedBytes<8>, BoundedString<8>)>(&framed) {
            prop_assert_eq!(encode(&value), framed);
        }
    }

    #[test]
    fn values_survive_the_round_trip(numbers in prop::collection::vec(any::<u32>(), 0..20),
                                     bytes in prop::collection::vec(any::<u8>(), 0..200_000),
                                     text in ".{0,30}") {
        let numbers = Bounded::<u32, 20>::try_from(numbers).unwrap();
        prop_assert_eq!(decode(&encode(&numbers)), Ok(numbers));
        let bytes = BoundedBytes::<200_000>::try_from(bytes).unwrap();
        prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        let text = BoundedString::<120>::try_from(text).unwrap();
        prop_assert_eq!(decode(&encode(&text)), Ok(text));
    }
}
