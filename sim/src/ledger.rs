//! The committed operations by session, computed from the committed proposals by rule R8 alone, and what
//! clients were told of them.
//!
//! Invariant: each (session, sequence) is consumed at most once, and whatever a client was told is what
//! the chain says at that height.

use std::collections::BTreeMap;

use quorate_crypto::{Hash, PublicKey};
use quorate_protocol::envelope::session_id;
use quorate_protocol::{
    BatchTime, Envelope, EnvelopeBody, Height, OperationBody, OperationResult, Proposal, SessionId,
};

use crate::cast;
use crate::machine::Receipts;
use crate::oracle::{Verdict, broken};
use crate::trace::short;

/// Where an envelope was executed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The height.
    pub height: Height,
    /// Digest of the envelope.
    pub envelope: Hash,
}

/// An executed envelope.
#[derive(Clone, Debug)]
pub struct Executed {
    /// The height.
    pub height: Height,
    /// Index of its first operation among those of the height.
    pub index: u64,
    /// What it asked for.
    pub body: EnvelopeBody,
}

/// What a client was told: an envelope is executed at a height.
#[derive(Copy, Clone, Debug)]
struct Told {
    session: SessionId,
    first: u64,
    place: Place,
}

/// The committed history of all sessions.
#[derive(Debug, Default)]
pub struct Ledger {
    height: Height,
    next: BTreeMap<SessionId, u64>,
    keys: BTreeMap<SessionId, PublicKey>,
    executed: BTreeMap<(SessionId, u64), Place>,
    bodies: Vec<Executed>,
    told: Vec<Told>,
    skipped: u64,
}

impl Ledger {
    /// Operations skipped so far: duplicates, gaps, unknown sessions.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Envelopes executed so far, in order.
    #[must_use]
    pub fn executed(&self) -> &[Executed] {
        &self.bodies
    }

    /// Highest committed height.
    #[must_use]
    pub const fn height(&self) -> Height {
        self.height
    }

    /// The next sequence number of each session.
    #[must_use]
    pub const fn next(&self) -> &BTreeMap<SessionId, u64> {
        &self.next
    }

    /// A height was committed by a replica; only the first report of each height counts.
    ///
    /// # Errors
    /// When a height is missing below it, or the receipts say something else than rule R8.
    pub fn committed(&mut self, height: Height, proposal: &Proposal, receipts: &Receipts) -> Verdict {
        if height <= self.height {
            return Ok(());
        }
        if height != self.height + 1 {
            let detail = format!("height {height} is committed, {} is the last one known", self.height);
            return broken("heights are committed one after the other", detail);
        }
        self.height = height;
        let mut leaves = receipts.leaves().iter();
        let anyone = matches!(receipts, Receipts::Fake(_));
        let mut index = 0;
        for envelope in &proposal.envelopes {
            let executes = (anyone || envelope.body.key == cast::principal())
                && self.execute((height, index), proposal.time, envelope);
            self.skipped += u64::from(!executes);
            index += envelope.body.operations.len() as u64;
            for (sequence, leaf) in
                (envelope.body.first..).zip(leaves.by_ref().take(envelope.body.operations.len()))
            {
                let fits = leaf.session == envelope.body.session && leaf.sequence == sequence;
                let executed = !matches!(leaf.result, OperationResult::Skipped(_));
                if !fits || executed != executes {
                    let session = short(&envelope.body.session);
                    let detail =
                        format!("height {height} session {session} number {sequence}: {:?}", leaf.result);
                    return broken("results exactly once", detail);
                }
            }
        }
        if leaves.next().is_some() {
            return broken("one receipt per operation", format!("height {height}"));
        }
        Ok(())
    }

    /// Whether the envelope is executed here.
    fn execute(&mut self, (height, index): (Height, u64), time: BatchTime, envelope: &Envelope) -> bool {
        let body = &envelope.body;
        let expected = match self.next.get(&body.session) {
            Some(next) => (self.keys.get(&body.session) == Some(&body.key)).then_some(*next),
            None => registers(body).then_some(0),
        };
        if expected != Some(body.first) || body.valid_until < time {
            return false;
        }
        self.next.insert(body.session, envelope.next());
        self.keys.insert(body.session, body.key);
        let place = Place { height, envelope: body.digest() };
        self.executed.insert((body.session, body.first), place);
        self.bodies.push(Executed { height, index, body: body.clone() });
        true
    }

    /// A client holds a certificate for the execution of its envelope.
    pub fn told(&mut self, session: SessionId, first: u64, place: Place) {
        self.told.push(Told { session, first, place });
    }

    /// Whether all that clients were told is in the chain.
    ///
    /// # Errors
    /// Names the first thing that is not.
    pub fn check(&self) -> Verdict {
        for told in &self.told {
            let known = self.executed.get(&(told.session, told.first));
            if known != Some(&told.place) {
                let session = short(&told.session);
                let detail =
                    format!("session {session} number {}: told {:?}, is {known:?}", told.first, told.place);
                return broken("what a client was told stays", detail);
            }
        }
        Ok(())
    }
}

/// Whether the envelope registers its session.
fn registers(body: &EnvelopeBody) -> bool {
    match body.operations.as_slice() {
        [operation] => match &operation.body {
            OperationBody::Register { nonce } => session_id(&body.cluster, &body.key, nonce) == body.session,
            _ => false,
        },
        _ => false,
    }
}
