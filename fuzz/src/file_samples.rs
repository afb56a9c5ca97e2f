//! Seeds of what lies in files that people handle: cluster and key files, bundles, proofs.
//!
//! Invariant: everything here is a function of constants.

use quorate_audit::{BundleWriter, ProvenAnswer};
use quorate_crypto::{Address, Ed25519Signer, NodeSeed, SecretKey, Signer};
use quorate_protocol::client::ReadAnswer;
use quorate_protocol::query::Query;
use quorate_transport::{ClusterFile, KeyFile};

use crate::chain;
use crate::samples::{answer, cluster, committed, credential, name};

pub fn cluster_file() -> Vec<Vec<u8>> {
    let file = ClusterFile::new(chain::genesis());
    let moved = file.clone().with_address(1, Address::try_from("[::1]:7").expect("a short address"));
    vec![
        file.to_toml().into_bytes(),
        moved.to_toml().into_bytes(),
        b"format = \"quorate-cluster\"\n".to_vec(),
    ]
}

pub fn bundle() -> Vec<Vec<u8>> {
    let mut writer = BundleWriter::new(Vec::new(), &cluster().id).expect("memory takes bytes");
    let empty = BundleWriter::new(Vec::new(), &cluster().id).and_then(BundleWriter::finish);
    (0..2).for_each(|_| writer.add(&committed()).expect("a small height"));
    vec![writer.finish().expect("memory takes bytes"), empty.expect("memory takes bytes")]
}

pub fn proven() -> Vec<Vec<u8>> {
    let query = Query::Walk { start: 1, components: vec![name("a")].try_into().expect("few") };
    let key = SecretKey::from_bytes(&[3; 32]);
    let key = Ed25519Signer::new(key).public();
    let answered = |answer| ProvenAnswer {
        cluster: chain::genesis().cluster(),
        key,
        credential: credential(),
        query: query.clone(),
        answer,
    };
    let uncertified = ReadAnswer { certificate: None, ..answer() };
    [answer(), uncertified].map(|answer| answered(answer).to_file()).into()
}

pub fn key_file() -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let written = |file: &KeyFile, name: &str| {
        let path = directory.path().join(name);
        file.write(&path).expect("writing to a temporary directory");
        std::fs::read(path).expect("reading what was written")
    };
    let principal = SecretKey::from_bytes(&[3; 32]);
    vec![
        written(&KeyFile::Node(NodeSeed::from_bytes([2; 32])), "node"),
        written(&KeyFile::Principal(principal), "principal"),
        b"quorate node key v2\n".to_vec(),
    ]
}
