//! Between replicas and their clients: envelopes, results, COMMITs, questions, answers.
//!
//! Invariant: whatever a client takes for true reaches the oracle as evidence, so a certificate that only a
//! client ever saw binds the whole run (fork A of rule R1).

use std::sync::Arc;

use quorate_consensus::{Input, ReadIndex, door};
use quorate_protocol::{Envelope, ReplicaIndex};

use crate::byzantine::Snub;
use crate::ledger::Place;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::network::Address;
use crate::oracle::{Verdict, broken};
use crate::reader::Question;
use crate::trace::{short, word};
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

    /// An envelope is handed to consensus.
    pub(crate) fn submitted(&mut self, to: ReplicaIndex, from: Address, envelope: &Envelope) -> Verdict {
        if matches!(from, Address::Replica(_)) && !matches!(self.snubs(to, envelope), Snub::Served) {
            return Ok(());
        }
        let configuration = &self.configurations[usize::from(to)];
        let Some(memory) = &self.nodes[usize::from(to)].memory else { return Ok(()) };
        match door::verify_envelope(configuration, self.verifier.as_ref(), &memory.replica, envelope.clone())
        {
            Ok(envelope) => {
                let next = memory.session_next(envelope.value());
                self.feed(to, Input::Request { envelope, next })
            }
            Err(_) if matches!(from, Address::Replica(from) if self.behaviour(from).is_some()) => {
                self.marks.hit(Mark::Rejected);
                Ok(())
            }
            Err(rejection) => broken("a correct client's envelope passes the door", rejection.to_string()),
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
            self.promise.kept(self.queue.now(), client, done.first)?;
            self.acknowledged = self.acknowledged.max(height);
        }
        self.wake_later(client);
        Ok(())
    }

    /// A client is due: it sends what it has to send.
    pub(crate) fn wake(&mut self, client: u8) -> Verdict {
        let now = self.queue.now();
        for submission in self.clients[usize::from(client)].wake(now) {
            let first = submission.envelope.body.first;
            if submission.again {
                self.marks.hit(Mark::Retry);
            } else {
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
        let actor = &mut self.readers[usize::from(reader)];
        let question = actor.wake(now, self.acknowledged, committed);
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
}
