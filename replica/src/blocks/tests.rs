//! The keeper of one replica whose peers are absent.

use super::*;
use crate::layout::replica_directory;
use crate::provision::{Plan, provision};
use quorate_metadata::rows::{Occasion, Placement};
use quorate_protocol::genesis::Parameters;
use quorate_store::directory::Identity;
use quorate_store::state::StateOptions;
use quorate_transport::{ClientLimits, KeyFile, ReplicaTransport, ReplicaTransportConfiguration};
use std::path::Path;

/// Replica 0 of a cluster that nobody else runs.
struct Alone {
    keeper: BlockKeeper,
    state: State,
    _transport: ReplicaTransport,
    _directory: Directory,
}

impl Alone {
    fn start(place: &Path) -> Self {
        let addresses = (1..=4).map(|port| format!("127.0.0.1:{port}")).collect();
        let cluster =
            provision(place, &Plan { addresses, parameters: Parameters::default(), owner: (0, 0) }).unwrap();
        let path = replica_directory(place, 0);
        let seed = KeyFile::read_node(&path.join(crate::layout::NODE_KEY)).unwrap();
        let directory = Directory::open(&path, Identity { cluster: cluster.cluster(), replica: 0 }).unwrap();
        let transport = ReplicaTransport::start(ReplicaTransportConfiguration {
            cluster: cluster.cluster(),
            members: cluster.members().clone(),
            me: 0,
            secret: seed.derive(quorate_crypto::Role::Transport),
            listen: "127.0.0.1:0".parse().unwrap(),
            addresses: cluster.addresses().to_vec(),
            limits: ClientLimits::default(),
        })
        .unwrap();
        let state = State::genesis(cluster.genesis()).unwrap();
        let signer = Ed25519Signer::new(seed.derive(quorate_crypto::Role::Blocks));
        let database = Arc::new(Database::open(&directory, &StateOptions::default()).unwrap());
        let keeper = BlockKeeper::start(
            &directory,
            (&state, database),
            transport.peers.clone(),
            (0, 4),
            signer,
            BlockOptions::default(),
        )
        .unwrap();
        Self { keeper, state, _transport: transport, _directory: directory }
    }

    /// Notes a block as one that was asked for.
    fn ask(&mut self, id: Hash) {
        let now = Instant::now();
        self.keeper.lacking.need(id, false, now);
        let asked = self.keeper.lacking.ask(now + std::time::Duration::from_secs(1), |_| false);
        assert_eq!(asked.len(), 1);
    }

    fn wait(&self, what: &str, condition: impl Fn(&Blocks) -> bool) {
        let began = Instant::now();
        while !condition(&self.keeper.works.blocks) {
            assert!(began.elapsed() < std::time::Duration::from_secs(20), "{what}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[tokio::test]
async fn a_fetched_block_survives_a_sweep_that_knows_an_older_state() {
    let place = tempfile::tempdir().unwrap();
    let mut alone = Alone::start(place.path());
    let content = b"content".to_vec();
    let descriptor = BlockDescriptor::copies(&content);
    let (id, old) = (descriptor.id(), BlockDescriptor::copies(b"old"));
    // One that really is dead, to see when the sweep is over.
    let upload = Upload { descriptor: &old, content: b"old" };
    alone.keeper.works.blocks.put(&[upload], BatchTime(0)).unwrap();
    alone.ask(id);
    alone.keeper.arrived(1, descriptor, content);
    alone.wait("it is kept", |blocks| blocks.contains(&id));
    assert!(alone.keeper.jobs.push(Asker::Own, Job::Sweep(alone.state.clone())).is_ok());
    alone.wait("the sweep is over", |blocks| !blocks.contains(&old.id()));
    assert!(alone.keeper.works.blocks.contains(&id));
}

#[tokio::test]
async fn what_a_peer_sent_and_is_not_the_block_is_asked_for_again() {
    let place = tempfile::tempdir().unwrap();
    let mut alone = Alone::start(place.path());
    let descriptor = BlockDescriptor::copies(b"content");
    let id = descriptor.id();
    alone.ask(id);
    alone.keeper.arrived(1, descriptor.clone(), b"another".to_vec());
    let began = Instant::now();
    // The refusal makes it wait again, from where it is asked for at once.
    loop {
        assert!(began.elapsed() < std::time::Duration::from_secs(1), "before the answer would be too late");
        alone.keeper.look_after(&alone.state.clone());
        if alone.keeper.lacking.next_peer(&id) == Some(3) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    alone.keeper.arrived(2, descriptor, b"content".to_vec());
    alone.wait("it is kept", |blocks| blocks.contains(&id));
}

/// Rule S5: the bytes stay as long as a height can be read, or is held by a reader, that refers to them; not longer.
#[tokio::test]
async fn s5_a_block_stays_as_long_as_a_height_that_refers_to_it_can_be_read() {
    let place = tempfile::tempdir().unwrap();
    let alone = Alone::start(place.path());
    let works = &alone.keeper.works;
    let store = |content: &[u8]| {
        let descriptor = BlockDescriptor::copies(content);
        works.blocks.put(&[Upload { descriptor: &descriptor, content }], BatchTime(0)).unwrap();
        descriptor
    };
    let (descriptor, other) = (store(b"content"), store(b"never referred to"));
    let id = descriptor.id();
    let at = |height| Occasion { height, time: BatchTime(height) };
    // Referred to from height 2 on, released by 5, of which the row is gone at 7; once more from 8 to 9.
    for height in 0..20 {
        let (descriptor, placement) = (descriptor.clone(), Placement::EveryReplica);
        let row = |count, released| Block { id, descriptor, placement, count, born: at(2), released };
        let value = match height {
            2 | 8 => Some(Some(row(1, None))),
            5 | 10 => Some(Some(row(0, Some(at(height))))),
            7 | 11 => Some(None),
            _ => None,
        };
        let changes = value.map(|row| (quorate_metadata::keys::block(&id), row.map(|row| row.to_value())));
        works.database.commit(height, &changes.into_iter().collect(), b"h", b"f").unwrap();
    }
    // The state at hand has no row of either.
    works.sweep(&alone.state);
    assert!(works.blocks.contains(&id) && !works.blocks.contains(&other.id()));
    let reader = works.database.pin(4).unwrap();
    for (horizon, stays) in [(5, true), (9, true), (10, true)] {
        while works.database.prune(horizon, &[], None).unwrap().next.is_some() {}
        works.sweep(&alone.state);
        assert_eq!(works.blocks.contains(&id), stays, "{horizon}");
    }
    drop(reader);
    works.sweep(&alone.state);
    assert!(!works.blocks.contains(&id) && works.retained.lock().unwrap().is_empty());
}
