//! What one client connection may occupy.
//!
//! Invariant: small messages come out of bytes that every connection has for itself, so nobody can keep
//! another client from them. Large ones are bounded for each connection when they are announced, and for
//! all together as their bytes arrive: an announcement alone takes nothing from others.

use bytes::Bytes;
use quorate_protocol::limits::FRAME_BYTES_MAX;
use tokio::io::AsyncRead;

use crate::budget::{Budget, Permit};
use crate::error::FrameError;
use crate::frame::{FrameReader, next_piece};

/// Bytes of a message that is small.
pub const SMALL_BYTES_MAX: usize = 64 << 10;
/// Bytes of small messages in one direction that each connection has for itself.
pub const GUARANTEED_BYTES: usize = 512 << 10;
/// Large requests, and large submissions, of one connection under way at once.
pub const LARGE_MESSAGES_MAX: usize = 16;

/// The budgets of one direction of one connection.
#[derive(Clone, Debug)]
pub(super) struct Account {
    small: Budget,
    large: Budget,
    all: Budget,
}

/// What a message occupies until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    _permits: Vec<Permit>,
}

impl Account {
    /// Budgets for so many small messages, for so many large ones of so many bytes, and out of those of
    /// all.
    pub(super) fn new(small: usize, large: usize, bytes: usize, all: &Budget) -> Self {
        Self {
            small: Budget::new(GUARANTEED_BYTES, small),
            large: Budget::new(bytes.max(FRAME_BYTES_MAX), large),
            all: all.clone(),
        }
    }

    /// Reads the body of a message as budgets allow.
    pub(super) async fn read<R: AsyncRead + Unpin>(
        &self,
        reader: &mut FrameReader<R>,
        length: usize,
    ) -> Result<(Bytes, Share), FrameError> {
        if length <= SMALL_BYTES_MAX {
            let permit = self.small.take(length).await.ok_or(NO_BUDGET)?;
            return Ok((reader.body(length).await?, Share { _permits: vec![permit] }));
        }
        let mut permits = vec![self.large.take(length).await.ok_or(NO_BUDGET)?];
        let mut body = Vec::new();
        while body.len() < length {
            let piece = next_piece(body.len(), length);
            permits.push(self.all.take(piece).await.ok_or(NO_BUDGET)?);
            reader.append(&mut body, piece).await?;
        }
        Ok((body.into(), Share { _permits: permits }))
    }

    /// Room for a message of this size, if there is any now.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Share> {
        let permits = if bytes <= SMALL_BYTES_MAX {
            vec![self.small.try_take(bytes)?]
        } else {
            vec![self.large.try_take(bytes)?, self.all.try_take(bytes)?]
        };
        Some(Share { _permits: permits })
    }
}

/// Budgets are never closed, and no frame is larger than a budget.
const NO_BUDGET: FrameError = FrameError::Protocol("no budget");
