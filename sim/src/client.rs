//! A client of the simulated cluster: one session at a time, envelopes with retries, acknowledgement by
//! certificate, restarts under a new session, and reconnections.
//!
//! Invariant: it believes an envelope executed only when it holds the result under a header and Q COMMITs
//! of one view, or a commit certificate, for that header; and its retries are byte-identical (rule R8).

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_crypto::{Bounded, Certificate, CertificateKind, Hash, MemberSet, Signer, Verifier};
use quorate_protocol::envelope::session_id;
use quorate_protocol::operation::Operation;
use quorate_protocol::{
    Credential, Envelope, EnvelopeBody, Groups, Header, Height, OperationBody, OperationResult, ReplicaIndex,
    SessionId, View, Vote, VoteKind,
};

use crate::cast;
use crate::ledger::Place;
use crate::machine::Results;
use crate::random::Random;
use crate::workload::Workload;

/// Whom a client sends an envelope to at first; a retry goes to everybody.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// Every replica.
    Everybody,
    /// The replica that it believes to lead.
    Leader,
    /// One replica that never changes.
    One(ReplicaIndex),
}

/// How a client behaves. Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    /// Envelopes to execute before the calm, registration included.
    pub envelopes: u32,
    /// Most envelopes under way at once.
    pub window: u32,
    /// Most operations of one envelope.
    pub operations: u64,
    /// Longest pause between two envelopes.
    pub think: u64,
    /// When an unanswered envelope is sent again.
    pub patience: u64,
    /// Whom it sends to.
    pub addressing: Addressing,
    /// Longest time between two restarts, if it restarts: it forgets everything (hazard CL6).
    pub restarts: Option<u64>,
    /// Longest time between two losses of its connections, if it loses them.
    pub reconnects: Option<u64>,
}

/// An envelope under way.
#[derive(Debug)]
struct Outstanding {
    envelope: Arc<Envelope>,
    digest: Hash,
    retry_at: u64,
    /// Results that prove something under headers that may not be certified yet.
    results: Vec<(Arc<Results>, Vec<OperationResult>)>,
}

/// What a client wants sent: the envelope, whom to, and who is to send results (`None`: everybody).
#[derive(Debug)]
pub struct Submission {
    /// The envelope.
    pub envelope: Arc<Envelope>,
    /// To one replica, or to everybody.
    pub to: Option<ReplicaIndex>,
    /// Whether it was sent before.
    pub again: bool,
}

/// An envelope that the client knows to be executed.
#[derive(Debug)]
pub struct Acknowledged {
    /// Its first sequence number.
    pub first: u64,
    /// Where.
    pub place: Place,
    /// The certified header.
    pub header: Hash,
    /// The results, operation by operation.
    pub results: Vec<OperationResult>,
}

/// What a client does when it is woken.
#[derive(Debug, Default)]
pub struct Turn {
    /// It forgot everything and begins a new session.
    pub restarted: bool,
    /// Its connections are new: replicas do not know for what it waits.
    pub reconnected: bool,
    /// What it sends.
    pub submissions: Vec<Submission>,
}

/// A time within `longest` from now.
fn later(random: &mut Random, now: u64, longest: Option<u64>) -> Option<u64> {
    longest.map(|longest| now + 1 + random.below(longest))
}

/// One client.
pub struct Client {
    plan: ClientPlan,
    cluster: Hash,
    members: MemberSet,
    signer: Arc<dyn Signer>,
    verifier: Arc<dyn Verifier>,
    session: SessionId,
    nonce: [u8; 32],
    workload: Workload,
    random: Random,
    next: u64,
    issued: u32,
    registered: bool,
    next_issue: u64,
    outstanding: BTreeMap<u64, Outstanding>,
    tallies: BTreeMap<(Height, View, Hash), u32>,
    certified: BTreeMap<Height, Hash>,
    view: View,
    acknowledged: u32,
    waking_at: Option<u64>,
    /// When it restarts, and when it loses its connections.
    restart_at: Option<u64>,
    reconnect_at: Option<u64>,
}

impl Client {
    /// A client that has not registered yet.
    #[must_use]
    pub fn new(
        plan: ClientPlan,
        cluster: Hash,
        members: MemberSet,
        signer: Arc<dyn Signer>,
        verifier: Arc<dyn Verifier>,
        mut random: Random,
    ) -> Self {
        let nonce = random.bytes();
        let session = session_id(&cluster, &cast::principal(), &nonce);
        let next_issue = random.below(plan.think + 1);
        let restart_at = later(&mut random, 0, plan.restarts);
        let reconnect_at = later(&mut random, 0, plan.reconnects);
        Self {
            plan,
            cluster,
            members,
            signer,
            verifier,
            session,
            nonce,
            workload: Workload::default(),
            random,
            next: 0,
            issued: 0,
            registered: false,
            next_issue,
            outstanding: BTreeMap::new(),
            tallies: BTreeMap::new(),
            certified: BTreeMap::new(),
            view: 0,
            acknowledged: 0,
            waking_at: None,
            restart_at,
            reconnect_at,
        }
    }

    /// Sends these operations.
    #[must_use]
    pub const fn working(mut self, workload: Workload) -> Self {
        self.workload = workload;
        self
    }

    /// First sequence numbers of the envelopes that are not acknowledged.
    #[must_use]
    pub fn missing(&self) -> Vec<u64> {
        self.outstanding.keys().copied().collect()
    }

    /// Its session.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The first sequence number after all that it issued.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Envelopes that it knows to be executed.
    #[must_use]
    pub const fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// Whether everything that it wanted is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.issued >= self.plan.envelopes && self.outstanding.is_empty()
    }

    /// Whether it never sends anything.
    #[must_use]
    pub const fn is_mute(&self) -> bool {
        self.plan.envelopes == 0
    }

    /// The faults are over: one more envelope, soon, to see that the cluster lives; no restarts any more.
    pub fn calm(&mut self, now: u64) {
        if !self.is_mute() {
            self.plan.envelopes = self.issued.max(1) + 1;
        }
        (self.plan.restarts, self.restart_at) = (None, None);
        (self.plan.reconnects, self.reconnect_at) = (None, None);
        self.next_issue = now;
    }

    /// It forgets everything: what was under way may or may not be executed.
    fn restart(&mut self, now: u64) {
        self.nonce = self.random.bytes();
        self.session = session_id(&self.cluster, &cast::principal(), &self.nonce);
        self.next = 0;
        self.registered = false;
        self.next_issue = now;
        self.outstanding.clear();
        self.tallies.clear();
        self.certified.clear();
        self.view = 0;
    }

    /// When it wants to be woken next.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        let retry = self.outstanding.values().map(|waiting| waiting.retry_at).min();
        let issue = self.may_issue().then_some(self.next_issue);
        let upheaval = if self.is_done() { [None, None] } else { [self.restart_at, self.reconnect_at] };
        retry.into_iter().chain(issue).chain(upheaval.into_iter().flatten()).min()
    }

    /// When a waking is to be scheduled, if none is that comes early enough.
    pub fn wants_waking(&mut self, now: u64) -> Option<u64> {
        let at = self.wake_at()?.max(now);
        if self.waking_at.is_some_and(|waking| waking <= at && waking > now) {
            return None;
        }
        self.waking_at = Some(at);
        Some(at)
    }

    fn may_issue(&self) -> bool {
        let window = if self.registered { self.plan.window as usize } else { 1 };
        self.issued < self.plan.envelopes && self.outstanding.len() < window
    }

    /// Does what is due.
    pub fn wake(&mut self, now: u64) -> Turn {
        let mut turn = Turn::default();
        if !self.is_done() && self.restart_at.is_some_and(|at| at <= now) {
            turn.restarted = true;
            self.restart(now);
            self.restart_at = later(&mut self.random, now, self.plan.restarts);
        }
        if !self.is_done() && self.reconnect_at.is_some_and(|at| at <= now) {
            turn.reconnected = true;
            self.outstanding.values_mut().for_each(|waiting| waiting.retry_at = now);
            self.reconnect_at = later(&mut self.random, now, self.plan.reconnects);
        }
        turn.submissions = self.submissions(now);
        turn
    }

    fn submissions(&mut self, now: u64) -> Vec<Submission> {
        let mut submissions = Vec::new();
        for waiting in self.outstanding.values_mut().filter(|waiting| waiting.retry_at <= now) {
            waiting.retry_at = now + self.plan.patience + self.random.below(self.plan.patience / 4 + 1);
            submissions.push(Submission { envelope: waiting.envelope.clone(), to: None, again: true });
        }
        while self.may_issue() && self.next_issue <= now {
            let envelope = Arc::new(self.issue());
            let to = match self.plan.addressing {
                Addressing::Everybody => None,
                Addressing::Leader => Some(self.members.leader(self.view)),
                Addressing::One(replica) => Some(replica),
            };
            let digest = envelope.body.digest();
            let retry_at = now + self.plan.patience;
            let waiting = Outstanding { envelope: envelope.clone(), digest, retry_at, results: Vec::new() };
            self.outstanding.insert(envelope.body.first, waiting);
            self.next_issue = now + self.random.below(self.plan.think + 1);
            submissions.push(Submission { envelope, to, again: false });
        }
        submissions
    }

    fn issue(&mut self) -> Envelope {
        let bodies = if self.next == 0 {
            vec![OperationBody::Register { nonce: self.nonce }]
        } else {
            let count = self.random.between(1, self.plan.operations.max(1));
            (0..count).map(|_| self.workload.operation(&mut self.random)).collect()
        };
        // A registration is remembered until it expires, so it may not be valid for ever.
        let valid_until = if self.next == 0 { cast::REGISTRATION_END } else { cast::NEVER };
        let first = self.next;
        self.next += bodies.len() as u64;
        self.issued += 1;
        let operations =
            bodies.into_iter().map(|body| Operation { credential: 0, requires: 0, at: None, body });
        EnvelopeBody {
            cluster: self.cluster,
            session: self.session,
            key: cast::principal(),
            first,
            valid_until,
            credentials: Bounded::try_collect([Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal }])
                .unwrap_or_default(),
            operations: Bounded::try_collect(operations).unwrap_or_default(),
        }
        .sign(self.signer.as_ref())
    }

    /// A COMMIT arrived: counted once per replica, view, height and header (rule R3).
    pub fn on_commit(&mut self, vote: &Vote) -> Vec<Acknowledged> {
        let Some(member) = self.members.get(vote.replica) else { return Vec::new() };
        let valid =
            self.verifier.verify(&member.consensus, &vote.statement(self.cluster), &vote.signature).is_ok();
        if vote.kind != VoteKind::Commit || !valid {
            return Vec::new();
        }
        self.view = self.view.max(vote.view);
        let tally = self.tallies.entry((vote.height, vote.view, vote.header)).or_insert(0);
        *tally |= 1 << vote.replica;
        if (tally.count_ones() as usize) < self.members.quorum() {
            return Vec::new();
        }
        self.certified.insert(vote.height, vote.header);
        self.settle()
    }

    /// Results arrived, with a certificate.
    pub fn on_results(&mut self, results: &Arc<Results>) -> Vec<Acknowledged> {
        if self.holds(&results.certificate, &results.header) {
            self.certified.insert(results.certificate.height, results.certificate.header_hash);
        }
        if let Some(waiting) = self.outstanding.get_mut(&results.first)
            && let Some(answers) = results.answer(&waiting.envelope, &waiting.digest)
        {
            waiting.results.push((results.clone(), answers));
        }
        self.settle()
    }

    fn holds(&self, certificate: &Certificate, header: &Header) -> bool {
        certificate.kind == CertificateKind::Commit
            && certificate.height == header.height
            && certificate.header_hash == header.hash()
            && certificate.verify(&self.cluster, &self.members, self.verifier.as_ref()).is_ok()
    }

    /// Acknowledges every envelope whose result stands under a certified header.
    fn settle(&mut self) -> Vec<Acknowledged> {
        let mut acknowledged = Vec::new();
        let certified = &self.certified;
        self.outstanding.retain(|first, waiting| {
            let proven = waiting.results.iter().find_map(|(results, answers)| {
                let header = results.header.hash();
                (certified.get(&results.header.height) == Some(&header)).then_some((
                    results.header.height,
                    header,
                    answers,
                ))
            });
            let Some((height, header, answers)) = proven else { return true };
            let place = Place { height, envelope: waiting.digest };
            acknowledged.push(Acknowledged { first: *first, place, header, results: answers.clone() });
            false
        });
        self.registered |= !acknowledged.is_empty();
        self.acknowledged += acknowledged.len() as u32;
        acknowledged
    }
}
