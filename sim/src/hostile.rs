//! Hostile clients: registered principals or strangers who send what correct clients never send (hazards A1,
//! A5, CL2).
//!
//! Invariant: they sign only under keys of their own, which correct clients may share; they know everything
//! that is committed, and whatever was sent to a replica.

use std::sync::Arc;

use quorate_crypto::{Bounded, Hash, Signature, Signer};
use quorate_protocol::envelope::session_id;
use quorate_protocol::operation::Operation;
use quorate_protocol::{
    BatchTime, Credential, Envelope, EnvelopeBody, Groups, OperationBody, ReplicaIndex, SessionId,
};

use crate::cast::{self, Scheme};
use crate::random::Random;
use crate::workload::Workload;

/// Sessions that a hostile client goes through.
pub const SESSIONS: usize = 8;
/// Most envelopes of one burst.
pub const BURST_MAX: u64 = 12;
/// How far above the next number a gap may begin.
pub const GAP_MAX: u64 = 300;

/// What a hostile client does.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hostility {
    /// Different bodies under one number to different replicas (hazard CL2).
    TwoFaced,
    /// Numbers far above the next one, which nobody ever fills.
    Gaps,
    /// Envelopes that begin below the next number and end above it.
    Overlaps,
    /// Envelopes whose validity ends now, a little earlier or later.
    Expiring,
    /// Envelopes of sessions that nobody registered.
    UnknownSessions,
    /// Many envelopes at once, each the next one, and many registrations (hazard A5).
    Floods,
    /// What others or it itself sent before, to one replica.
    Replays,
    /// Envelopes whose signature holds for some replicas only (hazard A1).
    PartlySigned,
    /// Envelopes of somebody else's session under its own key.
    ForeignSessions,
    /// To one replica only, the rest never hears of it.
    OneReplicaOnly,
}

impl Hostility {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::TwoFaced,
        Self::Gaps,
        Self::Overlaps,
        Self::Expiring,
        Self::UnknownSessions,
        Self::Floods,
        Self::Replays,
        Self::PartlySigned,
        Self::ForeignSessions,
        Self::OneReplicaOnly,
    ];
}

/// How a hostile client behaves. Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct HostilePlan {
    /// What it does; nothing if this is empty.
    pub kinds: Vec<Hostility>,
    /// Longest pause between two deeds.
    pub pause: u64,
    /// Whether it signs under the key of the correct clients, or under one of its own.
    pub is_principal: bool,
}

/// What a hostile client knows when it acts.
pub struct Known<'a> {
    /// Batch time that a correct replica would propose now.
    pub time: BatchTime,
    /// Replicas.
    pub n: usize,
    /// The next number of a session, if it is registered.
    pub next: &'a dyn Fn(&SessionId) -> Option<u64>,
    /// Envelopes that clients sent lately.
    pub sent: &'a [Arc<Envelope>],
}

/// An envelope on its way to one replica, or to all.
pub type Shot = (Option<ReplicaIndex>, Arc<Envelope>);

/// One hostile client.
pub struct Hostile {
    plan: HostilePlan,
    cluster: Hash,
    signer: Arc<dyn Signer>,
    workload: Workload,
    random: Random,
    nonces: Vec<[u8; 32]>,
    at: u64,
}

impl Hostile {
    /// A hostile client that has done nothing yet.
    #[must_use]
    pub fn new(
        plan: HostilePlan,
        cluster: Hash,
        scheme: Scheme,
        workload: Workload,
        mut random: Random,
    ) -> Self {
        let signer =
            if plan.is_principal { cast::client_signer(scheme) } else { cast::stranger_signer(scheme) };
        let nonces = (0..SESSIONS).map(|_| random.bytes()).collect();
        let at = if plan.kinds.is_empty() { u64::MAX } else { random.below(plan.pause + 1) };
        Self { plan, cluster, signer, workload, random, nonces, at }
    }

    /// When it acts next.
    #[must_use]
    pub const fn wake_at(&self) -> u64 {
        self.at
    }

    /// It has had its time.
    pub const fn stop(&mut self) {
        self.at = u64::MAX;
    }

    /// What it sends now.
    pub fn wake(&mut self, now: u64, known: &Known<'_>) -> Vec<Shot> {
        if now < self.at || self.plan.kinds.is_empty() {
            return Vec::new();
        }
        self.at = now + 1 + self.random.below(self.plan.pause + 1);
        let kind = self.random.pick(&self.plan.kinds);
        let nonce = self.random.pick(&self.nonces);
        let session = session_id(&self.cluster, &self.signer.public(), &nonce);
        let Some(next) = (known.next)(&session) else {
            return vec![(None, self.registration(nonce))];
        };
        self.deed(kind, session, next, known)
    }

    fn deed(&mut self, kind: Hostility, session: SessionId, next: u64, known: &Known<'_>) -> Vec<Shot> {
        let random = &mut self.random;
        let mask = random.between(1, (1 << known.n) - 2);
        let one = random.below(known.n as u64) as ReplicaIndex;
        let each = 0..known.n as ReplicaIndex;
        let marked = move |to: ReplicaIndex| mask >> to & 1 == 1;
        match kind {
            Hostility::TwoFaced => {
                let (face, other) = (self.envelope(session, next), self.envelope(session, next));
                each.map(|to| (Some(to), if marked(to) { face.clone() } else { other.clone() })).collect()
            }
            Hostility::Gaps => {
                let first = next + random.between(1, GAP_MAX);
                vec![(None, self.envelope(session, first))]
            }
            Hostility::Overlaps => {
                let body = self.body(session, next.saturating_sub(1), 3);
                vec![(None, self.signed(body))]
            }
            Hostility::Expiring => {
                let off = random.between(0, 2_000_000);
                let valid_until = BatchTime((known.time.0 + off).saturating_sub(1_000_000));
                let body = EnvelopeBody { valid_until, ..self.body(session, next, 1) };
                vec![(None, self.signed(body))]
            }
            Hostility::UnknownSessions => {
                let session = session_id(&self.cluster, &self.signer.public(), &random.bytes());
                let first = random.pick(&[0, 1, next, u64::MAX]);
                vec![(None, self.envelope(session, first))]
            }
            Hostility::Floods => self.flood(session, next),
            Hostility::Replays if known.sent.is_empty() => Vec::new(),
            Hostility::Replays => {
                let envelope = known.sent[random.below(known.sent.len() as u64) as usize].clone();
                vec![(Some(one), envelope)]
            }
            Hostility::PartlySigned => {
                let whole = self.envelope(session, next);
                let torn = Arc::new(Envelope { signature: Signature::ZERO, body: whole.body.clone() });
                each.map(|to| (Some(to), if marked(to) { torn.clone() } else { whole.clone() })).collect()
            }
            Hostility::ForeignSessions => {
                let Some(foreign) = known.sent.last().map(|envelope| envelope.body.session) else {
                    return Vec::new();
                };
                let first = (known.next)(&foreign).unwrap_or(0);
                vec![(None, self.envelope(foreign, first))]
            }
            Hostility::OneReplicaOnly => vec![(Some(one), self.envelope(session, next))],
        }
    }

    /// The next envelopes of a session, one operation each, and registrations again and again: under a key of its
    /// own also of sessions without number, which are never used. Under the key of correct clients that would be
    /// their own doing: the sessions of one key share its turns.
    fn flood(&mut self, session: SessionId, next: u64) -> Vec<Shot> {
        let count = self.random.between(1, BURST_MAX);
        let mut shots = Vec::new();
        for number in 0..count {
            let body = self.body(session, next + number, 1);
            shots.push((None, self.signed(body)));
            if self.random.one_in(4) {
                let is_fresh = !self.plan.is_principal && self.random.one_in(2);
                let nonce = if is_fresh { self.random.bytes() } else { self.random.pick(&self.nonces) };
                shots.push((None, self.registration(nonce)));
            }
        }
        shots
    }

    fn envelope(&mut self, session: SessionId, first: u64) -> Arc<Envelope> {
        let operations = self.random.between(1, 3);
        let body = self.body(session, first, operations);
        self.signed(body)
    }

    fn body(&mut self, session: SessionId, first: u64, operations: u64) -> EnvelopeBody {
        let operations = (0..operations).map(|_| self.workload.operation(&mut self.random));
        let operations: Vec<_> = operations.collect();
        self.around(session, first, operations, cast::NEVER)
    }

    fn registration(&self, nonce: [u8; 32]) -> Arc<Envelope> {
        let session = session_id(&self.cluster, &self.signer.public(), &nonce);
        let body = vec![OperationBody::Register { nonce }];
        self.signed(self.around(session, 0, body, cast::REGISTRATION_END))
    }

    fn around(
        &self,
        session: SessionId,
        first: u64,
        operations: Vec<OperationBody>,
        valid_until: BatchTime,
    ) -> EnvelopeBody {
        let operations =
            operations.into_iter().map(|body| Operation { credential: 0, requires: 0, at: None, body });
        EnvelopeBody {
            cluster: self.cluster,
            session,
            key: self.signer.public(),
            first,
            valid_until,
            credentials: Bounded::try_collect([Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal }])
                .unwrap_or_default(),
            operations: Bounded::try_collect(operations).unwrap_or_default(),
        }
    }

    fn signed(&self, body: EnvelopeBody) -> Arc<Envelope> {
        Arc::new(body.sign(self.signer.as_ref()))
    }
}
