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
/// Latest beginning and longest time of a rule.
const TIME_MAX: Duration = Duration::from_secs(86_400);

/// What one direction of a link does to datagrams.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// How much later they arrive.
    pub delay: Duration,
    /// How many of a million are lost.
    pub loss: u32,
    /// How many of a million arrive twice.
    pub duplicate: u32,
    /// Whether all are lost.
    pub cut: bool,
}

impl Conditions {
    /// Nothing gets through.
    pub const CUT: Self = Self { delay: Duration::ZERO, loss: 0, duplicate: 0, cut: true };
}

/// One end of a link.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A replica.
    Replica(ReplicaIndex),
    /// All clients.
    Clients,
}

/// How rules are written, for help texts.
pub const RULE_HELP: &str = "\
  [LINKS:]CONDITION[,CONDITION]...   later rules win where several fit
  links       A-B both ways, A>B one way; each end a replica's number, `clients` or `*`; none: all links
  conditions  delay=20ms  loss=1%  duplicate=1%  cut, and when: after=5s  for=10s
";

/// Conditions for the links that it fits, for some time: see [`RULE_HELP`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `None` is everywhere.
    from: Option<Place>,
    to: Option<Place>,
    both_ways: bool,
    /// What is so on them.
    pub conditions: Conditions,
    /// Since when, from the start of the network on.
    after: Duration,
    /// For how long; for good if there is none.
    lasts: Option<Duration>,
}

/// What is wrong with a rule. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` in `{rule}` is no {what}")]
pub struct RuleError {
    rule: String,
    part: String,
    what: &'static str,
}

impl Rule {
    /// Whether it is about this direction.
    #[must_use]
    pub fn fits(&self, from: Place, to: Place) -> bool {
        let fits = |one: Place, other: Place| {
            self.from.is_none_or(|place| place == one) && self.to.is_none_or(|place| place == other)
        };
        fits(from, to) || (self.both_ways && fits(to, from))
    }

    /// Whether it holds at this time after the start of the network.
    #[must_use]
    pub fn holds(&self, elapsed: Duration) -> bool {
        elapsed >= self.after && self.lasts.is_none_or(|lasts| elapsed < self.after.saturating_add(lasts))
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let wrong = |part: &str, what| RuleError { rule: text.to_owned(), part: part.to_owned(), what };
        let (links, conditions) = text.split_once(':').unwrap_or(("*-*", text));
        let ends = links.split_once('>').map(|ends| (ends, false));
        let ends = ends.or_else(|| links.split_once('-').map(|ends| (ends, true)));
        let ((from, to), both_ways) = ends.ok_or_else(|| wrong(links, "pair of ends: A-B or A>B"))?;
        let end = |text: &str| {
            place(text.trim())
                .ok_or_else(|| wrong(text, "end of a link: a replica's number, `clients` or `*`"))
        };
        let mut rule = Self {
            from: end(from)?,
            to: end(to)?,
            both_ways,
            conditions: Conditions::default(),
            after: Duration::ZERO,
            lasts: None,
        };
        for part in conditions.split(',') {
            let what = "condition: delay=20ms, loss=1%, duplicate=1%, cut, after=5s, for=10s";
            rule.take(part.trim()).ok_or_else(|| wrong(part, what))?;
        }
        Ok(rule)
    }
}

impl Rule {
    fn take(&mut self, part: &str) -> Option<()> {
        let conditions = &mut self.conditions;
        match part.split_once('=') {
            None if part == "cut" => conditions.cut = true,
            Some(("delay", value)) => conditions.delay = time(value, DELAY_MAX)?,
            Some(("loss", value)) => conditions.loss = share(value)?,
            Some(("duplicate", value)) => conditions.duplicate = share(value)?,
            Some(("after", value)) => self.after = time(value, TIME_MAX)?,
            Some(("for", value)) => self.lasts = Some(time(value, TIME_MAX)?),
            _ => return None,
        }
        Some(())
    }
}

fn place(text: &str) -> Option<Option<Place>> {
    match text {
        "*" => Some(None),
        "clients" => Some(Some(Place::Clients)),
        number => number.parse().ok().map(|index| Some(Place::Replica(index))),
    }
}

/// "20ms" or "5s".
fn time(text: &str, most: Duration) -> Option<Duration> {
    let time = match text.strip_suffix("ms") {
        Some(number) => Duration::from_millis(number.parse().ok()?),
        None => Duration::from_secs(text.strip_suffix('s')?.parse().ok()?),
    };
    Some(time).filter(|time| *time <= most)
}

/// "2.5%", in parts of a million.
fn share(text: &str) -> Option<u32> {
    let percent: f64 =
        text.strip_suffix('%')?.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))?;
    // At most a million, by the check above.
    Some((percent * f64::from(MILLION) / 100.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Place = Place::Replica(1);
    const TWO: Place = Place::Replica(2);

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn rules_are_read_and_fit() {
        let one_way = rule("0>clients:delay=20ms,loss=2.5%");
        let wanted = Conditions { delay: Duration::from_millis(20), loss: 25_000, ..Conditions::default() };
        assert_eq!(one_way.conditions, wanted);
        assert!(one_way.fits(Place::Replica(0), Place::Clients));
        assert!(!one_way.fits(Place::Clients, Place::Replica(0)));
        let to_two = rule("*>2:cut");
        assert!(to_two.fits(ONE, TWO) && !to_two.fits(TWO, ONE) && to_two.conditions.cut);
        let both = rule("1-2:duplicate=100%");
        assert!(both.fits(ONE, TWO) && both.fits(TWO, ONE) && !both.fits(ONE, Place::Clients));
        assert_eq!(both.conditions.duplicate, MILLION);
        assert!(rule("2-*:cut").fits(ONE, TWO) && rule("2-*:cut").fits(TWO, Place::Clients));
        assert!(rule("delay=1s").fits(Place::Clients, ONE));
    }

    #[test]
    fn rules_hold_for_their_time() {
        let seconds = Duration::from_secs;
        let later = rule("cut,after=5s,for=1500ms");
        assert!(!later.holds(seconds(4)) && later.holds(seconds(6)) && !later.holds(seconds(7)));
        assert!(rule("cut").holds(Duration::ZERO) && rule("cut").holds(TIME_MAX));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = [
            ("", ""),
            ("0>1", "0>1"),
            ("0+1:cut", "0+1"),
            ("x>1:cut", "x"),
            ("0>1:delay=x", "delay=x"),
            ("0>1:delay=20", "delay=20"),
            ("0>1:loss=101%", "loss=101%"),
            ("loss=5", "loss=5"),
            ("0>1:cut=1", "cut=1"),
            ("0>1:delay=10001ms", "delay=10001ms"),
            ("delay=5ms,", ""),
        ];
        for (text, part) in wrong {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{part}` in `{text}` is no ")), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }
}
