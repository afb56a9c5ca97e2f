//! Following replicas that are ahead: announcements, and committed heights fetched in order.
//!
//! Invariants: what a peer says about its height only decides whom to ask (hazard ST5), never what is true;
//! one question is open at a time, and after the retry time, or when the connection with who was asked is lost,
//! another peer is asked (hazard ST6); how much is buffered ahead of execution is bounded.

use std::collections::BTreeMap;

use quorate_protocol::peer::{Announcement, CommittedBatch};
use quorate_protocol::{Height, PeerMessage, ReplicaIndex, View};

use crate::effect::{Effect, Token};
use crate::input::Monotonic;
use crate::mutant::{Mutant, broken};
use crate::probe::{Probe, reached};
use crate::replica::{Dependent, Replica};
use crate::vote::vote_messages;

/// No further committed heights are asked for while this many wait for their execution.
pub(crate) const HEIGHTS_BUFFERED_MAX: Height = 16;
/// Heights that may not be in the log yet: deferred records, and what is being written, generously.
const LOGGED_LATER_MAX: Height = 64;
/// Questions for dropped proposals between two commits, each after twice the time of the one before: a leader that says
/// there are any may lie.
const DROPPED_ASKS_MAX: u32 = 4;
/// A peer that asks is sent a NEW-VIEW and the proposals in it about so many times in a retry time: within the shortest
/// time-out more than once, because who is needed for a quorum may drop proposals again.
const NEW_VIEWS_ASKED_PER_RETRY: u64 = 8;
/// The same for one that did not ask.
const NEW_VIEWS_UNASKED_PER_RETRY: u64 = 2;
/// Heights beyond twice the window about which something is kept: what is buffered, and one more message.
pub(crate) const HEIGHTS_AHEAD: Height = 80;

/// Whom to follow.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatchUp {
    /// The highest committed height that each peer spoke of, or that its votes imply.
    heard: BTreeMap<ReplicaIndex, Height>,
    /// Who was asked, from which height on, and until when the answer is waited for.
    asked: Option<(ReplicaIndex, Height, Monotonic)>,
    turn: usize,
    /// Who answered with nothing new, to a question for which height, and until when it is not asked for that again.
    fruitless: BTreeMap<ReplicaIndex, (Height, Monotonic)>,
    /// When each peer was last sent a NEW-VIEW with proposals, and of which view: on its question, and otherwise.
    served: BTreeMap<(ReplicaIndex, Served), (Monotonic, View)>,
    /// The persist that the last answer to each peer waits for, or waited.
    waiting: BTreeMap<ReplicaIndex, Token>,
    /// When proposals that were dropped may be asked for again, and how often they were since the last commit.
    dropped_at: Monotonic,
    dropped_asks: u32,
}

/// Why a NEW-VIEW is sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Served {
    /// The peer has asked for it.
    Asked,
    /// The peer shows that it has not entered the view.
    Unasked,
}

impl CatchUp {
    /// The connection with a peer is lost: its answer is not waited for.
    pub(crate) fn lost(&mut self, peer: ReplicaIndex, now: Monotonic) {
        if let Some((.., until)) = self.asked.as_mut().filter(|(asked, ..)| *asked == peer) {
            *until = now;
        }
    }

    fn highest(&self) -> Height {
        self.heard.values().copied().max().unwrap_or(0)
    }

    /// The highest height that a correct one of them, of which `f` may not be, says to have committed.
    fn believed(&self, f: usize) -> Height {
        let mut heights: Vec<Height> = self.heard.values().copied().collect();
        heights.sort_unstable_by(|a, b| b.cmp(a));
        heights.get(f).copied().unwrap_or(0)
    }
}

impl Replica {
    /// A peer has committed at least this height, or says so.
    pub(crate) fn hear(&mut self, peer: ReplicaIndex, committed: Height) {
        if peer != self.configuration.me() {
            let heard = self.catch_up.heard.entry(peer).or_insert(0);
            *heard = committed.max(*heard);
        }
    }

    pub(crate) fn announcement(&self) -> PeerMessage {
        PeerMessage::Announce(Announcement {
            epoch: self.configuration.epoch(),
            view: self.view.number,
            entered: self.view.entered,
            committed: self.committed.height,
        })
    }

    pub(crate) fn on_announce(&mut self, from: ReplicaIndex, announcement: &Announcement) {
        let Announcement { view, entered, committed, .. } = *announcement;
        self.hear(from, committed);
        if self.halted.is_some() {
            return;
        }
        let ours = self.view.number;
        if entered && (view > ours || (view == ours && !self.view.entered)) {
            self.ask_new_view(from, view);
        } else if self.view.entered && (view < ours || (view == ours && !entered)) {
            reached(Probe::AnnouncedBehind);
            self.serve_new_view(from, ours, Served::Unasked);
        }
    }

    /// Sends the NEW-VIEW of the highest view that was entered, if that is `view` or a later one, and the own votes in
    /// it; its leader adds what it has proposed since. View 0 has no NEW-VIEW.
    pub(crate) fn serve_new_view(&mut self, to: ReplicaIndex, view: View, why: Served) {
        let new_view = self.last_new_view.clone();
        let known = new_view.as_ref().map_or(0, |known| known.view);
        if known < view {
            return;
        }
        let now = self.now;
        // Not what a crash would have its leader forget: it would open that view again, with other claims.
        let leads = known > 0 && self.configuration.leader(known) == self.configuration.me();
        if leads && self.entered_durably < Some(known) {
            return reached(Probe::NewViewNotSynced);
        }
        // It is large, and proposals are; the driver counts their bytes as well.
        let patience = self.new_view_interval(why);
        let served = self.catch_up.served.get(&(to, why));
        if served.is_some_and(|(at, view)| *view == known && now.since(*at) < patience) {
            reached(Probe::NewViewServedBefore);
            return;
        }
        self.catch_up.served.insert((to, why), (now, known));
        if let Some(new_view) = new_view {
            self.send(to, PeerMessage::NewView((*new_view).clone()));
        }
        // Whoever is halted answers, and votes no more (rule R5).
        let votes = if self.halted.is_some() { Vec::new() } else { self.votes_to_repeat() };
        let votes = vote_messages(votes);
        for message in self.proposals_to_repeat().into_iter().chain(votes) {
            self.send(to, message);
        }
    }

    /// The least time between two NEW-VIEWs that a peer is sent.
    fn new_view_interval(&self, why: Served) -> u64 {
        let per_retry = match why {
            Served::Asked => NEW_VIEWS_ASKED_PER_RETRY,
            Served::Unasked => NEW_VIEWS_UNASKED_PER_RETRY,
        };
        self.configuration.timeouts().resend.checked_div(per_retry).unwrap_or(0)
    }

    /// The next height, if its proposal is among those that came while this replica was too far behind: they are gone, and
    /// nobody knows that.
    fn dropped(&self) -> Option<Height> {
        let next = self.chain_top().saturating_add(1);
        let dropped = self.is_active()
            && self.view.settled
            && self.view.too_high >= next
            && next <= self.window_end()
            && !self.view.pre_prepares.contains_key(&next);
        dropped.then_some(next)
    }

    /// Whether the next proposal was dropped, and others have not committed it either.
    fn lacks_dropped(&self) -> bool {
        self.catch_up.dropped_asks < DROPPED_ASKS_MAX
            && self.dropped().is_some_and(|next| !self.is_committed_elsewhere(next))
    }

    /// Whether a correct replica has committed this height: then it comes with its certificate.
    fn is_committed_elsewhere(&self, height: Height) -> bool {
        self.catch_up.believed(self.configuration.members().f()) >= height
    }

    /// Whoever has caught up asks for what it dropped, or all would wait for the retry time where this one is needed for
    /// a quorum. Less often than peers let the same question pass.
    pub(crate) fn ask_for_dropped(&mut self) {
        if self.catch_up.dropped_at <= self.now && self.lacks_dropped() {
            reached(Probe::DroppedAsked);
            let doublings = self.catch_up.dropped_asks.min(DROPPED_ASKS_MAX);
            self.catch_up.dropped_at = self.now.plus(self.dropped_pause().saturating_mul(1_u64 << doublings));
            self.catch_up.dropped_asks = self.catch_up.dropped_asks.saturating_add(1);
            self.broadcast(PeerMessage::FetchNewView { view: self.view.number });
        }
    }

    /// When that may be due.
    pub(crate) fn dropped_at(&self) -> Option<Monotonic> {
        self.lacks_dropped().then_some(self.catch_up.dropped_at)
    }

    /// A height was committed.
    pub(crate) fn caught_up_by_one(&mut self) {
        if self.catch_up.dropped_asks > 0 {
            self.catch_up.dropped_asks = 0;
            let soon = self.now.plus(self.dropped_pause());
            self.catch_up.dropped_at = self.catch_up.dropped_at.min(soon);
        }
    }

    /// The least time between two questions for dropped proposals: less often than peers let the same question pass.
    fn dropped_pause(&self) -> u64 {
        (self.new_view_interval(Served::Asked) / 4).saturating_mul(5)
    }

    pub(crate) fn serve_committed(&mut self, to: ReplicaIndex, from: Height) {
        if from > 0 && from <= self.committed.height {
            self.serve_from_log(to, from);
        }
    }

    /// Serves what is committed from the log, which may not hold the last heights yet: what waits for another
    /// persist is written first, or whoever asks would get nothing and wait for its retry time. One answer to each
    /// peer waits for the disk at a time; who asks again meanwhile gets none, and what is long in the log waits for
    /// nothing.
    pub(crate) fn serve_from_log(&mut self, to: ReplicaIndex, from: Height) {
        let effect = Effect::ServeCommitted { to, from };
        let recent = from.saturating_add(LOGGED_LATER_MAX) > self.committed.height;
        if !recent || (self.staged.records.is_empty() && self.pending.is_empty()) {
            self.effects.push(effect);
            return;
        }
        let synced = |token: &Token| *token < self.staged_token() && !self.pending.contains_key(token);
        if self.catch_up.waiting.get(&to).is_none_or(synced) {
            reached(Probe::ServedOnceSynced);
            self.catch_up.waiting.insert(to, self.staged_token());
            self.staged.then.push(Dependent::Effect(effect));
        }
    }

    /// Committed heights, ascending and certified, as the door has checked.
    pub(crate) fn on_committed(&mut self, from: ReplicaIndex, batches: Vec<CommittedBatch>) {
        let gap = self.first_gap();
        for CommittedBatch { batch, certificate } in batches {
            self.hear(from, certificate.height);
            self.insert_certified(batch);
            self.learn(certificate);
        }
        if let Some((_, height, _)) = self.catch_up.asked.take_if(|(peer, ..)| *peer == from)
            // Whoever answers with what is here already is not asked for that again before the retry time; for what is
            // lacking now it is, and others are, because what was asked for may have come by itself meanwhile.
            && self.first_gap() == gap
        {
            reached(Probe::CommittedFruitless);
            let until = self.now.plus(self.configuration.timeouts().resend);
            self.catch_up.fruitless.insert(from, (height, until));
        }
    }

    /// Whether an answer of this peer is waited for.
    pub(crate) fn is_asked(&self, peer: ReplicaIndex) -> bool {
        self.catch_up.asked.is_some_and(|(asked, ..)| asked == peer)
    }

    /// The lowest height above the committed one whose batch or commit certificate is missing.
    fn first_gap(&self) -> Height {
        let mut height = self.committed.height.saturating_add(1);
        while let Some(certificate) = self.decided.get(&height) {
            if self.blocks.by_header(&certificate.header_hash).is_none() {
                break;
            }
            height = height.saturating_add(1);
        }
        height
    }

    /// Asks for committed heights if others are ahead: at once if what is missing will not come by itself,
    /// otherwise only if it does not.
    pub(crate) fn run_catch_up(&mut self) {
        let Some(from) = self.gap_to_ask() else { return };
        if self.catch_up.asked.is_some_and(|(.., until)| self.now < until) {
            return;
        }
        if !self.is_far_behind() && self.now < self.stalled_at() {
            return;
        }
        let free = self.ahead(from).into_iter().filter(|(_, at)| *at <= self.now);
        let peers: Vec<ReplicaIndex> = free.map(|(peer, _)| peer).collect();
        let turn = self.catch_up.turn.checked_rem(peers.len()).unwrap_or(0);
        if let Some(peer) = peers.get(turn).copied() {
            let again = self.catch_up.asked.is_some();
            reached(if again { Probe::CommittedAskedAgain } else { Probe::CommittedAsked });
            self.catch_up.turn = self.catch_up.turn.wrapping_add(1);
            self.catch_up.asked = Some((peer, from, self.now.plus(self.configuration.timeouts().resend)));
            if !broken(Mutant::CatchUpOff) {
                self.send(peer, PeerMessage::FetchCommitted { from });
            }
        }
    }

    /// Who has committed the height of the first gap, and when it may be asked for it; those who cannot be reached only if
    /// nobody else has.
    fn ahead(&self, gap: Height) -> Vec<(ReplicaIndex, Monotonic)> {
        let ahead = self.catch_up.heard.iter().filter(|(_, heard)| **heard >= gap);
        let (reachable, gone): (Vec<ReplicaIndex>, Vec<_>) =
            ahead.map(|(peer, _)| *peer).partition(|peer| !self.gone.contains(peer));
        let peers = if reachable.is_empty() { gone } else { reachable };
        let at = |peer: &ReplicaIndex| {
            let fruitless = self.catch_up.fruitless.get(peer).filter(|(asked, _)| *asked == gap);
            fruitless.map_or_else(Monotonic::default, |(_, until)| *until)
        };
        peers.into_iter().map(|peer| (peer, at(&peer))).collect()
    }

    /// From which height to ask, if any peer has it and there is room for it.
    fn gap_to_ask(&self) -> Option<Height> {
        let from = self.first_gap();
        let room = from <= self.committed.height.saturating_add(HEIGHTS_BUFFERED_MAX);
        if !room {
            reached(Probe::CommittedNoRoom);
        }
        (room && self.catch_up.highest() >= from).then_some(from)
    }

    /// Whether what is missing will not come by itself: others are beyond the window, or a height above it is
    /// decided, which votes in order bring about only where a view change, a lost connection or a liar has come
    /// between.
    fn is_far_behind(&self) -> bool {
        let first = self.committed.height.saturating_add(1);
        let has_gap = !self.decided.is_empty() && !self.decided.contains_key(&first);
        if has_gap {
            reached(Probe::DecidedAboveGap);
        }
        // Nothing is on its way of a height whose proposal was dropped.
        let next = self.dropped().filter(|next| *next == first);
        let dropped = next.is_some_and(|next| self.is_committed_elsewhere(next));
        if dropped {
            reached(Probe::DroppedCommitted);
        }
        has_gap || dropped || self.catch_up.highest() > self.window_end()
    }

    fn stalled_at(&self) -> Monotonic {
        self.timers.progress_at.plus(self.configuration.timeouts().resend)
    }

    /// When the next question may be due.
    pub(crate) fn catch_up_at(&self) -> Option<Monotonic> {
        let from = self.gap_to_ask()?;
        let free = self.ahead(from).into_iter().map(|(_, at)| at).min().unwrap_or_default();
        let asked = self.catch_up.asked.map_or(free, |(.., until)| until.max(free));
        Some(if self.is_far_behind() { asked } else { asked.max(self.stalled_at()) })
    }
}
