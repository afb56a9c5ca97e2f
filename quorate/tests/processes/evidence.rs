//! Evidence from one replica's directory to all replicas, to `audit evidence` and to `status`.

use crate::harness::{Cluster, PATIENCE, Ran, quorate, run, wait_until};
use quorate_crypto::{Ed25519Signer, Hash, Role, Signature, Signer};
use quorate_protocol::evidence::{Contradiction, Proof, SignedDigest};
use quorate_protocol::{Evidence, PeerMessage, PrePrepare, Vote, VoteKind};
use quorate_store::evidence::evidence_path;
use quorate_transport::{
    ClientLimits, ClusterFile, KeyFile, PeerEvent, ReplicaTransport, ReplicaTransportConfiguration,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const HEIGHT: u64 = 7;

fn signer(cluster: &Cluster, replica: u8) -> Ed25519Signer {
    let seed = KeyFile::read_node(&cluster.local.replica_directory(replica).join("node.key")).unwrap();
    Ed25519Signer::new(seed.derive(Role::Consensus))
}

fn cluster_file(cluster: &Cluster) -> ClusterFile {
    ClusterFile::read(cluster.local.cluster_path().as_path()).unwrap()
}

fn contradiction(digests: [u8; 2], sign: impl Fn(Hash) -> Signature) -> Contradiction {
    let [one, other] = digests.map(|byte| {
        let digest = Hash([byte; 32]);
        SignedDigest { digest, signature: sign(digest) }
    });
    Contradiction::new(2, HEIGHT, one, other)
}

/// Two COMMITs of a replica at one place, under its own key.
fn double_vote(cluster: &Cluster, replica: u8) -> Evidence {
    let (id, signer) = (cluster_file(cluster).cluster(), signer(cluster, replica));
    let both = contradiction([7, 8], |header| {
        let signature = Signature::ZERO;
        let vote =
            Vote { kind: VoteKind::Commit, epoch: 0, view: 2, height: HEIGHT, header, replica, signature };
        signer.sign(&vote.statement(id))
    });
    Evidence::new(id, 0, replica, Proof::ConflictingCommit(both))
}

/// Two proposals of the leader of view 2.
fn double_proposal(cluster: &Cluster) -> Evidence {
    let (id, signer) = (cluster_file(cluster).cluster(), signer(cluster, 2));
    let both = contradiction([1, 2], |digest| signer.sign(&PrePrepare::statement(id, 0, 2, HEIGHT, digest)));
    Evidence::new(id, 0, 2, Proof::ConflictingPrePrepare(both))
}

/// Puts a piece where a replica that does not run keeps its own.
fn plant(directory: &Path, evidence: &Evidence) -> PathBuf {
    let folder = evidence_path(directory);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}.evidence", evidence.digest()));
    std::fs::write(&path, evidence.to_file()).unwrap();
    path
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr))
}

fn list_of(cluster: &Cluster, directory: &Path) -> Ran {
    let mut command = quorate(["audit", "evidence", "list", "--output", "json", "--dir"]);
    run(command.arg(directory).arg("--cluster").arg(cluster.local.cluster_path()), PATIENCE)
}

fn live(cluster: &Cluster) -> Value {
    json(&cluster.quorate(&["audit", "evidence", "list", "--output", "json"]).expect(0))
}

#[test]
fn au9_evidence_reaches_everybody_and_survives() {
    let cluster = Cluster::create();
    let (votes, proposals) = (double_vote(&cluster, 3), double_proposal(&cluster));
    let home = cluster.local.replica_directory(0);
    let planted = plant(&home, &votes);
    plant(&home, &proposals);
    cluster.local.start_all().unwrap();
    cluster.settle();
    let everywhere = |list: &Value| {
        let all = list.as_array().unwrap();
        all.len() == 2 && all.iter().all(|piece| piece["held_by"].as_array().unwrap().len() == 4)
    };
    wait_until("all replicas hold it", Duration::from_secs(30), || everywhere(&live(&cluster)));
    let list = live(&cluster);
    let piece = list.as_array().unwrap().iter().find(|piece| piece["culprit"] == 3).unwrap();
    assert_eq!(piece["kind"], "ConflictingCommit");
    assert_eq!((&piece["epoch"], &piece["view"], &piece["height"]), (&0.into(), &2.into(), &HEIGHT.into()));
    assert_eq!(piece["digest"], votes.digest().to_string());
    assert!(piece["rule"].as_str().unwrap().contains("COMMITs one header"));
    let statements = piece["statements"].as_array().unwrap();
    assert_eq!(statements.len(), 2);
    for (statement, byte) in statements.iter().zip(["07", "08"]) {
        assert_eq!((&statement["type"], &statement["signer"]), (&"COMMIT".into(), &3.into()));
        assert_eq!(statement["digest"], byte.repeat(32));
        let signed = hex::decode(statement["signed_bytes"].as_str().unwrap()).unwrap();
        let signature = hex::decode(statement["signature"].as_str().unwrap()).unwrap();
        assert_eq!((signed.len(), signature.len()), (quorate_crypto::STATEMENT_BYTES, 64));
    }
    // A status says it, and is as healthy as before: everybody votes.
    let (code, status) = cluster.status();
    assert_eq!((code, status["proven_faulty"].as_array().unwrap().len()), (0, 2));
    let text = cluster.quorate(&["status"]).expect(0).stdout;
    assert!(text.contains("replica 3 is proven faulty: ConflictingCommit in view 2 at height 7"), "{text}");
    // It is kept: by a replica that learned it from another one, too.
    cluster.local.stop_all();
    for replica in cluster.local.indices() {
        let stored = json(&list_of(&cluster, &cluster.local.replica_directory(replica)).expect(0));
        assert_eq!(stored.as_array().unwrap().len(), 2, "replica {replica}");
    }
    // A damaged file is told, and keeps no replica from starting and learning the piece anew.
    let mut bytes = std::fs::read(&planted).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&planted, &bytes).unwrap();
    let ran = list_of(&cluster, &home).expect(1);
    assert!(ran.stderr.contains("damaged"), "{}", ran.stderr);
    assert_eq!(json(&ran).as_array().unwrap().len(), 1);
    cluster.local.start_all().unwrap();
    wait_until("the damaged piece is back", Duration::from_secs(30), || everywhere(&live(&cluster)));
}

#[test]
fn a_piece_is_shown_exported_and_judged_offline() {
    let cluster = Cluster::create();
    let (evidence, home) = (double_vote(&cluster, 1), cluster.local.replica_directory(0));
    plant(&home, &evidence);
    let (digest, file) = (evidence.digest().to_string(), cluster.home().join("piece"));
    let show = |arguments: &[&str]| {
        let mut command = quorate(["audit", "evidence", "show"]);
        command.args(arguments).arg("--dir").arg(&home).arg("--cluster").arg(cluster.local.cluster_path());
        run(&mut command, PATIENCE)
    };
    let text = show(&[&digest[..12], "--export", file.to_str().unwrap()]).expect(0).stdout;
    for words in ["replica 1 is proven faulty", "rule broken", "signed COMMIT in view 2", "signature"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), evidence.to_file());
    show(&["00000000000000000000"]).expect_one_line(2, &["no evidence"]);
    let verify = |file: &Path, of: &Cluster| {
        let mut command = quorate(["audit", "evidence", "verify"]);
        run(command.arg(file).arg("--cluster").arg(of.local.cluster_path()), PATIENCE)
    };
    assert!(verify(&file, &cluster).expect(0).stdout.contains("ConflictingCommit"));
    let shown = show(&[&digest, "--output", "json"]).expect(0);
    assert_eq!(json(&shown)["culprit"], 1);
    // Another cluster's file, changed bytes, a slander under no signature, no file at all.
    let other = Cluster::create();
    assert!(verify(&file, &other).expect(1).stdout.contains("cluster"));
    let mut bytes = evidence.to_file();
    bytes[70] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert!(verify(&file, &cluster).expect(1).stdout.starts_with("proves nothing"));
    let slander = Evidence { culprit: 2, ..evidence };
    std::fs::write(&file, slander.to_file()).unwrap();
    assert!(verify(&file, &cluster).expect(1).stdout.contains("signature of replica 2"));
    verify(&cluster.home().join("nothing"), &cluster).expect_one_line(2, &["nothing"]);
    // Nothing at all is found in a replica of whom nobody complained.
    let none = list_of(&cluster, &cluster.local.replica_directory(3)).expect(0);
    assert_eq!(json(&none), Value::Array(Vec::new()));
    // Nobody answers: that is no evidence of anything.
    cluster.quorate(&["audit", "evidence", "list"]).expect(2);
}

/// Speaks as replica 3, with its keys.
async fn impostor(cluster: &Cluster, pieces: Vec<Evidence>) {
    let file = cluster_file(cluster);
    let key = cluster.local.replica_directory(3).join("node.key");
    let address = file.addresses()[3].to_string();
    let mut transport = ReplicaTransport::start(ReplicaTransportConfiguration {
        cluster: file.cluster(),
        members: file.members().clone(),
        me: 3,
        secret: KeyFile::read_node(&key).unwrap().derive(Role::Transport),
        listen: address.parse().unwrap(),
        addresses: file.addresses().to_vec(),
        limits: ClientLimits::default(),
    })
    .unwrap();
    let offers = |pieces: &[Evidence]| {
        let offers = pieces.iter().map(|piece| quorate_protocol::evidence::EvidenceOffer {
            digest: piece.digest(),
            culprit: piece.culprit,
            kind: piece.kind(),
        });
        PeerMessage::OfferEvidence(offers.collect::<Vec<_>>().try_into().unwrap())
    };
    let mut asked = 0;
    while asked < pieces.len() {
        let event = tokio::time::timeout(Duration::from_secs(20), transport.peer_events.recv()).await;
        match event.expect("replica 0 asks for what it is offered").unwrap() {
            PeerEvent::Connected(0) => {
                // Unasked, it is nothing.
                transport.peers.send(0, &PeerMessage::Evidence(Box::new(pieces[0].clone())));
                for piece in &pieces {
                    transport.peers.send(0, &offers(std::slice::from_ref(piece)));
                }
            }
            PeerEvent::Message { from: 0, message: PeerMessage::FetchEvidence { digest }, .. } => {
                let piece = pieces.iter().find(|piece| piece.digest() == digest).unwrap();
                transport.peers.send(0, &PeerMessage::Evidence(Box::new(piece.clone())));
                asked += 1;
                // The next one is offered again, because only one is asked for at a time.
                transport.peers.send(0, &offers(&pieces[asked.min(pieces.len() - 1)..]));
            }
            _ => {}
        }
    }
    // Long enough for the last one to arrive.
    let until = tokio::time::Instant::now() + Duration::from_secs(1);
    while let Ok(Some(_)) = tokio::time::timeout_at(until, transport.peer_events.recv()).await {}
    transport.close().await;
}

#[test]
fn a_liar_can_show_what_it_likes_and_convicts_nobody_but_itself() {
    let cluster = Cluster::start();
    cluster.settle();
    cluster.local.stop(3).unwrap();
    let truth = double_vote(&cluster, 3);
    let slander = Evidence { culprit: 1, ..double_vote(&cluster, 3) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(impostor(&cluster, vec![truth.clone(), slander]));
    cluster.local.start(3).unwrap();
    let known = |list: &Value| {
        let all = list.as_array().unwrap();
        all.len() == 1 && all[0]["held_by"].as_array().unwrap().len() == 4
    };
    wait_until("all know the one", Duration::from_secs(30), || known(&live(&cluster)));
    assert_eq!(live(&cluster)[0]["digest"], truth.digest().to_string());
    assert!(cluster.log(0).contains("a peer's message is refused"), "{}", cluster.log(0));
}
