//! What is due at a batch's time, before its envelopes: sessions that expire, release and are forgotten.
//!
//! Invariant: an outage of the cluster expires nobody. A session whose deadline has passed is first only
//! suspected, which a tick of the leader finds out; it ends when [`GRACE`] has passed since then without an
//! outage, that is without a gap of more than [`OUTAGE_GAP`] between two batches, and without an envelope of
//! the session. While a session is suspected its deadline is never further off than [`SUSPICION_STEP`], so
//! the leader's ticks keep an idle cluster from looking like one that was out. An outage starts the grace of
//! every suspected session anew. All of it is bounded for each batch by [`DUE_PER_BATCH_MAX`].

use quorate_metadata::keys;
use quorate_metadata::rows::{get, put};
use quorate_metadata::{Error, Key, Moment, Progress, View, release_session};
use quorate_protocol::{BatchTime, SessionNumber};

use crate::rows::{OutageRow, Phase, PrincipalRow, SessionRow, outage_key};
use crate::sessions::reschedule;

/// Nanoseconds between the times of two batches above which the cluster counts as having been out.
pub const OUTAGE_GAP: u64 = 10_000_000_000;
/// Nanoseconds that a suspected session has for an envelope before it ends.
pub const GRACE: u64 = 20_000_000_000;
/// Nanoseconds after which a suspected session is looked at again; well below [`OUTAGE_GAP`].
pub const SUSPICION_STEP: u64 = 5_000_000_000;
/// Rows among the deadlines that one batch works off.
pub const DUE_PER_BATCH_MAX: u32 = 128;
/// Rows of grants that a session which ends gives back in one batch.
pub const RELEASES_PER_CALL_MAX: u32 = 64;

/// The batch whose prologue runs.
#[derive(Copy, Clone)]
pub(crate) struct Prologue {
    /// Its height and time.
    pub(crate) moment: Moment,
    /// The time of the batch below.
    pub(crate) previous: BatchTime,
    /// The lifetime of sessions in nanoseconds.
    pub(crate) lifetime: u64,
}

/// Works off what is due.
pub(crate) fn run(view: &mut dyn View, prologue: Prologue) -> Result<(), Error> {
    let outage_ended = mark_outage(view, prologue)?;
    let end = keys::deadline(prologue.moment.time.plus(1), 0);
    let mut from = keys::table_start(keys::TABLE_DEADLINES);
    for _ in 0..DUE_PER_BATCH_MAX {
        let Some((key, _)) = view.next(&from, Some(&end))? else { break };
        work_off(view, prologue, outage_ended, &key)?;
        // Whatever is scheduled again is scheduled later than this batch.
        from = key;
    }
    Ok(())
}

/// When the last outage ended; records one that this batch ends.
fn mark_outage(view: &mut dyn View, prologue: Prologue) -> Result<BatchTime, Error> {
    if prologue.moment.time > prologue.previous.plus(OUTAGE_GAP) {
        put(view, outage_key(), &OutageRow { ended: prologue.moment.time });
        return Ok(prologue.moment.time);
    }
    Ok(get::<OutageRow>(view, &outage_key())?.map_or(BatchTime(0), |row| row.ended))
}

fn work_off(
    view: &mut dyn View,
    prologue: Prologue,
    outage_ended: BatchTime,
    deadline: &Key,
) -> Result<(), Error> {
    view.delete(*deadline);
    let (_, number) = keys::deadline_of(deadline);
    let Some(mut session) = get::<SessionRow>(view, &keys::session(number))? else { return Ok(()) };
    let now = prologue.moment.time;
    match session.phase {
        Phase::Live => suspect(view, number, &mut session, now, now),
        Phase::Suspected(since) if since < outage_ended => suspect(view, number, &mut session, now, now),
        Phase::Suspected(since) if now < since.plus(GRACE) => suspect(view, number, &mut session, since, now),
        Phase::Suspected(_) | Phase::Ending => end(view, number, &mut session, prologue)?,
        Phase::Ended => return forget(view, number, &session),
    }
    put(view, keys::session(number), &session);
    Ok(())
}

fn suspect(
    view: &mut dyn View,
    number: SessionNumber,
    session: &mut SessionRow,
    since: BatchTime,
    now: BatchTime,
) {
    session.phase = Phase::Suspected(since);
    reschedule(view, number, session, now.plus(SUSPICION_STEP));
}

/// Ends a session: releases what it holds, as far as one batch goes, and remembers it for a while. The
/// session's own row is the caller's to put.
pub(crate) fn end(
    view: &mut dyn View,
    number: SessionNumber,
    session: &mut SessionRow,
    prologue: Prologue,
) -> Result<(), Error> {
    let progress = release_session(view, prologue.moment, number, RELEASES_PER_CALL_MAX)?;
    if progress == Progress::More {
        session.phase = Phase::Ending;
        reschedule(view, number, session, prologue.moment.time.plus(1));
    } else {
        session.phase = Phase::Ended;
        let remembered = session.registration.max(prologue.moment.time.plus(prologue.lifetime));
        reschedule(view, number, session, remembered);
    }
    Ok(())
}

/// Removes what was left of an ended session, whose deadline is gone already.
fn forget(view: &mut dyn View, number: SessionNumber, session: &SessionRow) -> Result<(), Error> {
    view.delete(keys::session(number));
    view.delete(keys::session_id(&session.id));
    let key = keys::principal(session.principal);
    if let Some(principal) = get::<PrincipalRow>(view, &key)? {
        let sessions = principal.sessions.saturating_sub(1);
        put(view, key, &PrincipalRow { sessions, ..principal });
    }
    Ok(())
}
