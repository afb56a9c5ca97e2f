//! A network that can be broken while a cluster runs: every link between two replicas, and between clients and
//! a replica, goes through a relay of this process, in both directions apart.
//!
//! Invariant: exists only with the feature `faults`; a relay changes no byte, it only delays, loses, doubles and cuts;
//! what it holds back is bounded. A replica's own entry in its own cluster file stays where it really listens,
//! so that the true addresses can always be found again.

mod conditions;
mod relay;

pub use conditions::{Conditions, Place, RULE_HELP, Rule, RuleError};

use crate::LocalCluster;
use crate::local::ClusterError;
use quorate_protocol::ReplicaIndex;
use quorate_transport::ClusterFile;
use relay::{Direction, Relay};
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

/// The links of one cluster.
pub struct Network {
    directions: BTreeMap<(Place, Place), Arc<Direction>>,
    // Dropping them ends their threads.
    _relays: Vec<Relay>,
}

impl Network {
    /// Puts relays between the replicas of a cluster that does not run yet, and before it for clients: its
    /// cluster files name them from now on, until [`LocalCluster::restore_addresses`].
    ///
    /// # Errors
    /// [`ClusterError`] when there are no ports or the files cannot be written.
    pub fn between(cluster: &mut LocalCluster) -> Result<Self, ClusterError> {
        cluster.restore_addresses()?;
        let file = cluster.file().clone();
        let mut network = Self { directions: BTreeMap::new(), _relays: Vec::new() };
        for from in cluster.indices() {
            let mut seen = file.clone();
            // Each replica calls those with a lower index.
            for to in (0..from).filter(|to| usize::from(*to) < file.members().n()) {
                let address = network.relay(&file, Place::Replica(from), to)?;
                seen = with_address(seen, to, address)?;
            }
            seen.write(&cluster.replica_directory(from).join(quorate_replica::layout::CLUSTER_FILE))?;
        }
        let mut seen = file.clone();
        for to in cluster.indices() {
            let address = network.relay(&file, Place::Clients, to)?;
            seen = with_address(seen, to, address)?;
        }
        seen.write(&cluster.cluster_path())?;
        Ok(network)
    }

    /// A relay that leads to a replica; returns where it listens.
    fn relay(
        &mut self,
        file: &ClusterFile,
        from: Place,
        to: ReplicaIndex,
    ) -> Result<SocketAddr, ClusterError> {
        let there = Arc::new(Direction::new(seed(from, Place::Replica(to))));
        let back = Arc::new(Direction::new(seed(Place::Replica(to), from)));
        let failed = |source| ClusterError::Io { what: "no relay".to_owned(), source };
        let target = address_of(file, to).map_err(failed)?;
        let relay = Relay::start(target, Arc::clone(&there), Arc::clone(&back)).map_err(failed)?;
        let address = relay.address();
        self.directions.insert((from, Place::Replica(to)), there);
        self.directions.insert((Place::Replica(to), from), back);
        self._relays.push(relay);
        Ok(address)
    }

    /// Sets the conditions of one direction.
    pub fn set(&self, from: Place, to: Place, conditions: Conditions) {
        if let Some(direction) = self.directions.get(&(from, to)) {
            direction.set(conditions);
        }
    }

    /// Sets all conditions anew: those of the rules that hold so long after the start, the last one that fits
    /// counting, and nothing elsewhere.
    pub fn apply(&self, rules: &[Rule], elapsed: Duration) {
        for ((from, to), direction) in &self.directions {
            let rule = rules.iter().rev().find(|rule| rule.holds(elapsed) && rule.fits(*from, *to));
            direction.set(rule.map_or_else(Conditions::default, |rule| rule.conditions));
        }
    }

    /// All links between replicas and to clients are like this.
    pub fn everywhere(&self, conditions: Conditions) {
        self.directions.values().for_each(|direction| direction.set(conditions));
    }

    /// Cuts these replicas off from all others, and from clients, in both directions; among each other they
    /// stay linked.
    pub fn isolate(&self, replicas: &[ReplicaIndex]) {
        let inside = |place: Place| matches!(place, Place::Replica(index) if replicas.contains(&index));
        for ((from, to), direction) in &self.directions {
            if inside(*from) != inside(*to) {
                direction.set(Conditions::CUT);
            }
        }
    }

    /// Everything is well again.
    pub fn heal(&self) {
        self.everywhere(Conditions::default());
    }

    /// Datagrams that were lost on purpose, over all links.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.directions.values().map(|direction| direction.lost()).sum()
    }
}

/// How long a relay may take to end.
pub(crate) const RELAY_TICK: Duration = Duration::from_millis(50);

fn with_address(
    file: ClusterFile,
    replica: ReplicaIndex,
    address: SocketAddr,
) -> Result<ClusterFile, ClusterError> {
    let text = address.to_string().try_into().map_err(|_| ClusterError::Io {
        what: format!("address {address}"),
        source: std::io::Error::other("too long"),
    })?;
    Ok(file.with_address(replica, text))
}

fn address_of(file: &ClusterFile, replica: ReplicaIndex) -> std::io::Result<SocketAddr> {
    let address = file.addresses().get(usize::from(replica)).map(ToString::to_string).unwrap_or_default();
    let mut found = address.to_socket_addrs()?;
    found.next().ok_or_else(|| std::io::Error::other("an address that means nothing"))
}

/// Which datagrams are lost differs from link to link, and is the same in each run.
fn seed(from: Place, to: Place) -> u64 {
    let number = |place: Place| match place {
        Place::Replica(index) => u64::from(index) + 1,
        Place::Clients => 0,
    };
    number(from) * 64 + number(to) + 1
}
