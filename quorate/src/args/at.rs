//! A height of the past, by its number or by a time.

use quorate_protocol::{BatchTime, Height};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which height is meant.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// This one.
    Height(Height),
    /// The highest one whose batch time is not later.
    Time(BatchTime),
}

/// What means no height. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither a height, nor a time as 2026-01-31T12:00:00Z (UTC, with a fraction if need be), nor @SECONDS since 1970"
)]
pub struct NoHeight(String);

impl FromStr for At {
    type Err = NoHeight;

    fn from_str(text: &str) -> Result<Self, NoHeight> {
        let bad = || NoHeight(text.to_owned());
        let nanoseconds = |since: Duration| u64::try_from(since.as_nanos()).map(BatchTime).map_err(|_| bad());
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok());
        if let Some(seconds) = text.strip_prefix('@') {
            let seconds = digits(seconds).flatten().ok_or_else(bad)?;
            return nanoseconds(Duration::from_secs(seconds)).map(Self::Time);
        }
        if let Some(height) = digits(text) {
            return height.map(Self::Height).ok_or_else(bad);
        }
        let time: SystemTime = humantime::parse_rfc3339(text).map_err(|_| bad())?;
        nanoseconds(time.duration_since(UNIX_EPOCH).map_err(|_| bad())?).map(Self::Time)
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Height(height) => write!(formatter, "{height}"),
            Self::Time(time) => {
                let time = UNIX_EPOCH + Duration::from_nanos(time.0);
                write!(formatter, "{}", humantime::format_rfc3339_nanos(time))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_and_times_are_read_and_nothing_else() {
        const SECOND: u64 = 1_000_000_000;
        for (text, expected) in [
            ("0", At::Height(0)),
            ("18446744073709551615", At::Height(u64::MAX)),
            ("@0", At::Time(BatchTime(0))),
            ("@1795737600", At::Time(BatchTime(1_795_737_600 * SECOND))),
            ("2026-11-27T00:00:00Z", At::Time(BatchTime(1_795_737_600 * SECOND))),
            ("2026-11-27T00:00:00.000000001Z", At::Time(BatchTime(1_795_737_600 * SECOND + 1))),
        ] {
            let at: At = text.parse().unwrap();
            assert_eq!(at, expected, "{text}");
            assert_eq!(at.to_string().parse(), Ok(expected), "{at}");
        }
        for bad in [
            "",
            "@",
            "-1",
            "+1",
            "1.5",
            "0x10",
            "18446744073709551616",
            "@18446744073709551615",
            "@-1",
            "@1.5",
            "now",
            "2026-11-27",
            "2026-11-27T00:00:00",
            "2026-11-27 00:00:00Z",
            "2026-11-27T00:00:00+01:00",
            "2026-02-30T00:00:00Z",
            "2026-11-27T25:00:00Z",
            "1969-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
        ] {
            let refused = bad.parse::<At>().expect_err(bad).to_string();
            assert!(refused.contains(&format!("`{bad}`")), "{refused}");
        }
    }
}
