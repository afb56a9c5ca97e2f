//! `quorate audit evidence`: who is proven faulty, by which signed statements.
//!
//! Invariant: every piece is judged here against the cluster file, whoever shows it; what does not hold is
//! never listed. Exit 0 all that was asked about holds, 1 some of it does not, 2 it cannot be told.

use crate::args::{EvidenceAction, EvidenceArgs, EvidenceSourceArgs, Output, TrustArgs};
use crate::commands::check::Judged;
use crate::commands::{connect, trust};
use crate::failure::{CommandResult, Failure, complain};
use crate::say;
use quorate_audit::{Court, Guilt, NoProof, StatementText, genesis_header, statements};
use quorate_client::ShownEvidence;
use quorate_crypto::{Ed25519Verifier, Hash};
use quorate_protocol::evidence::Place;
use quorate_protocol::{Evidence, Genesis, Header};
use quorate_store::{StoredEvidenceError, read_evidence, read_evidence_file, read_marker};
use quorate_transport::ClusterFile;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Exit status when some evidence does not hold.
const BROKEN: u8 = 1;
/// Exit status when nothing can be said.
const CANNOT_TELL: u8 = 2;

/// Runs one of the commands.
pub fn run(args: &EvidenceArgs) -> CommandResult {
    match &args.action {
        EvidenceAction::List(source) => list(source),
        EvidenceAction::Show { digest, export, source } => show(digest, export.as_deref(), source),
        EvidenceAction::Verify { file, trust, output } => verify(file, trust, *output),
    }
}

/// What is trusted.
struct Judge {
    genesis: Genesis,
    header: Header,
    verifier: Ed25519Verifier,
}

impl Judge {
    fn new(genesis: Genesis) -> Result<Self, Failure> {
        let header = genesis_header(&genesis)?;
        let verifier = trust::verifier(&genesis);
        Ok(Self { genesis, header, verifier })
    }

    fn judge(&self, evidence: &Evidence) -> Result<Guilt, NoProof> {
        let court = Court {
            cluster: self.genesis.cluster(),
            members: &self.genesis.members,
            genesis: &self.header,
            verifier: &self.verifier,
        };
        court.judge(evidence)
    }
}

/// A piece that holds.
struct Found {
    evidence: Evidence,
    guilt: Guilt,
    /// Replicas of the live cluster that showed it.
    held_by: BTreeSet<u8>,
}

/// What was found, and how well it was looked for.
#[derive(Default)]
struct Gathered {
    pieces: BTreeMap<Hash, Found>,
    /// Places that were asked, and those that answered.
    asked: usize,
    answered: usize,
    /// Answers without which nothing can be concluded from finding nothing.
    needed: usize,
    /// Pieces that are stored where they were looked for and do not hold.
    broken: usize,
}

impl Gathered {
    fn add(&mut self, judge: &Judge, evidence: Evidence, from: Option<u8>) -> Result<(), NoProof> {
        let digest = evidence.digest();
        if let Some(found) = self.pieces.get_mut(&digest) {
            found.held_by.extend(from);
            return Ok(());
        }
        let guilt = judge.judge(&evidence)?;
        self.pieces.insert(digest, Found { evidence, guilt, held_by: from.into_iter().collect() });
        Ok(())
    }

    fn add_shown(&mut self, judge: &Judge, shown: Vec<ShownEvidence>) {
        for ShownEvidence { replica, pieces } in shown {
            self.asked += 1;
            match pieces {
                Ok(pieces) => {
                    self.answered += 1;
                    for piece in pieces {
                        if let Err(refusal) = self.add(judge, piece, Some(replica)) {
                            complain(&format!("replica {replica} shows what proves nothing: {refusal}"));
                        }
                    }
                }
                Err(reason) => complain(&format!("replica {replica} shows nothing: {reason}")),
            }
        }
    }

    /// Ordered by whom they are about, how and where.
    fn in_order(&self) -> Vec<(&Hash, &Found)> {
        let mut all: Vec<(&Hash, &Found)> = self.pieces.iter().collect();
        all.sort_by_key(|(digest, found)| (found.evidence.place(), **digest));
        all
    }

    fn can_tell(&self) -> bool {
        !self.pieces.is_empty() || self.answered >= self.needed
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match (self.can_tell(), self.broken) {
            (_, 1..) => BROKEN,
            (true, 0) => 0,
            (false, 0) => CANNOT_TELL,
        })
    }
}

fn gather(args: &EvidenceSourceArgs) -> Result<(Judge, Gathered), Failure> {
    let judge = Judge::new(connect::read_cluster(&args.cluster)?.genesis().clone())?;
    let mut gathered = Gathered::default();
    match (&args.dir, &args.key) {
        (Some(directory), _) => from_directory(&judge, &mut gathered, directory)?,
        (None, Some(key)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let shown = runtime.block_on(async {
                let observer = connect::observe(&args.cluster, key).await?;
                Ok::<_, Failure>(observer.evidence().await)
            })?;
            // One of so many is correct, and correct replicas tell each other.
            gathered.needed = judge.genesis.members.f() + 1;
            gathered.add_shown(&judge, shown);
        }
        (None, None) => {
            return Err(Failure::new(
                "a live cluster needs --key (or QUORATE_KEY); a stored one --dir DIRECTORY",
            ));
        }
    }
    Ok((judge, gathered))
}

fn from_directory(judge: &Judge, gathered: &mut Gathered, directory: &Path) -> Result<(), Failure> {
    let identity = read_marker(directory)?.identity;
    if identity.cluster != judge.genesis.cluster() {
        let (found, wanted) = (identity.cluster, judge.genesis.cluster());
        return Err(Failure::new(format!("{} is of cluster {found}, not of {wanted}", directory.display())));
    }
    gathered.asked = 1;
    for stored in read_evidence(directory)? {
        let reason = match stored {
            Ok(evidence) => {
                let digest = evidence.digest();
                let kept = gathered.add(judge, evidence, None);
                kept.err().map(|refusal| format!("evidence {digest} proves nothing: {refusal}"))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason {
            gathered.broken += 1;
            complain(&reason);
        }
    }
    gathered.answered = 1;
    Ok(())
}

fn list(args: &EvidenceSourceArgs) -> CommandResult {
    let (_, gathered) = gather(args)?;
    let found = gathered.in_order();
    if args.output == Output::Json {
        let all: Vec<_> = found.iter().map(|(digest, found)| json(digest, found)).collect();
        say!("{}", serde_json::Value::from(all));
        return Ok(gathered.exit_code());
    }
    for (digest, found) in &found {
        let Place { culprit, kind, view, height, .. } = found.evidence.place();
        say!("{digest}  replica {culprit}  {kind}  view {view}  height {height}");
    }
    let faulty = faulty(found.iter().map(|(_, found)| *found));
    faulty.values().for_each(|faulty| say!("{faulty}"));
    let asked = format!("{} of {} asked", gathered.answered, gathered.asked);
    match (found.is_empty(), gathered.can_tell()) {
        (false, _) => {}
        (true, true) => say!("no evidence against any replica ({asked})"),
        (true, false) => say!("cannot tell: too few replicas answer ({asked})"),
    }
    Ok(gathered.exit_code())
}

fn show(wanted: &str, export: Option<&Path>, args: &EvidenceSourceArgs) -> CommandResult {
    let (judge, gathered) = gather(args)?;
    let named = |digest: &&Hash| digest.to_string().starts_with(&wanted.to_lowercase());
    let mut matching = gathered.pieces.keys().filter(named);
    let (Some(digest), None) = (matching.next(), matching.next()) else {
        return match gathered.pieces.keys().filter(named).count() {
            // It may be the one that was asked for.
            0 if gathered.broken > 0 => {
                complain(&format!("no evidence {wanted} that holds is there"));
                Ok(ExitCode::from(BROKEN))
            }
            0 => Err(Failure::new(format!(
                "no evidence {wanted} is there; `quorate audit evidence list` says what is"
            ))),
            many => Err(Failure::new(format!("{many} pieces of evidence begin with {wanted}"))),
        };
    };
    let Some(found) = gathered.pieces.get(digest) else { return Ok(ExitCode::from(CANNOT_TELL)) };
    match export {
        Some(path) if path == Path::new("-") => {
            std::io::stdout().write_all(&found.evidence.to_file())?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(path) => {
            std::fs::write(path, found.evidence.to_file())
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        }
        None => {}
    }
    print(&judge, digest, found, args.output);
    Ok(ExitCode::SUCCESS)
}

fn verify(file: &Path, trust: &TrustArgs, output: Output) -> CommandResult {
    let judge = Judge::new(trust::genesis(trust)?)?;
    let evidence = match read_evidence_file(file) {
        Ok(evidence) => evidence,
        Err(error @ StoredEvidenceError::File(_)) => return Err(error.into()),
        Err(error) => return Ok(broken(&error.to_string(), output)),
    };
    Ok(sentence(&judge, evidence, output))
}

/// Judges a file that `audit check` has read.
pub fn check(judged: &Judged<'_>) -> CommandResult {
    let evidence = match Evidence::from_file(judged.bytes) {
        Ok(evidence) => evidence,
        Err(error) => return Ok(judged.broken(&error)),
    };
    if evidence.cluster != judged.genesis.cluster() {
        return Err(judged.other_cluster(&format!("it is of cluster {}", evidence.cluster)));
    }
    Ok(sentence(&Judge::new(judged.genesis.clone())?, evidence, judged.output))
}

fn sentence(judge: &Judge, evidence: Evidence, output: Output) -> ExitCode {
    match judge.judge(&evidence) {
        Ok(guilt) => {
            let digest = evidence.digest();
            let found = Found { evidence, guilt, held_by: BTreeSet::new() };
            print(judge, &digest, &found, output);
            ExitCode::SUCCESS
        }
        Err(refusal) => broken(&refusal.to_string(), output),
    }
}

/// Says that a file proves nothing.
fn broken(text: &str, output: Output) -> ExitCode {
    match output {
        Output::Json => say!("{}", serde_json::json!({ "verdict": "broken", "text": text })),
        Output::Text => say!("proves nothing: {text}"),
    }
    ExitCode::from(BROKEN)
}

fn print(judge: &Judge, digest: &Hash, found: &Found, output: Output) {
    if output == Output::Json {
        say!("{}", json(digest, found));
        return;
    }
    let Place { culprit, kind, epoch, view, height } = found.evidence.place();
    say!("evidence {digest}");
    say!("replica {culprit} is proven faulty: {kind} in epoch {epoch}, view {view}, at height {height}");
    say!("rule broken: {}", found.guilt.rule);
    if found.guilt.assumes_quorum {
        let f = judge.genesis.members.f();
        say!("it rests on a certificate: it holds as long as at most {f} replicas are faulty");
    }
    for (number, shown) in (1..).zip(statements(&found.evidence)) {
        say!("{number}. {}", shown.text);
        if let (Some(bytes), Some(signature)) = (shown.signed_bytes(), shown.signature) {
            say!("   signed bytes {}", hex::encode(bytes));
            say!("   signature    {}", hex::encode(signature.0));
        }
    }
    if let Some(member) = judge.genesis.members.get(culprit) {
        say!("consensus key of replica {culprit}: {}", member.consensus);
    }
    if !found.held_by.is_empty() {
        say!("held by {}", numbers(&found.held_by));
    }
}

fn numbers(replicas: &BTreeSet<u8>) -> String {
    let all: Vec<String> = replicas.iter().map(ToString::to_string).collect();
    format!("{} {}", if all.len() == 1 { "replica" } else { "replicas" }, all.join(", "))
}

/// The stable form: programs rely on these names.
fn json(digest: &Hash, found: &Found) -> serde_json::Value {
    let Place { culprit, kind, epoch, view, height } = found.evidence.place();
    let statements: Vec<_> = statements(&found.evidence).iter().map(statement_json).collect();
    serde_json::json!({
        "verdict": "holds",
        "type": "evidence",
        "digest": digest.to_string(),
        "kind": kind.name(),
        "culprit": culprit,
        "epoch": epoch,
        "view": view,
        "height": height,
        "rule": found.guilt.rule,
        "assumes_quorum": found.guilt.assumes_quorum,
        "held_by": found.held_by.iter().collect::<Vec<_>>(),
        "statements": statements,
    })
}

fn statement_json(shown: &StatementText) -> serde_json::Value {
    serde_json::json!({
        "text": shown.text,
        "signer": shown.signer,
        "type": shown.name(),
        "view": shown.statement.map(|statement| statement.view),
        "height": shown.statement.map(|statement| statement.height),
        "digest": shown.statement.map(|statement| statement.digest.to_string()),
        "signed_bytes": shown.signed_bytes().map(hex::encode),
        "signature": shown.signature.map(|signature| hex::encode(signature.0)),
    })
}

/// A replica that is proven faulty, in one line.
pub struct Faulty {
    replica: u8,
    /// The first piece, by kind and place.
    first: Place,
    pieces: usize,
    kinds: BTreeSet<&'static str>,
}

impl Faulty {
    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "replica": self.replica, "pieces": self.pieces, "kinds": self.kinds })
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { culprit, kind, view, height, .. } = self.first;
        write!(formatter, "replica {culprit} is proven faulty: {kind} in view {view} at height {height}")?;
        if self.pieces > 1 {
            write!(formatter, ", and {} more", self.pieces - 1)?;
        }
        write!(formatter, "; `quorate audit evidence list` shows the signed statements")
    }
}

fn faulty<'a>(found: impl Iterator<Item = &'a Found>) -> BTreeMap<u8, Faulty> {
    let mut all: BTreeMap<u8, Faulty> = BTreeMap::new();
    for found in found {
        let first = found.evidence.place();
        let replica = first.culprit;
        let new = || Faulty { replica, first, pieces: 0, kinds: BTreeSet::new() };
        let faulty = all.entry(replica).or_insert_with(new);
        faulty.pieces += 1;
        faulty.kinds.insert(first.kind.name());
    }
    all
}

/// Who is proven faulty by what replicas show; what does not hold is left out.
pub fn proven_faulty(
    cluster: &ClusterFile,
    shown: Vec<ShownEvidence>,
) -> Result<BTreeMap<u8, Faulty>, Failure> {
    let judge = Judge::new(cluster.genesis().clone())?;
    let mut gathered = Gathered::default();
    for ShownEvidence { replica, pieces } in shown {
        for piece in pieces.unwrap_or_default() {
            let _ = gathered.add(&judge, piece, Some(replica));
        }
    }
    Ok(faulty(gathered.in_order().into_iter().map(|(_, found)| found)))
}
