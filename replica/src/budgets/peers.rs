//! What each peer may cost this replica.
//!
//! Invariant: whatever a peer sends, it gets no more messages, bytes, signature checks and answers out of this
//! replica than its budgets say, and no other peer's traffic is touched (hazards A4, A13, RX4). A peer that is
//! beyond a budget is read more slowly; one that keeps sending what does not hold is barred: what would need a
//! signature check is dropped unread, and all of it is read slowly. A correct replica sends nothing that does not hold, so it is never barred,
//! and the other budgets are above what a correct one can use.

use crate::budgets::bucket::{Bucket, Rate};
use quorate_crypto::Hash;
use quorate_protocol::{Height, PeerMessage, ReplicaIndex, View};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Messages of one peer.
pub const MESSAGES: Rate = Rate { burst: 8192, per_second: 8192 };
/// Bytes of one peer.
pub const BYTES: Rate = Rate { burst: 32 << 20, per_second: 64 << 20 };
/// Bytes of one peer's messages that change nothing here: late votes, what others have forwarded already, blocks that
/// nobody asked for. Of a correct replica these are few, but for proposals that a leader repeats, or had under way
/// when it was replaced, which do not count.
pub const USELESS_BYTES: Rate = Rate { burst: 16 << 20, per_second: 4 << 20 };
/// Bytes of envelopes that one peer forwards and that are here already: where requests wait for long every follower forwards
/// most of them to the leader, which clients have told as well.
pub const FORWARDED_BYTES: Rate = Rate { burst: 32 << 20, per_second: 16 << 20 };
/// Messages of one peer that is barred, whatever they are: it is faulty, and reading them costs something as well.
pub const BARRED_MESSAGES: Rate = Rate { burst: 256, per_second: 256 };
/// Bytes of one peer that is barred.
pub const BARRED_BYTES: Rate = Rate { burst: 1 << 20, per_second: 2 << 20 };
/// Signatures checked for envelopes that one peer forwards. Proposals and committed heights need no such budget:
/// few of them are looked at for each height that is committed.
pub const FORWARD_CHECKS: Rate = Rate { burst: 8192, per_second: 8192 };
/// Signatures checked for all other messages of one peer.
pub const CHECKS: Rate = Rate { burst: 4096, per_second: 2048 };
/// Signatures checked for messages of one peer that were then refused.
pub const WASTED_CHECKS: Rate = Rate { burst: 64, per_second: 4 };
/// How long a peer is barred that goes beyond that.
pub const BARRED_TIME: Duration = Duration::from_secs(10);
/// Bytes of the past that one peer gets on its questions.
pub const ANSWERS: Rate = Rate { burst: 16 << 20, per_second: 32 << 20 };
/// A NEW-VIEW and the proposals in it are sent to a peer that owes for its answers so much time at most: who has just
/// caught up may be needed in this view.
pub const NEW_VIEW_DEBT_MAX: Duration = Duration::from_secs(1);
/// What an answer counts for at least: to find it costs something, however short it is.
pub const ANSWER_BYTES_MIN: u64 = 64 << 10;
/// The same question of one peer is answered once in this time; a correct one asks again after twice as long.
pub const QUESTION_INTERVAL: Duration = Duration::from_millis(125);
/// The same for the NEW-VIEW of a view: whoever is needed for a quorum may lack proposals of it again soon.
pub const NEW_VIEW_INTERVAL: Duration = Duration::from_millis(30);
/// Questions of one peer that are remembered: as many as a correct one has at a time.
pub const QUESTIONS_MAX: usize = 256;

/// A question about the past.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Committed(Height),
    Batches(Hash),
    NewView(View),
}

impl Question {
    fn of(message: &PeerMessage) -> Option<Self> {
        match message {
            PeerMessage::FetchCommitted { from } => Some(Self::Committed(*from)),
            PeerMessage::FetchBatches { header, .. } => Some(Self::Batches(*header)),
            PeerMessage::FetchNewView { view } => Some(Self::NewView(*view)),
            _ => None,
        }
    }

    const fn interval(self) -> Duration {
        match self {
            Self::Committed(_) | Self::Batches(_) => QUESTION_INTERVAL,
            Self::NewView(_) => NEW_VIEW_INTERVAL,
        }
    }
}

#[derive(Debug)]
struct Account {
    messages: Bucket,
    bytes: Bucket,
    useless: Bucket,
    forwarded: Bucket,
    barred_messages: Bucket,
    barred_bytes: Bucket,
    forward_checks: Bucket,
    checks: Bucket,
    wasted: Bucket,
    barred_until: Option<Instant>,
    /// Charged by the thread that reads the past.
    answers: Arc<Mutex<Bucket>>,
    /// Whether committed heights are being read for it.
    reading: Arc<AtomicBool>,
    asked: BTreeMap<Question, Instant>,
}

impl Account {
    fn new() -> Self {
        Self {
            messages: Bucket::new(MESSAGES),
            bytes: Bucket::new(BYTES),
            useless: Bucket::new(USELESS_BYTES),
            forwarded: Bucket::new(FORWARDED_BYTES),
            barred_messages: Bucket::new(BARRED_MESSAGES),
            barred_bytes: Bucket::new(BARRED_BYTES),
            forward_checks: Bucket::new(FORWARD_CHECKS),
            checks: Bucket::new(CHECKS),
            wasted: Bucket::new(WASTED_CHECKS),
            barred_until: None,
            answers: Arc::new(Mutex::new(Bucket::new(ANSWERS))),
            reading: Arc::new(AtomicBool::new(false)),
            asked: BTreeMap::new(),
        }
    }

    fn may_ask(&mut self, question: Question, now: Instant) -> bool {
        self.asked.retain(|question, at| now.saturating_duration_since(*at) < question.interval());
        // What is sent on this question is counted when it is sent.
        let indebted = !matches!(question, Question::NewView(_)) && !self.debt(now).is_zero();
        if indebted || self.asked.len() >= QUESTIONS_MAX || self.asked.contains_key(&question) {
            return false;
        }
        self.asked.insert(question, now);
        true
    }

    /// For how long it is to get no answers.
    fn debt(&self, now: Instant) -> Duration {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).wait(now)
    }
}

/// The accounts of all peers.
#[derive(Debug, Default)]
pub struct PeerBudgets {
    accounts: BTreeMap<ReplicaIndex, Account>,
}

impl PeerBudgets {
    fn account(&mut self, peer: ReplicaIndex) -> &mut Account {
        self.accounts.entry(peer).or_insert_with(Account::new)
    }

    /// A message of so many bytes has arrived: for how long nothing more is to be read of the peer, which may have been
    /// caught with votes that are badly signed.
    pub fn arrived(&mut self, peer: ReplicaIndex, bytes: usize, forges: bool, now: Instant) -> Duration {
        let barred = forges || self.is_barred(peer, now);
        let account = self.account(peer);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let wait = account.messages.charge(1, now).max(account.bytes.charge(bytes, now));
        if !barred {
            return wait;
        }
        wait.max(account.barred_messages.charge(1, now)).max(account.barred_bytes.charge(bytes, now))
    }

    /// A message of so many bytes changed nothing: for how long nothing more is to be read of the peer.
    pub fn useless(&mut self, peer: ReplicaIndex, bytes: usize, now: Instant) -> Duration {
        self.account(peer).useless.charge(u64::try_from(bytes).unwrap_or(u64::MAX), now)
    }

    /// The same of an envelope that it forwards.
    pub fn forwarded(&mut self, peer: ReplicaIndex, bytes: usize, now: Instant) -> Duration {
        self.account(peer).forwarded.charge(u64::try_from(bytes).unwrap_or(u64::MAX), now)
    }

    /// So many signatures were checked because of a message that forwards an envelope, or of another one that is
    /// no proposal and no committed height: for how long nothing more is to be read of the peer.
    pub fn checked(&mut self, peer: ReplicaIndex, kind: Checked, checks: u64, now: Instant) -> Duration {
        let account = self.account(peer);
        match kind {
            Checked::Forward => account.forward_checks.charge(checks, now),
            Checked::Other => account.checks.charge(checks, now),
            Checked::Progress => Duration::ZERO,
        }
    }

    /// So many of them were for a message that is refused.
    pub fn wasted(&mut self, peer: ReplicaIndex, checks: u64, now: Instant) {
        // A message that breaks a rule before its signature is looked at is an error as well.
        let account = self.account(peer);
        if !account.wasted.charge(checks.max(1), now).is_zero() {
            account.barred_until = now.checked_add(BARRED_TIME);
        }
    }

    /// Whether nothing of the peer is looked at that would need a signature check.
    pub fn is_barred(&self, peer: ReplicaIndex, now: Instant) -> bool {
        self.accounts.get(&peer).and_then(|account| account.barred_until).is_some_and(|until| now < until)
    }

    /// Whether a message may pass that asks for the past, if it does: not more often than a correct replica
    /// asks, and not while the peer has had more than its share.
    pub fn may_ask(&mut self, peer: ReplicaIndex, message: &PeerMessage, now: Instant) -> bool {
        Question::of(message).is_none_or(|question| self.account(peer).may_ask(question, now))
    }

    /// Whether a peer may be sent a NEW-VIEW, or a proposal that is in one: not while it has had much more than its share.
    pub fn may_have_view(&mut self, peer: ReplicaIndex, now: Instant) -> bool {
        self.account(peer).debt(now) <= NEW_VIEW_DEBT_MAX
    }

    /// Charges an answer out of memory.
    pub fn answered(&mut self, peer: ReplicaIndex, bytes: usize, now: Instant) {
        Reading::charge(&self.account(peer).answers, bytes, now);
    }

    /// Lets committed heights be read for a peer; `None` while others are.
    pub fn read(&mut self, peer: ReplicaIndex) -> Option<Reading> {
        let account = self.account(peer);
        let busy = account.reading.swap(true, Ordering::AcqRel);
        let (reading, answers) = (Arc::clone(&account.reading), Arc::clone(&account.answers));
        (!busy).then_some(Reading { reading, answers })
    }
}

/// Which budget pays for the checks of a message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// That of forwarded envelopes.
    Forward,
    /// None: what is looked at is bounded by the heights that are committed.
    Progress,
    /// That of all the rest.
    Other,
}

impl Checked {
    /// By the kind of a message that passed the screen.
    pub fn of(message: &PeerMessage) -> Self {
        match message {
            PeerMessage::Forward(_) => Self::Forward,
            PeerMessage::PrePrepare(_) | PeerMessage::Committed(_) | PeerMessage::Batches(_) => {
                Self::Progress
            }
            _ => Self::Other,
        }
    }
}

/// The right to have committed heights read; given back when it is dropped, also unused.
#[derive(Debug)]
pub struct Reading {
    reading: Arc<AtomicBool>,
    answers: Arc<Mutex<Bucket>>,
}

impl Reading {
    /// So many bytes leave.
    pub fn answered(&self, bytes: usize, now: Instant) {
        Self::charge(&self.answers, bytes, now);
    }

    fn charge(answers: &Mutex<Bucket>, bytes: usize, now: Instant) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).max(ANSWER_BYTES_MIN);
        answers.lock().unwrap_or_else(PoisonError::into_inner).charge(bytes, now);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.reading.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(began: Instant, milliseconds: u64) -> Instant {
        began + Duration::from_millis(milliseconds)
    }

    /// Hazard A4: a flood is slowed to its budget, and nobody else is.
    #[test]
    fn a4_a_flood_is_slowed_and_nobody_else_is() {
        let (mut budgets, began) = (PeerBudgets::default(), Instant::now());
        let (mut paused, mut taken) = (began, 0_u64);
        for millisecond in 0..10_000 {
            let now = after(began, millisecond);
            for _ in 0..100 {
                if paused <= now {
                    taken += 1;
                    paused = now + budgets.arrived(1, 100, false, now);
                }
            }
            assert_eq!(
                budgets.arrived(2, 1000, false, now),
                Duration::ZERO,
                "a correct peer at 1000 a second"
            );
        }
        let allowed = MESSAGES.burst + 10 * MESSAGES.per_second;
        assert!(taken <= allowed + 10 && taken > allowed - 200, "{taken} of {allowed}");
        // Few and large ones are slowed by their bytes.
        let wait = (0..20).map(|_| budgets.arrived(3, 16 << 20, false, began)).max();
        assert!(wait.is_some_and(|wait| wait > Duration::from_secs(1)));
    }

    /// Hazard A4: what changes nothing is read slowly after a while, also of who is never caught.
    #[test]
    fn a4_useless_bytes_are_slowed_and_late_votes_are_not() {
        let (mut budgets, began) = (PeerBudgets::default(), Instant::now());
        let (mut paused, mut taken) = (began, 0_u64);
        for millisecond in 0..10_000 {
            let now = after(began, millisecond);
            if paused <= now {
                taken += 64 << 10;
                paused = now + budgets.useless(1, 64 << 10, now);
            }
            // Two late votes of each of 1000 heights a second, and whatever clients have told the leader as well.
            assert_eq!(budgets.useless(2, 2 * 200, now), Duration::ZERO);
            assert_eq!(budgets.forwarded(2, 16 << 10, now), Duration::ZERO);
        }
        let allowed = USELESS_BYTES.burst + 10 * USELESS_BYTES.per_second;
        assert!(taken <= allowed + (64 << 10) && taken > allowed - (1 << 20), "{taken} of {allowed}");
    }

    /// Hazard A13: who wastes checks is barred, and is heard again after it has stopped.
    #[test]
    fn a13_a_peer_whose_messages_do_not_hold_is_barred_for_a_while() {
        let (mut budgets, began) = (PeerBudgets::default(), Instant::now());
        let mut wasted = 0_u64;
        for millisecond in 0..60_000 {
            let now = after(began, millisecond);
            if !budgets.is_barred(1, now) {
                // Thirty signatures of a NEW-VIEW, the last of which is bad.
                wasted += 30;
                budgets.wasted(1, 30, now);
            }
            assert!(!budgets.is_barred(2, now));
        }
        assert!(wasted <= WASTED_CHECKS.burst + 60 * WASTED_CHECKS.per_second + 60, "{wasted}");
        let quiet = after(began, 60_000 + 11_000);
        assert!(!budgets.is_barred(1, quiet));
    }

    /// Hazard A4: who was caught lying costs little from then on, also by what needs no check.
    #[test]
    fn a4_who_is_barred_is_read_slowly() {
        let (mut budgets, began) = (PeerBudgets::default(), Instant::now());
        budgets.wasted(1, WASTED_CHECKS.burst + 60 * WASTED_CHECKS.per_second, began);
        for (peer, forges) in [(1, false), (2, true)] {
            let (mut paused, mut taken) = (began, 0_u64);
            for millisecond in 0..10_000 {
                let now = after(began, millisecond);
                if paused <= now {
                    taken += 8 << 10;
                    paused = now + budgets.arrived(peer, 8 << 10, forges, now);
                }
            }
            let allowed = BARRED_BYTES.burst + 10 * BARRED_BYTES.per_second;
            assert!(taken <= allowed + (8 << 10) && taken > allowed / 4, "{taken} of {allowed}");
        }
        // Few, but large ones; and whoever has stopped is read as others are.
        assert!(budgets.arrived(3, 16 << 20, true, began) > Duration::from_secs(5));
        let quiet = after(began, 120_000);
        assert_eq!(budgets.arrived(1, 16 << 20, false, quiet), Duration::ZERO);
    }

    #[test]
    fn the_past_is_read_for_a_peer_once_at_a_time_and_within_its_share() {
        let (mut budgets, began) = (PeerBudgets::default(), Instant::now());
        let ask = |from| PeerMessage::FetchCommitted { from };
        assert!(budgets.may_ask(1, &ask(7), began));
        assert!(!budgets.may_ask(1, &ask(7), began), "the same question again");
        assert!(budgets.may_ask(1, &ask(8), began) && budgets.may_ask(2, &ask(7), began));
        assert!(budgets.may_ask(1, &ask(7), began + QUESTION_INTERVAL));
        let reading = budgets.read(1).unwrap();
        assert!(budgets.read(1).is_none() && budgets.read(2).is_some());
        reading.answered(96 << 20, began);
        drop(reading);
        assert!(budgets.read(1).is_some());
        // It has had more than its share: nothing until that is made good, but for the view, a little earlier.
        assert!(budgets.may_ask(1, &PeerMessage::FetchNewView { view: 3 }, after(began, 1400)));
        assert!(!budgets.may_have_view(1, after(began, 1400)) && budgets.may_have_view(2, began));
        assert!(budgets.may_have_view(1, after(began, 1600)));
        assert!(!budgets.may_ask(1, &ask(9), after(began, 1600)));
        assert!(budgets.may_ask(1, &ask(9), after(began, 2600)));
        assert!(budgets.may_ask(2, &ask(9), began));
        // Short answers cost something as well: one who asks for one after the other is not served for ever.
        let mut answered = 0_u64;
        for height in 0..100_000 {
            let now = after(began, 10_000 + height / 100);
            if budgets.may_ask(3, &ask(height), now) {
                answered += 1;
                budgets.answered(3, 10, now);
            }
        }
        let bytes = ANSWERS.burst + ANSWERS.per_second;
        assert!(answered <= bytes / ANSWER_BYTES_MIN + 1, "{answered} in a second");
        assert!(budgets.account(3).asked.len() <= QUESTIONS_MAX);
        // What is no question about the past passes.
        assert!(budgets.may_ask(3, &PeerMessage::FetchBlock { id: Hash([1; 32]) }, after(began, 11_000)));
    }
}
