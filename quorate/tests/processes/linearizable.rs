//! What concurrent calls on two mounts show, while a replica lies and while leaders are killed, has an order that
//! explains it: names, files, links, modes and lists of one directory, as POSIX has them.
//!
//! Invariant: every call's begin and end are of one clock; all pause together after a few calls, so that what cannot
//! be explained is told as a short story. Calls that are two steps by nature (link and chmod find their file by a
//! name first) have a name to themselves that nothing else moves.

use crate::harness::{Cluster, PATIENCE, wait_until};
use quorate_history::{Directory, File, Model, Question, Reply, Timed, Unexplained, search};
use std::fs::{OpenOptions, Permissions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Threads for each of two mounts, and calls of each between two pauses.
const THREADS: usize = 2;
const CALLS_PER_ROUND: usize = 5;
/// Worker `i` works on mount `i % MOUNTS`.
const MOUNTS: u64 = 2;
/// Names that are made, moved and removed; names that are links of [`BASE`]; the one that has modes.
const NAMES: [&str; 3] = ["a", "b", "c"];
const LINKS: [&str; 2] = ["l", "m"];
const BASE: &str = "base";
const MODES: [u32; 3] = [0o600, 0o640, 0o644];
/// Leaders that are killed after the liar has come to reason.
const KILLS: usize = 2;

type Call = Timed<Question, Reply>;

/// A directory as a kernel shows it: the count of links may be that of another moment than the rest, because `stat`
/// is two steps (the name, then the file), and the kernel counts for itself while names are removed.
struct Seen;

impl Model for Seen {
    type State = Directory;
    type Operation = Question;
    type Answer = Reply;

    fn apply(state: &Directory, question: &Question, reply: Option<&Reply>) -> Option<Directory> {
        let Some(Reply::Found(ino, File { mode, .. })) = reply else {
            return Directory::apply(state, question, reply);
        };
        let counts = 0..=u32::try_from(NAMES.len() + LINKS.len() + 1).unwrap();
        counts
            .map(|links| Reply::Found(*ino, File { mode: *mode, links }))
            .find_map(|reply| Directory::apply(state, question, Some(&reply)))
    }

    fn is_idle(question: &Question, reply: &Reply) -> bool {
        Directory::is_idle(question, reply)
    }
}

/// The clock of all threads, and who makes their choices.
struct Worker<'a> {
    number: u64,
    directory: &'a Path,
    began: Instant,
    state: u64,
    calls: Vec<Call>,
}

impl Worker<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        // xorshift64
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        from[usize::try_from(self.state % from.len() as u64).unwrap()]
    }

    fn question(&mut self) -> Question {
        let (name, other) = (self.choose(&NAMES).to_owned(), self.choose(&NAMES).to_owned());
        let link = self.choose(&LINKS).to_owned();
        let mode = self.choose(&MODES);
        match self.choose(&[0, 0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9]) {
            0 => Question::Create { name, mode },
            1 => Question::Unlink(name),
            // On the first mount alone: a kernel looks both names up one after the other, and when a rename on
            // another mount comes between and both are one file, it calls that done and asks nobody. Its own
            // renames in one directory exclude each other.
            2 if self.number.is_multiple_of(MOUNTS) => Question::Rename(name, other),
            2 => Question::Unlink(other),
            3 => Question::Link(BASE.to_owned(), link),
            4 => Question::Unlink(link),
            5 => Question::Chmod { name: BASE.to_owned(), mode },
            6 => Question::Stat(name),
            7 => Question::Stat(link),
            8 => Question::Stat(BASE.to_owned()),
            _ => Question::List,
        }
    }

    fn round(&mut self) {
        for _ in 0..CALLS_PER_ROUND {
            let question = self.question();
            let start = self.now();
            let reply = ask(self.directory, &question);
            let end = Some((self.now(), reply));
            self.calls.push(Call { client: self.number, start, end, operation: question });
        }
    }
}

/// Asks the mount. Whatever is no answer to the question ends the test.
fn ask(directory: &Path, question: &Question) -> Reply {
    let at = |name: &str| directory.join(name);
    let plain = |done: Result<(), Error>| match done.map_err(|error| error.kind()) {
        Ok(()) => Reply::Done,
        Err(ErrorKind::NotFound) => Reply::Absent,
        Err(ErrorKind::AlreadyExists) => Reply::Exists,
        Err(kind) => panic!("{question}: {kind}"),
    };
    match question {
        Question::Create { name, mode } => {
            match OpenOptions::new().write(true).create_new(true).mode(*mode).open(at(name)) {
                Ok(file) => Reply::Made(file.metadata().unwrap().ino()),
                Err(error) => plain(Err(error)),
            }
        }
        Question::Unlink(name) => plain(std::fs::remove_file(at(name))),
        Question::Rename(from, to) => plain(std::fs::rename(at(from), at(to))),
        Question::Link(from, to) => link(&at(from), &at(to)),
        Question::Chmod { name, mode } => {
            plain(std::fs::set_permissions(at(name), Permissions::from_mode(*mode)))
        }
        Question::Stat(name) => match std::fs::symlink_metadata(at(name)) {
            Ok(found) => Reply::Found(
                found.ino(),
                File { mode: found.mode() & 0o7777, links: u32::try_from(found.nlink()).unwrap() },
            ),
            Err(error) => plain(Err(error)),
        },
        Question::List => {
            let entries = std::fs::read_dir(directory).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort_unstable();
            Reply::Names(names)
        }
    }
}

/// A link of a file that is always there. When another call on the same mount unlinks another name of it, the
/// kernel may count a link less than there is (it takes one off after the answer, from a count that another answer
/// has brought meanwhile), find none left and fail with ENOENT by itself (`vfs_link`): the mount was not asked.
fn link(from: &Path, to: &Path) -> Reply {
    for _ in 0..100 {
        match std::fs::hard_link(from, to).map_err(|error| error.kind()) {
            Ok(()) => return Reply::Done,
            Err(ErrorKind::AlreadyExists) => return Reply::Exists,
            Err(ErrorKind::NotFound) if from.exists() => {}
            Err(ErrorKind::NotFound) => return Reply::Absent,
            Err(kind) => panic!("link: {kind}"),
        }
    }
    panic!("link finds no file, and stat does");
}

/// A variable, or what counts without it.
fn setting(name: &str, usual: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| usual.to_owned())
}

/// Rounds of calls on both mounts until `disturb` has ended; all that was asked and answered.
fn record(directories: &[&Path], seconds: u64, disturb: impl FnOnce() + Send) -> Vec<Call> {
    let began = Instant::now();
    let workers = directories.len() * THREADS;
    let (barrier, last) = (Barrier::new(workers), AtomicUsize::new(usize::MAX));
    let work = |number: usize, over: &dyn Fn() -> bool| {
        let directory = directories[number % directories.len()];
        let number = u64::try_from(number).unwrap();
        let state = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(std::process::id());
        let mut worker = Worker { number, directory, began, state, calls: Vec::new() };
        for round in 0.. {
            if round > last.load(Ordering::SeqCst) {
                break;
            }
            // All hear of it before the next round, because it is said before this one.
            if over() {
                last.store(round, Ordering::SeqCst);
            }
            barrier.wait();
            worker.round();
        }
        worker.calls
    };
    std::thread::scope(|scope| {
        let disturbing = scope.spawn(disturb);
        let work = &work;
        let others: Vec<_> =
            (1..workers).map(|number| scope.spawn(move || work(number, &|| false))).collect();
        let mut calls =
            work(0, &|| disturbing.is_finished() && began.elapsed() >= Duration::from_secs(seconds));
        others.into_iter().for_each(|worker| calls.extend(worker.join().unwrap()));
        disturbing.join().unwrap();
        calls
    })
}

/// RD2, RD3, RD5: whatever a liar answers, and whoever leads, each mount sees one directory in one order. The
/// variables QUORATE_HISTORY_FAULT and QUORATE_HISTORY_SECONDS choose the liar's kind and how long it lasts.
#[test]
fn mounts() {
    let kind = setting("QUORATE_HISTORY_FAULT", "stale-reply");
    let seconds: u64 = setting("QUORATE_HISTORY_SECONDS", "12").parse().unwrap();
    const LIAR: u8 = 3;
    let mut cluster = Cluster::create();
    if kind != "none" {
        cluster.local.set_arguments(LIAR, vec!["--fault".into(), kind.as_str().into()]);
    }
    cluster.local.start_all().unwrap();
    let (a, b) = (cluster.mount("a"), cluster.mount("b"));
    let directories = [a.at("d"), b.at("d")];
    std::fs::create_dir(&directories[0]).unwrap();
    let made = Question::Create { name: BASE.to_owned(), mode: 0o644 };
    let first = Call { client: 9, start: 0, end: Some((0, ask(&directories[0], &made))), operation: made };
    let disturb = || {
        std::thread::sleep(Duration::from_secs(seconds / 2));
        if kind != "none" {
            cluster.local.kill(LIAR).unwrap();
            cluster.local.set_arguments(LIAR, Vec::new());
            cluster.local.start(LIAR).unwrap();
        }
        for _ in 0..KILLS {
            wait_until("all vote", PATIENCE, || cluster.status().0 == 0);
            std::thread::sleep(Duration::from_secs(seconds / 12));
            let leader = cluster.leader();
            cluster.local.kill(leader).unwrap();
            std::thread::sleep(Duration::from_secs(seconds / 12));
            cluster.local.start(leader).unwrap();
        }
    };
    let mut calls = record(&[directories[0].as_path(), directories[1].as_path()], seconds, disturb);
    calls.push(first);
    let searched = search::<Seen>(&Directory::default(), calls.clone());
    let searched = searched.unwrap_or_else(|unexplained| panic!("{kind}: {unexplained}"));
    println!("{kind}: {searched:?}");
    assert!(searched.calls > 200 && searched.sections > 10, "{searched:?}");

    // The checker sees what is wrong: a mount that would not have the file that has been there all the time.
    let at = calls.iter().filter_map(|call| call.end.as_ref()).map(|(end, _)| *end).max().unwrap() + 1;
    let doctored = Question::Stat(BASE.to_owned());
    calls.push(Call { client: 0, start: at, end: Some((at + 1, Reply::Absent)), operation: doctored });
    match search::<Seen>(&Directory::default(), calls) {
        Err(Unexplained::Story(story)) => assert_eq!(story.calls.len(), 1, "{story}"),
        other => panic!("{other:?}"),
    }
    cluster.settle();
}
