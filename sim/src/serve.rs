//! Between replicas and their clients: envelopes, results, COMMITs, questions, answers.
//!
//! Invariant: whatever a client takes for true reaches the oracle as evidence, so a certificate that only a
//! client ever saw binds the whole run (fork A of rule R1).

use std::sync::Arc;

use quorate_consensus::{Input, ReadIndex, door};
use quorate_execution::check_envelope;
use quorate_protocol::{Envelope, Height, ReplicaIndex};

use crate::byzantine::Snub;
use crate::ledger::Place;
use crate::machine::Execution;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::network::Address;
use crate::node::Finished;
use crate::oracle::{Verdict, broken};
use crate::reader::{Question, Shown, Subject};
use crate::trace::{short, word};
use crate::workload::NAMES;
use crate::world::{Event, Packet, World};

impl World {
    /// A client's envelope reaches a replica: answered from history, or ordered.
    pub(crate) fn request(&mut self, to: ReplicaIndex, client: u8, envelope: &Arc<Envelope>) -> Verdict {
        let from = Address::Client(client);
        match self.snubs(to, envelope) {
            Snub::Served => {}
            Snub::Ignored => return Ok(()),
            Snub::Until(at) => {
                let packet = Packet::Submit(envelope.clone());
                self.queue.push(at, Event::Arrival(from, Address::Replica(to), packet));
                return Ok(());
            }
        }
        let silent = self.is_silent(to);
        let Some(memory) = &mut self.nodes[usize::from(to)].memory else { return Ok(()) };
        memory.waiting.entry(envelope.body.digest()).or_default().insert(client);
        if let Some(results) = memory.results(envelope.body.session, envelope.body.first) {
            self.marks.hit(Mark::AnsweredFromHistory);
            if !silent {
                self.transmit(Address::Replica(to), from, &Packet::Results(Arc::new(results)));
            }
            return Ok(());
        }
        self.submitted(to, from, envelope)
    }

    /// An envelope is handed to consensus, as the replica does it. One of a hostile client may be wrong; a correct
    /// client's is not, nor is what a correct replica forwards, which has verified it.
    pub(crate) fn submitted(&mut self, to: ReplicaIndex, from: Address, envelope: &Envelope) -> Verdict {
        if matches!(from, Address::Replica(_)) && !matches!(self.snubs(to, envelope), Snub::Served) {
            return Ok(());
        }
        let configuration = &self.configurations[usize::from(to)];
        let Some(memory) = &self.nodes[usize::from(to)].memory else { return Ok(()) };
        let checked = check_envelope(&self.cluster, envelope).map_err(|fault| fault.to_string());
        let verified = checked.and_then(|()| {
            door::verify_envelope(configuration, self.verifier.as_ref(), &memory.replica, envelope.clone())
                .map_err(|rejection| rejection.to_string())
        });
        match verified {
            Ok(envelope) => {
                let next = memory.session_next(envelope.value());
                self.feed(to, Input::Request { envelope, next })
            }
            Err(_) if matches!(from, Address::Hostile(_)) => {
                self.marks.hit(Mark::HostileRejected);
                Ok(())
            }
            Err(_) if matches!(from, Address::Replica(from) if self.is_faulty(from)) => {
                self.marks.hit(Mark::Rejected);
                Ok(())
            }
            Err(rejection) => broken("a correct client's envelope passes the door", rejection),
        }
    }

    /// Something reaches a client.
    pub(crate) fn client_hears(&mut self, client: u8, packet: Packet) -> Verdict {
        let actor = &mut self.clients[usize::from(client)];
        let acknowledged = match packet {
            Packet::Commit(vote) => actor.on_commit(&vote),
            Packet::Results(results) => actor.on_results(&results),
            _ => Vec::new(),
        };
        if acknowledged.is_empty() {
            return Ok(());
        }
        let session = actor.session();
        for done in acknowledged {
            self.marks.hit(Mark::Acknowledged);
            let Place { height, .. } = done.place;
            self.trace.note(
                self.queue.now(),
                8,
                [u64::from(client), done.first, height, word(&done.header)],
                || {
                    format!(
                        "client {client}: number {} is executed at h{height} {}",
                        done.first,
                        short(&done.header)
                    )
                },
            );
            self.oracle.decide(height, done.header, "a client's certificate")?;
            self.oracle.ledger_mut().told(session, done.first, done.place);
            self.scribe.answered(self.queue.now(), (session, done.first), height, &done.results)?;
            self.promise.kept(self.queue.now(), client, done.first)?;
            self.acknowledged = self.acknowledged.max(height);
        }
        self.wake_later(client);
        Ok(())
    }

    /// A client is due: it sends what it has to send.
    pub(crate) fn wake(&mut self, client: u8) -> Verdict {
        let now = self.queue.now();
        let turn = self.clients[usize::from(client)].wake(now);
        if turn.restarted || turn.reconnected {
            self.marks.hit(if turn.restarted { Mark::ClientRestarted } else { Mark::Reconnected });
            self.trace.note(now, 19, [u64::from(client), u64::from(turn.restarted), 0, 0], || {
                let what = if turn.restarted { "RESTARTS under a new session" } else { "RECONNECTS" };
                format!("client {client} {what}")
            });
            for memory in self.nodes.iter_mut().filter_map(|node| node.memory.as_mut()) {
                memory.waiting.values_mut().for_each(|clients| {
                    clients.remove(&client);
                });
            }
        }
        for submission in turn.submissions {
            let first = submission.envelope.body.first;
            if submission.again {
                self.marks.hit(Mark::Retry);
            } else {
                self.scribe.issued(client, now, &submission.envelope)?;
                self.overheard(submission.envelope.clone());
                self.promise.given(now, client, first);
            }
            let to = submission.to;
            self.trace.note(now, 9, [u64::from(client), first, u64::from(submission.again), 0], || {
                let whom = to.map_or("all".to_owned(), |to| to.to_string());
                let again = if submission.again { " again" } else { "" };
                format!("client {client} -> {whom}: envelope {first}{again}")
            });
            let targets = to.map_or(0..self.genesis.members.n() as ReplicaIndex, |to| to..to + 1);
            for to in targets {
                let packet = Packet::Submit(submission.envelope.clone());
                self.transmit(Address::Client(client), Address::Replica(to), &packet);
            }
        }
        self.wake_later(client);
        Ok(())
    }

    /// Schedules the client's next waking.
    pub(crate) fn wake_later(&mut self, client: u8) {
        let now = self.queue.now();
        if let Some(at) = self.clients[usize::from(client)].wants_waking(now) {
            self.queue.push(at, Event::Wake(client));
        }
    }

    /// A reader is due.
    pub(crate) fn wake_reader(&mut self, reader: u8) -> Verdict {
        let now = self.queue.now();
        let heights =
            self.nodes.iter().filter_map(|node| Some(node.memory.as_ref()?.replica.committed_height()));
        let committed = heights.max().unwrap_or(0);
        let sessions = self.clients.iter().map(|client| Subject::Session(client.session()));
        let names = (0..NAMES).filter(|_| self.plan.execution == Execution::Fake).map(Subject::Name);
        let subjects: Vec<Subject> = sessions.chain(names).collect();
        let actor = &mut self.readers[usize::from(reader)];
        let question = actor.wake(now, (self.acknowledged, committed), &subjects);
        if let Some(question) = question {
            if matches!(question, Question::Await(_)) {
                self.marks.hit(Mark::Awaited);
            }
            self.trace.note(now, 14, [u64::from(reader), 0, 0, 0], || {
                format!("reader {reader} -> all: {question:?}")
            });
            for to in self.genesis.members.indices() {
                let packet = Packet::Question(question.clone());
                self.transmit(Address::Reader(reader), Address::Replica(to), &packet);
            }
        }
        self.wake_reader_later(reader);
        Ok(())
    }

    fn wake_reader_later(&mut self, reader: u8) {
        let at = self.readers[usize::from(reader)].wake_at();
        if at != u64::MAX {
            self.queue.push(at, Event::WakeReader(reader));
        }
    }

    /// A reader's question reaches a replica.
    pub(crate) fn question(&mut self, to: ReplicaIndex, reader: u8, question: Question) -> Verdict {
        let Some(memory) = &self.nodes[usize::from(to)].memory else { return Ok(()) };
        match question {
            Question::Highest(number) => {
                let mut answer = memory.replica.read_index();
                if self.plan.mutant == Some(Mutant::ReadsCommittedOnly) {
                    let certificate = memory.replica.committed_certificate().cloned();
                    answer = ReadIndex { height: memory.replica.committed_height(), certificate };
                }
                if let Some(answer) = self.misanswer(to, answer) {
                    let packet = Packet::Answer(number, answer);
                    self.transmit(Address::Replica(to), Address::Reader(reader), &packet);
                }
                Ok(())
            }
            Question::Read(number, height) => {
                if let Some(shown) = self.shown(to, height) {
                    let packet = Packet::Shown(number, Box::new(shown));
                    self.transmit(Address::Replica(to), Address::Reader(reader), &packet);
                }
                Ok(())
            }
            Question::Await(certificate) => {
                let configuration = &self.configurations[usize::from(to)];
                match door::verify_certificate(configuration, self.verifier.as_ref(), certificate) {
                    Ok(certificate) => self.feed(to, Input::Await(certificate)),
                    Err(rejection) => {
                        broken("a correct reader's certificate passes the door", rejection.to_string())
                    }
                }
            }
        }
    }

    /// An answer reaches a reader: what it learns is never below what was acknowledged before it asked.
    pub(crate) fn reader_hears(
        &mut self,
        reader: u8,
        from: ReplicaIndex,
        number: u64,
        answer: &ReadIndex,
    ) -> Verdict {
        let now = self.queue.now();
        let Some(learned) = self.readers[usize::from(reader)].on_answer(now, number, from, answer) else {
            return Ok(());
        };
        self.marks.hit(Mark::ReadAnswered);
        self.trace.note(now, 15, [u64::from(reader), learned.height, learned.floor, 0], || {
            format!("reader {reader}: {learned:?}")
        });
        if learned.height < learned.floor {
            return broken(
                "a read sees what was acknowledged before it",
                format!("reader {reader}: {learned:?}"),
            );
        }
        self.wake_reader_later(reader);
        Ok(())
    }

    /// The state that a replica shows, if it has come to this height. A Byzantine one shows an old one.
    fn shown(&self, index: ReplicaIndex, height: Height) -> Option<Shown> {
        let history = &self.nodes[usize::from(index)].memory.as_ref()?.history;
        let finished = if self.behaviour(index).is_some() {
            history.values().next()
        } else {
            history.values().next_back().filter(|finished| finished.header.height >= height)
        };
        match finished {
            Some(Finished { header, certificate, state, .. }) => {
                let (header, certificate) = (header.clone(), Some(certificate.clone()));
                Some(Shown { header, certificate, state: state.clone() })
            }
            None if height == 0 => {
                let (header, state) = (self.genesis_header.clone(), self.genesis_state.clone());
                Some(Shown { header, certificate: None, state })
            }
            None => None,
        }
    }

    /// A state reaches a reader.
    pub(crate) fn reader_sees(&mut self, reader: u8, number: u64, shown: &Shown) -> Verdict {
        let now = self.queue.now();
        let Some(read) = self.readers[usize::from(reader)].on_shown(now, number, shown) else {
            return Ok(());
        };
        self.marks.hit(Mark::ValueRead);
        let operands = [u64::from(reader), read.height, read.value.unwrap_or(u64::MAX), read.asked_at];
        self.trace.note(now, 20, operands, || format!("reader {reader}: {read:?}"));
        self.oracle.decide(read.height, shown.header.hash(), "a reader's certificate")?;
        self.acknowledged = self.acknowledged.max(read.height);
        self.scribe.read(reader, now, read)?;
        self.wake_reader_later(reader);
        Ok(())
    }
}
