//! A real mount over a cluster within the test: what becomes of open files when a session is lost, of requests
//! with many steps, and of renames behind a write-back that fails.
//!
//! Invariant: every call into the mount ends by itself, by the deadline of the mount; the mount is taken away
//! whatever ends a test.
#![allow(missing_docs)]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use fake::{Fake, root};
use quorate_client::{Client, ClientOptions};
use quorate_client_fuse::{MountOptions, Mounted, mount, unmount};
use quorate_protocol::OperationBody;
use quorate_protocol::client::{ClientReply, ClientRequest};
use quorate_protocol::file::Name;
use quorate_protocol::limits::BLOCKS_PER_RECEIPT_MAX;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A cluster, a client, and its mount.
struct World {
    fake: Fake,
    client: Client,
    mounted: Option<Mounted>,
    runtime: tokio::runtime::Runtime,
    place: tempfile::TempDir,
}

impl World {
    fn start(options: &str) -> Self {
        assert!(
            std::path::Path::new("/dev/fuse").exists(),
            "this test needs FUSE: there is no /dev/fuse here"
        );
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let place = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
        let options = MountOptions::parse(options).unwrap();
        let fake = Fake::new();
        let client_options = ClientOptions { deadline: options.deadline, ..ClientOptions::default() };
        let client = runtime.block_on(fake.client(client_options));
        let mounted = mount(client.clone(), runtime.handle().clone(), place.path(), options).unwrap();
        Self { fake, client, mounted: Some(mounted), runtime, place }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Ends the session behind the client's back, and lets it find out. The next one lives when this returns.
    fn lose_session(&self) {
        let mut sessions = self.client.sessions();
        self.runtime.block_on(async {
            self.client.execute(&root(), OperationBody::CloseSession).await.unwrap();
            let body = OperationBody::Rmdir { parent: 1, name: Name::new(b"none").unwrap() };
            self.client.execute(&root(), body).await.unwrap_err();
            tokio::time::timeout(Duration::from_secs(5), sessions.next()).await.unwrap().unwrap();
        });
    }

    /// Blocks cannot be stored while this holds.
    fn refuse_blocks(&self, refuse: bool) {
        for behaviour in &mut self.fake.lock().behaviour {
            behaviour.lie = refuse.then_some(Box::new(|request: &ClientRequest, reply: ClientReply| {
                (!matches!(request, ClientRequest::PutBlocks { .. })).then_some(reply)
            }) as fake::Lie);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = unmount(self.place.path(), true);
        drop(self.mounted.take());
    }
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The grant of an open file goes with its session; the next one takes it again.
#[test]
fn an_open_file_is_truncated_after_a_lost_session() {
    let world = World::start("timeo=5");
    let mut file = File::create_new(world.at("file")).unwrap();
    file.write_all(b"content").unwrap();
    file.sync_all().unwrap();
    world.lose_session();
    file.set_len(3).unwrap();
    file.write_all_at(b"C", 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(world.at("file")).unwrap(), b"Con");
    drop(file);
    // As it is when the session is lost a second time, for a file that is open to read as well.
    let file = OpenOptions::new().read(true).write(true).open(world.at("file")).unwrap();
    world.lose_session();
    world.lose_session();
    file.set_len(1).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1);
}

/// Another client removes the name of a file that is open here since before the session was lost.
#[test]
fn an_open_file_keeps_its_content_after_a_lost_session() {
    let world = World::start("timeo=5");
    fs::write(world.at("written"), "for writing").unwrap();
    fs::write(world.at("read"), "for reading").unwrap();
    let written = OpenOptions::new().read(true).write(true).open(world.at("written")).unwrap();
    let read = File::open(world.at("read")).unwrap();
    // Now the cluster knows of the reader too.
    std::thread::sleep(Duration::from_millis(1300));
    world.lose_session();
    std::thread::sleep(Duration::from_millis(300));
    let other = world.runtime.block_on(world.fake.client(ClientOptions::default()));
    for name in ["written", "read"] {
        let body = OperationBody::Unlink { parent: 1, name: Name::new(name.as_bytes()).unwrap() };
        world.runtime.block_on(other.execute(&root(), body)).unwrap();
    }
    let mut bytes = [0; 11];
    written.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"for writing");
    written.write_all_at(b"FOR", 0).unwrap();
    written.sync_all().unwrap();
    read.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"for reading");
    drop((written, read));
    // And nothing is left when they are closed.
    eventually("the removed files are gone", || {
        world.runtime.block_on(async {
            let totals = quorate_protocol::query::Query::Totals;
            let fresh = quorate_client::Freshness::Linearizable;
            match other.read(&root(), totals, fresh).await.unwrap() {
                quorate_execution::Answer::Totals(totals) => totals.inodes == 1,
                other => panic!("{other:?}"),
            }
        })
    });
}

/// The bytes go up in two steps. Each takes less than the deadline, both together do not: who waits is told so,
/// and the bytes arrive all the same.
#[test]
fn a_request_of_many_steps_has_one_deadline() {
    let world = World::start("timeo=1");
    let mut file = File::create(world.at("file")).unwrap();
    let content = vec![9; BLOCKS_PER_RECEIPT_MAX * 65_536 + 200_000];
    file.write_all(&content).unwrap();
    let delay = |delay| world.fake.lock().behaviour.iter_mut().for_each(|one| one.delay = delay);
    delay(Duration::from_millis(900));
    let began = Instant::now();
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(5));
    assert!(began.elapsed() < Duration::from_millis(1700), "{:?}", began.elapsed());
    delay(Duration::ZERO);
    file.sync_all().unwrap();
    assert!(fs::read(world.at("file")).unwrap() == content);
}

/// The rename comes while the new file's bytes are on their way, and they do not arrive. Whoever closes the file
/// does not look at the error.
#[test]
fn s8_a_rename_fails_with_the_write_back_that_it_waited_for() {
    let world = World::start("timeo=2");
    fs::write(world.at("good"), "good").unwrap();
    let mut new = File::create(world.at("new")).unwrap();
    new.write_all(&[7; 100_000]).unwrap();
    world.refuse_blocks(true);
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| drop(new.try_clone().unwrap()));
        std::thread::sleep(Duration::from_millis(500));
        let renamed = fs::rename(world.at("new"), world.at("good"));
        assert_eq!(renamed.unwrap_err().raw_os_error(), Some(5));
        closing.join().unwrap();
    });
    world.refuse_blocks(false);
    assert_eq!(fs::read_to_string(world.at("good")).unwrap(), "good");
}

/// A write-back failed that somebody else's call had asked for: until the writer has heard of it, its file does
/// not replace another one.
#[test]
fn s8_a_rename_fails_while_a_writer_has_yet_to_hear_of_a_failure() {
    let world = World::start("timeo=1");
    fs::write(world.at("good"), "good").unwrap();
    let mut new = File::create(world.at("new")).unwrap();
    new.write_all(&[7; 100_000]).unwrap();
    world.refuse_blocks(true);
    fs::set_permissions(world.at("new"), Permissions::from_mode(0o600)).unwrap_err();
    world.refuse_blocks(false);
    assert_eq!(fs::rename(world.at("new"), world.at("good")).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(fs::read_to_string(world.at("good")).unwrap(), "good");
    // Whoever hears of it decides: here to write again.
    assert_eq!(new.sync_all().unwrap_err().raw_os_error(), Some(5));
    new.write_all_at(&[8; 100_000], 0).unwrap();
    new.sync_all().unwrap();
    fs::rename(world.at("new"), world.at("good")).unwrap();
    assert!(fs::read(world.at("good")).unwrap() == [8; 100_000]);
}
