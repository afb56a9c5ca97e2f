//! A session that is over: what is told to those who wait for its operations.
//!
//! Invariant: an operation is called *not executed* only if it was never sent, or if a certified row of the session,
//! which has ended, says that its number was not consumed: nothing can consume it any more. Of everything else the
//! outcome is unknown.

use quorate_protocol::BatchTime;
use tokio::time::Instant;

use super::{Action, Fate, Pipeline};
use crate::error::ClientError;

/// What the session's row says at a certified height.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionAt {
    /// The next sequence number; `None` when there is no such session, or it has ended.
    pub(crate) next: Option<u64>,
    /// Of a session that has ended: the number from which on nothing was executed.
    pub(crate) consumed: Option<u64>,
    /// The batch time of that height.
    pub(crate) time: BatchTime,
}

impl Pipeline {
    /// Acts on the session's row, which somebody read because the envelope that starts at `first` gets no
    /// answer: replicas do not order what they would skip.
    pub(crate) fn resolve(
        &mut self,
        first: u64,
        row: SessionAt,
        (now, batch_now): (Instant, BatchTime),
    ) -> (Fate, Vec<Action>) {
        let Some(position) = self.flights.iter().position(|flight| flight.first() == first) else {
            return (Fate::Lives, Vec::new());
        };
        let Some(flight) = self.flights.get_mut(position) else { return (Fate::Lives, Vec::new()) };
        flight.resolving = false;
        let expired = row.time > flight.envelope.body.valid_until;
        match row.next {
            Some(next) if next > first => flight.fetch_at = Some(now),
            Some(_) if expired => {
                return (Fate::Lives, self.reissue(position, now, batch_now).into_iter().collect());
            }
            // A registration that is still on its way.
            None if first == 0 && !expired => {}
            None => {
                self.consumed = row.consumed;
                return (Fate::Lost, Vec::new());
            }
            Some(_) => {}
        }
        (Fate::Lives, Vec::new())
    }

    /// The question for the session's row had no answer: it may be asked again.
    pub(crate) fn unresolved(&mut self, first: u64) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.first() == first) {
            flight.resolving = false;
        }
    }

    /// Answers everything that is pending with the loss of the session, and forgets it.
    pub(crate) fn fail_lost(&mut self) {
        let consumed = self.consumed.take();
        for mut flight in self.flights.drain(..) {
            let sent = consumed.is_none_or(|consumed| flight.first() < consumed);
            flight.answer_all(&ClientError::SessionLost { sent });
        }
        self.fail_waiting(&ClientError::SessionLost { sent: false });
    }

    /// Answers everything that is pending with an error, and forgets it.
    pub(crate) fn fail_all(&mut self, error: &ClientError) {
        for mut flight in self.flights.drain(..) {
            flight.answer_all(error);
        }
        self.fail_waiting(error);
    }

    /// Answers with an error what waits and was not sent.
    pub(crate) fn fail_waiting(&mut self, error: &ClientError) {
        for mut job in self.waiting.drain(..) {
            job.waiter.answer(Err(error.clone()));
        }
    }
}
