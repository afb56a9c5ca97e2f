//! A client of the simulated cluster: one session, envelopes with retries, acknowledgement by certificate.
//!
//! Invariant: it believes an envelope executed only when it holds the result under a header and Q COMMITs
//! of one view, or a commit certificate, for that header; and its retries are byte-identical (rule R8).

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_crypto::{Bounded, Certificate, CertificateKind, Hash, MemberSet, Signer, Verifier};
use quorate_protocol::envelope::session_id;
use quorate_protocol::operation::Operation;
use quorate_protocol::{
    Credential, Envelope, EnvelopeBody, Groups, Header, Height, OperationBody, ReplicaIndex, SessionId, View,
    Vote, VoteKind,
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
}

/// An envelope under way.
#[derive(Debug)]
struct Outstanding {
    envelope: Arc<Envelope>,
    digest: Hash,
    retry_at: u64,
    results: Vec<Arc<Results>>,
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

    /// The faults are over: one more envelope, soon, to see that the cluster lives; and no long waits.
    pub fn calm(&mut self, now: u64) {
        self.plan.envelopes = self.issued.max(1) + 1;
        self.next_issue = now;
    }

    /// When it wants to be woken next.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        let retry = self.outstanding.values().map(|waiting| waiting.retry_at).min();
        let issue = self.may_issue().then_some(self.next_issue);
        retry.into_iter().chain(issue).min()
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

    /// Sends what is due.
    pub fn wake(&mut self, now: u64) -> Vec<Submission> {
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
        let bodies = if self.issued == 0 {
            vec![OperationBody::Register { nonce: self.nonce }]
        } else {
            let count = self.random.between(1, self.plan.operations.max(1));
            (0..count).map(|_| self.workload.operation(&mut self.random)).collect()
        };
        // A registration is remembered until it expires, so it may not be valid for ever.
        let valid_until = if self.issued == 0 { cast::REGISTRATION_END } else { cast::NEVER };
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
            && results.answer(&waiting.envelope, &waiting.digest)
        {
            waiting.results.push(results.clone());
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
            let proven = waiting.results.iter().find_map(|results| {
                let header = results.header.hash();
                (certified.get(&results.header.height) == Some(&header))
                    .then_some((results.header.height, header))
            });
            let Some((height, header)) = proven else { return true };
            let place = Place { height, envelope: waiting.digest };
            acknowledged.push(Acknowledged { first: *first, place, header });
            false
        });
        self.registered |= !acknowledged.is_empty();
        self.acknowledged += acknowledged.len() as u32;
        acknowledged
    }
}
