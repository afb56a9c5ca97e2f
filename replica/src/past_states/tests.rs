//! Past states over a real log and database, whose heights a test makes.

use super::*;
use crate::layout::ADMIN_KEY;
use crate::provision::{Plan, provision};
use quorate_crypto::{CertificateKind, Ed25519Signer, Ed25519Verifier, Signature, Signer as _, encode};
use quorate_execution::{Changes, Environment, check_answer};
use quorate_protocol::envelope::session_id;
use quorate_protocol::file::Name;
use quorate_protocol::genesis::Parameters;
use quorate_protocol::operation::Operation;
use quorate_protocol::peer::Batch;
use quorate_protocol::record::Record;
use quorate_protocol::{EnvelopeBody, Groups, OperationBody, Proposal};
use quorate_store::directory::{Directory, Identity};
use quorate_store::log::{Log, LogOptions};
use quorate_store::state::StateOptions;
use quorate_transport::{ClusterFile, KeyFile};

/// A replica's disk, and the heights on it.
struct Disk {
    cluster: ClusterFile,
    principal: Ed25519Signer,
    log: Log,
    database: Arc<Database>,
    states: Vec<State>,
    _directory: Directory,
    _place: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let addresses = (1..=4).map(|port| format!("127.0.0.1:{port}")).collect();
        let plan = Plan { addresses, parameters: Parameters::default(), owner: (0, 0) };
        let cluster = provision(&place.path().join("cluster"), &plan).unwrap();
        let secret = KeyFile::read_principal(&place.path().join("cluster").join(ADMIN_KEY)).unwrap();
        let identity = Identity { cluster: cluster.cluster(), replica: 0 };
        let directory = Directory::create(&place.path().join("replica"), identity).unwrap();
        let log = Log::open(&directory, LogOptions::default()).unwrap();
        let database = Arc::new(Database::open(&directory, &StateOptions::default()).unwrap());
        let state = State::genesis(cluster.genesis()).unwrap();
        let rows = state.rows().map(|(key, value)| (key, Some(value))).collect();
        database.commit(0, &rows, b"h", b"f").unwrap();
        let principal = Ed25519Signer::new(secret);
        Self { cluster, principal, log, database, states: vec![state], _directory: directory, _place: place }
    }

    fn head(&self) -> &State {
        self.states.last().unwrap()
    }

    /// The next height makes a directory `d` and its number.
    fn step(&mut self) -> Executed {
        self.step_on_disk(|_| {})
    }

    /// The same with other changes in the database than there were.
    fn step_on_disk(&mut self, damage: impl FnOnce(&mut Changes)) -> Executed {
        let (id, height) = (self.cluster.cluster(), self.head().height() + 1);
        let nonce = [7; 32];
        let (first, body) = match height {
            1 => (0, OperationBody::Register { nonce }),
            _ => (height - 1, mkdir(height)),
        };
        let body = EnvelopeBody {
            cluster: id,
            session: session_id(&id, &self.principal.public(), &nonce),
            key: self.principal.public(),
            first,
            valid_until: self.head().header().time.plus(10_000_000_000),
            credentials: vec![root()].try_into().unwrap(),
            operations: vec![Operation { credential: 0, requires: 0, at: None, body }].try_into().unwrap(),
        };
        let envelopes = vec![body.sign(&self.principal)].try_into().unwrap();
        let (parent, time) = (self.head().header().proposal, self.head().minimum_time());
        let proposal = Proposal { parent, time, envelopes };
        let verifier = Ed25519Verifier::new();
        let environment = Environment { cluster: id, members: self.cluster.members(), verifier: &verifier };
        let digest = proposal.digest(&id, 0, height);
        let executed = self.head().execute(&environment, height, &proposal, digest).unwrap();
        let header = executed.state.header().clone();
        let votes = [0, 1, 2].map(|index| (index, Signature::ZERO));
        let kind = CertificateKind::Commit;
        let certificate =
            Certificate::assemble(kind, self.cluster.members(), 0, height, header.hash(), votes).unwrap();
        let batch = Batch { header: header.clone(), proposal };
        let records = [Record::Proposed { height, batch }, Record::Committed(certificate)];
        self.log.append(&records).unwrap();
        self.log.sync().unwrap();
        let mut changes = executed.changes.clone();
        damage(&mut changes);
        self.database.commit(height, &changes, &encode(&header), b"f").unwrap();
        self.states.push(executed.state.clone());
        executed
    }

    fn start(&self, memory: u64) -> PastStates {
        let genesis = self.states[0].header().clone();
        let places = (Arc::clone(&self.database), self.log.archive());
        PastStates::start(places, (genesis, self.head().clone()), BlockGetter::idle(), memory).unwrap()
    }
}

fn root() -> Credential {
    Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal }
}

fn name(height: Height) -> Name {
    Name::new(format!("d{height}").as_bytes()).unwrap()
}

fn mkdir(height: Height) -> OperationBody {
    let (mode, umask, ino, entropy) = (0o755, 0, None, [9; 16]);
    OperationBody::Mkdir { parent: 1, name: name(height), mode, umask, ino, entropy }
}

/// Who asks.
const ASKER: PublicKey = PublicKey([3; 32]);

/// The state at a height, however often it takes until one may be prepared again.
fn at(past: &PastStates, height: Height) -> Result<Arc<PastState>, No> {
    loop {
        match past.works.at(height, &ASKER) {
            Err(No(Refusal::Busy, _)) => std::thread::sleep(Duration::from_millis(1)),
            Ok((state, certificate)) => {
                let certified = certificate.map(|certificate| certificate.header_hash);
                assert_eq!(certified, Some(state.header().hash()).filter(|_| height > 0));
                return Ok(state);
            }
            Err(no) => return Err(no),
        }
    }
}

fn held(past: &PastStates) -> Vec<Height> {
    let mut held: Vec<_> = lock(&past.works.held).iter().map(|held| held.state.header().height).collect();
    held.sort_unstable();
    held
}

/// S10: each height answers as its own state did, under its own header.
#[test]
fn every_height_that_is_kept_answers_as_it_did() {
    let mut disk = Disk::new();
    for _ in 0..12 {
        disk.step();
    }
    let past = disk.start(MEMORY_DEFAULT);
    let key = disk.principal.public();
    for state in &disk.states {
        let found = at(&past, state.height()).unwrap();
        assert_eq!(found.header(), state.header());
        for height in [2, state.height(), state.height() + 1] {
            let query = Query::Lookup { parent: 1, name: name(height) };
            let answered = found.answer(&key, &root(), &query).unwrap();
            assert_eq!(answered, state.answer(&key, &root(), &query).unwrap());
            let checked = check_answer(state.header(), &answered.proof, &key, &root(), &query);
            assert_eq!(checked.unwrap(), answered.outcome);
            assert_eq!(answered.outcome.is_ok(), (2..=state.height()).contains(&height));
        }
    }
    let no = at(&past, 13).unwrap_err();
    assert_eq!(no.0, Refusal::NotRetained { horizon: 0, applied: 12 });
    // What is committed later can be read as well, and the database may be late.
    let executed = disk.step();
    past.committed(&executed);
    assert_eq!(at(&past, 11).unwrap().header(), disk.states[11].header());
}

/// A5: however many heights are asked for, few are held, in bounded memory, and none below the horizon.
#[test]
fn what_is_held_is_bounded_in_number_memory_and_time() {
    let mut disk = Disk::new();
    let heights = HEIGHTS_MAX as u64 + 10;
    for _ in 0..heights {
        disk.step();
    }
    let past = disk.start(MEMORY_DEFAULT);
    for height in 1..heights {
        at(&past, height).unwrap();
        assert!(held(&past).len() <= HEIGHTS_MAX);
    }
    assert_eq!(held(&past), (heights - HEIGHTS_MAX as u64..heights).collect::<Vec<_>>());
    // Whoever asks for one of them keeps it.
    at(&past, heights - HEIGHTS_MAX as u64).unwrap();
    at(&past, 1).unwrap();
    assert_eq!(held(&past)[..2], [1, heights - HEIGHTS_MAX as u64]);
    while disk.database.prune(heights - 3, &[], None).unwrap().next.is_some() {}
    past.works.tidy(Instant::now());
    assert_eq!(held(&past), [heights - 3, heights - 2, heights - 1]);
    let no = at(&past, heights - 4).unwrap_err();
    assert_eq!(no.0, Refusal::NotRetained { horizon: heights - 3, applied: heights });
    past.works.tidy(Instant::now() + IDLE_MAX + Duration::from_secs(1));
    assert_eq!(held(&past), [] as [Height; 0]);

    // Room for what one height changed, and a little: further ones give way, and too far is too far.
    let changed = disk.database.rewind(heights, heights - 1, u64::MAX).unwrap().len() as u64;
    let past = disk.start((changed + 2) * REWOUND_ROW_BYTES);
    at(&past, heights - 1).unwrap();
    assert_eq!(held(&past), [heights - 1]);
    let no = at(&past, heights - 3).unwrap_err();
    assert!(no.0 == Refusal::Invalid && no.1.contains("too far"), "{no:?}");
    // As the present goes on, what is held shares less and less with it.
    for _ in 0..3 {
        past.committed(&disk.step());
    }
    past.works.tidy(Instant::now());
    assert_eq!(held(&past), [] as [Height; 0]);
}

/// A5: heights are prepared one at a time, and for half of the time at most.
#[test]
fn who_asks_for_many_heights_waits_between_them() {
    let mut disk = Disk::new();
    for _ in 0..4 {
        disk.step();
    }
    let past = disk.start(MEMORY_DEFAULT);
    at(&past, 3).unwrap();
    let busy = |height| matches!(past.works.at(height, &ASKER), Err(No(Refusal::Busy, _)));
    let preparing = past.works.preparing.lock().unwrap();
    assert!(busy(2), "another one is being prepared");
    assert!(!busy(3), "what is held is answered from meanwhile");
    drop(preparing);
    let now = Instant::now();
    let rest = past.works.turns.lock().unwrap().rest_until;
    assert!(rest.is_some(), "a rest follows");
    past.works.turns.lock().unwrap().rest(now, now + Duration::from_secs(60));
    assert!(busy(2) && !busy(3), "which lasts as long as the preparation");
    *past.works.turns.lock().unwrap() = Turns::default();
    assert!(!busy(2));
}

/// A5: who waits while another one's height is prepared comes next, and who has its answer waits no more.
#[test]
fn principals_have_heights_prepared_in_turn() {
    let mut disk = Disk::new();
    for _ in 0..4 {
        disk.step();
    }
    let past = disk.start(MEMORY_DEFAULT);
    let (greedy, patient) = (PublicKey([1; 32]), PublicKey([2; 32]));
    let at = |height, key: &PublicKey| past.works.at(height, key).map(|_| ()).map_err(|no| no.0);
    let preparing = past.works.preparing.lock().unwrap();
    assert_eq!(at(2, &patient), Err(Refusal::Busy));
    drop(preparing);
    past.works.turns.lock().unwrap().rest(Instant::now(), Instant::now());
    assert_eq!(at(3, &greedy), Err(Refusal::Busy), "it is another one's turn");
    assert_eq!(at(2, &patient), Ok(()));
    *past.works.turns.lock().unwrap() = Turns::default();
    let preparing = past.works.preparing.lock().unwrap();
    assert_eq!(at(1, &patient), Err(Refusal::Busy));
    drop(preparing);
    past.works.turns.lock().unwrap().rest(Instant::now(), Instant::now());
    past.works.turns.lock().unwrap().held(1);
    assert_eq!(at(3, &greedy), Ok(()), "nobody waits for what is held");
}

/// What a disk gives that is not what was certified is no answer.
#[test]
fn rows_that_lead_to_another_root_are_refused() {
    let mut disk = Disk::new();
    disk.step();
    disk.step_on_disk(|changes| changes.values_mut().for_each(|value| *value = Some(vec![1].into())));
    disk.step();
    disk.step();
    let past = disk.start(MEMORY_DEFAULT);
    assert!(at(&past, 3).is_ok());
    assert_eq!(at(&past, 2).unwrap_err().0, Refusal::Storage);
    assert_eq!(held(&past), [3]);
}
