//! Sessions: which envelopes are executed and which are skipped, and what an executed one leaves (rule R8).
//!
//! Invariants: an envelope that is executed starts at the session's next number and moves it past its last
//! one, whatever its operations answer; a skipped one changes nothing. So every number is consumed once.

use quorate_crypto::Bounded;
use quorate_metadata::keys::{self, Counter};
use quorate_metadata::rows::{Presence, put};
use quorate_metadata::{Error, View};
use quorate_protocol::envelope::session_id;
use quorate_protocol::{
    BatchTime, Envelope, EnvelopeBody, Height, OperationBody, PrincipalNumber, SessionNumber, SkipReason,
};

use crate::rows::{
    Consumed, Outcomes, Phase, PrincipalRow, SessionRow, find_principal, find_session, take_number,
};

/// Nanoseconds of batch time that a registration may stay valid. Until then its nonce is remembered.
pub const REGISTRATION_VALIDITY_MAX: u64 = 24 * 3600 * 1_000_000_000;
/// Sessions of one principal, those included that have ended and are remembered. A registration beyond it is
/// skipped as `Budget`: it can succeed later.
pub const SESSIONS_PER_PRINCIPAL_MAX: u32 = 65_536;
/// A session is renewed by its envelopes when that moves its deadline by at least one part in this many of
/// its lifetime, so that most envelopes do not touch the deadlines.
const RENEWAL_STEPS: u64 = 4;

/// What becomes of an envelope in a given state at a given batch time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Its operations are executed.
    Executes,
    /// It is skipped.
    Skipped(SkipReason),
}

/// An envelope that is executed, with what is needed for it.
pub(crate) enum Admitted {
    /// The next of its session.
    Next(Box<Actor>),
    /// The registration of a new session.
    Registration(PrincipalNumber, Box<PrincipalRow>),
}

/// Session and principal of an envelope.
pub(crate) struct Actor {
    pub(crate) number: SessionNumber,
    pub(crate) session: SessionRow,
    pub(crate) principal: PrincipalRow,
}

/// Decides about an envelope.
pub(crate) fn admit(
    view: &dyn View,
    time: BatchTime,
    envelope: &Envelope,
) -> Result<Result<Admitted, SkipReason>, Error> {
    let body = &envelope.body;
    let Some((number, session)) = find_session(view, &body.session)? else {
        return admit_unknown(view, time, body);
    };
    if session.key != body.key {
        return Ok(Err(SkipReason::WrongKey));
    }
    let next = session.next;
    if envelope.next() <= next {
        return Ok(Err(SkipReason::Duplicate { executed: session.executed(body.first) }));
    }
    if !session.is_open() {
        return Ok(Err(SkipReason::UnknownSession));
    }
    let Some((_, principal)) = find_principal(view, &body.key)?.filter(|found| found.0 == session.principal)
    else {
        return Ok(Err(SkipReason::UnknownPrincipal));
    };
    Ok(if body.first < next {
        Err(SkipReason::Overlap { next })
    } else if body.valid_until < time {
        Err(SkipReason::Expired)
    } else if body.first > next {
        Err(SkipReason::Gap { next })
    } else {
        Ok(Admitted::Next(Box::new(Actor { number, session, principal })))
    })
}

/// Decides about an envelope whose session does not exist: only a registration may be executed.
fn admit_unknown(
    view: &dyn View,
    time: BatchTime,
    body: &EnvelopeBody,
) -> Result<Result<Admitted, SkipReason>, Error> {
    let Some(OperationBody::Register { nonce }) = body.operations.first().map(|first| &first.body) else {
        return Ok(Err(SkipReason::UnknownSession));
    };
    let alone = body.first == 0 && body.operations.len() == 1;
    let own = session_id(&body.cluster, &body.key, nonce) == body.session;
    // Another identifier may begin with the same 23 bytes.
    let free = view.get(&keys::session_id(&body.session))?.is_none();
    let Some((number, principal)) = find_principal(view, &body.key)? else {
        return Ok(Err(SkipReason::UnknownPrincipal));
    };
    Ok(if !alone || !own || !free || body.valid_until > time.plus(REGISTRATION_VALIDITY_MAX) {
        Err(SkipReason::BadRegistration)
    } else if body.valid_until < time {
        Err(SkipReason::Expired)
    } else if principal.sessions >= SESSIONS_PER_PRINCIPAL_MAX {
        Err(SkipReason::Budget)
    } else {
        Ok(Admitted::Registration(number, Box::new(principal)))
    })
}

/// Where a batch stands when it executes an envelope.
#[derive(Copy, Clone)]
pub(crate) struct Place {
    pub(crate) height: Height,
    pub(crate) time: BatchTime,
    /// Index of the envelope's first operation in the batch.
    pub(crate) index: u32,
    /// The lifetime of sessions in nanoseconds.
    pub(crate) lifetime: u64,
}

/// Makes the session of a registration.
pub(crate) fn register(
    view: &mut dyn View,
    place: Place,
    body: &EnvelopeBody,
    principal: (PrincipalNumber, PrincipalRow),
) -> Result<SessionNumber, Error> {
    let number = take_number(view, Counter::Session)?;
    let (principal_number, principal) = principal;
    let due = place.time.plus(place.lifetime);
    let mut row = SessionRow {
        id: body.session,
        key: body.key,
        principal: principal_number,
        next: 1,
        phase: Phase::Live,
        due,
        registration: body.valid_until,
        outcomes: Outcomes::NONE,
        recent: Bounded::new(),
    };
    row.outcomes.set(0, true);
    row.remember(Consumed { first: 0, height: place.height, index: place.index });
    put(view, keys::session(number), &row);
    put(view, keys::session_id(&body.session), &crate::rows::SessionIdRow { id: body.session, number });
    put(view, keys::deadline(due, number), &Presence);
    let sessions = principal.sessions.saturating_add(1);
    put(view, keys::principal(principal_number), &PrincipalRow { sessions, ..principal });
    Ok(number)
}

/// Records that an envelope was executed, and renews its session.
pub(crate) fn consume(view: &mut dyn View, place: Place, envelope: &Envelope, actor: &mut Actor) {
    let session = &mut actor.session;
    session.next = envelope.next();
    session.remember(Consumed { first: envelope.body.first, height: place.height, index: place.index });
    let renewed = place.time.plus(place.lifetime);
    let step = place.lifetime.checked_div(RENEWAL_STEPS).unwrap_or(0);
    if session.is_open() && (session.phase != Phase::Live || session.due.plus(step) <= renewed) {
        renew(view, actor.number, session, renewed);
    }
    put(view, keys::session(actor.number), &actor.session);
}

/// `Renew`: moves the deadline to `until`, at most a lifetime ahead, if that is later.
pub(crate) fn extend(view: &mut dyn View, place: Place, actor: &mut Actor, until: BatchTime) {
    let until = until.min(place.time.plus(place.lifetime));
    if actor.session.phase == Phase::Live && until > actor.session.due {
        renew(view, actor.number, &mut actor.session, until);
    }
}

fn renew(view: &mut dyn View, number: SessionNumber, session: &mut SessionRow, until: BatchTime) {
    session.phase = Phase::Live;
    reschedule(view, number, session, until);
}

/// Moves the session's row among the deadlines. The session's own row is the caller's to put.
pub(crate) fn reschedule(
    view: &mut dyn View,
    number: SessionNumber,
    session: &mut SessionRow,
    due: BatchTime,
) {
    view.delete(keys::deadline(session.due, number));
    session.due = due;
    put(view, keys::deadline(due, number), &Presence);
}
