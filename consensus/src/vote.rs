//! PREPARE and COMMIT: counting those of others, issuing own ones.
//!
//! Invariants: PREPAREs of a view start with its base and then rise by height, each on a parent that is the
//! base, or PREPAREd here or certified in this view, or committed (rule R1); none is issued in a view that an
//! earlier run entered, nor before the record of entering the view is synced, and therefore a PREPARE needs
//! no record of its own (rule R2); an own COMMIT counts once it is durable.

use std::sync::Arc;

use quorate_crypto::{Certificate, CertificateKind, Hash, Signature, Verifier};
use quorate_protocol::limits::VOTES_PER_MESSAGE_MAX;
use quorate_protocol::record::Record;
use quorate_protocol::view_change::Suspicion;
use quorate_protocol::{Height, PeerMessage, ReplicaIndex, View, Vote, VoteKind};

use crate::configuration::Configuration;
use crate::effect::Effect;
use crate::mutant::{Mutant, broken, less, miscounted, quorum_of_votes};
use crate::probe::{Probe, reached};
use crate::replica::{Dependent, Replica};
use crate::tally::{Added, Standing, Tallied};

impl Replica {
    /// Votes that the connection of `from` brought, its own or others'.
    pub(crate) fn on_votes(&mut self, from: ReplicaIndex, votes: Vec<Vote>) {
        let late = votes.iter().any(|vote| vote.replica == from && vote.height <= self.committed.height);
        if late && self.is_quiet() && self.halted.is_none() {
            reached(Probe::LateVoteAnswered);
            let announcement = self.announcement();
            self.send(from, announcement);
        }
        for vote in votes {
            // The door has checked what others than the voter brought.
            let standing = if vote.replica == from { Standing::Unchecked } else { Standing::Valid };
            self.on_vote(vote, standing);
        }
    }

    /// What is known of a vote that comes in, once those of who was caught before are checked; `None` if it is
    /// not looked at (hazard A13).
    fn standing_of(&mut self, vote: &Vote, standing: Standing) -> Option<Standing> {
        if standing != Standing::Unchecked || !self.bars.is_watched(vote.replica) {
            return Some(standing);
        }
        if self.bars.is_barred(vote.replica, self.now) || !self.votes.is_wanted(vote) {
            return None;
        }
        reached(Probe::WatchedVoteChecked);
        if holds(&self.configuration, self.verifier.as_ref())(vote) {
            return Some(Standing::Valid);
        }
        self.forged(vote.clone());
        None
    }

    /// A vote was found to be badly signed.
    fn forged(&mut self, vote: Vote) {
        self.bars.note(vote.replica, self.now);
        // A leader whose own votes never count makes every height wait for all correct ones.
        if vote.replica == self.leader() {
            self.suspect(Suspicion::Fault);
        }
        self.effects.push(Effect::Forged(vote));
    }

    fn on_vote(&mut self, vote: Vote, standing: Standing) {
        if vote.replica == self.configuration.me() || vote.epoch != self.configuration.epoch() {
            return;
        }
        // Nobody votes further ahead than W of what it has committed (rule R7).
        let committed = vote.height.saturating_sub(self.configuration.window());
        self.hear(vote.replica, committed);
        if vote.height <= self.horizon()
            && vote.height > self.committed.height
            && let Some(standing) = self.standing_of(&vote, standing)
        {
            self.count_vote(vote, standing);
        }
    }

    /// Adds a vote to the table and sees whether it completes a certificate.
    pub(crate) fn count_vote(&mut self, vote: Vote, standing: Standing) {
        if vote.height <= self.committed.height {
            return;
        }
        let (kind, view, height) = (vote.kind, vote.view, vote.height);
        let added =
            self.votes.add(vote.clone(), standing, &holds(&self.configuration, self.verifier.as_ref()));
        match added {
            Added::New => {
                self.watch_vote(&vote);
                self.try_certificate(kind, view, height);
            }
            Added::Ignored => {}
            Added::Forged(forged) => self.forged(forged),
            Added::Conflict(first) => self.report_votes(&first, &vote),
        }
    }

    /// Assembles the certificate of (view, height) if it is wanted and a quorum has voted alike.
    pub(crate) fn try_certificate(&mut self, kind: VoteKind, view: View, height: Height) {
        let wanted = match kind {
            VoteKind::Prepare => {
                self.view.entered && view == self.view.number && !self.view.certificates.contains_key(&height)
            }
            VoteKind::Commit => !self.decided.contains_key(&height),
        };
        if !wanted {
            return;
        }
        let quorum = less(quorum_of_votes(kind), self.configuration.quorum());
        let place = (kind, view, height);
        let tallied = self.votes.quorum(place, quorum, &holds(&self.configuration, self.verifier.as_ref()));
        let Tallied { quorum, forged } = tallied;
        forged.into_iter().for_each(|vote| self.forged(vote));
        if let Some((header, votes)) = quorum {
            let certificate = self.assemble(kind.certificate_kind(), view, height, header, votes);
            if let Some(certificate) = certificate {
                self.learn(certificate);
            }
        }
    }

    fn assemble(
        &self,
        kind: CertificateKind,
        view: View,
        height: Height,
        header: Hash,
        votes: Vec<(ReplicaIndex, Signature)>,
    ) -> Option<Certificate> {
        let members = self.configuration.members();
        match Certificate::assemble(kind, members, view, height, header, votes.iter().copied()) {
            Ok(certificate) => Some(certificate),
            Err(_) => miscounted((kind, view, height, header), members, &votes),
        }
    }

    /// Takes in a valid certificate, however it was come by. It may pull this replica to a later view,
    /// never to an earlier one.
    pub(crate) fn learn(&mut self, certificate: Certificate) {
        if certificate.epoch != self.configuration.epoch() {
            return;
        }
        self.note_certified_view(&certificate);
        if broken(Mutant::PulledBack) {
            self.pull_back(&certificate);
        }
        if certificate.height <= self.committed.height {
            return;
        }
        if certificate.height > self.horizon() {
            reached(Probe::CertificateBeyondHorizon);
            let committed = certificate.height.saturating_sub(self.configuration.window());
            certificate.signers.iter().for_each(|signer| self.hear(signer, committed));
            return;
        }
        match certificate.kind {
            CertificateKind::Commit => self.learn_decided(certificate),
            CertificateKind::Prepare => {
                let current = self.view.entered && certificate.view == self.view.number;
                if !current {
                    reached(Probe::CertificateOfOtherView);
                }
                if current && !self.view.certificates.contains_key(&certificate.height) {
                    self.watch_certificate(&certificate);
                    self.view.certificates.insert(certificate.height, certificate);
                    self.changed = true;
                }
            }
        }
    }

    /// Issues the PREPAREs that have become due: the base first, then height by height.
    pub(crate) fn prepare_next(&mut self) {
        let durable = self.is_entry_durable() || broken(Mutant::EntryUnsynced);
        if !self.is_active() || !durable || self.view.mute || !self.view.settled {
            return;
        }
        let (mut base, base_header) = self.view.base;
        if broken(Mutant::SuffixPreparedAgain) {
            base = 0;
        }
        if base > self.committed.height && self.view.last_prepared < base {
            self.prepare(base, base_header);
        }
        // Nothing above a base that is neither PREPAREd nor committed.
        while self.view.last_prepared >= base || self.committed.height >= base {
            let height = self.view.last_prepared.max(base).max(self.committed.height).saturating_add(1);
            let Some(parent) = self.parent_header(height) else { return };
            if !self.prepare(height, parent) {
                return;
            }
        }
    }

    /// Issues the PREPARE of a height, if it may be; `expected` is the header itself at the base, and the
    /// parent's header above it. Returns whether it was issued.
    fn prepare(&mut self, height: Height, expected: Hash) -> bool {
        if height > self.window_end() {
            return false;
        }
        let Some(block) = self.view.chain.get(&height).and_then(|digest| self.blocks.get(digest)) else {
            return false;
        };
        let Some((header_hash, header)) = block.header.as_ref().filter(|_| block.is_executed()) else {
            return false;
        };
        let is_base = height == self.view.base.0 && !broken(Mutant::SuffixPreparedAgain);
        let follows = if is_base { *header_hash == expected } else { header.previous == expected };
        if !follows {
            return false;
        }
        let header_hash = *header_hash;
        assert!(height > self.view.last_prepared, "PREPAREs of a view rise strictly");
        self.view.last_prepared = height;
        self.view.prepared.insert(height, header_hash);
        self.issue(VoteKind::Prepare, height, header_hash);
        self.watch_own_prepare(height, &header_hash);
        true
    }

    /// The header on which a PREPARE of `height` may rest in this view.
    fn parent_header(&self, height: Height) -> Option<Hash> {
        let parent = height.checked_sub(1)?;
        if parent == self.committed.height {
            return Some(self.committed.hash);
        }
        if parent == self.view.base.0 {
            return Some(self.view.base.1);
        }
        let certified = self.view.certificates.get(&parent).map(|certificate| certificate.header_hash);
        certified.or_else(|| self.view.prepared.get(&parent).copied())
    }

    /// Signs a vote of the current view. A COMMIT is staged behind its record; a PREPARE leaves and counts at
    /// once, because this replica will not PREPARE again in a view that it has restarted in.
    pub(crate) fn issue(&mut self, kind: VoteKind, height: Height, header: Hash) -> Vote {
        assert!(self.is_active(), "votes are issued only in a view that was entered");
        let mut vote = Vote {
            kind,
            epoch: self.configuration.epoch(),
            view: self.view.number,
            height,
            header,
            replica: self.configuration.me(),
            signature: Signature::ZERO,
        };
        vote.signature = self.signer.sign(&vote.statement(*self.configuration.cluster()));
        self.changed = true;
        match kind {
            VoteKind::Prepare => {
                self.staged.prepares.push(vote.clone());
                self.count_vote(vote.clone(), Standing::Valid);
            }
            VoteKind::Commit => {
                self.staged.records.push(Record::Voted(vote.clone()));
                self.staged.then.push(Dependent::Vote(vote.clone()));
                self.staged.pending.votes.push(vote.clone());
            }
        }
        vote
    }

    /// Stages the record of a block, unless it is in the log already or its header is unknown.
    pub(crate) fn log_block(&mut self, digest: &Hash) {
        let Some(block) = self.blocks.get_mut(digest) else { return };
        if block.logged {
            return;
        }
        if broken(Mutant::BatchesUnlogged) {
            return;
        }
        if let Some(batch) = block.batch() {
            block.logged = true;
            self.staged.records.push(Record::Proposed { height: block.height, batch });
        }
    }

    /// Own durable votes above the committed height that may be sent again: all COMMITs, and the PREPAREs
    /// of the view at hand if it was entered in this run.
    pub(crate) fn votes_to_repeat(&self) -> Vec<Vote> {
        let current = |vote: &Vote| self.is_active() && !self.view.mute && vote.view == self.view.number;
        self.votes
            .of(self.configuration.me())
            .filter(|vote| vote.kind == VoteKind::Commit || current(vote))
            .cloned()
            .collect()
    }
}

/// Says whether the signature of a vote holds.
pub(crate) fn holds<'a>(
    configuration: &'a Configuration,
    verifier: &'a dyn Verifier,
) -> impl Fn(&Vote) -> bool + 'a {
    |vote| {
        let statement = vote.statement(*configuration.cluster());
        let member = configuration.members().get(vote.replica);
        broken(Mutant::VotesUnchecked)
            || member
                .is_some_and(|member| verifier.verify(&member.consensus, &statement, &vote.signature).is_ok())
    }
}

/// Votes in as few messages as their bound allows.
pub(crate) fn vote_messages(votes: Vec<Vote>) -> Vec<PeerMessage> {
    votes
        .chunks(VOTES_PER_MESSAGE_MAX)
        .filter_map(|chunk| chunk.to_vec().try_into().ok().map(PeerMessage::Votes))
        .collect()
}

/// Effects in order, with runs of votes merged into messages.
pub(crate) fn merge_votes(dependents: Vec<Dependent>) -> Vec<Effect> {
    let (mut effects, mut run) = (Vec::new(), Vec::new());
    let flush = |run: &mut Vec<Vote>, effects: &mut Vec<Effect>| {
        for message in vote_messages(std::mem::take(run)) {
            effects.push(Effect::Broadcast { message: Arc::new(message) });
        }
    };
    for dependent in dependents {
        match dependent {
            Dependent::Vote(vote) => run.push(vote),
            // Clients are no part of the order among replicas, so this parts no run.
            Dependent::Effect(effect @ Effect::NotifyClients { .. }) => effects.push(effect),
            Dependent::Effect(effect) => {
                flush(&mut run, &mut effects);
                effects.push(effect);
            }
        }
    }
    flush(&mut run, &mut effects);
    effects
}
