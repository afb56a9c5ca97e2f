//! The log in the open formats, checked by programs that nobody here wrote: Go's packages for notes and tiled logs,
//! the crates `signed_note` and `tlog_tiles`, and openssl. They accept what a quorum signed, and refuse one signature
//! less.

mod serve;

use crate::harness::{Cluster, PATIENCE, Ran, run, shell, wait_until};
use quorate_audit::tlog::{HeadSigner, LogKeys};
use quorate_protocol::log_head::LogHead;
use serde_json::Value;
use signed_note::{Note, StandardVerifier, VerifierList};
use std::path::{Path, PathBuf};
use std::process::Command;
use tlog_tiles::{Checkpoint, Hash, Tile, TileHashReader, TileReader, check_record, record_hash, tree_hash};

fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

/// An export of a running cluster at rest, up to its last height.
fn export(cluster: &Cluster, out: &Path, more: &[&str]) -> Value {
    let newest = cluster.settle()["height"].as_u64().unwrap() + 1;
    let arguments = [&["audit", "tlog", "export", "--output", "json", out.to_str().unwrap()], more].concat();
    let mut found = Value::Null;
    wait_until("a quorum signs the newest head", PATIENCE, || {
        found = report(&cluster.quorate(&arguments).expect(0));
        found["size"].as_u64().unwrap() >= newest
    });
    found
}

fn some_heights(cluster: &Cluster, name: &str, count: u32) {
    let mount = cluster.mount("tlog");
    mount.shell(&format!("mkdir {name}; for i in $(seq {count}); do mkdir {name}/$i; done"));
    mount.unmount();
}

/// Go's `note` and `tlog`.
struct Go(PathBuf);

impl Go {
    fn build(place: &Path) -> Self {
        let program = place.join("check");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verifiers/check.go");
        let mut command = Command::new("go");
        command.args(["build", "-o"]).arg(&program).arg(source);
        // Debian's packages, and nothing from a network.
        let cache = place.join("go");
        command
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOFLAGS", "")
            .env("GOCACHE", cache);
        run(&mut command, PATIENCE).expect(0);
        Self(program)
    }

    fn check(&self, log: &Path, proofs: &[&Path]) -> Ran {
        run(Command::new(&self.0).arg(log.join("policy")).arg(log).args(proofs), PATIENCE)
    }
}

/// The lines of a policy that begin with a word, without it.
fn policy_lines(log: &Path, word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(log.join("policy")).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{word} ")));
    lines.map(str::to_owned).collect()
}

/// How many replicas signed a checkpoint, as `signed_note` counts them.
fn note_signers(log: &Path, checkpoint: &[u8]) -> Result<usize, String> {
    let verifier =
        |key: String| Box::new(StandardVerifier::new(&key).unwrap()) as Box<dyn signed_note::Verifier>;
    let known = VerifierList::new(policy_lines(log, "log").into_iter().map(verifier).collect());
    let note = Note::from_bytes(checkpoint).map_err(|error| error.to_string())?;
    note.verify(&known).map(|(verified, _)| verified.len()).map_err(|error| error.to_string())
}

/// Tiles on the disk, for `tlog_tiles`; its paths name the height of a tile, those of tlog-tiles do not.
struct Tiles<'a>(&'a Path);

impl TileReader for Tiles<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let path = |tile: &Tile| self.0.join(tile.path().replacen("tile/8/", "tile/", 1));
        Ok(tiles.iter().map(|tile| std::fs::read(path(tile)).unwrap()).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// The crates accept the log: a quorum of notes, every tile under the root, an entry with its proof.
fn check_with_crates(log: &Path) {
    let bytes = std::fs::read(log.join("checkpoint")).unwrap();
    assert!(note_signers(log, &bytes).unwrap() >= 3);
    let checkpoint = Checkpoint::from_bytes(Note::from_bytes(&bytes).unwrap().text()).unwrap();
    assert!(checkpoint.origin().starts_with("quorate/") && checkpoint.extension().is_empty());
    let (size, root) = (checkpoint.size(), *checkpoint.hash());
    let tiles = Tiles(log);
    let reader = TileHashReader::new(size, root, &tiles);
    assert_eq!(tree_hash(size, &reader).unwrap(), root);
    let bundle = std::fs::read(log.join(format!("tile/entries/000.p/{}", size % 256)));
    let bundle = bundle.or_else(|_| std::fs::read(log.join("tile/entries/000"))).unwrap();
    let genesis = &bundle[2..2 + usize::from(u16::from_be_bytes([bundle[0], bundle[1]]))];
    let proof = tlog_tiles::prove_record(size, 0, &reader).unwrap();
    check_record(&proof, size, root, 0, record_hash(genesis)).unwrap();
    assert!(check_record(&proof, size, root, 1, record_hash(genesis)).is_err());
    assert!(check_record(&proof, size, Hash([1; 32]), 0, record_hash(genesis)).is_err());
}

/// The number of the replica that stands first among those that signed.
fn first_cosigner(checkpoint: &str) -> &str {
    checkpoint.split("/replica-").nth(1).unwrap().split(' ').next().unwrap()
}

/// One note signature and one cosignature of the checkpoint hold for openssl, and for no other text.
fn check_with_openssl(place: &Path, log: &Path) {
    let script = r#"
        text() { sed '/^$/,$d' checkpoint; }
        # The key and the signature of the first line of a name, as openssl reads them.
        key() { printf '302a300506032b6570032100%s' "$(base64 -d <<<"$1" | tail -c 32 | od -An -tx1 | tr -d ' \n')" \
            | sed 's/../\\x&/g' | xargs -0 printf | openssl pkey -pubin -inform DER -out "$2"; }
        verify() { openssl pkeyutl -verify -pubin -inkey "$1" -rawin -in "$2" -sigfile "$3"; }
        cd "$LOG"
        origin=$(head -1 checkpoint)
        # Base64 may hold a plus as well: the key is what follows the second one.
        key "$(grep '^log ' policy | sed -n "$((FIRST + 1))p" | cut -d+ -f3-)" "$PLACE/note.pem"
        key "$(grep "^witness replica-$FIRST " policy | cut -d+ -f3-)" "$PLACE/cosigner.pem"
        text > "$PLACE/text"
        sed -n "s|^— $origin ||p" checkpoint | head -1 | base64 -d | tail -c 64 > "$PLACE/note.sig"
        verify "$PLACE/note.pem" "$PLACE/text" "$PLACE/note.sig"
        sed -n "s|^— $origin/replica-$FIRST ||p" checkpoint | base64 -d > "$PLACE/cosignature"
        tail -c 64 "$PLACE/cosignature" > "$PLACE/cosigner.sig"
        time=$((16#$(head -c 12 "$PLACE/cosignature" | tail -c 8 | od -An -tx1 | tr -d ' \n')))
        { printf 'cosignature/v1\ntime %s\n' "$time"; text; } > "$PLACE/cosigned"
        verify "$PLACE/cosigner.pem" "$PLACE/cosigned" "$PLACE/cosigner.sig"
        sed -i 2s/^/1/ "$PLACE/text" "$PLACE/cosigned"
        if verify "$PLACE/note.pem" "$PLACE/text" "$PLACE/note.sig"; then exit 9; fi
        if verify "$PLACE/cosigner.pem" "$PLACE/cosigned" "$PLACE/cosigner.sig"; then exit 9; fi
    "#;
    let checkpoint = std::fs::read_to_string(log.join("checkpoint")).unwrap();
    let first = first_cosigner(&checkpoint);
    let (log, place) = (log.display(), place.display());
    shell(Path::new("/"), &format!("export LOG='{log}' PLACE='{place}' FIRST={first}\n{script}")).expect(0);
}

/// A copy of a log whose checkpoint was changed.
fn changed(place: &Path, log: &Path, name: &str, change: impl Fn(&str) -> String) -> PathBuf {
    let copy = place.join(name);
    run(Command::new("cp").arg("-r").arg(log).arg(&copy), PATIENCE).expect(0);
    let checkpoint = std::fs::read_to_string(log.join("checkpoint")).unwrap();
    std::fs::write(copy.join("checkpoint"), change(&checkpoint)).unwrap();
    copy
}

/// The checkpoint with only so many lines of notes and of cosignatures.
fn with_signatures(checkpoint: &str, notes: usize, cosignatures: usize) -> String {
    let (text, lines) = checkpoint.split_once("\n\n").unwrap();
    let (cosigned, signed): (Vec<&str>, Vec<&str>) =
        lines.lines().partition(|line| line.contains("/replica-"));
    let lines = signed.into_iter().take(notes).chain(cosigned.into_iter().take(cosignatures));
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    format!("{text}\n\n{lines}")
}

#[test]
fn others_accept_what_a_quorum_signed_and_nothing_less() {
    let cluster = Cluster::start();
    some_heights(&cluster, "d", 300);
    let place = cluster.home().to_owned();
    let log = place.join("log");
    let exported = export(&cluster, &log, &[]);
    assert!(exported["size"].as_u64().unwrap() > 256, "more than one tile: {exported}");
    let ours = |log: &Path| {
        cluster.quorate_alone(&["audit", "tlog", "check", "--output", "json", log.to_str().unwrap()])
    };
    assert_eq!(report(&ours(&log).expect(0))["root"], exported["root"]);
    // A height of a full tile, the last one, and the genesis.
    let proof = |height: u64| {
        let file = place.join(format!("{height}.tlog-proof"));
        let (height, log) = (height.to_string(), log.to_str().unwrap());
        cluster
            .quorate_alone(&["audit", "tlog", "prove", log, &height, "--out", file.to_str().unwrap()])
            .expect(0);
        cluster.quorate_alone(&["audit", "check", file.to_str().unwrap()]).expect(0);
        file
    };
    let proofs = [0, 100, exported["size"].as_u64().unwrap() - 1].map(proof);
    // Nothing of the cluster is needed from here on but its file, and another cluster's does not do.
    cluster.local.stop_all();
    let other = Cluster::create();
    other
        .quorate_alone(&["audit", "check", proofs[1].to_str().unwrap()])
        .expect_one_line(2, &["another log"]);
    let elsewhere = std::fs::read_to_string(&proofs[1]).unwrap().replacen("index 100\n", "index 101\n", 1);
    let moved = place.join("moved.tlog-proof");
    std::fs::write(&moved, elsewhere).unwrap();
    let broken = cluster.quorate_alone(&["audit", "check", moved.to_str().unwrap()]).expect(1).stdout;
    assert!(broken.starts_with("proves nothing: "), "{broken}");
    let go = Go::build(&place);
    let proofs: Vec<&Path> = proofs.iter().map(PathBuf::as_path).collect();
    let said = go.check(&log, &proofs).expect(0).stdout;
    assert!(said.starts_with(&format!("size {} ", exported["size"])), "{said}");
    check_with_crates(&log);
    check_with_openssl(&place, &log);
    // One signature too few, of either kind: refused by all that count them.
    for (name, notes, cosignatures) in [("few-notes", 2, 3), ("few-cosignatures", 3, 2)] {
        let few = changed(&place, &log, name, |text| with_signatures(text, notes, cosignatures));
        ours(&few).expect(1);
        assert!(go.check(&few, &[]).expect(1).stderr.contains("are needed"));
        let bytes = std::fs::read(few.join("checkpoint")).unwrap();
        assert_eq!(note_signers(&few, &bytes), Ok(notes));
    }
    let three = changed(&place, &log, "three", |text| with_signatures(text, 3, 3));
    ours(&three).expect(0);
    go.check(&three, &[]).expect(0);
    // Another size, and another root, under the same signatures.
    let larger = changed(&place, &log, "larger", |text| text.replacen('\n', "\n1", 1));
    let root = |text: &str| {
        let root = text.lines().nth(2).unwrap().to_owned();
        let first = if root.starts_with('A') { 'B' } else { 'A' };
        text.replacen(&root, &format!("{first}{}", &root[1..]), 1)
    };
    for log in [larger, changed(&place, &log, "root", root)] {
        ours(&log).expect(1);
        go.check(&log, &[]).expect(1);
        assert!(note_signers(&log, &std::fs::read(log.join("checkpoint")).unwrap()).is_err());
    }
}

#[test]
fn an_export_grows_and_is_never_turned_back_or_written_over() {
    let cluster = Cluster::start();
    some_heights(&cluster, "a", 30);
    let log = cluster.home().join("log");
    let first = export(&cluster, &log, &[]);
    let before = std::fs::read(log.join("checkpoint")).unwrap();
    some_heights(&cluster, "b", 250);
    // The heights from a replica's own log, the signatures from the directories of three.
    cluster.settle();
    std::thread::sleep(std::time::Duration::from_secs(3));
    cluster.local.stop_all();
    let directories: Vec<String> =
        (0..4).map(|replica| cluster.local.replica_directory(replica).to_str().unwrap().to_owned()).collect();
    let again = |more: &[&str]| {
        let mut arguments = vec!["audit", "tlog", "export", "--output", "json", log.to_str().unwrap()];
        arguments.extend(["--dir", directories[1].as_str()]);
        arguments.extend(more);
        cluster.quorate(&arguments)
    };
    let few = ["--heads", directories[0].as_str(), "--heads", directories[2].as_str()];
    again(&few).expect_one_line(2, &["no head of the log is signed by 3 replicas"]);
    let all: Vec<&str> = directories.iter().flat_map(|directory| ["--heads", directory.as_str()]).collect();
    let grown = report(&again(&all).expect(0));
    assert!(grown["size"].as_u64() > first["size"].as_u64() && grown["kept"] == 0, "{grown}");
    let check = || cluster.quorate_alone(&["audit", "tlog", "check", log.to_str().unwrap()]);
    check().expect(0);
    let same = report(&again(&all).expect(0));
    assert_eq!((&same["size"], &same["written"]), (&grown["size"], &Value::from(0)));
    // What was published is never written over: not by another log, nor where a file was changed.
    let entries = log.join("tile/entries/000");
    let good = std::fs::read(&entries).unwrap();
    let mut bad = good.clone();
    bad[1000] ^= 1;
    std::fs::write(&entries, &bad).unwrap();
    assert_eq!(report(&again(&all).expect(1))["verdict"], "broken");
    check().expect(1);
    assert_eq!(std::fs::read(&entries).unwrap(), bad);
    std::fs::write(&entries, &good).unwrap();
    check().expect(0);
    // An older history does not lead to the newer head.
    assert_ne!(std::fs::read(log.join("checkpoint")).unwrap(), before);
    let other = Cluster::create();
    let foreign = ["audit", "tlog", "export", log.to_str().unwrap(), "--dir", directories[1].as_str()];
    let arguments = [&foreign[..], &["--heads", directories[0].as_str()]].concat();
    other.quorate(&arguments).expect_one_line(2, &["is of cluster"]);
    let elsewhere = cluster.home().join("cluster");
    let arguments: Vec<&str> =
        ["audit", "tlog", "export", elsewhere.to_str().unwrap(), "--dir", &directories[1]].into();
    cluster.quorate(&[arguments, all].concat()).expect_one_line(2, &["neither empty nor an exported log"]);
}

#[test]
fn who_signs_two_heads_of_one_size_is_convicted_offline() {
    let cluster = Cluster::start();
    some_heights(&cluster, "d", 10);
    let log = cluster.home().join("log");
    let size = export(&cluster, &log, &[])["size"].as_u64().unwrap();
    cluster.local.stop_all();
    // One of those that signed it signs another log of that size, as only its key can.
    let (checkpoint, out) = (log.join("checkpoint"), cluster.home().join("found"));
    let culprit: u8 = first_cosigner(&std::fs::read_to_string(&checkpoint).unwrap()).parse().unwrap();
    let key = cluster.local.replica_directory(culprit).join("node.key");
    let seed = quorate_transport::KeyFile::read_node(&key).unwrap();
    let file = quorate_transport::ClusterFile::read(&cluster.local.cluster_path()).unwrap();
    let head = LogHead { size, root: quorate_crypto::Hash([7; 32]) };
    let signed = HeadSigner::new(&file.cluster(), &seed).sign(head, 1_700_000_000).unwrap();
    let keys = LogKeys::new(&file.cluster(), file.members()).unwrap();
    let forged = cluster.home().join("forged");
    std::fs::write(&forged, keys.note(head, &[(culprit, signed)]).to_string()).unwrap();
    let conflict = |one: &Path, other: &Path| {
        let [one, other, out] = [one, other, &out].map(|path| path.to_str().unwrap());
        cluster.quorate_alone(&["audit", "tlog", "conflict", one, other, "--out", out])
    };
    conflict(&checkpoint, &checkpoint).expect(1);
    assert!(!out.exists());
    let said = conflict(&checkpoint, &forged).expect(0).stdout;
    assert!(said.starts_with(&format!("replica {culprit} is proven faulty: ConflictingHead")), "{said}");
    let evidence = out.join(format!("replica-{culprit}.evidence"));
    let check = ["audit", "check", "--output", "json", evidence.to_str().unwrap()];
    let judged = report(&cluster.quorate_alone(&check).expect(0));
    assert_eq!(
        (&judged["kind"], &judged["culprit"]),
        (&Value::from("ConflictingHead"), &Value::from(culprit))
    );
    assert_eq!(judged["statements"][0]["type"], "LOG-HEAD");
    // Nothing is written over.
    conflict(&checkpoint, &forged).expect_one_line(2, &["exists"]);
}
