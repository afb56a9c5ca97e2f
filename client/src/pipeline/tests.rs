//! Batching, retries, results, expiry, and what is never final.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use quorate_crypto::{Address, Ed25519Signer, Ed25519Verifier, Member, MemberSet, NodeSeed, Role};
use quorate_crypto::{Certificate, CertificateKind};
use quorate_execution::Receipts;
use quorate_protocol::file::{Attributes, FileKind};
use quorate_protocol::{Header, ReceiptLeaf, Reply, Timestamp};
use tokio::sync::oneshot;

use super::*;

const CLUSTER: Hash = Hash([9; 32]);

struct Fixture {
    pipeline: Pipeline,
    trust: Trust,
    members: MemberSet,
    signers: Vec<Ed25519Signer>,
    now: Instant,
    height: Height,
}

type Receiver = oneshot::Receiver<Result<Reply, ClientError>>;

fn header(height: Height) -> Header {
    Header {
        version: 1,
        cluster: if height == 0 { Hash::ZERO } else { CLUSTER },
        epoch: 0,
        height,
        time: BatchTime(height * 1_000_000_000),
        previous: Hash::ZERO,
        proposal: Hash::ZERO,
        state_root: Hash::ZERO,
        receipts_root: Hash::ZERO,
        first_operation: 0,
        operation_count: 0,
        log_root: Hash::ZERO,
        members: Hash::ZERO,
        touched_root: Hash::ZERO,
        touched_count: 0,
    }
}

fn attributes() -> Attributes {
    let time = Timestamp { seconds: 0, nanoseconds: 0 };
    Attributes {
        ino: 0,
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 1,
        gid: 1,
        nlink: 1,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 1,
        block_log2: 20,
    }
}

fn fixture() -> Fixture {
    let seeds: Vec<_> = (1..=4_u8).map(|byte| NodeSeed::from_bytes([byte; 32])).collect();
    let address = || Address::try_from("h:1".to_owned()).unwrap();
    let members = seeds.iter().map(|seed| Member::from_seed(seed, address())).collect();
    let members = MemberSet::new(0, members).unwrap();
    let signers = seeds.iter().map(|seed| Ed25519Signer::new(seed.derive(Role::Consensus))).collect();
    let trust = Trust::new(CLUSTER, members.clone(), &header(0), Box::new(Ed25519Verifier::new()));
    let principal = Arc::new(Ed25519Signer::new(NodeSeed::from_bytes([7; 32]).derive(Role::Principal)));
    let pipeline = Pipeline::new(CLUSTER, principal, Some(Duration::from_secs(10)), Instant::now());
    let mut fixture = Fixture { pipeline, trust, members, signers, now: Instant::now(), height: 0 };
    let action = fixture.pipeline.register([1; 32], BatchTime(100_000_000_000), fixture.now);
    let envelope = envelope(&action);
    fixture.settle(&envelope, vec![OperationResult::Done(Reply::Registered { session: 1 })]);
    assert!(fixture.pipeline.registered());
    fixture
}

fn envelope(action: &Action) -> Arc<Envelope> {
    match action {
        Action::Send { envelope, .. } => Arc::clone(envelope),
        other => panic!("{other:?}"),
    }
}

fn sent(actions: &[Action]) -> Vec<Arc<Envelope>> {
    actions.iter().filter(|action| matches!(action, Action::Send { .. })).map(envelope).collect()
}

impl Fixture {
    fn push(&mut self, uid: u32, deadline: Option<u64>) -> Receiver {
        self.push_body(uid, deadline, OperationBody::Null)
    }

    fn push_body(&mut self, uid: u32, deadline: Option<u64>, body: OperationBody) -> Receiver {
        let (done, receiver) = oneshot::channel();
        let credential = Credential { uid, gid: 0, groups: Groups::OfPrincipal };
        let deadline = deadline.map(|seconds| self.now + Duration::from_secs(seconds));
        let waiter = Waiter::new(done, deadline);
        let job = Job { credential, body, requires: 0, opens_group: true, waiter };
        self.pipeline.push(job);
        receiver
    }

    fn launch(&mut self) -> Vec<Arc<Envelope>> {
        sent(&self.pipeline.launch(self.now, BatchTime(self.height * 1_000_000_000)))
    }

    /// What is launched when it is no longer worth waiting for company.
    fn follow(&mut self) -> Vec<Arc<Envelope>> {
        self.now += FOLLOW_AFTER;
        self.launch()
    }

    /// The results of an envelope in a batch of its own, at the next height.
    fn results(&mut self, envelope: &Envelope, results: Vec<OperationResult>) -> EnvelopeResults {
        self.height += 1;
        let leaves = (0_u32..).zip(results).map(|(index, result)| ReceiptLeaf {
            session: envelope.body.session,
            sequence: envelope.body.first + u64::from(index),
            envelope: envelope.body.digest(),
            index,
            result,
        });
        let receipts = Receipts::new(leaves.collect()).unwrap();
        let operation_count = receipts.leaves().len() as u32;
        let header = Header { receipts_root: receipts.root(), operation_count, ..header(self.height) };
        receipts.results(&header, 0, None).unwrap()
    }

    fn certificate(&self, header: &Header) -> Certificate {
        let (hash, height) = (header.hash(), header.height);
        let statement = quorate_crypto::Statement {
            cluster: CLUSTER,
            epoch: 0,
            kind: quorate_crypto::StatementKind::Commit,
            view: 0,
            height,
            digest: hash,
        };
        let votes = (0..3).map(|replica: u8| (replica, self.signers[usize::from(replica)].sign(&statement)));
        Certificate::assemble(CertificateKind::Commit, &self.members, 0, height, hash, votes).unwrap()
    }

    fn take(&mut self, results: EnvelopeResults) -> (Fate, Vec<Action>) {
        let time = (self.now, BatchTime(self.height * 1_000_000_000));
        self.pipeline.results(results, &self.trust, time).expect("well-formed results")
    }

    /// Certified results.
    fn settle(&mut self, envelope: &Envelope, results: Vec<OperationResult>) -> (Fate, Vec<Action>) {
        let mut results = self.results(envelope, results);
        results.certificate = Some(self.certificate(&results.header));
        self.take(results)
    }
}

fn done() -> OperationResult {
    OperationResult::Done(Reply::Empty)
}

fn answer(receiver: &mut Receiver) -> Option<Result<Reply, ClientError>> {
    receiver.try_recv().ok()
}

#[test]
fn one_goes_at_once_and_what_waits_shares_the_next_envelope() {
    let mut fixture = fixture();
    let mut flights = Vec::new();
    for _ in 0..ENVELOPES_IN_FLIGHT_MAX {
        drop(fixture.push(1, None));
        let launched = fixture.follow();
        assert_eq!((launched.len(), launched[0].body.operations.len()), (1, 1));
        flights.extend(launched);
    }
    let mut waiting: Vec<_> = (0..20).map(|uid| fixture.push(uid % 3, None)).collect();
    assert!(fixture.launch().is_empty(), "the bound on envelopes in flight");
    fixture.settle(&flights[0], vec![done()]);
    assert!(fixture.launch().is_empty(), "others are in flight: what waits may get company");
    assert_eq!(fixture.pipeline.wake_at(), Some(fixture.now + FOLLOW_AFTER));
    let next = fixture.follow().remove(0);
    assert_eq!((next.body.first, next.body.operations.len(), next.body.credentials.len()), (5, 20, 3));
    next.verify(&Ed25519Verifier::new()).unwrap();
    let results = (0..20).map(|index| if index == 7 { OperationResult::Failed(2) } else { done() });
    fixture.settle(&next, results.collect());
    for (index, receiver) in waiting.iter_mut().enumerate() {
        let expected = if index == 7 { Err(ClientError::Errno(2)) } else { Ok(Reply::Empty) };
        assert_eq!(answer(receiver), Some(expected));
    }
}

#[test]
fn callers_that_were_just_answered_have_a_moment_to_come_back() {
    let mut fixture = fixture();
    let first: Vec<_> = (0..8).map(|_| fixture.push(1, None)).collect();
    let flight = fixture.launch().remove(0);
    let took = Duration::from_millis(8);
    fixture.now += took;
    fixture.settle(&flight, vec![done(); 8]);
    let mut receivers: Vec<_> = (0..5).map(|_| fixture.push(1, None)).collect();
    assert!(fixture.launch().is_empty(), "three more may come");
    assert_eq!(fixture.pipeline.wake_at(), Some(fixture.now + took / GATHER_DIVISOR));
    receivers.push(fixture.push(1, None));
    assert_eq!(fixture.launch()[0].body.operations.len(), 6, "three quarters are enough");
    drop((first, receivers));
    // A caller that is alone waits for nobody, and nobody waits for ever.
    let mut fixture = self::fixture();
    for _ in 0..3 {
        drop(fixture.push(1, None));
        let flight = fixture.launch().remove(0);
        fixture.now += took;
        fixture.settle(&flight, vec![done()]);
    }
    let _receivers: Vec<_> = (0..8).map(|_| fixture.push(1, None)).collect();
    let flight = fixture.launch().remove(0);
    fixture.now += took;
    fixture.settle(&flight, vec![done(); 8]);
    drop(fixture.push(1, None));
    fixture.now += took / GATHER_DIVISOR;
    assert_eq!(fixture.launch().len(), 1);
}

#[test]
fn the_table_of_credentials_and_the_number_of_operations_bound_an_envelope() {
    let mut fixture = fixture();
    let _receivers: Vec<_> = (0..20).map(|uid| fixture.push(uid, None)).collect();
    let lengths = |launched: Vec<Arc<Envelope>>| -> Vec<usize> {
        launched.iter().map(|one| one.body.operations.len()).collect()
    };
    assert_eq!(lengths(fixture.launch()), [16]);
    assert_eq!(lengths(fixture.follow()), [4]);
    let _receivers: Vec<_> = (0..800).map(|_| fixture.push(1, None)).collect();
    let launched = fixture.launch();
    assert_eq!(launched[1].body.first, 1 + 20 + 512);
    assert_eq!(lengths(launched), [512, 288], "so many are worth an envelope at once");
}

#[test]
fn what_a_read_proved_first_is_settled_by_the_next_commit_of_that_height() {
    let mut fixture = fixture();
    let mut receiver = fixture.push(1, None);
    let envelope = fixture.launch().remove(0);
    let results = fixture.results(&envelope, vec![done()]);
    fixture.take(results.clone());
    let hash = results.header.hash();
    assert!(fixture.pipeline.waits_for(&hash) && answer(&mut receiver).is_none());
    let certificate = fixture.certificate(&results.header);
    fixture.trust.verify_header(&results.header, Some(&certificate)).expect("valid");
    let time = (fixture.now, BatchTime(0));
    fixture.pipeline.committed(results.header.height, &hash, &fixture.trust, time);
    assert_eq!(answer(&mut receiver), Some(Ok(Reply::Empty)));
    assert!(!fixture.pipeline.waits_for(&hash));
}

#[test]
fn cl7_results_without_a_certificate_reach_nobody() {
    let mut fixture = fixture();
    let mut receiver = fixture.push(1, None);
    let envelope = fixture.launch().remove(0);
    let results = fixture.results(&envelope, vec![done()]);
    let certificate = fixture.certificate(&results.header);
    fixture.take(results);
    assert_eq!(answer(&mut receiver), None);
    // The COMMITs come after the results.
    fixture.trust.adopt(&certificate).unwrap();
    let time = (fixture.now, BatchTime(0));
    fixture.pipeline.committed(certificate.height, &certificate.header_hash, &fixture.trust, time);
    assert_eq!(answer(&mut receiver), Some(Ok(Reply::Empty)));
}

#[test]
fn altered_results_are_refused() {
    let mut fixture = fixture();
    let mut receiver = fixture.push(1, None);
    let envelope = fixture.launch().remove(0);
    let mut results = fixture.results(&envelope, vec![OperationResult::Failed(2)]);
    results.certificate = Some(fixture.certificate(&results.header));
    let mut altered = results.clone();
    altered.results.as_mut_slice()[0] = done();
    let time = (fixture.now, BatchTime(0));
    assert!(fixture.pipeline.results(altered, &fixture.trust, time).is_err());
    let mut altered = results.clone();
    altered.header.state_root = Hash([1; 32]);
    assert!(fixture.pipeline.results(altered, &fixture.trust, time).is_err());
    assert_eq!(answer(&mut receiver), None);
    fixture.take(results);
    assert_eq!(answer(&mut receiver), Some(Err(ClientError::Errno(2))));
}

#[test]
fn retries_are_byte_identical_and_rarer_and_rarer() {
    let mut fixture = fixture();
    drop(fixture.push(1, None));
    let first = fixture.launch().remove(0);
    assert_eq!(fixture.pipeline.wake_at(), Some(fixture.now + RETRY_FRESH), "the session is fresh");
    fixture.settle(&first, vec![done()]);
    let _receiver = fixture.push(1, None);
    let envelope = fixture.launch().remove(0);
    let start = fixture.now;
    let mut times = Vec::new();
    for _ in 0..6 {
        let at = fixture.pipeline.wake_at().unwrap();
        assert!(sent(&fixture.pipeline.due(at - Duration::from_millis(1))).is_empty());
        let again = sent(&fixture.pipeline.due(at));
        assert_eq!(again.len(), 1);
        assert!(Arc::ptr_eq(&again[0], &envelope));
        times.push((at - start).as_millis());
    }
    assert_eq!(times, [500, 1500, 3500, 7500, 15500, 23500]);
}

#[test]
fn a_gap_is_never_final_and_a_duplicate_is_fetched() {
    let mut fixture = fixture();
    let _first = fixture.push(1, None);
    let one = fixture.launch().remove(0);
    let mut receiver = fixture.push(1, None);
    let two = fixture.follow().remove(0);
    let (fate, _) = fixture.settle(&two, vec![OperationResult::Skipped(SkipReason::Gap { next: 1 })]);
    assert_eq!((fate, answer(&mut receiver)), (Fate::Lives, None));
    let soon = fixture.pipeline.wake_at().unwrap();
    assert!(soon <= fixture.now + RETRY_SKIPPED);
    assert_eq!(sent(&fixture.pipeline.due(soon)), [one, Arc::clone(&two)]);
    let skipped = OperationResult::Skipped(SkipReason::Duplicate { executed: Some((3, 0)) });
    fixture.settle(&two, vec![skipped]);
    let due = fixture.pipeline.due(fixture.now);
    assert!(due.iter().any(|action| matches!(action, Action::Fetch { first: 2, .. })), "{due:?}");
    fixture.settle(&two, vec![done()]);
    assert_eq!(answer(&mut receiver), Some(Ok(Reply::Empty)));
}

#[test]
fn results_are_waited_for_as_long_as_envelopes_take() {
    let mut fixture = fixture();
    for (took, rounds, least, most) in [(2, 20, 8, 8), (20, 40, 18, 20), (500, 40, 40, 40)] {
        for _ in 0..rounds {
            fixture.now += Duration::from_secs(1);
            drop(fixture.push(1, None));
            let envelope = fixture.launch().remove(0);
            fixture.now += Duration::from_millis(took);
            fixture.settle(&envelope, vec![done()]);
        }
        let wait = fixture.pipeline.results_wait();
        assert!((least..=most).contains(&wait.as_millis()), "{took} ms lead to {wait:?}");
    }
}

#[test]
fn certified_heights_without_results_lead_to_a_fetch() {
    let mut fixture = fixture();
    drop(fixture.push(1, None));
    let first = fixture.launch().remove(0);
    fixture.settle(&first, vec![done()]);
    let _receiver = fixture.push(1, None);
    fixture.launch();
    let time = (fixture.now, BatchTime(0));
    fixture.pipeline.committed(77, &Hash([3; 32]), &fixture.trust, time);
    let at = fixture.pipeline.wake_at().unwrap();
    assert_eq!(at, fixture.now + fixture.pipeline.results_wait());
    let due = fixture.pipeline.due(at);
    assert!(matches!(due[..], [Action::Fetch { first: 2, attempt: 0 }]), "{due:?}");
}

/// `bench faults`: whoever got its results from an equivocator waited for every envelope.
#[test]
fn results_that_a_certified_header_contradicts_are_asked_for_at_once() {
    let mut fixture = fixture();
    let _receiver = fixture.push(1, None);
    let envelope = fixture.launch().remove(0);
    let results = fixture.results(&envelope, vec![done()]);
    let (height, time) = (results.header.height, (fixture.now, BatchTime(0)));
    let (fate, actions) = fixture.take(results);
    assert!(fate == Fate::Lives && actions.is_empty());
    // Another height says nothing of it.
    fixture.pipeline.committed(height + 1, &Hash([3; 32]), &fixture.trust, time);
    assert_eq!(fixture.pipeline.wake_at(), Some(fixture.now + fixture.pipeline.results_wait()));
    fixture.pipeline.committed(height, &Hash([3; 32]), &fixture.trust, time);
    assert_eq!(fixture.pipeline.wake_at(), Some(fixture.now));
    let due = fixture.pipeline.due(fixture.now);
    assert!(matches!(due[..], [Action::Fetch { first: 1, attempt: 0 }]), "{due:?}");
}

#[test]
fn r8_a_deadline_leaves_what_was_sent_open_and_takes_back_what_was_not() {
    let mut fixture = fixture();
    let mut early: Vec<_> = Vec::new();
    for _ in 0..ENVELOPES_IN_FLIGHT_MAX {
        early.push(fixture.push(1, Some(1)));
        fixture.follow();
    }
    let mut late = fixture.push(1, Some(1));
    fixture.launch();
    fixture.pipeline.due(fixture.now + Duration::from_secs(1));
    assert!(early.iter_mut().all(|one| answer(one) == Some(Err(ClientError::Deadline { sent: true }))));
    assert_eq!(answer(&mut late), Some(Err(ClientError::Deadline { sent: false })));
    assert_eq!(fixture.pipeline.in_flight().count(), ENVELOPES_IN_FLIGHT_MAX);
}

/// A grant that nobody knows of would keep an unlinked file's content until the session ends.
#[test]
fn a_grant_whose_caller_is_gone_is_given_back() {
    let mut fixture = fixture();
    let mode = OpenMode { read: true, write: true, truncate: true };
    let open = |ino| OperationBody::Open { ino, mode };
    let mut late = fixture.push_body(1, Some(1), open(7));
    let gone = fixture.push_body(2, None, open(8));
    let mut heard = fixture.push_body(1, None, open(9));
    let failed = fixture.push_body(1, None, open(10));
    let other = fixture.push(1, None);
    let envelope = fixture.launch().remove(0);
    fixture.pipeline.due(fixture.now + Duration::from_secs(1));
    assert_eq!(answer(&mut late), Some(Err(ClientError::Deadline { sent: true })));
    drop((gone, failed, other));
    let granted = |ino| {
        let attributes = Attributes { ino, ..attributes() };
        OperationResult::Done(Reply::Inode { attributes, created: false })
    };
    let results = vec![granted(7), granted(8), granted(9), OperationResult::Failed(13), done()];
    fixture.settle(&envelope, results);
    assert!(matches!(answer(&mut heard), Some(Ok(Reply::Inode { .. }))));
    fixture.now += Duration::from_secs(1);
    let envelope = fixture.launch().remove(0);
    let mode = OpenMode { truncate: false, ..mode };
    let bodies: Vec<_> = envelope.body.operations.iter().map(|operation| operation.body.clone()).collect();
    assert_eq!(bodies, [7, 8].map(|ino| OperationBody::Release { ino, mode, count: 1 }));
    let uids = envelope.body.operations.iter();
    let uids = uids.map(|it| envelope.body.credentials[usize::from(it.credential)].uid).collect::<Vec<_>>();
    assert_eq!(uids, [1, 2]);
}

#[test]
fn r8_an_expired_envelope_gives_its_numbers_to_the_living_and_fails_the_dead() {
    let mut fixture = fixture();
    let mut dead = fixture.push(1, Some(1));
    let mut alive = fixture.push(1, None);
    let envelope = fixture.launch().remove(0);
    fixture.pipeline.due(fixture.now + Duration::from_secs(1));
    assert_eq!(answer(&mut dead), Some(Err(ClientError::Deadline { sent: true })));
    let later = fixture.now + Duration::from_secs(60);
    let valid = envelope.body.valid_until;
    let beyond = BatchTime(valid.0 + 1);
    let resolves =
        |actions: &[Action]| actions.iter().any(|one| matches!(one, Action::Resolve { first: 1, .. }));
    let first = fixture.pipeline.wake_at().unwrap();
    assert!(!resolves(&fixture.pipeline.due(first - Duration::from_millis(1))));
    assert!(resolves(&fixture.pipeline.due(later + Duration::from_secs(60))));
    // Not before a certified batch time beyond the validity.
    let (fate, actions) = fixture.pipeline.resolve(
        1,
        SessionAt { next: Some(1), consumed: None, time: valid },
        (later, beyond),
    );
    assert_eq!((fate, actions.len()), (Fate::Lives, 0));
    // It was executed after all: nothing is reissued, the results are fetched.
    let (fate, actions) = fixture.pipeline.resolve(
        1,
        SessionAt { next: Some(3), consumed: None, time: beyond },
        (later, beyond),
    );
    assert_eq!((fate, actions.len()), (Fate::Lives, 0));
    let (fate, _) =
        fixture.pipeline.resolve(1, SessionAt { next: None, consumed: None, time: valid }, (later, beyond));
    assert_eq!(fate, Fate::Lost, "an ended session is told even if no replica orders the envelope");
    let (_, actions) = fixture.pipeline.resolve(
        1,
        SessionAt { next: Some(1), consumed: None, time: beyond },
        (later, beyond),
    );
    let again = sent(&actions).remove(0);
    assert_eq!((again.body.first, again.body.operations.len()), (1, 2));
    assert!(again.body.valid_until > beyond);
    assert!(matches!(again.body.operations[0].body, OperationBody::Open { ino: 0, .. }));
    assert_eq!(again.body.operations[1], envelope.body.operations[1]);
    fixture.settle(&again, vec![OperationResult::Failed(2), done()]);
    assert_eq!(answer(&mut alive), Some(Ok(Reply::Empty)));
}

#[test]
fn a_certified_expiry_reissues_and_a_lost_session_answers_everything() {
    let mut fixture = fixture();
    let mut receiver = fixture.push(1, None);
    let envelope = fixture.launch().remove(0);
    let (fate, actions) = fixture.settle(&envelope, vec![OperationResult::Skipped(SkipReason::Expired)]);
    let again = sent(&actions).remove(0);
    assert_eq!((fate, again.body.first, again == envelope), (Fate::Lives, 1, false));
    let mut waiting = fixture.push(1, None);
    // The row of the session is asked for, once: it says what was executed before the session ended.
    let unknown = || vec![OperationResult::Skipped(SkipReason::UnknownSession)];
    let (fate, actions) = fixture.settle(&again, unknown());
    assert!(fate == Fate::Lives && matches!(actions[..], [Action::Resolve { first: 1, .. }]));
    let (fate, actions) = fixture.settle(&again, unknown());
    assert_eq!((fate, actions.len()), (Fate::Lives, 0));
    let gone = SessionAt { next: None, consumed: None, time: BatchTime(1) };
    let (fate, _) = fixture.pipeline.resolve(1, gone, (fixture.now, BatchTime(1)));
    assert_eq!(fate, Fate::Lost);
    let old = fixture.pipeline.session();
    fixture.pipeline.register([2; 32], BatchTime(1), fixture.now);
    assert_ne!(fixture.pipeline.session(), old, "CL6: never the same session again");
    assert_eq!(answer(&mut receiver), Some(Err(ClientError::SessionLost { sent: true })), "nobody knows");
    assert_eq!(answer(&mut waiting), Some(Err(ClientError::SessionLost { sent: false })));
    assert!(!fixture.pipeline.registered());
}

#[test]
fn cl6_what_an_ended_session_did_not_consume_was_not_executed() {
    let mut fixture = fixture();
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(fixture.push(1, None));
        fixture.follow();
    }
    let ended = SessionAt { next: None, consumed: Some(3), time: BatchTime(1) };
    let (fate, _) = fixture.pipeline.resolve(2, ended, (fixture.now, BatchTime(1)));
    assert_eq!(fate, Fate::Lost);
    fixture.pipeline.register([2; 32], BatchTime(1), fixture.now);
    let lost = |sent| Some(Err(ClientError::SessionLost { sent }));
    let answers: Vec<_> = answers.iter_mut().map(answer).collect();
    assert_eq!(answers, [lost(true), lost(true), lost(false)]);
    // The next one begins without that knowledge.
    let mut other = fixture.push(1, None);
    fixture.pipeline.fail_lost();
    assert_eq!(answer(&mut other), lost(false));
}

#[test]
fn refusals_count_only_when_one_of_them_must_be_honest() {
    let mut fixture = fixture();
    let _receiver = fixture.push(1, None);
    fixture.launch();
    let denied = || (Refusal::Denied, "who are you".to_owned());
    let weak = fixture.members.weak_quorum();
    assert_eq!(fixture.pipeline.refused(1, 1, denied(), weak), Fate::Lives);
    assert_eq!(fixture.pipeline.refused(1, 1, denied(), weak), Fate::Lives, "the same one again");
    assert_eq!(fixture.pipeline.refused(2, 1, (Refusal::Busy, String::new()), weak), Fate::Lives);
    assert!(matches!(fixture.pipeline.refused(3, 1, denied(), weak), Fate::Refused(_)));
}

#[test]
fn a_liar_cannot_fill_memory_with_results_under_invented_headers() {
    let mut fixture = fixture();
    let _receiver = fixture.push(1, None);
    let envelope = fixture.launch().remove(0);
    for _ in 0..(CANDIDATES_MAX * 3) {
        let results = fixture.results(&envelope, vec![done()]);
        fixture.take(results);
    }
    assert_eq!(fixture.pipeline.flights[0].candidates.len(), CANDIDATES_MAX);
}
