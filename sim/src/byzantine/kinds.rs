//! The kinds of attackers, by name and as drawn for one replica.
//!
//! Invariant: a behaviour is a pure function of its kind and the draws; drawing takes from the given stream
//! alone.

use quorate_crypto::faults;

use crate::random::Random;

/// A kind of attacker.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Attack {
    /// Sends nothing to some (A8).
    Withhold,
    /// Ships proposals to exactly a quorum, and is silent to readers and clients (A8, RD1).
    Select,
    /// Two chains of proposals with votes for both, accomplices included (A6).
    Equivocate,
    /// Votes for every header that anybody votes for (AU8, AU9).
    Echo,
    /// Loses its disk in a crash and goes on under its key (A10, PR10).
    Forget,
    /// Claims to hold no certificate (VC1).
    ClaimNothing,
    /// Small changes to what it sends (AU1 to AU8, VC3, VC8, VC15, CR6).
    Mutate,
    /// Votes under signatures that do not hold (A13).
    Forge,
    /// Two copies of one key (PR11).
    Twins,
    /// Hides its lock: claims it in every other view only, and hands out no batch (VC18, VC1).
    Hide,
    /// Delays whatever it sends by any time up to the time-out (A2, A16).
    Drag,
    /// Changes from one kind to another, again and again.
    Shift,
    /// Delays each proposal to just under the time-out (A2).
    SlowLeader,
    /// Lets one client wait until just under the time-out (A3).
    Unfair,
    /// Orders nothing of one client (A3).
    Censor,
    /// VIEW-CHANGEs and suspicions without end (A7, VC22).
    Storm,
    /// Questions, proposals and votes without end (A4, RX9).
    Flood,
    /// Old, missing and inflated answers to readers (A9, RD2, RD3).
    StaleReads,
    /// Lies to those who are behind (A11, ST5, ST6).
    Mislead,
    /// Bytes that are no message (A12, AU4, CR4).
    Junk,
    /// Proposals with static faults and with envelopes of a client that plots along (A14, RX4).
    Mispropose,
    /// Batch times at the edges of the clock window and beyond (A15).
    Mistime,
    /// Opens its views wrongly, twice, late or not at all (VC2, VC5, VC8).
    Misopen,
    /// Envelopes that hold at some replicas only, and other ones under the same numbers (A1, CL2).
    Misforward,
}

impl Attack {
    /// Every kind.
    pub const ALL: [Self; 24] = [
        Self::Withhold,
        Self::Select,
        Self::Equivocate,
        Self::Echo,
        Self::Forget,
        Self::ClaimNothing,
        Self::Mutate,
        Self::Forge,
        Self::Twins,
        Self::Hide,
        Self::Drag,
        Self::Shift,
        Self::SlowLeader,
        Self::Unfair,
        Self::Censor,
        Self::Storm,
        Self::Flood,
        Self::StaleReads,
        Self::Mislead,
        Self::Junk,
        Self::Mispropose,
        Self::Mistime,
        Self::Misopen,
        Self::Misforward,
    ];

    /// One attacker of this kind in a cluster of `n`.
    pub fn behaviour(self, random: &mut Random, n: usize) -> Behaviour {
        let mask = random.between(1, (1 << n) - 2);
        match self {
            Self::Withhold => Behaviour::Withholding(mask),
            Self::Select => Behaviour::Selecting(some(random, n, faults(n))),
            Self::Equivocate => Behaviour::Equivocating(mask),
            Self::Echo => Behaviour::Echoing,
            Self::Forget => Behaviour::Forgetting,
            Self::ClaimNothing => Behaviour::ClaimingNothing,
            Self::Mutate => Behaviour::Mutating,
            Self::Forge => Behaviour::Forging(mask),
            Self::Twins => Behaviour::Twinned { restored: random.one_in(2) },
            Self::Hide => Behaviour::Hiding(mask),
            Self::Drag => Behaviour::Dragging,
            Self::Shift => Behaviour::Shifting,
            Self::SlowLeader => Behaviour::SlowLeading,
            Self::Unfair => Behaviour::Delaying(random.below(crate::plan::CLIENTS_MAX) as u8),
            Self::Censor => Behaviour::Censoring(random.below(crate::plan::CLIENTS_MAX) as u8),
            Self::Storm => Behaviour::Storming,
            Self::Flood => Behaviour::Flooding,
            Self::StaleReads => Behaviour::Misanswering,
            Self::Mislead => Behaviour::Misleading,
            Self::Junk => Behaviour::Junking,
            Self::Mispropose => Behaviour::Misproposing(whom(random, n, mask)),
            Self::Mistime => Behaviour::Mistiming(whom(random, n, mask)),
            Self::Misopen => Behaviour::Misopening(mask),
            Self::Misforward => Behaviour::Misforwarding,
        }
    }
}

/// A few replicas of `n`.
fn some(random: &mut Random, n: usize, count: usize) -> u64 {
    let mut mask = 0_u64;
    while (mask.count_ones() as usize) < count {
        mask |= 1 << random.below(n as u64);
    }
    mask
}

/// Everybody, or only some.
fn whom(random: &mut Random, n: usize, mask: u64) -> u64 {
    if random.one_in(2) { (1 << n) - 1 } else { mask }
}

/// What a Byzantine replica does. A mask has a bit for each replica that is treated differently.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Sends nothing to some.
    Withholding(u64),
    /// Ships no proposals and batches to some, and tells clients and readers nothing.
    Selecting(u64),
    /// As a leader proposes another chain to some, and votes for it before them.
    Equivocating(u64),
    /// Votes for every header that anybody votes for.
    Echoing,
    /// Forgets everything in a crash, its log included.
    Forgetting,
    /// Claims to hold no certificate.
    ClaimingNothing,
    /// Makes small changes to what it sends.
    Mutating,
    /// Signs its votes to some wrongly.
    Forging(u64),
    /// Runs twice; `restored`: the second copy begins with an old log of the first.
    Twinned {
        /// Whether the second copy begins with an old log of the first, or with none.
        restored: bool,
    },
    /// Claims its lock in every other view, serves no batch, and commits towards some only.
    Hiding(u64),
    /// Holds everything back for a while.
    Dragging,
    /// Becomes another kind of liar from time to time.
    Shifting,
    /// Holds its proposals back.
    SlowLeading,
    /// Looks at the requests of one client late.
    Delaying(u8),
    /// Never looks at the requests of one client.
    Censoring(u8),
    /// Wants to leave every view.
    Storming,
    /// Asks and repeats without end.
    Flooding,
    /// Answers readers wrongly.
    Misanswering,
    /// Lies about heights, batches and certificates.
    Misleading,
    /// Sends bytes that are no message.
    Junking,
    /// Proposes what can never be executed, or what a plotting client made up, to some.
    Misproposing(u64),
    /// Proposes impossible times to some.
    Mistiming(u64),
    /// Opens views in ways that differ between replicas.
    Misopening(u64),
    /// Forwards envelopes that are not what they seem.
    Misforwarding,
}

impl Behaviour {
    /// Any one of them, for a cluster of `n`.
    pub fn draw(random: &mut Random, n: usize) -> Self {
        random.pick(&Attack::ALL).behaviour(random, n)
    }

    /// Any one that a replica can turn to in the middle of a run: a second copy must be there from the start.
    pub(super) fn draw_next(random: &mut Random, n: usize) -> Self {
        match Self::draw(random, n) {
            Self::Twinned { .. } | Self::Shifting => Self::Equivocating(random.between(1, (1 << n) - 2)),
            other => other,
        }
    }

    /// Whether it does something unasked from time to time.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(
            self,
            Self::Storming
                | Self::Flooding
                | Self::Misleading
                | Self::Misforwarding
                | Self::Junking
                | Self::Twinned { .. }
                | Self::Shifting
        )
    }
}
