//! Who speaks to replicas of what is another principal's.

use crate::harness::Cluster;
use quorate_client::{Client, ClientOptions};
use quorate_crypto::{Bounded, Ed25519Signer, SecretKey};
use quorate_protocol::client::{ClientReply, ClientRequest, Refusal};
use quorate_protocol::file::Name;
use quorate_protocol::{Credential, Groups, OperationBody};
use quorate_transport::{ClientEndpoint, ClusterFile, KeyFile};
use std::time::{Duration, Instant};

#[test]
fn the_results_of_a_session_are_for_its_own_principal() {
    let cluster = Cluster::start();
    let file = ClusterFile::read(&cluster.local.cluster_path()).unwrap();
    let own = KeyFile::read_principal(&cluster.local.key_path()).unwrap();
    let stranger = SecretKey::from_bytes(&[9; 32]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(file.clone(), own.clone(), ClientOptions::default()).await.unwrap();
        let root = Credential { uid: 0, gid: 0, groups: Groups::Listed(Bounded::new()) };
        let name = Name::new(b"directory").unwrap();
        let body =
            OperationBody::Mkdir { parent: 1, name, mode: 0o755, umask: 0, ino: None, entropy: [1; 16] };
        client.execute(&root, body).await.unwrap();
        let request = ClientRequest::Results { session: client.session(), first: 1 };
        let endpoint = ClientEndpoint::new().unwrap();
        let ask = async |key: &SecretKey| {
            let signer = Ed25519Signer::new(key.clone());
            let connected = endpoint.connect(&file.target(0).unwrap(), Some(&signer)).await;
            let (connection, _notices) = connected.unwrap();
            connection.request(&request).await.unwrap()
        };
        // The replica may be a moment behind the quorum that answered.
        let began = Instant::now();
        while !matches!(ask(&own).await, ClientReply::Results(_)) {
            assert!(began.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let refused = ask(&stranger).await;
        assert!(matches!(refused, ClientReply::Refused { refusal: Refusal::Denied, .. }), "{refused:?}");
        client.close().await;
    });
}
