//! Faults strike here: crashes, restarts, cuts, pauses; and the calm repairs everything.
//!
//! Invariant: a restart reads what the disk kept and nothing else; re-executing the committed heights gives
//! the headers that the log holds (rule S10).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use quorate_consensus::Input;
use quorate_consensus::Replica;
use quorate_crypto::{Certificate, Hash, decode, encode};
use quorate_execution::Environment;
use quorate_protocol::peer::Batch;
use quorate_protocol::record::Record;
use quorate_protocol::{Height, ReplicaIndex};

use crate::byzantine::{Behaviour, Deed};
use crate::disk::Refusal;
use crate::faults::{Direction, Fault, Target};
use crate::machine::State;
use crate::marks::Mark;
use crate::network::{Address, Weather};
use crate::node::{Finished, Memory};
use crate::oracle::{Verdict, Violation, broken};
use crate::world::{Event, World};

/// Most heights whose saved state a crash may lose, to be executed again.
pub const UNSAVED_MAX: u64 = 6;

impl World {
    /// A fault strikes.
    pub(crate) fn strike(&mut self, fault: &Fault) -> Verdict {
        self.trace.note(self.queue.now(), 10, [0; 4], || format!("FAULT {}", fault.words()));
        match fault {
            Fault::Crash { target, down } => {
                let index = self.aim(*target);
                self.crash(index, *down);
            }
            Fault::Arm { target, effects, down } => {
                let index = self.aim(*target);
                self.nodes[usize::from(index)].armed = Some((*effects, *down));
            }
            Fault::PowerLoss { down, stagger } => {
                self.marks.hit(Mark::PowerLoss);
                for index in self.genesis.members.indices() {
                    let more = self.driver_random.below(stagger + 1);
                    self.crash(index, down + more);
                }
            }
            Fault::RollingRestart { down, gap } => {
                for index in self.genesis.members.indices() {
                    self.queue.after(gap * u64::from(index), Event::Roll(index, *down));
                }
            }
            Fault::Split { side, lasts } => {
                self.cut(*lasts, |from, to| (side >> from ^ side >> to) & 1 == 1);
            }
            Fault::Isolate { target, direction, lasts } => {
                let index = self.aim(*target);
                let (out, into) = (*direction != Direction::In, *direction != Direction::Out);
                self.cut(*lasts, |from, to| from == index && out || to == index && into);
            }
            Fault::CutLinks { links, lasts } => self.cut(*lasts, |from, to| links.contains(&(from, to))),
            Fault::Blips { side, count, lasts, gap } => self.blips(*side, (*count, *lasts, *gap)),
            Fault::SlowLinks { links, extra, lasts } => {
                let until = self.queue.now() + lasts;
                let links = links.iter().map(|(from, to)| (Address::Replica(*from), Address::Replica(*to)));
                self.network.slow(links, *extra, until);
            }
            Fault::DiskFull { target, lasts } => {
                let index = self.aim(*target);
                self.nodes[usize::from(index)].full_until = self.queue.now() + lasts;
            }
            Fault::SyncFails { target, down } => {
                let index = self.aim(*target);
                self.nodes[usize::from(index)].sync_fails = Some(*down);
            }
            Fault::DiskDamage { replica, damage, down } => self.damage(*replica, *damage, *down),
            Fault::Storm { loss, lasts } => {
                self.network.set_weather(Weather { loss: *loss, ..self.plan.weather });
                self.queue.after(*lasts, Event::Clear);
            }
            Fault::SlowDisk { target, extra, lasts } => {
                let index = self.aim(*target);
                self.nodes[usize::from(index)].slow = (*extra, self.queue.now() + lasts);
            }
            Fault::Pause { target, lasts } => {
                let index = self.aim(*target);
                self.nodes[usize::from(index)].paused_until = self.queue.now() + lasts;
            }
            Fault::ClockJump { target, by } => {
                let index = self.aim(*target);
                self.look_at_clocks();
                self.nodes[usize::from(index)].clock.skew += by;
            }
            Fault::Resign { target } => {
                let index = self.aim(*target);
                if self.nodes[usize::from(index)].is_up() {
                    return self.feed(index, Input::Resign);
                }
            }
        }
        Ok(())
    }

    /// Whom a fault strikes.
    fn aim(&self, target: Target) -> ReplicaIndex {
        match target {
            Target::Replica(index) => index,
            Target::Leader => {
                let views = self.nodes.iter().filter_map(|node| Some(node.memory.as_ref()?.replica.view()));
                self.genesis.members.leader(views.max().unwrap_or(0))
            }
        }
    }

    /// Cuts the links between replicas that a rule names, for a while.
    pub(crate) fn cut(&mut self, lasts: u64, is_cut: impl Fn(ReplicaIndex, ReplicaIndex) -> bool) {
        let mut links = BTreeSet::new();
        for from in self.genesis.members.indices() {
            for to in self.genesis.members.indices() {
                if is_cut(from, to) {
                    links.insert((Address::Replica(from), Address::Replica(to)));
                }
            }
        }
        self.cuts += 1;
        self.network.cut(self.cuts, links);
        self.queue.after(lasts, Event::Mend(self.cuts));
    }

    /// A replica crashes, and restarts later.
    pub(crate) fn crash(&mut self, index: ReplicaIndex, down: u64) {
        let node = &mut self.nodes[usize::from(index)];
        let Some(memory) = node.memory.take() else { return };
        let before = node.disk.records().len();
        let committed = committed_height(&node.disk.records()[..node.disk.synced()]);
        node.disk.crash(&mut self.disk_random);
        node.saved = memory.history;
        // The state is written after the log is synced, and lags it.
        let unsaved = self.disk_random.below(UNSAVED_MAX + 1);
        node.saved.retain(|at, _| *at + unsaved <= committed);
        if self.plan.byzantine.get(&index) == Some(&Behaviour::Forgetting) {
            node.disk.wipe();
            node.saved.clear();
            self.conspiracy.deeds.hit(Deed::Forgot);
        }
        let lost = before - node.disk.records().len();
        node.life += 1;
        node.armed = None;
        node.sync_fails = None;
        node.paused_until = 0;
        let life = node.life;
        self.marks.hit(Mark::Crash);
        if lost > 0 {
            self.marks.hit(Mark::RecordsLost);
        }
        self.trace.note(self.queue.now(), 11, [u64::from(index), lost as u64, 0, 0], || {
            format!("{index}: CRASH, {lost} records lost, {} kept", before - lost)
        });
        self.queue.after(down, Event::Restart(index, life));
        self.tell_link(index, false);
    }

    /// The others notice sooner or later that a replica is down or up.
    fn tell_link(&mut self, peer: ReplicaIndex, up: bool) {
        if self.plan.hints {
            let slowest = 4 * self.plan.speeds.latency.1;
            for index in self.genesis.members.indices().filter(|index| *index != peer) {
                let noticed = self.leaders_random.between(0, slowest);
                self.queue.after(noticed, Event::Linked(index, peer, up));
            }
        }
    }

    /// A replica starts, from whatever its disk holds.
    pub(crate) fn restart(&mut self, index: ReplicaIndex) -> Verdict {
        let now = self.queue.now();
        if !self.may_start(index) {
            return Ok(());
        }
        let node = &mut self.nodes[usize::from(index)];
        node.started_at = now;
        let mut records = node.disk.records().to_vec();
        if let Some(mutant) = self.plan.mutant {
            records = mutant.recovered(records);
        }
        if self.plan.encoded {
            records = records.iter().map(through_bytes).collect::<Result<_, _>>()?;
        }
        self.oracle.restarted(index, node.disk.records());
        let log = CommittedLog::read(&records);
        let configuration = self.configurations[usize::from(index)].clone();
        let signer = self.signers[usize::from(index)].clone();
        let (monotonic, wall) = (node.monotonic(now), node.wall(now));
        let verifier = self.verifier.clone();
        let recovered = Replica::recover(configuration, signer, verifier, records, monotonic, wall);
        let (mut replica, effects) = match recovered {
            Ok(recovered) => recovered,
            Err(_) if self.is_faulty(index) => {
                self.refuse(index, Refusal::Damaged(0));
                return Ok(());
            }
            Err(error) => {
                return broken(
                    "a log that was cut at its end is recovered",
                    format!("replica {index}: {error}"),
                );
            }
        };
        let height = replica.committed_height();
        let saved = std::mem::take(&mut node.saved);
        if saved.last_key_value().is_some_and(|(at, _)| *at > height) {
            self.refuse(index, Refusal::Behind);
            return Ok(());
        }
        let mut memory_parts = (saved, self.genesis_state.clone(), self.genesis_header.proposal);
        let wake_at = self.replay(index, height, &log, &mut memory_parts)?;
        let (history, state, digest) = memory_parts;
        replica.set_wake_at(wake_at);
        let view = replica.view();
        let memory = Memory::new(replica, (state, digest), history);
        let node = &mut self.nodes[usize::from(index)];
        if node.life > 0 {
            self.marks.hit(Mark::Restart);
        }
        node.memory = Some(memory);
        self.trace.note(now, 12, [u64::from(index), height, view, 0], || {
            format!("{index}: START at h{height} in v{view}")
        });
        self.tell_link(index, true);
        let mut inputs = VecDeque::new();
        self.carry_out(index, effects, &mut inputs)?;
        for input in inputs {
            self.feed(index, input)?;
        }
        Ok(())
    }

    /// Executes the committed heights above the saved ones again, and compares their headers with the log.
    fn replay(
        &self,
        index: ReplicaIndex,
        height: Height,
        log: &CommittedLog,
        (history, state, digest): &mut (BTreeMap<Height, Finished>, State, Hash),
    ) -> Result<Option<quorate_protocol::BatchTime>, Violation> {
        if let Some((_, last)) = history.last_key_value() {
            (*state, *digest) = (last.state.clone(), last.header.proposal);
        }
        for at in state.header().height + 1..=height {
            let found = log.get(at);
            let Some((batch, certificate)) = found else {
                let detail = format!("replica {index} height {at} of {height}");
                return Err(Violation { rule: "the log holds every committed height", detail });
            };
            let Batch { header, proposal } = batch;
            let environment = Environment {
                cluster: self.cluster,
                members: &self.genesis.members,
                verifier: self.verifier.as_ref(),
            };
            let executed = state.execute(&environment, at, proposal, header.proposal);
            let executed = executed.ok().filter(|executed| executed.state.header() == header);
            let Some(executed) = executed else {
                let detail = format!("replica {index} height {at}");
                return Err(Violation { rule: "recovery reproduces every header", detail });
            };
            let finished = Finished {
                header: header.clone(),
                certificate: certificate.clone(),
                proposal: Arc::new(proposal.clone()),
                receipts: executed.receipts,
                state: executed.state.clone(),
            };
            history.insert(at, finished);
            (*state, *digest) = (executed.state, header.proposal);
        }
        Ok(state.wake_at())
    }

    /// The faults are over: everything is repaired and everybody is up.
    pub(crate) fn calm(&mut self) -> Verdict {
        self.trace.note(self.queue.now(), 13, [0; 4], || "CALM".to_owned());
        self.is_calm = true;
        self.look_at_clocks();
        self.network.mend_all();
        self.network.set_weather(Weather::CALM);
        for index in self.genesis.members.indices() {
            let node = &mut self.nodes[usize::from(index)];
            node.armed = None;
            node.slow = (0, 0);
            node.full_until = 0;
            node.sync_fails = None;
            node.clock.skew = 0;
            if !node.is_up() && node.refused.is_none() {
                self.queue.after(0, Event::Restart(index, node.life));
            }
        }
        for client in 0..self.clients.len() as u8 {
            self.clients[usize::from(client)].calm(self.queue.now());
            self.wake_later(client);
        }
        for reader in 0..self.readers.len() as u8 {
            self.readers[usize::from(reader)].calm(self.queue.now());
            self.queue.after(0, Event::WakeReader(reader));
        }
        Ok(())
    }
}

/// A record as it comes back from its bytes.
fn through_bytes(record: &Record) -> Result<Record, Violation> {
    match decode::<Record>(&encode(record)) {
        Ok(decoded) if decoded == *record => Ok(decoded),
        other => {
            let detail = format!("{record:?}: {:?}", other.err());
            Err(Violation { rule: "records survive their encoding", detail })
        }
    }
}

/// The highest height that these records certify.
pub(crate) fn committed_height(records: &[Record]) -> Height {
    let committed = records.iter().rev().find_map(|record| match record {
        Record::Committed(certificate) => Some(certificate.height),
        _ => None,
    });
    committed.unwrap_or(0)
}

/// The committed heights of a log.
struct CommittedLog {
    batches: BTreeMap<Hash, Batch>,
    certificates: BTreeMap<Height, Certificate>,
}

impl CommittedLog {
    fn read(records: &[Record]) -> Self {
        let (mut batches, mut certificates) = (BTreeMap::new(), BTreeMap::new());
        for record in records {
            match record {
                Record::Proposed { batch, .. } => {
                    batches.insert(batch.header.hash(), batch.clone());
                }
                Record::Committed(certificate) => {
                    certificates.entry(certificate.height).or_insert_with(|| certificate.clone());
                }
                _ => {}
            }
        }
        Self { batches, certificates }
    }

    fn get(&self, height: Height) -> Option<(&Batch, &Certificate)> {
        let certificate = self.certificates.get(&height)?;
        Some((self.batches.get(&certificate.header_hash)?, certificate))
    }
}
