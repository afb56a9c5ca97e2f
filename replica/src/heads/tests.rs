//! Rule R6 at the signer: only grown heads of the certified log, synced before they are shown.

use super::*;
use quorate_audit::tlog::LogKeys;
use quorate_crypto::{Address, Bitmap, Certificate, CertificateKind, Member, MemberSet, NodeSeed};
use quorate_protocol::Proposal;
use quorate_protocol::peer::Batch;
use quorate_protocol::record::Record;
use quorate_store::directory::Identity;
use quorate_store::heads::read_heads;
use quorate_store::log::{Log, LogOptions};

const CLUSTER: Hash = Hash([1; 32]);
/// Heights in one second of batch time.
const PER_SECOND: u64 = 10;

fn seed(index: u8) -> NodeSeed {
    NodeSeed::from_bytes([index + 1; 32])
}

fn keys() -> LogKeys {
    let address = || Address::try_from("[::1]:7".to_owned()).unwrap();
    let members = (0..4).map(|index| Member::from_seed(&seed(index), address())).collect();
    LogKeys::new(&CLUSTER, &MemberSet::new(0, members).unwrap()).unwrap()
}

/// Headers 0 to `last`, each with the root over those before it; `salt` makes another history.
fn chain(last: Height, salt: u8) -> Vec<Header> {
    let mut log = LogFrontier::new();
    let header = |height| {
        let header = Header {
            version: 1,
            cluster: CLUSTER,
            epoch: 0,
            height,
            time: BatchTime(height * HEAD_INTERVAL / PER_SECOND),
            previous: Hash([salt; 32]),
            proposal: Hash([0; 32]),
            state_root: Hash([0; 32]),
            receipts_root: Hash([0; 32]),
            first_operation: 0,
            operation_count: 0,
            log_root: log.root(),
            members: Hash([0; 32]),
            touched_root: Hash([0; 32]),
            touched_count: 0,
        };
        log.append(&encode(&header)).unwrap();
        header
    };
    (0..=last).map(header).collect()
}

fn frontier(headers: &[Header]) -> LogFrontier {
    let mut log = LogFrontier::new();
    headers.iter().for_each(|header| {
        log.append(&encode(header)).unwrap();
    });
    log
}

fn head(headers: &[Header], height: Height) -> LogHead {
    let log = frontier(&headers[..=usize::try_from(height).unwrap()]);
    LogHead { size: log.size(), root: log.root() }
}

/// A replica's directory with these heights in its log.
struct Place {
    directory: Directory,
    archive: Archive,
    _folder: tempfile::TempDir,
}

fn place(headers: &[Header]) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::create(folder.path(), Identity { cluster: CLUSTER, replica: 0 }).unwrap();
    let mut log = Log::open(&directory, LogOptions::default()).unwrap();
    for header in headers.iter().skip(1) {
        let proposal =
            Proposal { parent: Hash([0; 32]), time: header.time, envelopes: Vec::new().try_into().unwrap() };
        let certificate = Certificate {
            kind: CertificateKind::Commit,
            epoch: 0,
            view: 0,
            height: header.height,
            header_hash: header.hash(),
            signers: Bitmap::empty(4),
            signatures: Vec::new().try_into().unwrap(),
        };
        let batch = Batch { header: header.clone(), proposal };
        let records = [Record::Proposed { height: header.height, batch }, Record::Committed(certificate)];
        log.append(&records).unwrap();
    }
    log.sync().unwrap();
    Place { archive: log.archive(), directory, _folder: folder }
}

impl Place {
    /// Starts at a height of a chain.
    fn start(&self, headers: &[Header], height: usize) -> Result<HeadKeeper, ReplicaError> {
        let log = frontier(&headers[..height]);
        let signer = HeadSigner::new(&CLUSTER, &seed(0));
        HeadKeeper::start(&self.directory, signer, (&headers[height], &log), self.archive.clone())
    }

    fn stored(&self) -> Vec<LogHead> {
        let heads = read_heads(self.directory.path(), &CLUSTER).unwrap();
        heads.iter().map(|signed| signed.head).collect()
    }
}

fn commit(keeper: &mut HeadKeeper, headers: &[Header]) {
    for header in headers {
        keeper.committed(Token(header.height), header.clone());
    }
}

/// Waits for the thread to have signed, or to have had time to.
fn shown(keeper: &HeadKeeper, heads: &[LogHead]) {
    let until = Instant::now() + Duration::from_secs(10);
    let found = || keeper.signed().iter().map(|signed| signed.head).collect::<Vec<_>>();
    while found() != heads && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(found(), heads);
}

#[test]
fn r6_the_first_height_of_each_second_is_signed_once_the_log_has_it() {
    let headers = chain(35, 0);
    let place = place(&headers);
    let mut keeper = place.start(&headers, 1).unwrap();
    let now = Instant::now();
    commit(&mut keeper, &headers[2..]);
    keeper.durable(Token(9), now);
    std::thread::sleep(Duration::from_millis(50));
    shown(&keeper, &[]);
    keeper.durable(Token(10), now);
    shown(&keeper, &[head(&headers, 10)]);
    keeper.durable(Token(35), now);
    let expected = [10, 20, 30].map(|height| head(&headers, height));
    shown(&keeper, &expected);
    assert_eq!(place.stored(), expected);
    assert!(keeper.signed().iter().all(|signed| keys().holds(0, signed)), "under both keys of this replica");
    // Quiet: the last one as well, and once.
    keeper.look_after(now);
    keeper.look_after(now + QUIET);
    let all = [10, 20, 30, 35].map(|height| head(&headers, height));
    shown(&keeper, &all);
    keeper.look_after(now + 10 * QUIET);
    drop(keeper);
    assert_eq!(place.stored(), all);
}

#[test]
fn r6_after_a_restart_it_goes_on_where_it_was() {
    let headers = chain(20, 0);
    let place = place(&headers);
    let mut keeper = place.start(&headers, 15).unwrap();
    keeper.look_after(Instant::now() + QUIET);
    shown(&keeper, &[head(&headers, 15)]);
    drop(keeper);
    // Not signed again, and shown at once.
    let mut keeper = place.start(&headers, 15).unwrap();
    keeper.look_after(Instant::now() + QUIET);
    shown(&keeper, &[head(&headers, 15)]);
    let signed = keeper.signed();
    drop(keeper);
    // Further on: the last one is looked up in the log.
    for height in [16, 18, 20] {
        let keeper = place.start(&headers, height).unwrap();
        assert_eq!(keeper.signed(), signed, "height {height}");
    }
}

#[test]
fn r6_only_the_last_heads_are_kept_and_sizes_grow() {
    let headers = chain(400, 0);
    let place = place(&headers);
    let mut keeper = place.start(&headers, 1).unwrap();
    commit(&mut keeper, &headers[2..]);
    for height in (10..=400).step_by(10) {
        keeper.durable(Token(height), Instant::now());
        let from = 10.max((height + 10).saturating_sub(10 * LOG_HEADS_MAX as u64));
        let heads: Vec<LogHead> = (from..=height).step_by(10).map(|height| head(&headers, height)).collect();
        shown(&keeper, &heads);
    }
}

#[test]
fn r6_another_history_halts_the_signer() {
    let (headers, others) = (chain(30, 0), chain(30, 9));
    let place = place(&headers);
    let mut keeper = place.start(&headers, 10).unwrap();
    commit(&mut keeper, &headers[11..=14]);
    commit(&mut keeper, &others[15..]);
    keeper.durable(Token(30), Instant::now());
    std::thread::sleep(Duration::from_millis(50));
    keeper.look_after(Instant::now() + QUIET);
    std::thread::sleep(Duration::from_millis(50));
    shown(&keeper, &[]);
    commit(&mut keeper, &headers[15..]);
    keeper.durable(Token(30), Instant::now());
    let until = Instant::now() + Duration::from_secs(10);
    while keeper.work.is_some() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
        keeper.hand_over(false);
    }
    assert!(
        keeper.work.is_none() && keeper.waiting.is_empty(),
        "nothing is gathered for a signer that halted"
    );
    assert!(place.stored().is_empty() && keeper.is_halted());
}

#[test]
fn r6_a_signed_head_that_the_log_contradicts_halts_the_signer() {
    let (headers, others) = (chain(30, 0), chain(30, 9));
    let place = place(&headers);
    let mut store = HeadStore::open(&place.directory).unwrap().0;
    let signer = HeadSigner::new(&CLUSTER, &seed(0));
    let mut start = |signed: LogHead, height: usize| {
        let signed = signer.sign(signed, 7).unwrap();
        store.save(&vec![signed].try_into().unwrap()).unwrap();
        let mut keeper = place.start(&headers, height).unwrap();
        keeper.look_after(Instant::now() + QUIET);
        let running = keeper.work.is_some();
        drop(keeper);
        (running, place.stored())
    };
    // At the newest height, at the one below it, and further down.
    for (signed, height) in [(20, 20), (19, 20), (12, 20)] {
        let conflicting = head(&others, signed);
        assert_eq!(start(conflicting, height), (false, vec![conflicting]), "{signed} at {height}");
        assert_eq!(start(head(&headers, signed), height).1.last(), Some(&head(&headers, 20)));
    }
}

#[test]
fn r2_a_log_without_the_height_that_was_signed_has_lost_its_end() {
    let headers = chain(30, 0);
    let place = place(&headers);
    let mut keeper = place.start(&headers, 20).unwrap();
    keeper.look_after(Instant::now() + QUIET);
    shown(&keeper, &[head(&headers, 20)]);
    drop(keeper);
    assert!(matches!(place.start(&headers, 19), Err(ReplicaError::Recovery { height: 20, .. })));
    assert!(place.start(&headers, 20).is_ok());
}

#[test]
fn headers_for_which_there_was_no_room_are_read_from_the_log() {
    let headers = chain(40, 0);
    let place = place(&headers);
    let mut keeper = place.start(&headers, 1).unwrap();
    commit(&mut keeper, &headers[2..]);
    keeper.durable(Token(5), Instant::now());
    keeper.ready.clear();
    keeper.durable(Token(25), Instant::now());
    shown(&keeper, &[10, 20].map(|height| head(&headers, height)));
    assert!(!keeper.is_halted());
}

#[test]
fn a_damaged_file_of_heads_halts_the_signer_and_nothing_else() {
    let headers = chain(20, 0);
    let place = place(&headers);
    std::fs::write(quorate_store::heads::heads_path(place.directory.path()), [7; 8192]).unwrap();
    let mut keeper = place.start(&headers, 10).unwrap();
    commit(&mut keeper, &headers[11..]);
    keeper.durable(Token(20), Instant::now());
    keeper.look_after(Instant::now() + QUIET);
    shown(&keeper, &[]);
    assert!(keeper.is_halted());
}

#[test]
fn nothing_is_signed_of_the_genesis_alone() {
    let headers = chain(1, 0);
    let place = place(&headers[..1]);
    let mut keeper = place.start(&headers, 0).unwrap();
    keeper.look_after(Instant::now() + 10 * QUIET);
    std::thread::sleep(Duration::from_millis(50));
    shown(&keeper, &[]);
}
