//! Starting and stopping a replica: directory, log, state, consensus, network, and the way back.
//!
//! Invariant: nothing is sent before the log was read to its end and the state reproduced every certified
//! header (rule S10); SIGTERM and SIGINT stop in order, after leadership was handed over, and at once while
//! the log is still being read: then nothing has been said that would need an order.

use crate::blocks::BlockKeeper;
use crate::budgets::clients::ClientBudgets;
use crate::budgets::peers::PeerBudgets;
use crate::clients::Clients;
use crate::disk::Disk;
use crate::error::ReplicaError;
use crate::evidence::EvidenceKeeper;
use crate::executor::{Executor, Surroundings};
use crate::fairness::Fairness;
use crate::heads::HeadKeeper;
use crate::history::History;
use crate::keeper::{StateKeeper, recover_state};
use crate::layout::{CLUSTER_FILE, NODE_KEY, PID_FILE};
use crate::node::{INTERNAL_MAX, Internal, Node, Sources};
use crate::past_states::PastStates;
use crate::refusals::Refusals;
use crate::retention::Retention;
use crate::verifier::RememberingVerifier;
use quorate_audit::tlog::HeadSigner;
use quorate_consensus::{Configuration, Monotonic, Parameters, Replica};
use quorate_crypto::{Ed25519Signer, Ed25519Verifier, NodeSeed, Role};
use quorate_execution::State;
use quorate_protocol::ReplicaIndex;
use quorate_store::blocks::{BlockOptions, RESERVE_BYTES_DEFAULT};
use quorate_store::directory::{Directory, Identity};
use quorate_store::log::{Log, LogOptions};
use quorate_transport::{
    ClientLimits, ClusterFile, KeyFile, ReplicaTransport, ReplicaTransportConfiguration, TransportError,
};
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// What a replica is started with.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Its directory.
    pub directory: PathBuf,
    /// Where to listen instead of where the cluster file says.
    pub listen: Option<SocketAddr>,
    /// How much of the past can be read.
    pub retention: Retention,
    /// Bytes of memory for past heights that clients read.
    pub past_memory: u64,
    /// Bytes of its disk that blocks leave to log and state.
    pub disk_reserve: u64,
    /// How it is faulty on purpose, if it is.
    #[cfg(feature = "faults")]
    pub fault: Option<crate::faults::Fault>,
}

impl ReplicaOptions {
    /// Those of a directory, all others as usual.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            listen: None,
            retention: Retention::default(),
            past_memory: crate::past_states::MEMORY_DEFAULT,
            disk_reserve: RESERVE_BYTES_DEFAULT,
            #[cfg(feature = "faults")]
            fault: None,
        }
    }
}

/// Runs a replica until SIGTERM or SIGINT.
///
/// # Errors
/// [`ReplicaError`] when it cannot start.
pub fn run_replica(options: &ReplicaOptions) -> Result<(), ReplicaError> {
    let cluster = ClusterFile::read(&options.directory.join(CLUSTER_FILE))?;
    let key_path = options.directory.join(NODE_KEY);
    let seed = KeyFile::read_node(&key_path)?;
    let me = cluster
        .members()
        .index_of_consensus(&seed.derive(Role::Consensus).public())
        .ok_or(ReplicaError::NotAMember(key_path))?;
    let directory =
        Directory::open(&options.directory, Identity { cluster: cluster.cluster(), replica: me })?;
    let pid = PidFile::write(&options.directory)?;
    let ready = Arc::new(AtomicBool::new(false));
    let stop = stop_on_signals(pid.0.clone(), Arc::clone(&ready))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ReplicaError::Io { what: "no runtime", source })?;
    runtime.block_on(serve(options, (&cluster, &seed, me), &directory, (stop, &ready)))
}

async fn serve(
    options: &ReplicaOptions,
    (cluster, seed, me): (&ClusterFile, &NodeSeed, ReplicaIndex),
    directory: &Directory,
    (stop, ready): (watch::Receiver<bool>, &AtomicBool),
) -> Result<(), ReplicaError> {
    // The port first: a second process on it is found before anything is read.
    let transport = start_transport(options, cluster, seed, me)?;
    tracing::info!(replica = me, address = %transport.local_address(), "listening");
    #[cfg(feature = "faults")]
    let faults = start_faults(options, cluster, seed, me, &transport)?;
    let place = Place { cluster, seed, me, directory, options };
    let (mut node, mut sources) = assemble(&place, transport, stop)?;
    #[cfg(feature = "faults")]
    {
        node.faults = faults;
    }
    ready.store(true, Ordering::Release);
    tracing::info!(replica = me, height = node.consensus.committed_height(), "ready");
    node.run(&mut sources).await;
    drop(node);
    sources.transport.close().await;
    tracing::info!(replica = me, "stopped");
    Ok(())
}

/// Which replica runs, and on what.
struct Place<'a> {
    cluster: &'a ClusterFile,
    seed: &'a NodeSeed,
    me: ReplicaIndex,
    directory: &'a Directory,
    options: &'a ReplicaOptions,
}

fn assemble(
    place: &Place<'_>,
    transport: ReplicaTransport,
    stop: watch::Receiver<bool>,
) -> Result<(Node, Sources), ReplicaError> {
    let Place { cluster, seed, me, directory, options } = *place;
    let scheme = Ed25519Verifier::with_keys(
        cluster.members().members().iter().flat_map(|member| [member.consensus, member.blocks]),
    );
    let surroundings = Surroundings {
        cluster: cluster.cluster(),
        members: cluster.members().clone(),
        verifier: Arc::new(scheme.clone()),
    };
    let verifier = Arc::new(RememberingVerifier::new(scheme));
    let log = Log::open(directory, LogOptions::default())?;
    let archive = log.archive();
    let (state, database) = recover_state(directory, cluster.genesis(), &archive, &surroundings)?;
    let (consensus, effects) = recover_consensus(cluster, seed, me, Arc::clone(&verifier), &log, &state)?;
    let (sender, internal) = mpsc::channel(INTERNAL_MAX);
    let deliver = |sender: &mpsc::Sender<Internal>| {
        let sender = sender.clone();
        // Fails only when the loop has ended, and then nobody waits for the answer.
        move |internal| drop(sender.blocking_send(internal))
    };
    let no_thread = |source| ReplicaError::Io { what: "no thread", source };
    let (durable, executed) = (deliver(&sender), deliver(&sender));
    let disk = Disk::start(log, move |token| durable(Internal::Durable(token))).map_err(no_thread)?;
    let executor = Executor::start(surroundings, move |outcome| executed(Internal::Executed(outcome)))
        .map_err(no_thread)?;
    let keeper = StateKeeper::start(Arc::clone(&database), &state, options.retention).map_err(no_thread)?;
    let signer = Ed25519Signer::new(seed.derive(Role::Blocks));
    let members = (me, cluster.members().n());
    let block_options = BlockOptions { reserve_bytes: options.disk_reserve, ..BlockOptions::default() };
    let blocks = BlockKeeper::start(
        directory,
        (&state, Arc::clone(&database)),
        transport.peers.clone(),
        members,
        signer,
        block_options,
    )?;
    let genesis = consensus.configuration().genesis().clone();
    let past = PastStates::start(
        (Arc::clone(&database), archive.clone()),
        (genesis, state.clone()),
        blocks.getter(),
        options.past_memory,
    )
    .map_err(no_thread)?;
    let certificate = consensus.committed_certificate().cloned();
    let court = crate::inbound::court(consensus.configuration(), verifier.as_ref());
    let evidence = EvidenceKeeper::start(directory, &court).map_err(no_thread)?;
    let signer = HeadSigner::new(&cluster.cluster(), seed);
    let heads = HeadKeeper::start(directory, signer, (state.header(), state.log()), archive.clone())?;
    let mut node = Node {
        certificate,
        consensus,
        verifier,
        disk,
        executor,
        keeper,
        blocks,
        history: History::start(archive, database).map_err(no_thread)?,
        past,
        evidence,
        heads,
        peers: transport.peers.clone(),
        clients: Clients::default(),
        state,
        speculative: BTreeMap::new(),
        held: VecDeque::new(),
        turn_records: Vec::new(),
        turn_token: None,
        turn_votes: Vec::new(),
        inputs: VecDeque::new(),
        fairness: Fairness::default(),
        refusals: Refusals::default(),
        peer_budgets: PeerBudgets::default(),
        client_budgets: ClientBudgets::default(),
        led_until: BTreeMap::new(),
        timer: None,
        care_due: Instant::now(),
        epoch_start: Instant::now(),
        #[cfg(feature = "faults")]
        faults: crate::faults::Faults::default(),
    };
    for effect in effects {
        node.perform(effect);
    }
    Ok((node, Sources { transport, internal, stop }))
}

fn recover_consensus(
    cluster: &ClusterFile,
    seed: &NodeSeed,
    me: ReplicaIndex,
    verifier: Arc<RememberingVerifier>,
    log: &Log,
    state: &State,
) -> Result<(Replica, Vec<quorate_consensus::Effect>), ReplicaError> {
    let genesis =
        State::genesis(cluster.genesis()).map_err(|error| ReplicaError::Genesis(error.to_string()))?;
    let configuration = Configuration::new(
        cluster.cluster(),
        cluster.members().clone(),
        me,
        genesis.header().clone(),
        u64::from(cluster.genesis().parameters.window),
        Parameters::default(),
    )?;
    let signer = Arc::new(Ed25519Signer::new(seed.derive(Role::Consensus)));
    let mut reader = log.records();
    let mut damage = None;
    let records = std::iter::from_fn(|| match reader.next_record() {
        Ok(record) => record.map(|(_, record)| record),
        Err(error) => {
            damage = Some(error);
            None
        }
    });
    let (now, wall) = (Monotonic(0), crate::provision::now());
    let recovered = Replica::recover(configuration, signer, verifier, records, now, wall);
    if let Some(error) = damage {
        return Err(error.into());
    }
    let (mut replica, effects) = recovered?;
    if replica.committed_height() != state.header().height {
        return Err(ReplicaError::Recovery {
            height: state.header().height,
            what: format!("the log is committed up to {}", replica.committed_height()),
        });
    }
    replica.set_wake_at(state.wake_at());
    Ok((replica, effects))
}

fn start_transport(
    options: &ReplicaOptions,
    cluster: &ClusterFile,
    seed: &NodeSeed,
    me: ReplicaIndex,
) -> Result<ReplicaTransport, ReplicaError> {
    let listen = match options.listen {
        Some(address) => address,
        None => resolve(cluster, me)?,
    };
    let configuration = ReplicaTransportConfiguration {
        cluster: cluster.cluster(),
        members: cluster.members().clone(),
        me,
        secret: seed.derive(Role::Transport),
        listen,
        addresses: cluster.addresses().to_vec(),
        limits: ClientLimits::default(),
    };
    ReplicaTransport::start(configuration).map_err(|error| match error {
        TransportError::Bind { address, source } => ReplicaError::Bind { address, source },
        other => other.into(),
    })
}

/// Before anything is sent, so that nothing leaves as it should.
#[cfg(feature = "faults")]
fn start_faults(
    options: &ReplicaOptions,
    cluster: &ClusterFile,
    seed: &NodeSeed,
    me: ReplicaIndex,
    transport: &ReplicaTransport,
) -> Result<crate::faults::Faults, ReplicaError> {
    let genesis =
        State::genesis(cluster.genesis()).map_err(|error| ReplicaError::Genesis(error.to_string()))?;
    let signer = Ed25519Signer::new(seed.derive(Role::Consensus));
    let hashes = (cluster.cluster(), genesis.hash());
    crate::faults::Faults::start(options.fault, hashes, cluster.members(), me, signer, &transport.peers)
}

fn resolve(cluster: &ClusterFile, me: ReplicaIndex) -> Result<SocketAddr, ReplicaError> {
    let address = cluster.addresses().get(usize::from(me)).map(ToString::to_string).unwrap_or_default();
    let found = address.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or(ReplicaError::Address(address))
}

/// A flag that becomes true at SIGTERM or SIGINT. Before the replica is `ready` they end the process, as a
/// crash would, which the start is made for: to read a long log takes minutes.
fn stop_on_signals(pid_file: PathBuf, ready: Arc<AtomicBool>) -> Result<watch::Receiver<bool>, ReplicaError> {
    let failed = |source| ReplicaError::Io { what: "signals cannot be caught", source };
    // Of its own, because the start keeps the other one busy.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (mut terminate, mut interrupt) = {
        let _within = runtime.enter();
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        (terminate, signal(SignalKind::interrupt()).map_err(failed)?)
    };
    let (sender, receiver) = watch::channel(false);
    let wait = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if !ready.load(Ordering::Acquire) {
            tracing::info!("stopped before it was ready");
            let _ = std::fs::remove_file(pid_file);
            std::process::exit(0);
        }
        let _ = sender.send(true);
        // Kept: a closed channel would look like a second wish to stop.
        std::future::pending::<()>().await;
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(wait))
        .map_err(failed)?;
    Ok(receiver)
}

/// The file with the process's number, removed at an orderly end.
struct PidFile(PathBuf);

impl PidFile {
    fn write(directory: &Path) -> Result<Self, ReplicaError> {
        let path = directory.join(PID_FILE);
        std::fs::write(&path, format!("{}\n", std::process::id()))
            .map_err(|source| ReplicaError::Io { what: "replica.pid cannot be written", source })?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
