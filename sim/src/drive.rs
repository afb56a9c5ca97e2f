//! The driver's part: feeding inputs, carrying effects out, talking with peers and clients.
//!
//! Invariant: effects are carried out in order; what hangs on a record is released only when the disk says
//! that it is synced; a crash can strike between any two of them, and within a broadcast.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_consensus::{Effect, Input, door};
use quorate_crypto::{decode, encode};
use quorate_execution::Environment;
use quorate_protocol::view_change::Suspicion;
use quorate_protocol::{PeerMessage, ReplicaIndex, Vote, VoteKind};

use crate::byzantine::Outgoing;
use crate::describe;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::network::Address;
use crate::node::{Finished, Released};
use crate::oracle::{Verdict, broken};
use crate::trace::{short, word};
use crate::world::{Event, Packet, World};

impl World {
    /// Feeds an input to a live replica, and whatever its effects ask to be fed at once.
    pub(crate) fn feed(&mut self, index: ReplicaIndex, input: Input) -> Verdict {
        let life = self.nodes[usize::from(index)].life;
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.queue.now();
            let node = &mut self.nodes[usize::from(index)];
            let (monotonic, wall) = (node.monotonic(now), node.wall(now));
            let Some(memory) = node.memory.as_mut().filter(|_| node.life == life) else { return Ok(()) };
            // As the replica's driver does it: by the state of now, not of when the envelope came into the queue.
            let input = match input {
                Input::Request { envelope, .. } => {
                    let next = memory.session_next(envelope.value());
                    Input::Request { envelope, next }
                }
                input => input,
            };
            let effects = memory.replica.step(monotonic, wall, input);
            memory.replica.invariants();
            self.check_executed(index, &effects)?;
            self.carry_out(index, effects, &mut inputs)?;
        }
        Ok(())
    }

    /// Carries effects out in order, unless a crash strikes.
    pub(crate) fn carry_out(
        &mut self,
        index: ReplicaIndex,
        effects: Vec<Effect>,
        inputs: &mut VecDeque<Input>,
    ) -> Verdict {
        for effect in effects {
            if !self.carry_out_one(index, effect, inputs)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Counts towards an armed crash; false when it strikes now.
    fn survives(&mut self, index: ReplicaIndex) -> bool {
        let node = &mut self.nodes[usize::from(index)];
        match &mut node.armed {
            None => true,
            Some((0, down)) => {
                let down = *down;
                self.marks.hit(Mark::CrashInTurn);
                self.crash(index, down);
                false
            }
            Some((effects, _)) => {
                *effects -= 1;
                true
            }
        }
    }

    /// One effect; false if the replica crashed.
    fn carry_out_one(
        &mut self,
        index: ReplicaIndex,
        effect: Effect,
        inputs: &mut VecDeque<Input>,
    ) -> Result<bool, crate::oracle::Violation> {
        if !self.survives(index) {
            return Ok(false);
        }
        match effect {
            Effect::Send { to, message } => self.send(index, to, &message)?,
            Effect::Broadcast { message } => {
                let own = self.member(index);
                for to in self.genesis.members.indices() {
                    if to != own {
                        self.send(index, to, &message)?;
                        if !self.survives(index) {
                            return Ok(false);
                        }
                    }
                }
            }
            Effect::NotifyClients { vote, digest } => self.notify(index, &vote, &digest)?,
            Effect::Persist { token, records, then } => {
                return self.persist(index, token, records, then, inputs);
            }
            Effect::Execute { height, digest, parent, proposal } => {
                self.execute(index, height, digest, parent, &proposal)?
            }
            Effect::Committed { height, header, certificate, digest, proposal, .. } => {
                self.commit(index, height, Committed { header, certificate, digest, proposal })?;
            }
            Effect::Forget { digest } => {
                self.marks.hit(Mark::Forgotten);
                if let Some(memory) = &mut self.nodes[usize::from(index)].memory {
                    memory.speculative.remove(&digest);
                    memory.running.remove(&digest);
                }
            }
            Effect::Returned { envelopes } => {
                let Some(memory) = &self.nodes[usize::from(index)].memory else { return Ok(false) };
                for envelope in envelopes {
                    let next = memory.session_next(envelope.value());
                    inputs.push_back(Input::Request { envelope, next });
                    self.marks.hit(Mark::Returned);
                }
            }
            Effect::ServeCommitted { to, from } => {
                let memory = self.nodes[usize::from(index)].memory.as_ref();
                if let Some(message) = memory.and_then(|memory| memory.committed_from(from)) {
                    self.marks.hit(Mark::CaughtUp);
                    self.send(index, to, &Arc::new(message))?;
                }
            }
            Effect::SetTimer { at } => {
                let node = &mut self.nodes[usize::from(index)];
                let due = node.virtual_time(at);
                let Some(memory) = &mut node.memory else { return Ok(false) };
                memory.timer += 1;
                self.queue.push(due, Event::Timer(index, node.life, memory.timer));
            }
            Effect::Halt { .. } | Effect::Evidence(_) | Effect::Forged(_) if self.is_faulty(index) => {}
            Effect::Halt { reason } => {
                return broken("a correct replica goes on", format!("replica {index}: {reason}"))
                    .map(|()| false);
            }
            Effect::Evidence(evidence) => self.show_evidence(&evidence)?,
            Effect::Forged(vote) => {
                self.marks.hit(Mark::Forged);
                if !self.is_faulty(vote.replica) {
                    return broken("a correct replica's votes are signed", format!("{vote:?}"))
                        .map(|()| false);
                }
            }
        }
        Ok(true)
    }

    /// A message leaves a replica: the oracle hears it, then the network takes it.
    pub(crate) fn send(
        &mut self,
        from: ReplicaIndex,
        to: ReplicaIndex,
        message: &Arc<PeerMessage>,
    ) -> Verdict {
        let Some(behaviour) = self.behaviour(from) else { return self.depart(from, to, message, 0) };
        for Outgoing { after, message } in self.bend(behaviour, from, to, message) {
            self.depart(from, to, &message, after)?;
        }
        Ok(())
    }

    /// A message leaves a replica for good, after it was held back for some time.
    pub(crate) fn depart(
        &mut self,
        from: ReplicaIndex,
        to: ReplicaIndex,
        message: &Arc<PeerMessage>,
        after: u64,
    ) -> Verdict {
        let now = self.queue.now();
        let [kind, place, digest] = describe::operands(message);
        let route = u64::from(from) << 8 | u64::from(to);
        self.trace.note(now, 4, [route, kind, place, digest], || {
            format!("{from} -> {to}: {}", describe::words(message))
        });
        let member = self.member(from);
        self.observe(member, message)?;
        self.overhear(member, message);
        let (from, to) = (Address::Replica(from), Address::Replica(to));
        let packet = Packet::Peer(message.clone());
        if after > 0 {
            self.queue.after(after, Event::Departure(from, to, packet));
        } else {
            self.transmit(from, to, &packet);
        }
        Ok(())
    }

    /// Hands a packet to the network.
    pub(crate) fn transmit(&mut self, from: Address, to: Address, packet: &Packet) {
        if self.conspiracy.twins.members().is_empty() {
            return self.carry(from, to, packet);
        }
        for to in self.routes(from, to) {
            self.carry(from, to, packet);
        }
    }

    fn carry(&mut self, from: Address, to: Address, packet: &Packet) {
        for at in self.network.send(self.queue.now(), from, to) {
            self.queue.push(at, Event::Arrival(from, to, packet.clone()));
        }
    }

    /// The oracle hears what a replica says for itself, and rare paths are counted.
    fn observe(&mut self, from: ReplicaIndex, message: &PeerMessage) -> Verdict {
        match message {
            PeerMessage::Votes(votes) => {
                let byzantine = self.behaviour(from).is_some();
                for vote in votes.iter().filter(|vote| vote.replica == from) {
                    // What is not signed is nobody's vote.
                    if byzantine && !self.is_signed(vote) {
                        continue;
                    }
                    if byzantine {
                        self.note_twin_vote(vote);
                    } else {
                        self.check_window(vote)?;
                    }
                    self.oracle.vote_sent(vote)?;
                }
            }
            PeerMessage::PrePrepare(proposed) => {
                if proposed.proposal.envelopes.is_empty() {
                    self.marks.hit(Mark::EmptyBatch);
                }
                if self.genesis.members.leader(proposed.view) == from {
                    let digest = proposed.proposal.digest(&self.cluster, proposed.epoch, proposed.height);
                    let first = *self.first_views.entry(digest).or_insert(proposed.view);
                    if first < proposed.view {
                        self.marks.hit(Mark::ProposedAgain);
                    }
                    self.oracle.proposal_sent(from, proposed, digest)?;
                }
            }
            PeerMessage::ViewChange(message) if message.claim.body.replica == from => {
                if self.views_asked.insert((from, message.claim.body.view)) {
                    self.marks.hit(Mark::ViewChange);
                }
                self.oracle.view_change_sent(&message.claim.body)?;
            }
            PeerMessage::NewView(message) => {
                let leads = self.genesis.members.leader(message.view) == from;
                self.marks.hit(if leads { Mark::NewView } else { Mark::NewViewRelayed });
                let prepared = |base: &quorate_crypto::Certificate| {
                    base.kind == quorate_crypto::CertificateKind::Prepare
                };
                if message.base.as_ref().is_some_and(prepared) {
                    self.marks.hit(Mark::PreparedBase);
                }
                if self.behaviour(from).is_none() {
                    self.oracle.view_opened(from, message)?;
                }
            }
            PeerMessage::Suspect(suspect) if self.behaviour(from).is_none() => {
                self.marks.hit(match suspect.reason {
                    Suspicion::Restarted => Mark::SuspectRestarted,
                    Suspicion::Revoked => Mark::SuspectRevoked,
                    Suspicion::Monitor => Mark::SuspectMonitor,
                    Suspicion::Disconnected => Mark::SuspectDisconnected,
                    Suspicion::Timeout | Suspicion::Fault => Mark::SuspectTimeout,
                })
            }
            PeerMessage::Resign(_) => self.marks.hit(Mark::Resign),
            PeerMessage::Batches(_) => self.marks.hit(Mark::BatchesFetched),
            PeerMessage::Forward(_) if self.behaviour(from).is_none() => self.marks.hit(Mark::Forwarded),
            _ => {}
        }
        Ok(())
    }

    /// A correct replica PREPAREs no height beyond its window (rule R7).
    fn check_window(&self, vote: &Vote) -> Verdict {
        let memory = self.nodes[usize::from(vote.replica)].memory.as_ref();
        let committed = memory.map_or(u64::MAX, |memory| memory.replica.committed_height());
        if vote.kind == VoteKind::Prepare && vote.height > committed.saturating_add(self.plan.window) {
            return broken("PREPAREs keep to the window (R7)", format!("{vote:?} above {committed}"));
        }
        Ok(())
    }

    /// A correct replica issues a COMMIT only for what it has executed by then (ADR 11).
    fn check_executed(&self, index: ReplicaIndex, effects: &[Effect]) -> Verdict {
        let Some(memory) = self.nodes[usize::from(index)].memory.as_ref() else { return Ok(()) };
        for effect in effects {
            match effect {
                Effect::Persist { then, .. } => self.check_executed(index, then)?,
                // What this very step has committed was executed before.
                Effect::NotifyClients { vote, digest }
                    if !memory.speculative.contains_key(digest)
                        && vote.height > memory.replica.committed_height()
                        && !self.is_faulty(index) =>
                {
                    return broken("a COMMIT is for what its signer executed (ADR 11)", format!("{vote:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An own COMMIT goes to the clients whose envelopes are in the batch.
    fn notify(&mut self, index: ReplicaIndex, vote: &Vote, digest: &quorate_crypto::Hash) -> Verdict {
        debug_assert!(vote.kind == VoteKind::Commit);
        self.oracle.vote_sent(vote)?;
        let Some(memory) = &self.nodes[usize::from(index)].memory else { return Ok(()) };
        let Some(envelopes) = memory.proposals.get(digest) else { return Ok(()) };
        let waiting = envelopes.iter().filter_map(|envelope| memory.waiting.get(envelope)).flatten();
        let clients: std::collections::BTreeSet<u8> = waiting.copied().collect();
        if self.is_silent(index) {
            return Ok(());
        }
        for client in clients {
            self.transmit(Address::Replica(index), Address::Client(client), &Packet::Commit(vote.clone()));
        }
        Ok(())
    }

    fn persist(
        &mut self,
        index: ReplicaIndex,
        token: quorate_consensus::Token,
        records: Vec<quorate_protocol::record::Record>,
        then: Vec<Effect>,
        inputs: &mut VecDeque<Input>,
    ) -> Result<bool, crate::oracle::Violation> {
        if self.is_full(index) {
            return Ok(false);
        }
        let node = &mut self.nodes[usize::from(index)];
        if self.plan.mutant == Some(Mutant::SyncSkipped) {
            node.disk.append_unwatched(records);
            let life = node.life;
            self.start_sync(index);
            for effect in then {
                if !self.carry_out_one(index, effect, inputs)? {
                    return Ok(false);
                }
            }
            self.queue.after(0, Event::Persisted(index, life, token));
            return Ok(true);
        }
        let life = node.life;
        let mutant = self.plan.mutant;
        let (early, then) = then.into_iter().partition(|effect| is_early(mutant, effect));
        node.disk.append(records, Released { token, then });
        self.start_sync(index);
        if mutant == Some(Mutant::PersistedEarly) {
            self.queue.after(0, Event::Persisted(index, life, token));
        }
        let early: Vec<Effect> = early;
        for effect in early {
            if !self.carry_out_one(index, effect, inputs)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn start_sync(&mut self, index: ReplicaIndex) {
        let now = self.queue.now();
        let node = &mut self.nodes[usize::from(index)];
        if node.disk.sync_started() {
            let (low, high) = self.plan.speeds.sync;
            let extra = if node.slow.1 > now { node.slow.0 } else { 0 };
            // The mutant's disk writes back at its leisure.
            let leisure = if self.plan.mutant == Some(Mutant::SyncSkipped) { 20 } else { 1 };
            let takes = (self.disk_random.between(low, high) + extra) * leisure;
            self.queue.after(takes, Event::Synced(index, node.life));
        }
    }

    /// A sync has ended: what waited for it is released, and the next one starts.
    pub(crate) fn synced(&mut self, index: ReplicaIndex, life: u64) -> Verdict {
        if self.live(index, life).is_none() || self.defer(index, Event::Synced(index, life)) {
            return Ok(());
        }
        if self.sync_fails(index) {
            return Ok(());
        }
        let disk = &mut self.nodes[usize::from(index)].disk;
        let before = disk.synced();
        let released = disk.sync_ended();
        self.oracle.synced(index, &disk.records()[before..disk.synced()]);
        let durable = disk.synced() as u64;
        self.trace.note(self.queue.now(), 5, [u64::from(index), durable, 0, 0], || {
            format!("{index}: {durable} records synced")
        });
        self.start_sync(index);
        for Released { token, then } in released {
            let mut inputs = VecDeque::new();
            self.carry_out(index, then, &mut inputs)?;
            if self.live(index, life).is_none() {
                return Ok(());
            }
            self.feed(index, Input::Persisted(token))?;
            if self.live(index, life).is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn execute(
        &mut self,
        index: ReplicaIndex,
        height: quorate_protocol::Height,
        digest: quorate_crypto::Hash,
        parent: quorate_crypto::Hash,
        proposal: &Arc<quorate_protocol::Proposal>,
    ) -> Verdict {
        let node = &mut self.nodes[usize::from(index)];
        let Some(memory) = &mut node.memory else { return Ok(()) };
        let Some(state) = memory.parent_state(&parent) else {
            return broken("the parent is executed and kept", format!("replica {index} height {height}"));
        };
        let environment = Environment {
            cluster: self.cluster,
            members: &self.genesis.members,
            verifier: self.verifier.as_ref(),
        };
        let mut outcome = state.execute(&environment, height, proposal, digest);
        if self.plan.mutant == Some(Mutant::ExecutionDiverges) && index < 2 && height % 5 == 4 {
            outcome = outcome.map(crate::machine::Executed::diverged);
        }
        memory
            .proposals
            .insert(digest, Arc::new(proposal.envelopes.iter().map(|e| e.body.digest()).collect()));
        memory.running.insert(digest, outcome);
        let (low, high) = self.plan.speeds.execution;
        let takes = self.driver_random.between(low, high);
        self.queue.after(takes, Event::Executed(index, node.life, height, digest));
        Ok(())
    }

    fn commit(&mut self, index: ReplicaIndex, height: u64, committed: Committed) -> Verdict {
        let Committed { header, certificate, digest, proposal } = committed;
        let hash = header.hash();
        let operands = [u64::from(index), height, word(&hash), certificate.view];
        self.trace.note(self.queue.now(), 6, operands, || {
            format!("{index}: committed h{height} {} by {certificate:?}", short(&hash))
        });
        self.marks.hit(Mark::Committed);
        if self.first_views.get(&digest).is_some_and(|first| *first < certificate.view) {
            self.marks.hit(Mark::CommittedInLaterView);
        }
        let faulty = self.is_faulty(index);
        if height > self.oracle.ledger().height() {
            self.moved();
            let parent = self.nodes[usize::from(index)].memory.as_ref();
            let parent = parent.map(|memory| memory.committed.0.header().clone());
            parent.map_or(Ok(()), |parent| self.check_time(&parent, &header))?;
        }
        let Some(memory) = &mut self.nodes[usize::from(index)].memory else { return Ok(()) };
        let Some(executed) = memory.speculative.get(&digest) else {
            return broken("what is committed is executed", format!("replica {index} height {height}"));
        };
        let (receipts, state) = (executed.receipts.clone(), executed.state.clone());
        if *state.header() != header {
            return broken("equal roots", format!("replica {index} height {height}"));
        }
        let envelopes: Vec<_> =
            proposal.envelopes.iter().map(|e| (e.body.digest(), e.body.session, e.body.first)).collect();
        let finished = Finished { header, certificate, proposal: proposal.clone(), receipts, state };
        if finished.header.height != height {
            return broken("the certificate is the header's", format!("replica {index} height {height}"));
        }
        if !faulty {
            self.oracle.committed(index, digest, &proposal, &finished)?;
        }
        memory.finish(height, digest, finished);
        let mut answers = Vec::new();
        for (envelope, session, first) in envelopes {
            let clients = memory.waiting.get(&envelope).into_iter().flatten().copied();
            if let Some(results) = memory.results(session, first) {
                let results = Arc::new(results);
                answers.extend(clients.map(|client| (client, results.clone())));
            }
        }
        if self.is_silent(index) {
            return Ok(());
        }
        for (client, results) in answers {
            self.transmit(Address::Replica(index), Address::Client(client), &Packet::Results(results));
        }
        Ok(())
    }

    /// A message reaches a replica: through its door, which refuses nothing that a correct replica sends.
    pub(crate) fn peer_hears(
        &mut self,
        from: ReplicaIndex,
        to: ReplicaIndex,
        message: &PeerMessage,
    ) -> Verdict {
        let mut message = message.clone();
        if self.plan.encoded {
            let bytes = encode(&message);
            message = match decode(&bytes) {
                Ok(decoded) if decoded == message => decoded,
                Err(_) if self.behaviour(from).is_some() => return Ok(()),
                other => {
                    return broken(
                        "messages survive their encoding",
                        format!("{message:?}: {:?}", other.err()),
                    );
                }
            };
        }
        let operands = describe::operands(&message);
        let route = u64::from(from) << 8 | u64::from(to);
        self.trace.note(self.queue.now(), 7, [route, operands[0], operands[1], operands[2]], || {
            format!("{to} <- {from}: {}", describe::words(&message))
        });
        self.eavesdrop(to, &message)?;
        let from = self.member(from);
        if let PeerMessage::Forward(envelope) = message {
            return self.submitted(to, Address::Replica(from), &envelope);
        }
        let configuration = &self.configurations[usize::from(to)];
        let Some(memory) = &self.nodes[usize::from(to)].memory else { return Ok(()) };
        let Some(message) = memory.replica.screen(from, message) else { return Ok(()) };
        match door::verify(configuration, self.verifier.as_ref(), &memory.replica, from, message) {
            Ok(message) => self.feed(to, Input::Message { from, message }),
            Err(refused) if self.is_faulty(from) => {
                self.marks.hit(Mark::Rejected);
                let evidence = refused.into_evidence(configuration);
                evidence.map_or(Ok(()), |evidence| self.show_evidence(&evidence))
            }
            Err(refused) => {
                let detail = format!("{from} to {to}: {}", refused.rejection);
                broken("a correct replica's message passes the door", detail)
            }
        }
    }
}

/// Whether a mutant's driver does not wait for the sync with this.
fn is_early(mutant: Option<Mutant>, effect: &Effect) -> bool {
    let message = match effect {
        Effect::Broadcast { message } => message.as_ref(),
        Effect::NotifyClients { .. } => return mutant == Some(Mutant::CommitUnsynced),
        _ => return false,
    };
    match mutant {
        Some(Mutant::CommitUnsynced) => matches!(message, PeerMessage::Votes(_)),
        Some(Mutant::ViewChangeUnsynced) => matches!(message, PeerMessage::ViewChange(_)),
        _ => false,
    }
}

/// What a replica says of a height that it committed.
struct Committed {
    header: quorate_protocol::Header,
    certificate: quorate_crypto::Certificate,
    digest: quorate_crypto::Hash,
    proposal: Arc<quorate_protocol::Proposal>,
}
