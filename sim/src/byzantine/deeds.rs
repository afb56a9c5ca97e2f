//! Deeds: how often each attack really took place.
//!
//! Invariant: deeds only count; nothing depends on them.

use std::fmt;

/// Something that a Byzantine replica did to a correct one.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// A message was withheld.
    Withheld,
    /// A proposal of the other chain was sent.
    Equivocated,
    /// A vote for the other chain was sent.
    VotedTwice,
    /// A vote was echoed.
    Echoed,
    /// A log was lost.
    Forgot,
    /// A VIEW-CHANGE without the claim that it should have.
    ClaimedNothing,
    /// A message was changed.
    Mutated,
    /// An old message was sent again.
    Replayed,
    /// A vote was signed wrongly.
    Forged,
    /// A message reached or left only one copy of a key.
    Parted,
    /// Both copies of a key voted for different headers at one place.
    Contradicted,
    /// A second copy began with an old log of the first.
    Restored,
    /// A claim was hidden.
    Hid,
    /// A message was held back.
    Dragged,
    /// A liar became another kind of liar.
    Shifted,
    /// A proposal was held back.
    Slowed,
    /// A request of a victim was held back.
    Delayed,
    /// A request of a victim was ignored.
    Censored,
    /// A VIEW-CHANGE or suspicion without reason.
    Stormed,
    /// A message too many.
    Flooded,
    /// A reader was answered wrongly or not at all.
    Misanswered,
    /// A wrong height was announced.
    Boasted,
    /// Committed heights or batches were bent.
    Misled,
    /// Bytes were sent that no longer decode.
    Undecodable,
    /// Bytes were changed and still decode.
    Decodable,
    /// A proposal was bent.
    Misproposed,
    /// A proposal's time was bent.
    Mistimed,
    /// A NEW-VIEW was bent, withheld or exchanged for another one that holds.
    Misopened,
    /// Two different NEW-VIEWs of one view went out, both of which hold.
    OpenedTwice,
    /// An envelope was forwarded that does not hold.
    Misforwarded,
    /// Other operations under the same number went to others.
    Doubled,
}

/// How many deeds there are.
pub const DEEDS: usize = Deed::Doubled as usize + 1;

/// Every deed, in order.
pub const ALL: [Deed; DEEDS] = [
    Deed::Withheld,
    Deed::Equivocated,
    Deed::VotedTwice,
    Deed::Echoed,
    Deed::Forgot,
    Deed::ClaimedNothing,
    Deed::Mutated,
    Deed::Replayed,
    Deed::Forged,
    Deed::Parted,
    Deed::Contradicted,
    Deed::Restored,
    Deed::Hid,
    Deed::Dragged,
    Deed::Shifted,
    Deed::Slowed,
    Deed::Delayed,
    Deed::Censored,
    Deed::Stormed,
    Deed::Flooded,
    Deed::Misanswered,
    Deed::Boasted,
    Deed::Misled,
    Deed::Undecodable,
    Deed::Decodable,
    Deed::Misproposed,
    Deed::Mistimed,
    Deed::Misopened,
    Deed::OpenedTwice,
    Deed::Misforwarded,
    Deed::Doubled,
];

/// How often each was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deeds([u64; DEEDS]);

impl Default for Deeds {
    fn default() -> Self {
        Self([0; DEEDS])
    }
}

impl Deeds {
    /// Counts one.
    pub const fn hit(&mut self, deed: Deed) {
        self.0[deed as usize] += 1;
    }

    /// How often it was done.
    #[must_use]
    pub const fn count(&self, deed: Deed) -> u64 {
        self.0[deed as usize]
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// What was never done.
    #[must_use]
    pub fn missed(&self) -> Vec<Deed> {
        ALL.into_iter().filter(|deed| self.count(*deed) == 0).collect()
    }
}

impl fmt::Display for Deeds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done: Vec<String> = ALL
            .into_iter()
            .filter(|deed| self.count(*deed) > 0)
            .map(|deed| format!("{deed:?} {}", self.count(deed)))
            .collect();
        write!(formatter, "{}", if done.is_empty() { "none".to_owned() } else { done.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_in_order() {
        assert!(ALL.iter().enumerate().all(|(position, deed)| *deed as usize == position));
    }
}
