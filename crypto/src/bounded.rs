//! Collections that carry their bound in the type: a vector, bytes, and text.
//!
//! Invariant: no value longer than its bound can be built or decoded, and decoding refuses a length
//! above the bound before it allocates. All three encode as borsh does: u32 length, then elements.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Deref;

use borsh::{BorshDeserialize, BorshSerialize};

/// Most bytes reserved on the word of a length alone; more is reserved as bytes really arrive.
const RESERVED_BYTES_MAX: usize = 64 * 1024;

/// A collection longer than its bound. The caller's fault.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} elements where at most {bound} are allowed")]
pub struct TooLong {
    /// Length that was given.
    pub length: usize,
    /// Length that is allowed.
    pub bound: usize,
}

fn check(length: usize, bound: usize) -> Result<(), TooLong> {
    if length > bound { Err(TooLong { length, bound }) } else { Ok(()) }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Reads a length and refuses it if it is above the bound.
fn read_length<R: Read>(reader: &mut R, bound: usize) -> io::Result<usize> {
    let length = u32::deserialize_reader(reader)? as usize;
    check(length, bound).map_err(invalid)?;
    Ok(length)
}

/// Reads a length and that many bytes.
fn read_bytes<R: Read>(reader: &mut R, bound: usize) -> io::Result<Vec<u8>> {
    let length = read_length(reader, bound)?;
    let mut bytes = Vec::with_capacity(length.min(RESERVED_BYTES_MAX));
    // A usize fits in u64 on every supported target.
    reader.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A vector of at most `MAX` elements. For bytes use [`BoundedBytes`], which reads them in one piece.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounded<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Bounded<T, MAX> {
    /// Most elements that fit.
    pub const MAX: usize = MAX;

    /// No elements.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Collects at most `MAX` elements.
    ///
    /// # Errors
    /// [`TooLong`] at the first element beyond the bound; no more are asked for.
    pub fn try_collect(elements: impl IntoIterator<Item = T>) -> Result<Self, TooLong> {
        let mut bounded = Self::new();
        for element in elements {
            bounded.push(element)?;
        }
        Ok(bounded)
    }

    /// Appends one element.
    ///
    /// # Errors
    /// [`TooLong`] if the vector is full; it is then unchanged.
    pub fn push(&mut self, element: T) -> Result<(), TooLong> {
        check(self.0.len().saturating_add(1), MAX)?;
        self.0.push(element);
        Ok(())
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// The elements, to be changed in place; their number cannot change.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.0
    }

    /// The elements in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// The plain vector.
    pub fn into_inner(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug, const MAX: usize> fmt::Debug for Bounded<T, MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl<T, const MAX: usize> Deref for Bounded<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const MAX: usize> AsRef<[T]> for Bounded<T, MAX> {
    fn as_ref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for Bounded<T, MAX> {
    type Error = TooLong;

    fn try_from(elements: Vec<T>) -> Result<Self, TooLong> {
        check(elements.len(), MAX)?;
        Ok(Self(elements))
    }
}

impl<T, const MAX: usize> IntoIterator for Bounded<T, MAX> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a Bounded<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: BorshSerialize, const MAX: usize> BorshSerialize for Bounded<T, MAX> {
    fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
        self.0.serialize(writer)
    }
}

impl<T: BorshDeserialize, const MAX: usize> BorshDeserialize for Bounded<T, MAX> {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        let length = read_length(reader, MAX)?;
        let reserved = RESERVED_BYTES_MAX.checked_div(std::mem::size_of::<T>()).unwrap_or(MAX);
        let mut elements = Vec::with_capacity(length.min(reserved));
        for _ in 0..length {
            elements.push(T::deserialize_reader(reader)?);
        }
        Ok(Self(elements))
    }
}

/// At most `MAX` bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundedBytes<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> BoundedBytes<MAX> {
    /// Most bytes that fit.
    pub const MAX: usize = MAX;

    /// No bytes.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to be changed in place; their number cannot change.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The plain vector.
    pub fn into_inner(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> fmt::Debug for BoundedBytes<MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES_MAX: usize = 32;
        let shown = self.0.get(..SHOWN_BYTES_MAX).unwrap_or(&self.0);
        write!(formatter, "{}{}", hex::encode(shown), if shown.len() < self.0.len() { ".." } else { "" })
    }
}

impl<const MAX: usize> Deref for BoundedBytes<MAX> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> AsRef<[u8]> for BoundedBytes<MAX> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> TryFrom<Vec<u8>> for BoundedBytes<MAX> {
    type Error = TooLong;

    fn try_from(bytes: Vec<u8>) -> Result<Self, TooLong> {
        check(bytes.len(), MAX)?;
        Ok(Self(bytes))
    }
}

impl<const MAX: usize> TryFrom<&[u8]> for BoundedBytes<MAX> {
    type Error = TooLong;

    fn try_from(bytes: &[u8]) -> Result<Self, TooLong> {
        check(bytes.len(), MAX)?;
        Ok(Self(bytes.to_vec()))
    }
}

impl<const MAX: usize> BorshSerialize for BoundedBytes<MAX> {
    fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
        self.0.serialize(writer)
    }
}

impl<const MAX: usize> BorshDeserialize for BoundedBytes<MAX> {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        read_bytes(reader, MAX).map(Self)
    }
}

/// UTF-8 text of at most `MAX` bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundedString<const MAX: usize>(String);

impl<const MAX: usize> BoundedString<MAX> {
    /// Most bytes that fit.
    pub const MAX: usize = MAX;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The plain string.
    pub fn into_inner(self) -> String {
        self.0
    }
}

impl<const MAX: usize> fmt::Debug for BoundedString<MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl<const MAX: usize> fmt::Display for BoundedString<MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl<const MAX: usize> Deref for BoundedString<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> TryFrom<String> for BoundedString<MAX> {
    type Error = TooLong;

    fn try_from(text: String) -> Result<Self, TooLong> {
        check(text.len(), MAX)?;
        Ok(Self(text))
    }
}

impl<const MAX: usize> TryFrom<&str> for BoundedString<MAX> {
    type Error = TooLong;

    fn try_from(text: &str) -> Result<Self, TooLong> {
        check(text.len(), MAX)?;
        Ok(Self(text.to_owned()))
    }
}

impl<const MAX: usize> BorshSerialize for BoundedString<MAX> {
    fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
        self.0.serialize(writer)
    }
}

impl<const MAX: usize> BorshDeserialize for BoundedString<MAX> {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        let bytes = read_bytes(reader, MAX)?;
        String::from_utf8(bytes).map(Self).map_err(invalid)
    }
}
