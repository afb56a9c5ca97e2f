//! The kinds of faults: what they are called, what each does, and how a name is read.
//!
//! Invariant: [`KINDS`] lists every kind once, and what is printed of one can be read again.

use quorate_protocol::ReplicaIndex;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest delay that can be asked for, in milliseconds.
const DELAY_MS_MAX: u64 = 60_000;

/// How a replica is faulty.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Connects and then says nothing at all.
    Silent,
    /// Crashes every second or so, like by SIGKILL, and starts again on what its disk holds.
    CrashLoop,
    /// Proposes two batches and votes for both (hazard A6).
    Equivocate,
    /// Votes for another state root than execution gave.
    WrongRoot,
    /// Its signatures do not hold (hazard A13).
    BadSignature,
    /// Answers reads from old heights.
    StaleReply,
    /// Changes bytes of proofs, values and certificates in its answers.
    CorruptProof,
    /// Leaves a name out of what it shows of a directory.
    HideEntry,
    /// Sends nothing to one other replica (hazard A8).
    WithholdFrom(ReplicaIndex),
    /// As a leader, proposes everything so much later (hazard A1).
    SlowLeader(Duration),
    /// As a leader, never proposes what one client wants.
    Censor,
    /// As a leader, proposes what one client wants later than that of others (hazard A2).
    Unfair,
    /// Sends as much as the network takes: much that looks valid and costs work (hazard A4).
    Flood,
    /// Always wants another view.
    ViewChangeStorm,
    /// As a leader, proposes times at the edges of what is allowed, and beyond.
    TimeLiar,
    /// Sends what cannot be decoded.
    Junk,
}

/// Every kind as it is written, and what it does.
pub const KINDS: [(&str, &str); 16] = [
    ("silent", "connects and says nothing"),
    ("crash-loop", "crashes every second or so and starts again"),
    ("equivocate", "proposes two batches at one height and votes for both"),
    ("wrong-root", "votes for another state root"),
    ("bad-signature", "signs wrongly"),
    ("stale-reply", "answers reads from old heights"),
    ("corrupt-proof", "changes bytes of its answers to clients"),
    ("hide-entry", "leaves a name out of what it shows of a directory"),
    ("withhold-from=ID", "sends nothing to replica ID"),
    ("slow-leader=MS", "proposes everything MS milliseconds late"),
    ("censor", "never proposes what the first client wants"),
    ("unfair", "proposes what the first client wants late"),
    ("flood", "sends as much as the network takes"),
    ("view-change-storm", "always wants another view"),
    ("time-liar", "proposes times at the edges of what is allowed, and beyond"),
    ("junk", "sends what cannot be decoded"),
];

/// What is wrong with the name of a kind. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No kind is called so.
    #[error("there is no fault kind `{0}`; the kinds are {list}", list = names())]
    Unknown(String),
    /// The kind needs a value.
    #[error("fault kind `{0}` needs a value: {0}={1}")]
    NeedsValue(&'static str, &'static str),
    /// The kind has no value.
    #[error("fault kind `{0}` takes no value")]
    TakesNone(String),
    /// The value is not a replica's index.
    #[error("`{0}` is not the number of a replica")]
    Replica(String),
    /// The value is not a delay.
    #[error("`{0}` is not a number of milliseconds from 1 to {DELAY_MS_MAX}")]
    Delay(String),
}

fn names() -> String {
    KINDS.map(|(name, _)| name).join(", ")
}

/// All kinds in words, one a line.
#[must_use]
pub fn help() -> String {
    KINDS.iter().map(|(name, what)| format!("  {name:<18} {what}\n")).collect()
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match name {
            "withhold-from" => {
                let value = value.ok_or(FaultError::NeedsValue("withhold-from", "ID"))?;
                let replica = value.parse().map_err(|_| FaultError::Replica(value.to_owned()))?;
                return Ok(Self::WithholdFrom(replica));
            }
            "slow-leader" => {
                let value = value.ok_or(FaultError::NeedsValue("slow-leader", "MS"))?;
                let delay = value.parse().ok().filter(|delay| (1..=DELAY_MS_MAX).contains(delay));
                let delay = delay.ok_or_else(|| FaultError::Delay(value.to_owned()))?;
                return Ok(Self::SlowLeader(Duration::from_millis(delay)));
            }
            _ => {}
        }
        let fault = match name {
            "silent" => Self::Silent,
            "crash-loop" => Self::CrashLoop,
            "equivocate" => Self::Equivocate,
            "wrong-root" => Self::WrongRoot,
            "bad-signature" => Self::BadSignature,
            "stale-reply" => Self::StaleReply,
            "corrupt-proof" => Self::CorruptProof,
            "hide-entry" => Self::HideEntry,
            "censor" => Self::Censor,
            "unfair" => Self::Unfair,
            "flood" => Self::Flood,
            "view-change-storm" => Self::ViewChangeStorm,
            "time-liar" => Self::TimeLiar,
            "junk" => Self::Junk,
            _ => return Err(FaultError::Unknown(text.to_owned())),
        };
        if value.is_some() { Err(FaultError::TakesNone(name.to_owned())) } else { Ok(fault) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::WithholdFrom(replica) => return write!(formatter, "withhold-from={replica}"),
            Self::SlowLeader(delay) => return write!(formatter, "slow-leader={}", delay.as_millis()),
            Self::Silent => "silent",
            Self::CrashLoop => "crash-loop",
            Self::Equivocate => "equivocate",
            Self::WrongRoot => "wrong-root",
            Self::BadSignature => "bad-signature",
            Self::StaleReply => "stale-reply",
            Self::CorruptProof => "corrupt-proof",
            Self::HideEntry => "hide-entry",
            Self::Censor => "censor",
            Self::Unfair => "unfair",
            Self::Flood => "flood",
            Self::ViewChangeStorm => "view-change-storm",
            Self::TimeLiar => "time-liar",
            Self::Junk => "junk",
        };
        formatter.write_str(name)
    }
}
