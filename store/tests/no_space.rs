//! A full disk: every part says so with a typed error, keeps what was durable, and never panics.
//!
//! Two ways to be full: a limit on the size of files, which needs no privilege and is set for a child
//! process by the shell, and a small tmpfs, which needs root and is passed over without it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use quorate_protocol::BatchTime;
use quorate_protocol::blocks::BlockDescriptor;
use quorate_store::{
    BlockError, BlockOptions, Blocks, Log, LogError, LogOptions, State, StateOptions, Upload,
};
use support::{directory, vote};

const CHILD: &str = "QUORATE_TEST_FULL_DISK";
/// Nothing is kept for the others: these tests fill the disk to the end.
const NO_RESERVE: BlockOptions = BlockOptions {
    bytes_max: u64::MAX,
    pack_bytes: quorate_store::blocks::PACK_BYTES_TARGET,
    reserve_bytes: 0,
};
/// Files of the child may grow to this; the log's first segment is longer already.
const LIMIT_BYTES: u64 = 2 << 20;

/// PR7: after a write or a sync that failed, the log takes and syncs nothing any more.
#[test]
fn the_log_and_the_blocks_report_a_full_disk_and_lose_nothing() {
    if let Ok(path) = std::env::var(CHILD) {
        fill(Path::new(&path));
        return;
    }
    let place = tempfile::tempdir().unwrap();
    drop(directory(place.path()));
    let name = "the_log_and_the_blocks_report_a_full_disk_and_lose_nothing";
    // The shell's unit is 512 bytes; an ignored signal stays ignored in the child.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", LIMIT_BYTES / 512);
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, place.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let counts: Vec<u64> = said
        .lines()
        .find_map(|line| line.strip_prefix("stored "))
        .unwrap()
        .split(' ')
        .map(|count| count.parse().unwrap())
        .collect();
    let opened = directory(place.path());
    let log = Log::open(&opened, LogOptions::default()).unwrap();
    let read: Vec<_> = log.records().map(|found| found.unwrap().1).collect();
    assert!(read.len() as u64 >= counts[0] && counts[0] > 1000);
    assert!(read.iter().enumerate().all(|(number, record)| *record == vote(number as u64)));
    let (blocks, report) = Blocks::open(&opened, BlockOptions::default()).unwrap();
    assert_eq!((blocks.usage().blocks, report.damaged), (counts[1], 0));
    assert!(blocks.ids(None).iter().all(|id| blocks.get(id).unwrap().is_some()));
}

/// Runs in the child: fills log and blocks, and prints how much of each was reported as durable.
fn fill(path: &Path) {
    let opened = directory(path);
    let mut log = Log::open(&opened, LogOptions::default()).unwrap();
    let mut durable = 0;
    let failure = loop {
        let batch: Vec<_> = (durable..durable + 100).map(vote).collect();
        log.append(&batch).unwrap();
        match log.sync() {
            Ok(()) => durable += 100,
            Err(error) => break error,
        }
    };
    assert!(failure.is_no_space(), "{failure}");
    assert!(matches!(log.append(&[vote(0)]), Err(LogError::Poisoned)));
    assert!(matches!(log.sync(), Err(LogError::Poisoned)));
    let (blocks, _) = Blocks::open(&opened, NO_RESERVE).unwrap();
    let mut stored = 0;
    let mut put = |length: u32| {
        let content = vec![(stored % 251) as u8; length as usize + stored];
        let descriptor = BlockDescriptor::copies(&content);
        let result = blocks.put(&[Upload { descriptor: &descriptor, content: &content }], BatchTime(1));
        stored += usize::from(result.is_ok());
        result
    };
    let failure = loop {
        if let Err(error) = put(100_000) {
            break error;
        }
    };
    assert!(failure.is_no_space(), "{failure}");
    // A smaller one still fits behind what was cut off.
    put(10).unwrap();
    eprintln!("\nstored {durable} {stored}");
}

/// A file system of its own, of some megabytes; `None` without the right to mount.
struct Small {
    place: tempfile::TempDir,
}

impl Small {
    fn mount(megabytes: u32) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let options = format!("size={megabytes}m");
        let mounted =
            mount(Some("tmpfs"), place.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()));
        match mounted {
            Ok(()) => Some(Self { place }),
            Err(error) => {
                eprintln!("passed over: cannot mount a tmpfs: {error}");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.place.path(), MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount: {error}");
        }
    }
}

#[test]
fn a_full_file_system_is_reported_by_each_part() {
    let Some(small) = Small::mount(24) else { return };
    let opened = directory(small.place.path());
    let state = State::open(&opened, &StateOptions::default()).unwrap();
    let (blocks, _) = Blocks::open(&opened, NO_RESERVE).unwrap();
    let mut log = Log::open(&opened, LogOptions::default()).unwrap();
    let content = vec![7; 1 << 20];
    let mut stored = 0u32;
    let failure = loop {
        let content = [&stored.to_le_bytes()[..], &content[4..]].concat();
        let descriptor = BlockDescriptor::copies(&content);
        match blocks.put(&[Upload { descriptor: &descriptor, content: &content }], BatchTime(1)) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(failure.is_no_space() && stored > 2, "{failure}");
    // The segment in use was prepared ahead: the log goes on to its end, and fails only beyond it.
    let mut durable = 0u64;
    let failure = loop {
        let batch: Vec<_> = (durable..durable + 5000).map(vote).collect();
        log.append(&batch).unwrap();
        match log.sync() {
            Ok(()) => durable += 5000,
            Err(error) => break error,
        }
    };
    assert!(failure.is_no_space() && durable > 30_000, "{failure}");
    let mut height = 0;
    let failure = loop {
        let value: std::sync::Arc<[u8]> = vec![height as u8; 50_000].into();
        let changes = BTreeMap::from([([height as u8; 32], Some(value))]);
        match state.commit(height, &changes, b"h", b"f") {
            Ok(()) => height += 1,
            Err(error) => break error,
        }
    };
    assert!(failure.is_no_space(), "{failure}");
    assert_eq!(state.applied_height(), height.checked_sub(1));
    // Space comes free, and everything opens again with what was durable.
    drop((state, log));
    let ids = blocks.ids(None);
    assert_eq!(blocks.delete(&ids, BatchTime(2)).unwrap().deleted, u64::from(stored));
    let log = Log::open(&opened, LogOptions::default()).unwrap();
    assert!(log.count() >= durable);
    drop(log);
    State::open(&opened, &StateOptions::default()).unwrap();
}

/// Hazard A4: blocks never take what log and state need to go on.
#[test]
fn blocks_leave_a_reserve_to_log_and_state() {
    const RESERVE: u64 = 24 << 20;
    let Some(small) = Small::mount(72) else { return };
    let opened = directory(small.place.path());
    let state = State::open(&opened, &StateOptions::default()).unwrap();
    let options = BlockOptions { reserve_bytes: RESERVE, ..BlockOptions::default() };
    let (blocks, _) = Blocks::open(&opened, options).unwrap();
    let put = |number: u32| {
        let content = [&number.to_le_bytes()[..], &[7; 1 << 20][4..]].concat();
        let descriptor = BlockDescriptor::copies(&content);
        blocks.put(&[Upload { descriptor: &descriptor, content: &content }], BatchTime(1))
    };
    let mut stored = Vec::new();
    let failure = loop {
        match put(stored.len() as u32) {
            Ok(ids) => stored.extend(ids),
            Err(error) => break error,
        }
    };
    let BlockError::ReserveReached { free, reserve: RESERVE } = failure else { panic!("{failure}") };
    // The state may have taken some of it meanwhile, which is what it is for.
    assert!((RESERVE / 2..RESERVE + (2 << 20)).contains(&free), "{free}");
    assert!(stored.len() > 2 && failure.is_no_space() && put(1000).is_err());
    // Log and state go on, and what is stored is still given and may be promised for longer.
    let mut log = Log::open(&opened, LogOptions::default()).unwrap();
    log.append(&(0..5000).map(vote).collect::<Vec<_>>()).unwrap();
    log.sync().unwrap();
    for height in 0..50_u8 {
        let changes = BTreeMap::from([([height; 32], Some(vec![height; 50_000].into()))]);
        state.commit(u64::from(height), &changes, b"h", b"f").unwrap();
    }
    let (descriptor, content) = blocks.get(&stored[0]).unwrap().unwrap();
    blocks.put(&[Upload { descriptor: &descriptor, content: &content }], BatchTime(9)).unwrap();
    assert_eq!(blocks.promised_until(&stored[0]), Some(BatchTime(9)));
    // When the log is gone its segments are free again, and there is room for blocks.
    drop((log, state));
    std::fs::remove_dir_all(opened.log_path()).unwrap();
    put(1000).unwrap();
}
