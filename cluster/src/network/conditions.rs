//! What one direction of a link is like, and how rules about links are written.
//!
//! Invariant: a rule that cannot be read is refused with the part that is wrong.

use quorate_protocol::ReplicaIndex;
use std::str::FromStr;
use std::time::Duration;

/// Parts in a million, the unit of loss.
pub const MILLION: u32 = 1_000_000;
/// Longest delay of a link.
pub const DELAY_MAX: Duration = Duration::from_secs(10);

/// What one direction of a link does to datagrams.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// How much later they arrive.
    pub delay: Duration,
    /// How many of a million are lost.
    pub loss: u32,
    /// Whether all are lost.
    pub cut: bool,
}

impl Conditions {
    /// Nothing gets through.
    pub const CUT: Self = Self { delay: Duration::ZERO, loss: 0, cut: true };
}

/// One end of a link.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A replica.
    Replica(ReplicaIndex),
    /// All clients.
    Clients,
}

/// Conditions for the links that it fits: `FROM>TO:CONDITION,...`, each end a replica's number, `clients` or
/// `*`; the conditions `delay=MS`, `loss=PERCENT` and `cut`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `None` is everywhere.
    from: Option<Place>,
    to: Option<Place>,
    /// What is so on them.
    pub conditions: Conditions,
}

/// What is wrong with a rule. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no rule of the network: FROM>TO:delay=MS,loss=PERCENT,cut with a replica's number, `clients` or `*` at each end"
)]
pub struct RuleError(String);

impl Rule {
    /// Whether it is about this direction.
    #[must_use]
    pub fn fits(&self, from: Place, to: Place) -> bool {
        self.from.is_none_or(|place| place == from) && self.to.is_none_or(|place| place == to)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let wrong = || RuleError(text.to_owned());
        let (ends, conditions) = text.split_once(':').ok_or_else(wrong)?;
        let (from, to) = ends.split_once('>').ok_or_else(wrong)?;
        let conditions =
            conditions.split(',').try_fold(Conditions::default(), condition).ok_or_else(wrong)?;
        Ok(Self {
            from: place(from.trim()).ok_or_else(wrong)?,
            to: place(to.trim()).ok_or_else(wrong)?,
            conditions,
        })
    }
}

fn place(text: &str) -> Option<Option<Place>> {
    match text {
        "*" => Some(None),
        "clients" => Some(Some(Place::Clients)),
        number => number.parse().ok().map(|index| Some(Place::Replica(index))),
    }
}

fn condition(mut conditions: Conditions, text: &str) -> Option<Conditions> {
    match text.trim().split_once('=') {
        None if text.trim() == "cut" => conditions.cut = true,
        Some(("delay", value)) => {
            let delay = Duration::from_millis(value.parse().ok()?);
            conditions.delay = Some(delay).filter(|delay| *delay <= DELAY_MAX)?;
        }
        Some(("loss", value)) => {
            let percent: f64 = value.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))?;
            // At most a million, by the check above.
            conditions.loss = (percent * f64::from(MILLION) / 100.0) as u32;
        }
        _ => return None,
    }
    Some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_fit() {
        let rule: Rule = "0>clients:delay=20,loss=2.5".parse().unwrap();
        assert_eq!(
            rule.conditions,
            Conditions { delay: Duration::from_millis(20), loss: 25_000, cut: false }
        );
        assert!(
            rule.fits(Place::Replica(0), Place::Clients) && !rule.fits(Place::Clients, Place::Replica(0))
        );
        let rule: Rule = "*>2:cut".parse().unwrap();
        assert!(rule.fits(Place::Replica(1), Place::Replica(2)) && rule.conditions.cut);
        for wrong in
            ["", "0>1", "0-1:cut", "x>1:cut", "0>1:delay=x", "0>1:loss=101", "0>1:cut=1", "0>1:delay=10001"]
        {
            let error = wrong.parse::<Rule>().unwrap_err();
            assert!(error.to_string().contains("is no rule of the network"), "{wrong}");
        }
    }
}
