//! A whole cluster on this machine: its directory, its replicas' processes, and what can be done to them.
//!
//! Invariant: a directory with a `cluster.toml` is a whole cluster and is started again as it is; only
//! loopback ports that are taken meanwhile are replaced.

use crate::{ports, process};
use nix::sys::signal::Signal;
use quorate_protocol::ReplicaIndex;
use quorate_protocol::genesis::Parameters;
use quorate_replica::layout::{ADMIN_KEY, CLUSTER_FILE, replica_directory};
use quorate_replica::provision::{Plan, ProvisionError, provision};
use quorate_transport::{ClusterFile, ClusterFileError};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a replica may take to stop after SIGTERM before it is killed.
pub const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether one has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How long a replica may take to write its pid file.
pub const START_PATIENCE: Duration = Duration::from_secs(5);

/// Why something could not be done to a local cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The cluster cannot be made.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// Its cluster file is unusable.
    #[error(transparent)]
    File(#[from] ClusterFileError),
    /// The directory holds no cluster.
    #[error("{0} holds no cluster: `quorate dev --dir` makes one there")]
    NoCluster(PathBuf),
    /// There is no such replica.
    #[error("there is no replica {0}: this cluster has replicas 0 to {1}")]
    NoReplica(ReplicaIndex, usize),
    /// The replica runs already.
    #[error("replica {0} runs already")]
    Running(ReplicaIndex),
    /// The replica does not run.
    #[error("replica {0} does not run")]
    NotRunning(ReplicaIndex),
    /// The replica ended right after its start.
    #[error("replica {replica} ended at once; the last lines of its log:\n{log}")]
    Ended {
        /// Which one.
        replica: ReplicaIndex,
        /// The tail of its log file.
        log: String,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A cluster on this machine.
pub struct LocalCluster {
    directory: PathBuf,
    binary: PathBuf,
    file: ClusterFile,
    children: Mutex<BTreeMap<ReplicaIndex, Child>>,
    arguments: BTreeMap<ReplicaIndex, Vec<OsString>>,
    environment: BTreeMap<ReplicaIndex, Vec<(OsString, OsString)>>,
}

impl LocalCluster {
    /// Makes a cluster of `replicas` under `directory`, on free loopback ports.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn create(
        directory: &Path,
        binary: &Path,
        replicas: usize,
        parameters: Parameters,
        owner: (u32, u32),
    ) -> Result<Self, ClusterError> {
        let addresses = ports::free_addresses(replicas)
            .map_err(|source| ClusterError::Io { what: "no free port".to_owned(), source })?;
        provision(directory, &Plan { addresses, parameters, owner })?;
        Self::open(directory, binary)
    }

    /// Opens the cluster of `directory`, running or not.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn open(directory: &Path, binary: &Path) -> Result<Self, ClusterError> {
        let path = directory.join(CLUSTER_FILE);
        if !path.exists() {
            return Err(ClusterError::NoCluster(directory.to_owned()));
        }
        let file = ClusterFile::read(&path)?;
        Ok(Self {
            directory: directory.to_owned(),
            binary: binary.to_owned(),
            file,
            children: Mutex::default(),
            arguments: BTreeMap::new(),
            environment: BTreeMap::new(),
        })
    }

    /// Adds arguments to every later start of a replica.
    pub fn set_arguments(&mut self, replica: ReplicaIndex, arguments: Vec<OsString>) {
        self.arguments.insert(replica, arguments);
    }

    /// Adds variables to the environment of every later start of a replica.
    pub fn set_environment(&mut self, replica: ReplicaIndex, variables: Vec<(OsString, OsString)>) {
        self.environment.insert(replica, variables);
    }

    /// Gives replicas that do not run new ports where the old ones are taken by somebody else.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn refresh_ports(&mut self) -> Result<(), ClusterError> {
        let mut file = self.file.clone();
        let mut changed = false;
        for index in self.indices() {
            let taken =
                self.file.addresses().get(usize::from(index)).is_some_and(|address| !ports::is_free(address));
            if taken && self.running(index).is_none() {
                let fresh = ports::free_addresses(1)
                    .map_err(|source| ClusterError::Io { what: "no free port".to_owned(), source })?;
                if let Some(address) = fresh.into_iter().next().and_then(|text| text.try_into().ok()) {
                    file = file.with_address(index, address);
                    changed = true;
                }
            }
        }
        if changed {
            for index in self.indices() {
                file.write(&self.replica_directory(index).join(CLUSTER_FILE))?;
            }
            file.write(&self.directory.join(CLUSTER_FILE))?;
            self.file = file;
        }
        Ok(())
    }

    /// Writes the cluster files with the addresses at which the replicas really listen, whatever network was
    /// put between them: each replica's own file knows its own.
    ///
    /// # Errors
    /// [`ClusterError`].
    #[cfg(feature = "faults")]
    pub fn restore_addresses(&mut self) -> Result<(), ClusterError> {
        let mut file = self.file.clone();
        for index in self.indices() {
            let own = ClusterFile::read(&self.replica_directory(index).join(CLUSTER_FILE))?;
            if let Some(address) = own.addresses().get(usize::from(index)) {
                file = file.with_address(index, address.clone());
            }
        }
        for index in self.indices() {
            file.write(&self.replica_directory(index).join(CLUSTER_FILE))?;
        }
        file.write(&self.cluster_path())?;
        self.file = file;
        Ok(())
    }

    /// The cluster's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Path of the cluster file.
    #[must_use]
    pub fn cluster_path(&self) -> PathBuf {
        self.directory.join(CLUSTER_FILE)
    }

    /// Path of the first principal's key.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.directory.join(ADMIN_KEY)
    }

    /// The cluster file.
    #[must_use]
    pub fn file(&self) -> &ClusterFile {
        &self.file
    }

    /// The replicas' indices.
    pub fn indices(&self) -> impl Iterator<Item = ReplicaIndex> + use<> {
        self.file.members().indices()
    }

    /// The directory of a replica.
    #[must_use]
    pub fn replica_directory(&self, replica: ReplicaIndex) -> PathBuf {
        replica_directory(&self.directory, replica)
    }

    /// The process number of a replica that runs.
    #[must_use]
    pub fn running(&self, replica: ReplicaIndex) -> Option<i32> {
        process::running(&self.replica_directory(replica)).map(nix::unistd::Pid::as_raw)
    }

    /// Starts one replica.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn start(&self, replica: ReplicaIndex) -> Result<(), ClusterError> {
        let directory = self.known(replica)?;
        if self.running(replica).is_some() {
            return Err(ClusterError::Running(replica));
        }
        let of = |source| ClusterError::Io { what: format!("replica {replica} cannot be started"), source };
        let arguments = self.arguments.get(&replica).map_or(&[][..], Vec::as_slice);
        let environment = self.environment.get(&replica).map_or(&[][..], Vec::as_slice);
        let mut child = process::spawn(&self.binary, &directory, arguments, environment).map_err(of)?;
        process::share_processors(&child, usize::from(replica), self.indices().count());
        // Until it has written its pid file, nobody could find it, and it might be started twice.
        process::wait_found(&mut child, &directory, START_PATIENCE);
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut old) = children.insert(replica, child) {
            // It has ended, or `running` had found it: this only lets the system forget it.
            let _ = old.try_wait();
        }
        Ok(())
    }

    /// Starts every replica that does not run.
    ///
    /// # Errors
    /// [`ClusterError`] of the first one that fails.
    pub fn start_all(&self) -> Result<(), ClusterError> {
        for replica in self.indices() {
            if self.running(replica).is_none() {
                self.start(replica)?;
            }
        }
        Ok(())
    }

    /// Says which replica that was started here has ended already, with the end of its log.
    ///
    /// # Errors
    /// [`ClusterError::Ended`] of the first such replica.
    pub fn check_alive(&self) -> Result<(), ClusterError> {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        for (replica, child) in children.iter_mut() {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return Err(ClusterError::Ended { replica: *replica, log: self.log_tail(*replica) });
            }
        }
        Ok(())
    }

    /// Stops one replica by SIGTERM, and by SIGKILL when it takes too long.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn stop(&self, replica: ReplicaIndex) -> Result<(), ClusterError> {
        self.signal(replica, Signal::SIGTERM)?;
        let directory = self.replica_directory(replica);
        // One that is paused takes no notice of SIGTERM before it goes on.
        let _ = process::signal(&directory, Signal::SIGCONT);
        if !self.wait_gone(replica, STOP_PATIENCE) {
            return self.kill(replica);
        }
        Ok(())
    }

    /// Kills one replica by SIGKILL and waits for its end.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn kill(&self, replica: ReplicaIndex) -> Result<(), ClusterError> {
        self.signal(replica, Signal::SIGKILL)?;
        self.wait_gone(replica, STOP_PATIENCE);
        Ok(())
    }

    /// Pauses one replica by SIGSTOP.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn pause(&self, replica: ReplicaIndex) -> Result<(), ClusterError> {
        self.signal(replica, Signal::SIGSTOP)
    }

    /// Lets a paused replica go on.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn resume(&self, replica: ReplicaIndex) -> Result<(), ClusterError> {
        self.signal(replica, Signal::SIGCONT)
    }

    /// Kills all replicas, as close to at once as signals can be.
    pub fn kill_all(&self) {
        for replica in self.indices() {
            let _ = process::signal(&self.replica_directory(replica), Signal::SIGKILL);
        }
        for replica in self.indices() {
            self.wait_gone(replica, STOP_PATIENCE);
        }
    }

    /// Stops all replicas; kills those that take too long.
    pub fn stop_all(&self) {
        for replica in self.indices() {
            let directory = self.replica_directory(replica);
            let _ = process::signal(&directory, Signal::SIGTERM);
            let _ = process::signal(&directory, Signal::SIGCONT);
        }
        for replica in self.indices() {
            if !self.wait_gone(replica, STOP_PATIENCE) {
                let _ = process::signal(&self.replica_directory(replica), Signal::SIGKILL);
                self.wait_gone(replica, STOP_PATIENCE);
            }
        }
    }

    fn known(&self, replica: ReplicaIndex) -> Result<PathBuf, ClusterError> {
        let n = self.file.members().n();
        if usize::from(replica) >= n {
            return Err(ClusterError::NoReplica(replica, n.saturating_sub(1)));
        }
        Ok(self.replica_directory(replica))
    }

    fn signal(&self, replica: ReplicaIndex, signal: Signal) -> Result<(), ClusterError> {
        let directory = self.known(replica)?;
        match process::signal(&directory, signal) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ClusterError::NotRunning(replica)),
            Err(source) => {
                Err(ClusterError::Io { what: format!("replica {replica} cannot be signalled"), source })
            }
        }
    }

    /// Waits for a process's end, reaping it if it is our child.
    fn wait_gone(&self, replica: ReplicaIndex, patience: Duration) -> bool {
        let gone = process::wait_gone(&self.replica_directory(replica), patience);
        if gone {
            // Not under the lock: whoever starts or stops another one does not wait for this one.
            let child = self.children.lock().unwrap_or_else(PoisonError::into_inner).remove(&replica);
            if let Some(mut child) = child {
                // One that crashes on purpose may have started again in the moment in which it was stopping.
                let began = Instant::now();
                while matches!(child.try_wait(), Ok(None)) {
                    if began.elapsed() > STOP_PATIENCE {
                        let _ = child.kill();
                    }
                    std::thread::sleep(LOOK_INTERVAL);
                }
            }
        }
        gone
    }

    fn log_tail(&self, replica: ReplicaIndex) -> String {
        const TAIL_LINES_MAX: usize = 12;
        let path = self.replica_directory(replica).join(quorate_replica::layout::LOG_FILE);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL_LINES_MAX)..).unwrap_or_default().join("\n")
    }
}
