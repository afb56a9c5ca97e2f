//! Hostile clients in the world: when they act, what they know, and when they have had their time.
//!
//! Invariant: they go on after the calm, until every correct client and reader is served: what they do must
//! not hold anybody up.

use std::sync::Arc;

use quorate_protocol::{Envelope, ReplicaIndex, SessionId};

use crate::cast::GENESIS_TIME;
use crate::hostile::Known;
use crate::network::Address;
use crate::world::{Event, Packet, World};

/// Envelopes that hostile clients remember of what was sent.
const SENT_MAX: usize = 64;

impl World {
    /// An envelope went over the network, where hostile clients hear it.
    pub(crate) fn overheard(&mut self, envelope: Arc<Envelope>) {
        if self.hostile.is_empty() {
            return;
        }
        if self.sent.len() >= SENT_MAX {
            self.sent.remove(0);
        }
        self.sent.push(envelope);
    }

    /// A hostile client is due.
    pub(crate) fn wake_hostile(&mut self, hostile: u8) {
        let now = self.queue.now();
        if self.is_calm && self.is_served() {
            self.hostile[usize::from(hostile)].stop();
            return;
        }
        let ledger = self.oracle.ledger();
        let next = |session: &SessionId| ledger.next().get(session).copied();
        let known = Known { time: GENESIS_TIME.plus(now), n: self.plan.n, next: &next, sent: &self.sent };
        let shots = self.hostile[usize::from(hostile)].wake(now, &known);
        for (to, envelope) in shots {
            let body = &envelope.body;
            self.trace.note(now, 21, [u64::from(hostile), body.first, to.map_or(255, u64::from), 0], || {
                let whom = to.map_or("all".to_owned(), |to| to.to_string());
                format!(
                    "hostile {hostile} -> {whom}: envelope {} of {}",
                    body.first,
                    crate::trace::short(&body.session)
                )
            });
            let targets = to.map_or(0..self.plan.n as ReplicaIndex, |to| to..to + 1);
            for to in targets {
                let packet = Packet::Submit(envelope.clone());
                self.transmit(Address::Hostile(hostile), Address::Replica(to), &packet);
            }
        }
        self.wake_hostile_later(hostile);
    }

    /// Schedules the hostile client's next deed.
    pub(crate) fn wake_hostile_later(&mut self, hostile: u8) {
        let at = self.hostile[usize::from(hostile)].wake_at();
        if at != u64::MAX {
            self.queue.push(at, Event::WakeHostile(hostile));
        }
    }
}
