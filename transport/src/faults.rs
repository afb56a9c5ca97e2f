//! What a replica that is faulty on purpose does below its own logic: frames bent, withheld, made up.
//!
//! Invariant: exists only with the feature `faults`; without a [`Tamper`] installed everything leaves as it is.
//! One process is one replica, so the tamper is the process's.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use quorate_protocol::client::{ClientReply, Notice};
use quorate_protocol::{PeerMessage, ReplicaIndex};

use crate::error::FrameError;
use crate::peers::PeerNetwork;

/// Requests that are kept waiting for an answer that never comes; the oldest give way.
const KEPT_WAITING_MAX: usize = 4096;

/// What becomes of a frame to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves as it is.
    AsItIs,
    /// It never leaves; who waits for it goes on waiting.
    Withheld,
    /// This whole frame, its length included, leaves in its place.
    Instead(Bytes),
}

/// Bends what leaves this replica.
pub trait Tamper: Send + Sync + std::fmt::Debug {
    /// Calls `send` with each message that is to leave for `to` in place of this one.
    fn to_peer(&self, to: ReplicaIndex, message: &PeerMessage, send: &mut dyn FnMut(&PeerMessage));

    /// What becomes of an answer to a client; `frame` is how it would leave.
    fn reply(&self, reply: &ClientReply, frame: &Bytes) -> Fate;

    /// What becomes of a notice to a client.
    fn notice(&self, notice: &Notice, frame: &Bytes) -> Fate;
}

static TAMPER: OnceLock<Arc<dyn Tamper>> = OnceLock::new();
static KEPT_WAITING: Mutex<VecDeque<Box<dyn Send>>> = Mutex::new(VecDeque::new());

/// Lets `tamper` bend everything that this process sends from now on. The first one stays.
pub fn install(tamper: Arc<dyn Tamper>) {
    let _ = TAMPER.set(tamper);
}

pub(crate) fn tamper() -> Option<&'static Arc<dyn Tamper>> {
    TAMPER.get()
}

/// The frame of an answer; `None` if it is withheld.
pub(crate) fn reply(
    reply: &ClientReply,
    encoded: Result<Bytes, FrameError>,
) -> Option<Result<Bytes, FrameError>> {
    bent(encoded, |tamper, frame| tamper.reply(reply, frame))
}

/// The frame of a notice; `None` if it is withheld.
pub(crate) fn notice(
    notice: &Notice,
    encoded: Result<Bytes, FrameError>,
) -> Option<Result<Bytes, FrameError>> {
    bent(encoded, |tamper, frame| tamper.notice(notice, frame))
}

fn bent(
    encoded: Result<Bytes, FrameError>,
    fate: impl Fn(&dyn Tamper, &Bytes) -> Fate,
) -> Option<Result<Bytes, FrameError>> {
    match (encoded, tamper()) {
        (Ok(frame), Some(tamper)) => match fate(tamper.as_ref(), &frame) {
            Fate::AsItIs => Some(Ok(frame)),
            Fate::Withheld => None,
            Fate::Instead(other) => Some(Ok(other)),
        },
        (encoded, _) => Some(encoded),
    }
}

/// Keeps the sender of an answer that is withheld, because dropping it would tell the client.
pub(crate) fn keep_waiting(sender: Box<dyn Send>) {
    let mut kept = KEPT_WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= KEPT_WAITING_MAX {
        kept.pop_front();
    }
    kept.push_back(sender);
}

impl PeerNetwork {
    /// As [`PeerNetwork::send`], past the tamper.
    pub fn slip(&self, to: ReplicaIndex, message: &PeerMessage) {
        let _bytes = self.send_unbent(to, message);
    }

    /// Queues bytes for a lane of a peer as they are: a frame, or what looks like one.
    pub fn slip_bytes(&self, to: ReplicaIndex, lane: u8, bytes: Bytes) {
        if let Some(outbox) = self.outbox(to, lane) {
            outbox.push(bytes);
        }
    }

    /// Frames that wait for a peer on the lane with this number.
    #[must_use]
    pub fn waiting(&self, to: ReplicaIndex, lane: u8) -> usize {
        self.outbox(to, lane).map_or(0, |outbox| outbox.waiting().0)
    }
}
