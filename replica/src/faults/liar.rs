//! What leaves a faulty replica for its peers in place of what a correct one sends.
//!
//! Invariant: it signs under its own key alone; what it relays for others stays as it is.

use super::equivocation::Faces;
use super::kind::Fault;
use super::{answers, junk, storm, traffic};
use quorate_crypto::{Bounded, Ed25519Signer, Hash, MemberSet, Signature, Signer as _, derive_hash};
use quorate_protocol::client::{ClientReply, Notice};
use quorate_protocol::{BatchTime, Height, PeerMessage, PrePrepare, Proposal, ReplicaIndex, View, Vote};
use quorate_transport::PeerNetwork;
use quorate_transport::faults::{Fate, Tamper};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Messages that a slow leader holds back at once; what is more is lost.
const HELD_BACK_MAX: usize = 4096;
/// Of so many proposals one is bent where bending all of them would be silence.
const BENT_SHARE: u64 = 4;

/// Who lies, and how.
pub(crate) struct Liar {
    pub(super) fault: Fault,
    pub(super) cluster: Hash,
    /// Hash of the genesis header.
    pub(super) genesis: Hash,
    pub(super) members: MemberSet,
    pub(super) me: ReplicaIndex,
    pub(super) signer: Ed25519Signer,
    pub(super) network: PeerNetwork,
    pub(super) faces: Mutex<Faces>,
    /// Highest view and committed height that its own messages named.
    pub(super) view: AtomicU64,
    pub(super) committed: AtomicU64,
    /// Counts what could be bent, so that it is bent each time elsewhere.
    turn: AtomicU64,
    held_back: HeldBack,
}

/// Messages that leave later.
#[derive(Default)]
struct HeldBack {
    queue: Mutex<VecDeque<(Instant, ReplicaIndex, PeerMessage)>>,
    filled: Condvar,
}

impl std::fmt::Debug for Liar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "replica {} with fault {}", self.me, self.fault)
    }
}

impl Liar {
    pub(crate) fn new(
        fault: Fault,
        (cluster, genesis): (Hash, Hash),
        members: MemberSet,
        me: ReplicaIndex,
        signer: Ed25519Signer,
        network: PeerNetwork,
    ) -> Self {
        Self {
            fault,
            cluster,
            genesis,
            members,
            me,
            signer,
            network,
            faces: Mutex::default(),
            view: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            held_back: HeldBack::default(),
        }
    }

    /// Starts what goes on by itself.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let work: fn(&Self) = match self.fault {
            Fault::Flood => traffic::flood,
            Fault::ViewChangeStorm => storm::storm,
            Fault::Junk => junk::junk,
            Fault::SlowLeader(_) => Self::let_go,
            _ => return Ok(()),
        };
        let liar = Arc::clone(self);
        std::thread::Builder::new().name("fault".to_owned()).spawn(move || work(&liar)).map(drop)
    }

    /// The other replicas.
    pub(super) fn others(&self) -> impl Iterator<Item = ReplicaIndex> + '_ {
        self.members.indices().filter(|index| *index != self.me)
    }

    pub(super) fn leads(&self, view: View) -> bool {
        self.members.leader(view) == self.me
    }

    pub(super) fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A number that grows with each call, of those that choose one in `share`.
    fn chosen(&self, share: u64) -> bool {
        self.next_turn().checked_rem(share) == Some(share.saturating_sub(1))
    }

    /// Notes where this replica is, for what it makes up.
    fn note(&self, message: &PeerMessage) {
        match message {
            PeerMessage::Votes(votes) => {
                let own = votes.iter().filter(|vote| vote.replica == self.me);
                own.for_each(|vote| _ = self.view.fetch_max(vote.view, Ordering::Relaxed));
            }
            PeerMessage::Announce(announcement) => {
                self.view.fetch_max(announcement.view, Ordering::Relaxed);
                self.committed.fetch_max(announcement.committed, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// An own vote signed anew.
    pub(super) fn signed(&self, mut vote: Vote) -> Vote {
        vote.signature = self.signer.sign(&vote.statement(self.cluster));
        vote
    }

    /// The votes of a message with each own one bent, in order.
    fn bend_votes(&self, message: &PeerMessage, bend: impl Fn(&Vote) -> Vote) -> PeerMessage {
        let PeerMessage::Votes(votes) = message else { return message.clone() };
        let bent = votes.iter().map(|vote| if vote.replica == self.me { bend(vote) } else { vote.clone() });
        PeerMessage::Votes(Bounded::try_collect(bent).unwrap_or_default())
    }

    /// A vote for another root.
    pub(super) fn wrong_root(&self, vote: &Vote) -> Vote {
        let header = derive_hash("quorate fault wrong root", &[&vote.header.0]);
        self.signed(Vote { header, ..vote.clone() })
    }

    /// An own proposal with other content, signed anew.
    pub(super) fn proposal(&self, ours: &PrePrepare, proposal: Proposal) -> PrePrepare {
        let digest = proposal.digest(&self.cluster, ours.epoch, ours.height);
        let statement = PrePrepare::statement(self.cluster, ours.epoch, ours.view, ours.height, digest);
        let signature = self.signer.sign(&statement);
        PrePrepare { epoch: ours.epoch, view: ours.view, height: ours.height, proposal, signature }
    }

    /// Its own votes never hold; of the rest that it signs so many do that it is not just silent.
    fn badly_signed(&self, message: &PeerMessage) -> PeerMessage {
        let mut bent =
            self.bend_votes(message, |vote| Vote { signature: broken(&vote.signature), ..vote.clone() });
        let signature = match &mut bent {
            PeerMessage::PrePrepare(message) => &mut message.signature,
            PeerMessage::ViewChange(message) if message.claim.body.replica == self.me => {
                &mut message.claim.signature
            }
            PeerMessage::NewView(message) if self.leads(message.view) => &mut message.signature,
            PeerMessage::Resign(message) if self.leads(message.view) => &mut message.signature,
            _ => return bent,
        };
        if self.chosen(BENT_SHARE) {
            *signature = broken(signature);
        }
        bent
    }

    /// A proposal whose time lies before its parent's, now and then; times at the edges of the window come
    /// from the clock (`deeds`).
    fn before_its_parent(&self, message: &PeerMessage) -> Option<PeerMessage> {
        match message {
            PeerMessage::PrePrepare(ours) if self.leads(ours.view) && ours.height % BENT_SHARE == 0 => {
                let proposal = Proposal { time: BatchTime(1), ..ours.proposal.clone() };
                Some(PeerMessage::PrePrepare(self.proposal(ours, proposal)))
            }
            _ => None,
        }
    }

    fn hold_back(&self, delay: Duration, to: ReplicaIndex, message: &PeerMessage) {
        let mut queue = self.held_back.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() < HELD_BACK_MAX
            && let Some(due) = Instant::now().checked_add(delay)
        {
            queue.push_back((due, to, message.clone()));
            self.held_back.filled.notify_one();
        }
    }

    /// Sends what was held back when its time has come.
    fn let_go(&self) {
        loop {
            let mut queue = self.held_back.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((due, to, message)) = queue.pop_front() else {
                drop(self.held_back.filled.wait(queue));
                continue;
            };
            drop(queue);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.network.slip(to, &message);
        }
    }
}

/// A signature that does not hold.
fn broken(signature: &Signature) -> Signature {
    let mut bytes = signature.0;
    if let Some(byte) = bytes.get_mut(7) {
        *byte ^= 0x20;
    }
    Signature(bytes)
}

/// What a replica says that claims to be far behind.
fn behind(message: &PeerMessage) -> PeerMessage {
    const BEHIND: Height = 50;
    match message {
        PeerMessage::Announce(ours) => {
            let mut announcement = ours.clone();
            announcement.committed = announcement.committed.saturating_sub(BEHIND);
            PeerMessage::Announce(announcement)
        }
        other => other.clone(),
    }
}

impl Tamper for Liar {
    fn to_peer(&self, to: ReplicaIndex, message: &PeerMessage, send: &mut dyn FnMut(&PeerMessage)) {
        self.note(message);
        match self.fault {
            Fault::Silent => {}
            Fault::WithholdFrom(replica) if replica == to => {}
            Fault::SlowLeader(delay) if matches!(message, PeerMessage::PrePrepare(_)) => {
                self.hold_back(delay, to, message);
            }
            Fault::Equivocate => self.equivocate(to, message, send),
            Fault::WrongRoot => send(&self.bend_votes(message, |vote| self.wrong_root(vote))),
            Fault::BadSignature => send(&self.badly_signed(message)),
            Fault::StaleReply => send(&behind(message)),
            Fault::TimeLiar => send(self.before_its_parent(message).as_ref().unwrap_or(message)),
            Fault::CrashLoop
            | Fault::CorruptProof
            | Fault::HideEntry
            | Fault::WithholdFrom(_)
            | Fault::SlowLeader(_)
            | Fault::Censor
            | Fault::Unfair
            | Fault::Flood
            | Fault::ViewChangeStorm
            | Fault::Junk => send(message),
        }
    }

    fn reply(&self, reply: &ClientReply, frame: &bytes::Bytes) -> Fate {
        match self.fault {
            Fault::Silent => Fate::Withheld,
            Fault::CorruptProof => answers::corrupt(self.next_turn(), frame),
            Fault::HideEntry => answers::hide_entry(reply),
            Fault::StaleReply => answers::stale(reply),
            Fault::Junk => junk::reply(self.next_turn(), frame),
            _ => Fate::AsItIs,
        }
    }

    fn notice(&self, notice: &Notice, frame: &bytes::Bytes) -> Fate {
        let votes = |bend: &dyn Fn(&Vote) -> Vote| answers::bend_commits(notice, bend);
        match self.fault {
            Fault::Silent => Fate::Withheld,
            Fault::CorruptProof => answers::corrupt(self.next_turn(), frame),
            Fault::WrongRoot | Fault::Equivocate => votes(&|vote| self.wrong_root(vote)),
            Fault::BadSignature => votes(&|vote| Vote { signature: broken(&vote.signature), ..vote.clone() }),
            Fault::Junk => junk::reply(self.next_turn(), frame),
            _ => Fate::AsItIs,
        }
    }
}
