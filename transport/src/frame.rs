//! Frames: a length as u32 little-endian, then the canonical encoding of one value.
//!
//! Invariant: a length above the bound is refused before anything is allocated for it, and memory for a
//! body grows as its bytes arrive, never on the word of its length alone.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{Bytes, BytesMut};
use quorate_crypto::{decode, encode};
use quorate_protocol::limits::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt};

pub use crate::error::FrameError;

/// Bytes of the length in front of a frame.
pub const LENGTH_BYTES: usize = 4;
/// Bytes that a reader holds in advance, and the largest body that is not read into memory of its own.
pub const READ_AHEAD_BYTES: usize = 32 << 10;

/// The frame of a value.
///
/// # Errors
/// [`FrameError::TooLargeToSend`] above [`FRAME_BYTES_MAX`].
pub fn encode_frame<T: BorshSerialize + ?Sized>(value: &T) -> Result<Bytes, FrameError> {
    let body = encode(value);
    let refused = || FrameError::TooLargeToSend { bytes: body.len(), bound: FRAME_BYTES_MAX };
    if body.len() > FRAME_BYTES_MAX {
        return Err(refused());
    }
    let length = u32::try_from(body.len()).map_err(|_| refused())?;
    let mut frame = Vec::with_capacity(LENGTH_BYTES.saturating_add(body.len()));
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame.into())
}

/// The value of a frame's body.
///
/// # Errors
/// [`FrameError::Decode`].
pub fn decode_body<T: BorshDeserialize + BorshSerialize>(body: &[u8]) -> Result<T, FrameError> {
    Ok(decode(body)?)
}

/// Bytes of a large body to read next: as many as have arrived, so that a claim costs its sender as many
/// bytes as us.
#[must_use]
pub fn next_piece(arrived: usize, length: usize) -> usize {
    length.saturating_sub(arrived).min(arrived.max(READ_AHEAD_BYTES))
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
    bound: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `bound` bytes, and of at most [`FRAME_BYTES_MAX`].
    pub fn new(source: R, bound: usize) -> Self {
        Self { source, buffer: BytesMut::new(), bound: bound.min(FRAME_BYTES_MAX) }
    }

    /// The length of the next frame; `None` if the stream ends before it. Read the body next.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`], [`FrameError::Truncated`], [`FrameError::Lost`].
    pub async fn length(&mut self) -> Result<Option<usize>, FrameError> {
        while self.buffer.len() < LENGTH_BYTES {
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
        let mut length = [0; LENGTH_BYTES];
        length.copy_from_slice(&self.buffer.split_to(LENGTH_BYTES));
        let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if bytes > self.bound {
            return Err(FrameError::TooLarge { bytes, bound: self.bound });
        }
        Ok(Some(bytes))
    }

    /// The body whose length was just read.
    ///
    /// # Errors
    /// [`FrameError::Truncated`], [`FrameError::Lost`].
    pub async fn body(&mut self, length: usize) -> Result<Bytes, FrameError> {
        if length > READ_AHEAD_BYTES {
            return self.large_body(length).await;
        }
        while self.buffer.len() < length {
            if self.fill().await? == 0 {
                return Err(FrameError::Truncated);
            }
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Checks that the stream ends here.
    ///
    /// # Errors
    /// [`FrameError::Protocol`] if it does not, [`FrameError::Lost`].
    pub async fn end(&mut self) -> Result<(), FrameError> {
        if self.buffer.is_empty() && self.fill().await? == 0 {
            Ok(())
        } else {
            Err(FrameError::Protocol("bytes after the only frame of a stream"))
        }
    }

    /// Appends exactly so many bytes of the current body, for callers that read it in pieces; the pieces
    /// add up to the length that was read.
    ///
    /// # Errors
    /// [`FrameError::Truncated`], [`FrameError::Lost`].
    pub async fn append(&mut self, body: &mut Vec<u8>, bytes: usize) -> Result<(), FrameError> {
        body.reserve(bytes);
        let ready = self.buffer.split_to(self.buffer.len().min(bytes));
        body.extend_from_slice(&ready);
        let mut missing = bytes.saturating_sub(ready.len());
        while missing > 0 {
            let mut source = (&mut self.source).take(missing as u64);
            match source.read_buf(body).await? {
                0 => return Err(FrameError::Truncated),
                read => missing = missing.saturating_sub(read),
            }
        }
        Ok(())
    }

    /// A body in memory of its own, so that the reader keeps no large buffer afterwards.
    async fn large_body(&mut self, length: usize) -> Result<Bytes, FrameError> {
        let mut body = Vec::new();
        while body.len() < length {
            let piece = next_piece(body.len(), length);
            self.append(&mut body, piece).await?;
        }
        Ok(body.into())
    }

    /// Reads what is there into the buffer; 0 at the end of the stream.
    async fn fill(&mut self) -> Result<usize, FrameError> {
        if self.buffer.capacity().saturating_sub(self.buffer.len()) < LENGTH_BYTES {
            self.buffer.reserve(READ_AHEAD_BYTES);
        }
        Ok(self.source.read_buf(&mut self.buffer).await?)
    }
}

#[cfg(test)]
mod tests;
