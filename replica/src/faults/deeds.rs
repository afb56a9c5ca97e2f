//! What a faulty replica does with its clock, its pool and its state.
//!
//! Invariant: without a fault every question here has a correct replica's answer.

use super::kind::Fault;
use super::{Liar, MARKER, crash};
use crate::error::ReplicaError;
use crate::node::Node;
use quorate_consensus::{Configuration, Input};
use quorate_crypto::{Certificate, Ed25519Signer, Hash, MemberSet};
use quorate_execution::{Environment, State};
use quorate_protocol::{BatchTime, Envelope, Height, ReplicaIndex, SessionId};
use quorate_transport::{PeerNetwork, faults};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much later an unfair replica takes notice of its victim's envelopes: less than time-outs.
const UNFAIR_DELAY: Duration = Duration::from_millis(300);
/// Envelopes of the victim that it holds back at once; it forgets what is more.
const HELD_BACK_MAX: usize = 1024;
/// Heights between the old states that stale reads are answered from, and how many are kept.
const OLD_HEIGHTS: Height = 8;
const OLD_STATES: usize = 6;
/// How long a time liar keeps to one offset.
const LIE_TIME: Duration = Duration::from_millis(400);
/// An hour of batch time.
const HOUR: u64 = 3_600_000_000_000;
/// What is just within, and just beyond, the clock window.
const EDGE: u64 = 20_000_000;

/// The faults of one replica.
#[derive(Default)]
pub(crate) struct Faults {
    liar: Option<Arc<Liar>>,
    began: Option<Instant>,
    /// Whom it treats badly: the first session that it hears of.
    victim: Option<SessionId>,
    held_back: VecDeque<(Instant, Input)>,
    old: VecDeque<(State, Option<Certificate>)>,
}

impl Faults {
    /// Makes this process faulty from now on, if it is to be.
    ///
    /// # Errors
    /// [`ReplicaError::Io`] when the system has no thread to give.
    pub(crate) fn start(
        fault: Option<Fault>,
        (cluster, genesis): (Hash, Hash),
        members: &MemberSet,
        me: ReplicaIndex,
        signer: Ed25519Signer,
        network: &PeerNetwork,
    ) -> Result<Self, ReplicaError> {
        let Some(fault) = fault else { return Ok(Self::default()) };
        tracing::warn!(replica = me, %fault, "{MARKER}, and is");
        let failed = |source| ReplicaError::Io { what: "no thread", source };
        if fault == Fault::CrashLoop {
            crash::start().map_err(failed)?;
        }
        let liar =
            Arc::new(Liar::new(fault, (cluster, genesis), members.clone(), me, signer, network.clone()));
        liar.start().map_err(failed)?;
        faults::install(Arc::clone(&liar) as Arc<_>);
        Ok(Self { liar: Some(liar), began: Some(Instant::now()), ..Self::default() })
    }

    fn is(&self, fault: Fault) -> bool {
        self.liar.as_ref().is_some_and(|liar| liar.fault == fault)
    }

    /// Whether this envelope is the victim's.
    fn is_victims(&mut self, envelope: &Envelope) -> bool {
        *self.victim.get_or_insert(envelope.body.session) == envelope.body.session
    }
}

impl Node {
    /// The wall clock as this replica has it. A time liar that leads has a wrong one: at the edges of the
    /// window, just beyond them, hours away, and right again.
    pub(crate) fn wall(&self) -> BatchTime {
        let now = crate::provision::now();
        let status = self.consensus.status();
        let me = self.consensus.configuration().me();
        match self.faults.began {
            Some(began) if self.faults.is(Fault::TimeLiar) && status.leader == me => {
                let turn = began.elapsed().as_millis() / LIE_TIME.as_millis().max(1);
                lie(now, turn, self.consensus.configuration())
            }
            _ => now,
        }
    }

    /// What it takes notice of; `None` if it does later, or never.
    pub(crate) fn noticed(&mut self, input: Input) -> Option<Input> {
        let (censors, delays) = (self.faults.is(Fault::Censor), self.faults.is(Fault::Unfair));
        let concerns = match &input {
            Input::Request { envelope, .. } if censors || delays => self.faults.is_victims(envelope.value()),
            _ => false,
        };
        if !concerns {
            return Some(input);
        }
        if delays
            && self.faults.held_back.len() < HELD_BACK_MAX
            && let Some(due) = Instant::now().checked_add(UNFAIR_DELAY)
        {
            self.faults.held_back.push_back((due, input));
        }
        None
    }

    /// What reads are answered from: the committed state, or an old one.
    pub(crate) fn standing(&self) -> (&State, Option<&Certificate>) {
        match self.faults.old.front() {
            Some((state, certificate)) => (state, certificate.as_ref()),
            None => (&self.state, self.certificate.as_ref()),
        }
    }

    /// Whether it answers reads without regard to the height that they ask for.
    pub(crate) fn answers_at_any_height(&self) -> bool {
        self.faults.is(Fault::StaleReply)
    }

    /// A proposal is about to be executed on this state.
    pub(crate) fn executing(&self, height: Height, parent: &State) {
        let Some(liar) = self.faults.liar.as_ref().filter(|liar| liar.fault == Fault::Equivocate) else {
            return;
        };
        let environment =
            Environment { cluster: liar.cluster, members: &liar.members, verifier: self.verifier.as_ref() };
        liar.execute_second_face(&environment, (self.consensus.view(), height), parent);
    }

    /// Does what is due.
    pub(crate) fn misbehave(&mut self) {
        if self.faults.is(Fault::StaleReply) {
            self.remember_state();
        }
        let now = Instant::now();
        while let Some((due, input)) = self.faults.held_back.pop_front() {
            if due > now {
                self.care_due = self.care_due.min(due);
                self.faults.held_back.push_front((due, input));
                break;
            }
            match input {
                Input::Request { envelope, .. } => {
                    let next = self.next_of(envelope.value());
                    self.take_in(Input::Request { envelope, next });
                }
                input => self.take_in(input),
            }
        }
    }

    fn remember_state(&mut self) {
        let newest = self.faults.old.back().map(|(state, _)| state.height());
        if newest.is_none_or(|newest| self.state.height() >= newest.saturating_add(OLD_HEIGHTS)) {
            self.faults.old.push_back((self.state.clone(), self.certificate.clone()));
            if self.faults.old.len() > OLD_STATES {
                self.faults.old.pop_front();
            }
        }
    }
}

/// The time that a liar claims in its turn.
fn lie(now: BatchTime, turn: u128, configuration: &Configuration) -> BatchTime {
    let window = configuration.timeouts().clock_window;
    match turn % 7 {
        0 => now,
        1 => now.plus(window.saturating_sub(EDGE)),
        2 => now.plus(window.saturating_add(EDGE)),
        3 => BatchTime(now.0.saturating_sub(window.saturating_sub(EDGE))),
        4 => BatchTime(now.0.saturating_sub(window.saturating_add(EDGE))),
        5 => now.plus(HOUR),
        _ => BatchTime(now.0.saturating_sub(HOUR)),
    }
}
