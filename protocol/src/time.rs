//! The two clocks of the system: batch time and file timestamps.
//!
//! Invariant: nothing here reads a clock; both kinds of time are data (rule S8).

use borsh::{BorshDeserialize, BorshSerialize};

/// Nanoseconds in a second.
pub const NANOSECONDS_PER_SECOND: u32 = 1_000_000_000;

/// The time of a batch in nanoseconds since 1970-01-01 UTC: the only clock that execution knows.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct BatchTime(pub u64);

impl BatchTime {
    /// This time plus `nanoseconds`, clamped at the end of representable time.
    #[must_use]
    pub const fn plus(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// The same instant as a file timestamp.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        let per_second = u64::from(NANOSECONDS_PER_SECOND);
        let seconds = self.0.checked_div(per_second).unwrap_or(0);
        let rest = self.0.checked_rem(per_second).unwrap_or(0);
        Timestamp {
            seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
            nanoseconds: u32::try_from(rest).unwrap_or(0),
        }
    }
}

/// A file's timestamp: seconds since 1970-01-01 UTC, negative before it, and nanoseconds below 10^9
/// that always count forward from `seconds` (POSIX `struct timespec`).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct Timestamp {
    /// Whole seconds, rounded towards minus infinity.
    pub seconds: i64,
    /// Nanoseconds past `seconds`, below 10^9.
    pub nanoseconds: u32,
}

impl BorshDeserialize for Timestamp {
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Self> {
        let seconds = i64::deserialize_reader(reader)?;
        let nanoseconds = u32::deserialize_reader(reader)?;
        if nanoseconds >= NANOSECONDS_PER_SECOND {
            return Err(borsh::io::Error::new(
                borsh::io::ErrorKind::InvalidData,
                "nanoseconds of a timestamp at or above 10^9",
            ));
        }
        Ok(Self { seconds, nanoseconds })
    }
}

/// How `utimensat` sets one of the two times that it may set.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SetTime {
    /// `UTIME_OMIT`: leave it.
    Omit,
    /// `UTIME_NOW`: the time of the operation.
    Now,
    /// This time.
    To(Timestamp),
}
