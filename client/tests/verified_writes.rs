//! Writes: sessions, lost notices, retries, deadlines (CL5 to CL7, R8), blocks and files.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod fake;

use std::time::Duration;

use fake::{Fake, root};
use quorate_client::options::UPLOAD_BYTES_MAX;
use quorate_client::{Client, ClientError, ClientOptions, DirtyRange, FileRead, FileWrite, Freshness, Step};
use quorate_crypto::{BoundedBytes, Certificate, CertificateKind, Hash, NodeSeed, Role};
use quorate_protocol::client::ClientReply;
use quorate_protocol::file::{Attributes, Name};
use quorate_protocol::operation::Authority;
use quorate_protocol::{OperationBody, Reply};

fn quiet() -> ClientOptions {
    ClientOptions { question_interval: Duration::ZERO, ..ClientOptions::default() }
}

fn mkdir(text: &str) -> OperationBody {
    let name = Name::new(text.as_bytes()).unwrap();
    OperationBody::Mkdir { parent: 1, name, mode: 0o755, umask: 0o022, ino: None, entropy: [1; 16] }
}

async fn create(client: &Client, text: &str) -> Attributes {
    let body = OperationBody::Create {
        parent: 1,
        name: Name::new(text.as_bytes()).unwrap(),
        mode: 0o644,
        umask: 0o022,
        exclusive: true,
        open: None,
        ino: None,
        entropy: [2; 16],
    };
    match client.execute(&root(), body).await.unwrap() {
        Reply::Inode { attributes, .. } => attributes,
        other => panic!("{other:?}"),
    }
}

fn write_to(attributes: &Attributes) -> FileWrite {
    let (ino, block_log2) = (attributes.ino, attributes.block_log2);
    FileWrite { ino, authority: Authority::Check, token: None, block_log2 }
}

fn read_of(attributes: &Attributes, offset: u64, length: usize) -> FileRead {
    let ino = attributes.ino;
    FileRead { ino, offset, length, authority: Authority::Check, freshness: Freshness::Floor }
}

fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| ((index * 31 + seed * 7 + index / 251) % 251) as u8 + 1).collect()
}

#[tokio::test]
async fn cl7_two_commits_of_four_are_not_enough() {
    let fake = Fake::new();
    let client = fake.client(ClientOptions { deadline: Some(Duration::from_millis(400)), ..quiet() }).await;
    for replica in 0..2 {
        fake.lock().behaviour[replica].withholds_notices = true;
        fake.lock().behaviour[replica].stuck_at = Some(0);
    }
    // Nobody shows a certificate either.
    for replica in 2..4 {
        fake.lock().behaviour[replica].lie = Some(Box::new(|_, reply| match reply {
            ClientReply::Results(_) => Some(fake::refused(quorate_protocol::client::Refusal::NotFound)),
            other => Some(other),
        }));
    }
    let failed = client.execute(&root(), mkdir("a")).await;
    assert_eq!(failed, Err(ClientError::Deadline { sent: true }));
    assert!(failed.unwrap_err().outcome_unknown());
}

/// Replicas 0 and 1 send no COMMITs, nobody answers a question for results, replica 2 commits and replica 3 sends the
/// certificate, changed like that.
async fn certified_by_one(change: fn(&mut Certificate)) -> (Client, Result<Reply, ClientError>) {
    let fake = Fake::new();
    let client = fake.client(ClientOptions { deadline: Some(Duration::from_millis(400)), ..quiet() }).await;
    for replica in 0..4 {
        let behaviour = &mut fake.lock().behaviour[replica];
        behaviour.withholds_commits = replica < 2;
        behaviour.certifies = (replica == 3).then_some(change);
        behaviour.lie = Some(Box::new(|_, reply| match reply {
            ClientReply::Results(_) => Some(fake::refused(quorate_protocol::client::Refusal::NotFound)),
            other => Some(other),
        }));
    }
    let result = client.execute(&root(), mkdir("a")).await;
    (client, result)
}

#[tokio::test]
async fn a_certificate_in_place_of_a_commit_settles_what_waits() {
    let (client, result) = certified_by_one(|_| {}).await;
    assert!(result.is_ok(), "{result:?}");
    assert!(client.misbehaviour().iter().all(|caught| caught.lies == 0));
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_settles_nothing_and_names_its_sender() {
    let lies: [fn(&mut Certificate); 3] = [
        |certificate| certificate.kind = CertificateKind::Prepare,
        |certificate| certificate.header_hash = Hash([7; 32]),
        |certificate| certificate.view += 1,
    ];
    for lie in lies {
        let (client, result) = certified_by_one(lie).await;
        assert_eq!(result, Err(ClientError::Deadline { sent: true }));
        let caught: Vec<bool> = client.misbehaviour().iter().map(|caught| caught.lies > 0).collect();
        assert_eq!(caught, [false, false, false, true]);
    }
}

#[tokio::test]
async fn lost_results_and_lost_notices_are_fetched() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    for replica in 0..4 {
        fake.lock().behaviour[replica].withholds_results = true;
    }
    assert!(client.execute(&root(), mkdir("a")).await.is_ok());
    for replica in 0..4 {
        fake.lock().behaviour[replica].withholds_notices = true;
    }
    assert!(client.execute(&root(), mkdir("b")).await.is_ok());
}

#[tokio::test]
async fn a_lost_envelope_is_sent_again_and_those_behind_it_wait() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    fake.lock().lose = 1;
    let bodies = ["a", "b", "c"].map(mkdir);
    let mut pending = Vec::new();
    for body in bodies {
        pending.push(client.submit(&root(), body).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for one in pending {
        assert!(one.await.is_ok());
    }
}

#[tokio::test]
async fn envelopes_that_arrive_in_reverse_are_executed_in_order() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    fake.lock().hold = true;
    let mut pending = Vec::new();
    for (arrived, text) in ["a", "b", "c"].into_iter().enumerate() {
        pending.push(client.submit(&root(), mkdir(text)).await.unwrap());
        while fake.lock().held.len() <= arrived {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    fake.release(|held| held.reverse());
    for one in pending {
        assert!(one.await.is_ok());
    }
}

#[tokio::test]
async fn steps_fail_with_the_step_that_they_require() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let steps = vec![
        Step::new(mkdir("a")),
        Step::new(mkdir("a")),
        Step::after(mkdir("b"), 1),
        Step::after(mkdir("c"), 0),
    ];
    let results = client.execute_many(&root(), steps).await;
    let errnos: Vec<_> = results.iter().map(|one| one.as_ref().err().map(ClientError::errno)).collect();
    assert_eq!(errnos, [None, Some(17), Some(125), None]);
    let wrong = client.execute_many(&root(), vec![Step::after(mkdir("x"), 0)]).await;
    assert!(matches!(wrong[..], [Err(ClientError::Invalid(_))]));
}

#[tokio::test]
async fn cl5_what_was_answered_is_there_for_a_fresh_client_with_one_replica_silent() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    for index in 0..20 {
        client.execute(&root(), mkdir(&format!("d{index}"))).await.unwrap();
        fake.lock().behaviour[index % 4].silent = true;
        fake.lock().behaviour[(index + 3) % 4].silent = false;
    }
    let other = fake.client(quiet()).await;
    assert_ne!(other.session(), client.session(), "CL6");
    assert!(client.execute(&root(), mkdir("d0")).await.is_err_and(|error| error.errno() == 17));
}

#[tokio::test]
async fn cl6_a_session_that_is_gone_is_replaced_and_what_was_pending_is_told() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let session = client.session();
    client.execute(&root(), OperationBody::CloseSession).await.unwrap();
    // The row of the session, which has ended, says that its number was never consumed.
    let lost = Err(ClientError::SessionLost { sent: false });
    assert_eq!(client.execute(&root(), mkdir("a")).await, lost);
    let mut outcome = client.execute(&root(), mkdir("a")).await;
    if outcome == lost {
        outcome = client.execute(&root(), mkdir("a")).await;
    }
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_ne!(client.session(), session);
}

#[tokio::test]
async fn blocks_go_up_under_the_session_that_replaces_a_lost_one() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let file = create(&client, "file").await;
    let session = client.session();
    // As if the client had been away too long: it does not know yet that its session is gone.
    client.execute(&root(), OperationBody::CloseSession).await.unwrap();
    let ranges = vec![DirtyRange { offset: 0, bytes: pattern(1, 100_000) }];
    let failed = client.write_ranges(&root(), &write_to(&file), ranges.clone()).await;
    let failed = failed.unwrap_err();
    assert!(matches!(failed, ClientError::SessionLost { .. }), "{failed}: after a refusal data is given up");
    client.write_ranges(&root(), &write_to(&file), ranges).await.unwrap();
    assert_ne!(client.session(), session);
}

#[tokio::test]
async fn r8_an_expired_envelope_is_not_executed_later() {
    let fake = Fake::new();
    let client = fake.client(ClientOptions { deadline: Some(Duration::from_millis(300)), ..quiet() }).await;
    fake.lock().hold = true;
    let failed = client.execute(&root(), mkdir("a")).await;
    assert_eq!(failed, Err(ClientError::Deadline { sent: true }));
    // The cluster comes back with a batch time beyond the envelope's validity.
    fake.lock().ahead = 30_000_000_000;
    fake.release(|_| {});
    let mut outcome = client.execute(&root(), mkdir("b")).await;
    for _ in 0..20 {
        if outcome.is_ok() {
            break;
        }
        outcome = client.execute(&root(), mkdir("b")).await;
    }
    assert!(outcome.is_ok() || outcome == Err(ClientError::Errno(17)), "{outcome:?}");
    let query = quorate_protocol::query::Query::Lookup { parent: 1, name: Name::new(b"a").unwrap() };
    assert_eq!(client.read(&root(), query, Freshness::Linearizable).await, Err(ClientError::Errno(2)));
}

/// What must not get lost stays queued when its envelope's time is over; what was called dead is not done.
#[tokio::test]
async fn a_step_that_lasts_outlives_the_deadline_of_its_envelope() {
    let fake = Fake::new();
    let client = fake.client(ClientOptions { deadline: Some(Duration::from_millis(300)), ..quiet() }).await;
    (0..4).for_each(|replica| fake.lock().behaviour[replica].silent = true);
    let steps = vec![Step::lasting(mkdir("lasts")), Step::new(mkdir("dead"))];
    let mut pending = client.submit_many(&root(), steps).await.unwrap();
    let dead = pending.pop().unwrap().await;
    assert_eq!(dead, Err(ClientError::Deadline { sent: true }));
    // The cluster comes back beyond the envelope's validity.
    fake.lock().ahead = 30_000_000_000;
    (0..4).for_each(|replica| fake.lock().behaviour[replica].silent = false);
    let _ = client.execute(&root(), mkdir("other")).await;
    let lasts = tokio::time::timeout(Duration::from_secs(20), pending.pop().unwrap()).await;
    assert!(matches!(lasts, Ok(Ok(_))), "{lasts:?}");
    let query = |text: &str| quorate_protocol::query::Query::Lookup {
        parent: 1,
        name: Name::new(text.as_bytes()).unwrap(),
    };
    assert!(client.read(&root(), query("lasts"), Freshness::Linearizable).await.is_ok());
    let dead = client.read(&root(), query("dead"), Freshness::Linearizable).await;
    assert_eq!(dead, Err(ClientError::Errno(2)));
}

#[tokio::test]
async fn sessions_are_followed_one_after_the_other() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let mut sessions = client.sessions();
    let first = client.session();
    client.execute(&root(), OperationBody::CloseSession).await.unwrap();
    let lost = client.execute(&root(), mkdir("a")).await;
    assert_eq!(lost, Err(ClientError::SessionLost { sent: false }));
    let next = sessions.next().await.unwrap();
    assert_ne!(next, first);
    client.close().await;
    assert_eq!(sessions.next().await, None);
}

#[tokio::test]
async fn an_unknown_principal_is_refused_and_a_closed_client_says_so() {
    let fake = Fake::new();
    let stranger = NodeSeed::from_bytes([99; 32]).derive(Role::Principal);
    let refused = fake.try_client(quiet(), stranger).await;
    assert!(matches!(refused, Err(ClientError::Refused { .. })), "{refused:?}");
    let client = fake.client(quiet()).await;
    client.close().await;
    assert_eq!(client.execute(&root(), mkdir("a")).await, Err(ClientError::Closed));
    let client = fake.client(quiet()).await;
    for replica in 0..4 {
        fake.lock().behaviour[replica].silent = true;
    }
    let closing = tokio::time::timeout(Duration::from_secs(4), client.close()).await;
    assert!(closing.is_ok(), "without a quorum it ends as well");
}

#[tokio::test]
async fn many_callers_share_envelopes() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let before = fake.lock().executed.len();
    let callers = (0..300).map(|index| {
        let client = client.clone();
        tokio::spawn(async move { client.execute(&root(), mkdir(&format!("d{index}"))).await })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert!(caller.await.unwrap().is_ok());
    }
    let envelopes = fake.lock().executed.len() - before;
    assert!(envelopes < 60, "{envelopes} envelopes for 300 operations");
}

#[tokio::test]
async fn files_are_written_in_pieces_and_blocks_and_read_back() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let file = create(&client, "f").await;
    let write = write_to(&file);
    let mut model = vec![0_u8; 400_000];
    for (seed, (offset, length)) in
        [(0, 1000), (5000, 200_000), (199_999, 3), (300_000, 100_000), (65_530, 20), (299_000, 4096)]
            .into_iter()
            .enumerate()
    {
        let bytes = pattern(seed, length);
        model[offset..offset + length].copy_from_slice(&bytes);
        let ranges = vec![DirtyRange { offset: offset as u64, bytes }];
        let attributes = client.write_ranges(&root(), &write, ranges).await.unwrap().unwrap();
        assert!(attributes.size >= (offset + length) as u64);
    }
    for (offset, length) in
        [(0, 400_000), (4000, 3000), (65_000, 1000), (399_990, 100), (400_000, 10), (7, 0)]
    {
        let data = client.read_range(&root(), read_of(&file, offset as u64, length)).await.unwrap();
        let end = (offset + length).min(400_000);
        assert!(data.bytes == model[offset..end], "{length} bytes at {offset}");
    }
    // Another client has nothing in its cache, and one replica lies about blocks.
    fake.lock().behaviour[0].lie = Some(Box::new(|_, reply| match reply {
        ClientReply::Block(block) => {
            let mut bytes = block.into_inner();
            bytes[17] ^= 1;
            Some(ClientReply::Block(BoundedBytes::try_from(bytes).unwrap()))
        }
        other => Some(other),
    }));
    let other = fake.client(quiet()).await;
    let data = other.read_range(&root(), read_of(&file, 0, 1 << 20)).await.unwrap();
    assert!(data.bytes == model);
    assert!(other.misbehaviour()[0].lies > 0, "the liar is named");
}

#[tokio::test]
async fn small_writes_are_folded_again_and_again() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let file = create(&client, "log").await;
    let write = write_to(&file);
    let mut model = Vec::new();
    for index in 0..60 {
        let bytes = pattern(index, 900 + index);
        let (offset, _) = client.append(&root(), &write, bytes.clone()).await.unwrap();
        assert_eq!(offset, model.len() as u64);
        model.extend(bytes);
    }
    // Scattered small writes with holes in a second row.
    for index in 0..120_u64 {
        let at = 70_000 + (index * 37 % 120) * 500;
        let bytes = pattern(index as usize, 100);
        let end = at as usize + 100;
        model.resize(model.len().max(end), 0);
        model[at as usize..end].copy_from_slice(&bytes);
        client.write_ranges(&root(), &write, vec![DirtyRange { offset: at, bytes }]).await.unwrap();
    }
    let data = client.read_range(&root(), read_of(&file, 0, 1 << 20)).await.unwrap();
    assert_eq!(data.bytes.len(), model.len());
    assert!(data.bytes == model);
}

#[tokio::test]
async fn blocks_need_a_quorum_and_receipts_are_checked() {
    let fake = Fake::new();
    let client = fake.client(ClientOptions { deadline: Some(Duration::from_millis(500)), ..quiet() }).await;
    fake.lock().behaviour[1].lie = Some(Box::new(|_, reply| match reply {
        ClientReply::Stored { descriptors, mut receipt } => {
            receipt.signature.0[3] ^= 1;
            Some(ClientReply::Stored { descriptors, receipt })
        }
        other => Some(other),
    }));
    let (evidence, descriptors) = client.put_blocks(vec![vec![1; 100], vec![2; 50]]).await.unwrap();
    assert_eq!((evidence.receipts.len(), evidence.blocks.len(), descriptors.len()), (3, 2, 2));
    assert!(evidence.receipts.iter().all(|receipt| receipt.replica != 1));
    assert_eq!(client.misbehaviour()[1].lies, 1);
    fake.lock().behaviour[2].silent = true;
    assert!(client.put_blocks(vec![vec![1; 100]]).await.is_err(), "two receipts are no quorum");
    assert!(matches!(client.put_blocks(Vec::new()).await, Err(ClientError::Invalid(_))));
    assert!(matches!(client.put_blocks(vec![vec![0; (1 << 20) + 1]]).await, Err(ClientError::Invalid(_))));
}

#[tokio::test]
async fn a_replica_that_reads_nothing_costs_a_bounded_number_of_bytes() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    fake.lock().behaviour[3].silent = true;
    let blocks: Vec<Vec<u8>> = (0..8).map(|number| vec![number; 1 << 20]).collect();
    for _ in 0..16 {
        client.put_blocks(blocks.clone()).await.unwrap();
    }
    let unanswered = fake.lock().behaviour[3].unanswered;
    assert!(unanswered > 0 && unanswered <= UPLOAD_BYTES_MAX, "{unanswered}");
}

/// A replica that is to send results and does not, or sends others, costs a few fetches; then another one is to.
#[tokio::test]
async fn whoever_does_not_deliver_results_is_replaced() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    // All are as quick, so nobody knows who was chosen: three withhold, one delivers.
    for replica in 0..3 {
        fake.lock().behaviour[replica].withholds_results = true;
    }
    for number in 0..12 {
        assert!(client.execute(&root(), mkdir(&format!("before-{number}"))).await.is_ok());
    }
    let began = std::time::Instant::now();
    for number in 0..40 {
        assert!(client.execute(&root(), mkdir(&format!("after-{number}"))).await.is_ok());
    }
    // Each fetch comes 40 ms late.
    assert!(began.elapsed() < std::time::Duration::from_millis(800), "{:?}", began.elapsed());
}

/// One that is gone is replaced at once, for what is in flight as well.
#[tokio::test]
async fn what_is_in_flight_goes_to_another_replica_when_the_chosen_one_is_gone() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    fake.lock().hold = true;
    let pending = client.submit(&root(), mkdir("a")).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let chosen = fake.chosen();
    fake.disconnect(chosen);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_ne!(fake.chosen(), chosen);
    fake.release(|_| {});
    assert!(pending.await.is_ok());
}
