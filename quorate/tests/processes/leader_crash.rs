//! Leaders killed and leaders that hand over under load: for how long nothing is committed, and that no client
//! hears of it.
//!
//! Invariant: every time is printed, and only bounds that a busy machine keeps are asserted.

use crate::harness::{Cluster, PATIENCE, wait_until};
use quorate_client::{Client, ClientOptions};
use quorate_protocol::{Credential, Groups, OperationBody};
use quorate_transport::{ClusterFile, KeyFile};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Clients that work at a time.
const WORKERS: usize = 8;
/// No pause may come near the deadline of a client, and the median must be far below the longest time-out.
const PAUSE_MAX: Duration = Duration::from_secs(8);
const MEDIAN_MAX: Duration = Duration::from_millis(900);

/// When operations were acknowledged, by whichever worker.
type Times = Arc<Mutex<Vec<Instant>>>;

/// Null operations one after the other by each worker, until it is over.
async fn work(client: Client, times: Times, over: Arc<AtomicBool>) -> Result<(), String> {
    let credential = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
    while !over.load(Ordering::Relaxed) {
        client.execute(&credential, OperationBody::Null).await.map_err(|error| error.to_string())?;
        times.lock().unwrap().push(Instant::now());
    }
    Ok(())
}

/// The longest time between two acknowledgements that began or ended in a span.
fn longest_pause(times: &Times, from: Instant, to: Instant) -> Duration {
    let times = times.lock().unwrap();
    let pairs = times.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to);
    pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or(PAUSE_MAX)
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Runs `strike` again and again under load, and returns the longest pause after each, ascending.
fn pauses(cluster: &Cluster, rounds: usize, mut strike: impl FnMut(u8)) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let file = ClusterFile::read(&cluster.local.cluster_path()).unwrap();
    let key = KeyFile::read_principal(&cluster.local.key_path()).unwrap();
    let (times, over) = (Times::default(), Arc::new(AtomicBool::new(false)));
    let client = runtime.block_on(Client::connect(file, key, ClientOptions::default())).unwrap();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| runtime.spawn(work(client.clone(), Arc::clone(&times), Arc::clone(&over))))
        .collect();
    let mut found = Vec::new();
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(1200));
        let (leader, from) = (cluster.leader(), Instant::now());
        strike(leader);
        std::thread::sleep(Duration::from_millis(1500));
        found.push(longest_pause(&times, from, Instant::now()));
        if cluster.local.running(leader).is_none() {
            cluster.local.start(leader).unwrap();
        }
        wait_until("all vote again", PATIENCE, || cluster.status().0 == 0);
    }
    over.store(true, Ordering::Relaxed);
    for worker in workers {
        assert_eq!(runtime.block_on(worker).unwrap(), Ok(()), "no error reaches a client");
    }
    runtime.block_on(client.close());
    found.sort_unstable();
    found
}

fn tell(what: &str, sorted: &[Duration]) {
    let (median, high) = (quantile(sorted, 50), quantile(sorted, 99));
    eprintln!(
        "{what}, {} times: without a commit for {median:?} (median), {high:?} (p99): {sorted:?}",
        sorted.len()
    );
}

/// How many times, 5 if QUORATE_CRASHES does not say otherwise.
fn rounds() -> usize {
    std::env::var("QUORATE_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

#[test]
fn a_killed_leader_is_replaced_at_once_and_no_client_sees_an_error() {
    let cluster = Cluster::start();
    let found = pauses(&cluster, rounds(), |leader| cluster.local.kill(leader).unwrap());
    tell("leader killed", &found);
    assert!(quantile(&found, 50) < MEDIAN_MAX && quantile(&found, 100) < PAUSE_MAX, "{found:?}");
    cluster.settle();
}

#[test]
fn a_leader_that_is_stopped_hands_over() {
    let cluster = Cluster::start();
    let found = pauses(&cluster, rounds(), |leader| cluster.local.stop(leader).unwrap());
    tell("leader stopped", &found);
    assert!(quantile(&found, 50) < MEDIAN_MAX && quantile(&found, 100) < PAUSE_MAX, "{found:?}");
    cluster.settle();
}

/// A leader's pool once took envelopes for ones that wait for a gap when what they follow was committed in the same
/// turn of its loop: with many operations in flight it was suspected every few seconds, two to five times in twenty.
/// A machine that stands still for a while makes replicas suspect as well, hence one quiet run of three is enough.
#[test]
fn a_correct_leader_keeps_its_view_under_load() {
    let views = |status: &serde_json::Value| -> Vec<u64> {
        let replicas = status["replicas"].as_array().unwrap();
        replicas.iter().map(|replica| replica["view"].as_u64().unwrap()).collect()
    };
    let mut seen = Vec::new();
    for _ in 0..3 {
        let cluster = Cluster::start();
        cluster.quorate(&["bench", "consensus", "--seconds", "20"]).expect(0);
        seen.push(views(&cluster.status().1));
        if seen.last().is_some_and(|views| views.iter().all(|view| *view == 0)) {
            return;
        }
    }
    panic!("views at the end of each run: {seen:?}");
}
