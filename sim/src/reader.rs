//! A reader that asks the linearizable question, waits for what it learns (rule R4), and then reads.
//!
//! Invariant: the height that it takes is the maximum over a quorum of answers, an answer above what it
//! knows counts only with a valid certificate, it never waits for a height that no certificate shows, and it
//! believes a value only out of a state whose header is certified, at or above the height that it took.

use std::sync::Arc;

use quorate_consensus::ReadIndex;
use quorate_crypto::{Certificate, CertificateKind, Hash, MemberSet, Verifier};
use quorate_protocol::{Header, Height, ReplicaIndex, SessionId};

use crate::machine::State;
use crate::random::Random;
use crate::workload::nth_name;

/// How a reader behaves. Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct ReaderPlan {
    /// Longest pause between two questions.
    pub think: u64,
    /// When it asks or presents its certificate again.
    pub patience: u64,
    /// Whether it never asks.
    pub is_mute: bool,
}

/// What a reader reads.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What the name of this number holds; the stand-in knows it.
    Name(u64),
    /// The next number of a session.
    Session(SessionId),
}

impl Subject {
    /// What a state says of it.
    #[must_use]
    pub fn value(&self, state: &State) -> Option<u64> {
        match (self, state) {
            (Self::Name(number), State::Fake(state)) => state.name(nth_name(*number).as_bytes()),
            (Self::Name(_), State::Real(_)) => None,
            (Self::Session(session), state) => state.session_next(session),
        }
    }
}

/// A state as a replica shows it: its header, the certificate of that, and the rest, which the header binds.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The header.
    pub header: Header,
    /// Its certificate; none for genesis.
    pub certificate: Option<Certificate>,
    /// The state.
    pub state: State,
}

/// What a reader is doing.
#[derive(Debug)]
enum Phase {
    /// Nothing, until then.
    Idle(u64),
    /// Waiting for answers to the question of this number.
    Asking { floor: Height, answered: u32, best: Height, certificate: Option<Certificate>, again_at: u64 },
    /// Waiting until a height is committed.
    Waiting { height: Height, certificate: Certificate, again_at: u64 },
    /// Waiting for a state at or above a height.
    Reading { height: Height, again_at: u64 },
}

/// What a reader sends to all replicas.
#[derive(Clone, Debug)]
pub enum Question {
    /// The highest height they sent a COMMIT for.
    Highest(u64),
    /// The certificate of the height that it waits for.
    Await(Certificate),
    /// A state at or above this height, to the question of this number.
    Read(u64, Height),
}

/// What a reader has read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// When it asked first.
    pub asked_at: u64,
    /// What.
    pub subject: Subject,
    /// The height of the state.
    pub height: Height,
    /// The value.
    pub value: Option<u64>,
}

/// What a quorum of answers gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Learned {
    /// The maximum of the answers.
    pub height: Height,
    /// What was acknowledged when the question was asked: the maximum must not be below it.
    pub floor: Height,
}

/// One reader.
pub struct Reader {
    plan: ReaderPlan,
    cluster: Hash,
    members: MemberSet,
    verifier: Arc<dyn Verifier>,
    random: Random,
    phase: Phase,
    number: u64,
    known: Height,
    asks: bool,
    asked_at: u64,
    subject: Subject,
}

impl Reader {
    /// A reader that knows nothing above genesis.
    #[must_use]
    pub fn new(
        plan: ReaderPlan,
        cluster: Hash,
        members: MemberSet,
        verifier: Arc<dyn Verifier>,
        mut random: Random,
    ) -> Self {
        let phase = Phase::Idle(if plan.is_mute { u64::MAX } else { random.below(plan.think + 1) });
        Self {
            plan,
            cluster,
            members,
            verifier,
            random,
            phase,
            number: 0,
            known: 0,
            asks: true,
            asked_at: 0,
            subject: Subject::Name(0),
        }
    }

    /// The faults are over: one more question, now.
    pub const fn calm(&mut self, now: u64) {
        if let Phase::Idle(at) = &mut self.phase
            && !self.plan.is_mute
        {
            *at = now;
        }
        self.asks = false;
    }

    /// Whether it asks and waits for nothing any more.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Idle(u64::MAX))
    }

    /// When it wants to be woken next.
    #[must_use]
    pub const fn wake_at(&self) -> u64 {
        match &self.phase {
            Phase::Idle(at) => *at,
            Phase::Asking { again_at, .. }
            | Phase::Waiting { again_at, .. }
            | Phase::Reading { again_at, .. } => *again_at,
        }
    }

    /// What it sends now, if it is due. `acknowledged` is the highest height that any client was told of,
    /// `committed` the highest that any replica has committed, `subjects` what can be read.
    pub fn wake(
        &mut self,
        now: u64,
        (acknowledged, committed): (Height, Height),
        subjects: &[Subject],
    ) -> Option<Question> {
        if now < self.wake_at() {
            return None;
        }
        let later = now + self.plan.patience;
        match &mut self.phase {
            Phase::Idle(_) => {
                self.number += 1;
                self.asked_at = now;
                self.subject = self.random.pick(subjects);
                self.phase = Phase::Asking {
                    floor: acknowledged,
                    answered: 0,
                    best: self.known,
                    certificate: None,
                    again_at: later,
                };
                Some(Question::Highest(self.number))
            }
            Phase::Asking { again_at, .. } => {
                *again_at = later;
                Some(Question::Highest(self.number))
            }
            Phase::Waiting { height, .. } if *height <= committed => {
                let height = *height;
                self.known = height;
                self.phase = Phase::Reading { height, again_at: later };
                Some(Question::Read(self.number, height))
            }
            Phase::Reading { height, again_at } => {
                *again_at = later;
                Some(Question::Read(self.number, *height))
            }
            Phase::Waiting { certificate, again_at, .. } => {
                *again_at = later;
                Some(Question::Await(certificate.clone()))
            }
        }
    }

    fn rest(&mut self, now: u64) {
        let next = if self.asks { now + self.random.below(self.plan.think + 1) } else { u64::MAX };
        self.phase = Phase::Idle(next);
    }

    /// An answer arrived; a quorum of them gives a height.
    pub fn on_answer(
        &mut self,
        now: u64,
        number: u64,
        from: ReplicaIndex,
        answer: &ReadIndex,
    ) -> Option<Learned> {
        let Phase::Asking { floor, answered, best, certificate, .. } = &mut self.phase else { return None };
        if number != self.number {
            return None;
        }
        *answered |= 1 << from;
        if let Some(shown) = &answer.certificate
            && answer.height > *best
            && shown.height == answer.height
            && shown.verify(&self.cluster, &self.members, self.verifier.as_ref()).is_ok()
        {
            (*best, *certificate) = (answer.height, Some(shown.clone()));
        }
        if (answered.count_ones() as usize) < self.members.quorum() {
            return None;
        }
        let learned = Learned { height: *best, floor: *floor };
        match certificate.take() {
            // Not due yet: the certificate is shown only if the height does not come by itself.
            Some(certificate) => {
                let again_at = now + self.random.below(self.plan.patience + 1);
                self.phase = Phase::Waiting { height: learned.height, certificate, again_at };
            }
            None => self.phase = Phase::Reading { height: learned.height, again_at: now },
        }
        Some(learned)
    }

    /// A state arrived; one that is certified and recent enough ends the question.
    pub fn on_shown(&mut self, now: u64, number: u64, shown: &Shown) -> Option<Read> {
        let Phase::Reading { height, .. } = &self.phase else { return None };
        let header = &shown.header;
        let certified = match &shown.certificate {
            None => header.height == 0,
            Some(certificate) => {
                certificate.kind == CertificateKind::Commit
                    && certificate.height == header.height
                    && certificate.header_hash == header.hash()
                    && certificate.verify(&self.cluster, &self.members, self.verifier.as_ref()).is_ok()
            }
        };
        if number != self.number || header.height < *height || !certified || shown.state.header() != header {
            return None;
        }
        self.known = header.height;
        let value = self.subject.value(&shown.state);
        let read = Read { asked_at: self.asked_at, subject: self.subject, height: header.height, value };
        self.rest(now);
        Some(read)
    }
}
