//! Reads against liars: RD2, RD3, RD4, RD5.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fake::{Fake, root};
use quorate_client::{Client, ClientError, ClientOptions, Freshness};
use quorate_crypto::{decode, encode};
use quorate_metadata::{Answer, Errno};
use quorate_protocol::client::{CertifiedHeader, ClientReply, ClientRequest, ReadAnswer, Refusal};
use quorate_protocol::file::Name;
use quorate_protocol::query::Query;
use quorate_protocol::{Ino, OperationBody, Reply};

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn mkdir(text: &str) -> OperationBody {
    OperationBody::Mkdir {
        parent: 1,
        name: name(text),
        mode: 0o755,
        umask: 0o022,
        ino: None,
        entropy: [1; 16],
    }
}

fn lookup(text: &str) -> Query {
    Query::Lookup { parent: 1, name: name(text) }
}

fn quiet() -> ClientOptions {
    ClientOptions { question_interval: Duration::ZERO, ..ClientOptions::default() }
}

fn reader() -> ClientOptions {
    ClientOptions { session: false, ..quiet() }
}

async fn make(client: &Client, text: &str) -> Ino {
    match client.execute(&root(), mkdir(text)).await.unwrap() {
        Reply::Inode { attributes, created: true } => attributes.ino,
        other => panic!("{other:?}"),
    }
}

async fn find(client: &Client, text: &str, freshness: Freshness) -> Result<Ino, ClientError> {
    match client.read(&root(), lookup(text), freshness).await? {
        Answer::Attributes(attributes) => Ok(attributes.ino),
        other => panic!("{other:?}"),
    }
}

fn lies(client: &Client) -> Vec<u64> {
    client.misbehaviour().iter().map(|caught| caught.lies).collect()
}

#[tokio::test]
async fn what_was_written_is_read_and_absence_is_certified() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let ino = make(&client, "a").await;
    for freshness in [Freshness::Floor, Freshness::Linearizable] {
        assert_eq!(find(&client, "a", freshness).await, Ok(ino));
        assert_eq!(find(&client, "b", freshness).await, Err(ClientError::Errno(Errno::ENOENT.number())));
    }
    assert_eq!(client.execute(&root(), mkdir("a")).await, Err(ClientError::Errno(Errno::EEXIST.number())));
    assert_eq!(lies(&client), [0; 4]);
}

/// Every byte of an answer (header, certificate, proof) in turn, to clients that know nothing yet.
#[tokio::test]
async fn rd4_any_altered_byte_of_an_answer_is_noticed_and_another_replica_answers() {
    let fake = Fake::new();
    let ino = make(&fake.client(quiet()).await, "a").await;
    let length = Arc::new(std::sync::Mutex::new(0_usize));
    let mut position = 0;
    loop {
        let told = Arc::new(AtomicBool::new(false));
        for replica in 0..4 {
            let (told, length) = (Arc::clone(&told), Arc::clone(&length));
            // The first answer of all is altered, whoever gives it.
            fake.lock().behaviour[replica].lie = Some(Box::new(move |_, reply| {
                let ClientReply::Read(answer) = &reply else { return Some(reply) };
                if told.swap(true, Ordering::Relaxed) {
                    return Some(reply);
                }
                let mut bytes = encode(answer);
                *length.lock().unwrap() = bytes.len();
                bytes[position] ^= 1 << (position % 8);
                decode::<ReadAnswer>(&bytes).ok().map(ClientReply::Read)
            }));
        }
        let client = fake.client(reader()).await;
        let query = if position % 2 == 0 { "a" } else { "absent" };
        let found = find(&client, query, Freshness::Floor).await;
        let expected = if position % 2 == 0 { Ok(ino) } else { Err(ClientError::Errno(2)) };
        assert_eq!(found, expected, "byte {position}");
        assert_eq!(lies(&client).iter().sum::<u64>(), 1, "byte {position} was altered unnoticed");
        position += 1;
        if position >= *length.lock().unwrap() {
            break;
        }
    }
    assert!(position > 500, "{position} bytes");
}

/// Whoever leaves the certificate of a known header out, or puts another in its place, is caught, and others are
/// asked: what is shown to somebody else has to hold by itself.
#[tokio::test]
async fn rd4_an_answer_for_others_has_a_certificate_of_its_own() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    make(&client, "a").await;
    let before = client.prove(&root(), lookup("a"), None).await.unwrap();
    assert!(before.certificate.is_some());
    make(&client, "b").await;
    for replica in 0..3 {
        let old = before.certificate.clone();
        fake.lock().behaviour[replica].lie = Some(Box::new(move |_, reply| {
            let ClientReply::Read(mut answer) = reply else { return Some(reply) };
            answer.certificate = old.clone().filter(|_| replica == 1);
            Some(ClientReply::Read(answer))
        }));
    }
    for _ in 0..4 {
        let shown = client.prove(&root(), lookup("b"), None).await.unwrap();
        let certificate = shown.certificate.unwrap();
        assert_eq!((certificate.height, certificate.header_hash), (shown.header.height, shown.header.hash()));
    }
    assert!(lies(&client)[..3].iter().any(|lies| *lies > 0) && lies(&client)[3] == 0, "{:?}", lies(&client));
}

#[tokio::test]
async fn rd4_an_answer_to_another_question_is_refused() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let (a, _) = (make(&client, "a").await, make(&client, "b").await);
    // A replica that answers every lookup with the proof of another one, valid in itself.
    let other = Arc::new(std::sync::Mutex::new(None));
    let kept = Arc::clone(&other);
    fake.lock().behaviour[0].lie = Some(Box::new(move |_, reply| {
        if let ClientReply::Read(_) = &reply {
            let mut kept = kept.lock().unwrap();
            return Some(kept.get_or_insert(reply).clone());
        }
        Some(reply)
    }));
    let fresh = fake.client(reader()).await;
    for _ in 0..8 {
        assert_eq!(find(&fresh, "absent", Freshness::Linearizable).await, Err(ClientError::Errno(2)));
        assert_eq!(find(&fresh, "a", Freshness::Linearizable).await, Ok(a));
    }
    let caught = lies(&fresh);
    assert_eq!(caught[1..], [0, 0, 0], "only replica 0 lies");
}

/// A9, RD2, ST8: what is old is refused, whoever serves it and why.
#[tokio::test]
async fn rd2_a_height_below_the_floor_is_never_accepted() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    make(&client, "a").await;
    let old = fake.lock().height();
    let late = make(&client, "late").await;
    // Three of four lag or replay; they are caught or passed over, and the read finds the fourth.
    for replica in 0..3 {
        fake.lock().behaviour[replica].stuck_at = Some(old);
    }
    for _ in 0..4 {
        assert_eq!(find(&client, "late", Freshness::Floor).await, Ok(late));
    }
    assert_eq!(lies(&client), [0; 4], "to be behind is no lie");
    // One that pretends: an old answer, certified, where a newer one was asked for.
    let other = fake.client(reader()).await;
    let replay = Arc::new(std::sync::Mutex::new(None));
    fake.lock().behaviour[0].stuck_at = None;
    let kept = Arc::clone(&replay);
    fake.lock().behaviour[0].lie = Some(Box::new(move |_, reply| match &reply {
        ClientReply::Read(_) => Some(kept.lock().unwrap().get_or_insert(reply).clone()),
        _ => Some(reply),
    }));
    assert!(find(&other, "late", Freshness::Linearizable).await.is_ok());
    let newer = make(&client, "newer").await;
    for _ in 0..4 {
        assert_eq!(find(&other, "newer", Freshness::Linearizable).await, Ok(newer));
    }
    assert!(other.floor() > old);
}

#[tokio::test]
async fn rd3_a_linearizable_read_sees_what_was_answered_before_whatever_one_replica_says() {
    for kind in 0..4 {
        let fake = Fake::new();
        let (writer, other) = (fake.client(quiet()).await, fake.client(reader()).await);
        // So that the liar is always one of the Q that answer.
        fake.lock().behaviour[3].silent = true;
        fake.lock().behaviour[1].lie = Some(Box::new(move |request, reply| {
            let ClientReply::Highest { height, certificate } = reply else { return Some(reply) };
            let ClientRequest::Highest { known } = request else { return None };
            Some(match kind {
                0 => ClientReply::Highest { height: *known, certificate: None },
                1 => ClientReply::Highest { height: height + 1000, certificate },
                2 => ClientReply::Highest { height: height + 1000, certificate: None },
                _ => {
                    let mut certificate = certificate;
                    if let Some(certificate) = &mut certificate {
                        certificate.height += 1000;
                    }
                    ClientReply::Highest { height: height + 1000, certificate }
                }
            })
        }));
        for index in 0..6 {
            let text = format!("d{index}");
            let ino = make(&writer, &text).await;
            assert_eq!(find(&other, &text, Freshness::Linearizable).await, Ok(ino));
        }
        let caught = lies(&other);
        assert_eq!((caught[0], caught[2], caught[3]), (0, 0, 0));
        assert_eq!(caught[1] > 0, kind > 0, "kind {kind}: {caught:?}");
    }
}

#[tokio::test]
async fn rd3_a_quorum_is_needed_for_the_question() {
    let fake = Fake::new();
    let options = ClientOptions { deadline: Some(Duration::from_millis(300)), ..reader() };
    let client = fake.client(options).await;
    fake.lock().behaviour[0].silent = true;
    assert_eq!(find(&client, "a", Freshness::Linearizable).await, Err(ClientError::Errno(2)));
    fake.lock().behaviour[1].silent = true;
    let failed = find(&client, "a", Freshness::Linearizable).await;
    assert_eq!(failed, Err(ClientError::NoQuorum { reachable: 2, needed: 3 }));
    assert!(!client.has_quorum());
    // What one replica can prove is still answered.
    assert_eq!(find(&client, "a", Freshness::Floor).await, Err(ClientError::Errno(2)));
}

#[tokio::test]
async fn rd5_a_replica_that_withholds_news_is_found_out_within_the_interval() {
    let fake = Fake::new();
    let writer = fake.client(quiet()).await;
    make(&writer, "old").await;
    let options = ClientOptions { question_interval: Duration::from_millis(50), ..reader() };
    let other = fake.client(options).await;
    assert!(find(&other, "old", Freshness::Linearizable).await.is_ok());
    // All that this reader would ask first are stuck; they are honest about everything else.
    for replica in 0..3 {
        let stuck = fake.lock().height();
        fake.lock().behaviour[replica].stuck_at = (replica == 0).then_some(stuck);
    }
    let ino = make(&writer, "new").await;
    let mut seen = false;
    for _ in 0..40 {
        seen = find(&other, "new", Freshness::Floor).await == Ok(ino);
        if seen {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen, "the floor must rise with the background question");
}

/// Whoever is asked first is stuck; a reader that has paused for longer than the interval asks a quorum first.
#[tokio::test]
async fn rd5_the_first_read_after_a_pause_is_as_fresh_as_any() {
    for stuck in 0..4 {
        let fake = Fake::new();
        let writer = fake.client(quiet()).await;
        make(&writer, "old").await;
        let interval = Duration::from_millis(50);
        let other = fake.client(ClientOptions { question_interval: interval, ..reader() }).await;
        assert!(find(&other, "old", Freshness::Floor).await.is_ok());
        // The background question that follows a read is over by then.
        tokio::time::sleep(4 * interval).await;
        let height = fake.lock().height();
        fake.lock().behaviour[stuck].stuck_at = Some(height);
        let ino = make(&writer, "new").await;
        tokio::time::sleep(2 * interval).await;
        assert_eq!(find(&other, "new", Freshness::Floor).await, Ok(ino), "replica {stuck} is stuck");
    }
}

#[tokio::test]
async fn a_silent_replica_costs_one_delay_and_many_readers_share_questions() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let ino = make(&client, "a").await;
    fake.lock().behaviour[2].silent = true;
    let readers = (0..200).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { find(&client, "a", Freshness::Linearizable).await })
    });
    for reader in readers.collect::<Vec<_>>() {
        assert_eq!(reader.await.unwrap(), Ok(ino));
    }
    let asked: u64 = fake.lock().behaviour.iter().map(|one| one.asked).sum();
    assert!(asked < 200 + 200, "{asked} requests for 200 reads: questions are shared");
}

/// All others have no answer yet, and would have one a moment later: not only when the silent one's time is up.
#[tokio::test]
async fn a_silent_replica_does_not_keep_the_others_from_being_asked_again() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let ino = make(&client, "a").await;
    fake.lock().behaviour[2].silent = true;
    for replica in [0, 1, 3] {
        let mut busy = true;
        fake.lock().behaviour[replica].lie = Some(Box::new(move |_, reply| {
            if !matches!(reply, ClientReply::Read(_)) || !std::mem::take(&mut busy) {
                return Some(reply);
            }
            Some(fake::refused(Refusal::Busy))
        }));
    }
    let (began, height) = (Instant::now(), client.floor());
    assert_eq!(find(&client, "a", Freshness::Exactly(height)).await, Ok(ino));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_linearizable_read_asks_a_quorum_once() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    make(&client, "a").await;
    let asked = || fake.lock().behaviour.iter().map(|one| one.asked).sum::<u64>();
    let before = asked();
    for _ in 0..10 {
        assert!(find(&client, "a", Freshness::Linearizable).await.is_ok());
    }
    assert_eq!(asked() - before, 10 * 3, "one read and two questions each");
}

#[tokio::test]
async fn rd3_a_quorum_is_of_distinct_replicas_whoever_is_the_quickest() {
    // The quickest reads from a state that lacks what others have committed, again and again.
    let fake = Fake::new();
    let writer = fake.client(quiet()).await;
    let reading = fake.client(quiet()).await;
    for (round, name) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        fake.lock().behaviour.iter_mut().for_each(|one| one.stuck_at = None);
        let stuck_at = fake.lock().height();
        fake.lock().behaviour[round % 4].stuck_at = Some(stuck_at);
        let ino = make(&writer, name).await;
        assert_eq!(find(&reading, name, Freshness::Linearizable).await, Ok(ino));
    }
}

#[tokio::test]
async fn history_is_checked() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    make(&client, "a").await;
    make(&client, "b").await;
    let history = client.history(1).await.unwrap();
    assert_eq!(history.len() as u64, fake.lock().height());
    fake.lock().behaviour[0].lie = Some(Box::new(|_, reply| match reply {
        ClientReply::History(mut batches) => {
            batches.as_mut_slice()[0].batch.header.time.0 += 1;
            Some(ClientReply::History(batches))
        }
        other => Some(other),
    }));
    let fresh = fake.client(reader()).await;
    assert_eq!(fresh.history(1).await.unwrap(), history);
}

/// S10, RD4: a height is read as it was, whatever came later, and no answer of another height passes for it; what one
/// replica does not keep, another may.
#[tokio::test]
async fn a_past_height_is_read_exactly_or_not_at_all() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let ino = make(&client, "a").await;
    let then = client.floor();
    make(&client, "b").await;
    let past = client.at(then);
    let absent = Err(ClientError::Errno(Errno::ENOENT.number()));
    for freshness in [Freshness::Floor, Freshness::Linearizable] {
        assert_eq!(find(&past, "a", freshness).await, Ok(ino));
        assert_eq!(find(&past, "b", freshness).await, absent);
    }
    let read = past.read_certified(&root(), lookup("a"), Freshness::Floor).await.unwrap();
    assert_eq!(read.header.height, then);
    let proven = client.prove(&root(), lookup("b"), Some(then)).await.unwrap();
    assert_eq!(proven.header.height, then);
    // Three answer with the present, which is certified and another height.
    for replica in 0..3 {
        let (fake_now, key) = (fake.clone(), client.clone());
        let present = key.prove(&root(), lookup("b"), None).await.unwrap();
        fake_now.lock().behaviour[replica].lie = Some(Box::new(move |_, reply| match reply {
            ClientReply::Read(_) => Some(ClientReply::Read(present.clone())),
            other => Some(other),
        }));
    }
    assert_eq!(find(&past, "b", Freshness::Floor).await, absent);
    for replica in 0..3 {
        let mut inner = fake.lock();
        inner.behaviour[replica].lie = None;
        inner.behaviour[replica].horizon = then + 1;
    }
    let asks = fake.client(reader()).await.at(then);
    assert_eq!(find(&asks, "a", Freshness::Floor).await, Ok(ino), "the one that keeps it");
    fake.lock().behaviour[3].horizon = then + 1;
    let refused = find(&asks, "a", Freshness::Floor).await.unwrap_err();
    let ClientError::Refused { refusal: Refusal::NotRetained { horizon, applied }, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!((horizon, applied), (then + 1, then + 1));
}

/// What all others decline is declined, whether or not the last one answers.
#[tokio::test]
async fn a_silent_replica_does_not_keep_a_refusal_from_being_told() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    make(&client, "a").await;
    fake.lock().behaviour[2].silent = true;
    for replica in [0, 1, 3] {
        fake.lock().behaviour[replica].lie = Some(Box::new(|_, reply| match reply {
            ClientReply::Read(_) => Some(fake::refused(Refusal::Invalid)),
            other => Some(other),
        }));
    }
    let (began, height) = (Instant::now(), client.floor());
    let refused = find(&client, "a", Freshness::Exactly(height)).await;
    assert!(matches!(refused, Err(ClientError::Refused { refusal: Refusal::Invalid, .. })), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// The one that keeps a height takes long to answer; that others do not keep it is no answer.
#[tokio::test]
async fn who_is_slow_may_keep_a_height_that_others_do_not() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    let ino = make(&client, "a").await;
    let then = client.floor();
    make(&client, "b").await;
    for replica in 0..3 {
        fake.lock().behaviour[replica].horizon = then + 1;
    }
    fake.lock().behaviour[3].delay = Duration::from_millis(1500);
    assert_eq!(find(&client.at(then), "a", Freshness::Floor).await, Ok(ino));
}

/// What keeps a height is asked as long as it is busy, and no longer.
#[tokio::test]
async fn who_is_busy_for_ever_does_not_hide_that_a_height_is_gone() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    make(&client, "a").await;
    let then = client.floor();
    make(&client, "b").await;
    for replica in 0..3 {
        fake.lock().behaviour[replica].horizon = then + 1;
    }
    let mut busy = 8;
    fake.lock().behaviour[3].lie = Some(Box::new(move |request, reply| match request {
        ClientRequest::Read(_) if busy > 0 => {
            busy -= 1;
            Some(fake::refused(Refusal::Busy))
        }
        _ => Some(reply),
    }));
    assert!(find(&client.at(then), "a", Freshness::Floor).await.is_ok());
    fake.lock().behaviour[3].lie = Some(Box::new(|request, reply| match request {
        ClientRequest::Read(_) => Some(fake::refused(Refusal::Busy)),
        _ => Some(reply),
    }));
    let asked = tokio::time::Instant::now();
    let refused = find(&client.at(then), "a", Freshness::Floor).await.unwrap_err();
    assert!(
        matches!(refused, ClientError::Refused { refusal: Refusal::NotRetained { .. }, .. }),
        "{refused}"
    );
    assert!(asked.elapsed() < Duration::from_secs(8));
}

/// Headers by number and time: always the certified ones, whoever lies.
#[tokio::test]
async fn the_height_of_a_time_is_found_between_certified_headers() {
    let fake = Fake::new();
    let client = fake.client(quiet()).await;
    for text in ["a", "b", "c", "d", "e"] {
        make(&client, text).await;
    }
    let head = client.floor();
    let mut headers = Vec::new();
    for height in 0..=head {
        headers.push(client.observer().header(height).await.unwrap());
        assert_eq!(headers.last().unwrap().height, height);
    }
    assert!(client.observer().header(head + 1).await.is_err());
    // Another height's header, and a time that was moved.
    let (first, later) = (headers[1].clone(), headers[2].clone());
    fake.lock().behaviour[0].lie = Some(Box::new(move |_, reply| match reply {
        ClientReply::Header(_) => {
            Some(ClientReply::Header(CertifiedHeader { header: first.clone(), certificate: None }))
        }
        other => Some(other),
    }));
    fake.lock().behaviour[1].lie = Some(Box::new(move |_, reply| match reply {
        ClientReply::Header(CertifiedHeader { mut header, certificate }) => {
            header.time.0 = later.time.0;
            Some(ClientReply::Header(CertifiedHeader { header, certificate }))
        }
        other => Some(other),
    }));
    for pair in headers.windows(2) {
        let (here, next) = (&pair[0], &pair[1]);
        for (time, found) in [(here.time.0, here), (next.time.0 - 1, here), (next.time.0, next)] {
            let header = client.observer().height_at(quorate_protocol::BatchTime(time)).await.unwrap();
            assert_eq!(header.height, found.height);
        }
    }
    let last = client.observer().height_at(quorate_protocol::BatchTime(u64::MAX)).await.unwrap();
    assert_eq!(last.height, head);
    let before = quorate_protocol::BatchTime(headers[0].time.0 - 1);
    assert!(matches!(client.observer().height_at(before).await, Err(ClientError::Invalid(_))));
}
