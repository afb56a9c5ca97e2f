//! `quorate audit tlog check`, and `audit check` of a tlog-proof: offline, against the trusted genesis.
//!
//! Invariant: the log holds if a quorum signed its head, every entry is the header of its height and names the root
//! over those before it, and every file is the one that these entries make.

use super::directory::LogDirectory;
use super::trusted;
use crate::args::{Output, TlogCheckArgs};
use crate::commands::check::Judged;
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::genesis_header;
use quorate_audit::tlog::{
    CheckedHead, HeadError, LogKeys, LogProof, LogProofError, Resource, SignedNote, TileBuilder, TilePath,
    TileRow, TrustPolicy, parse_entries, resources,
};
use quorate_crypto::decode;
use quorate_merkle::rfc6962::leaf_hash;
use quorate_protocol::Header;
use std::process::ExitCode;

/// Exit status when it does not hold.
const BROKEN: u8 = 1;

/// Checks a directory.
pub fn run(args: &TlogCheckArgs) -> CommandResult {
    let (cluster, keys) = trusted(&args.cluster)?;
    let directory = LogDirectory::new(&args.directory);
    let cannot =
        |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", args.directory.display()));
    let checkpoint = directory.read_checkpoint().map_err(cannot)?;
    let checkpoint =
        checkpoint.ok_or_else(|| Failure::new(format!("{} has no checkpoint", args.directory.display())))?;
    let genesis = genesis_header(cluster.genesis())?;
    match hold(&directory, &checkpoint, &keys, &genesis) {
        Ok(checked) => {
            print(&checked, args.output);
            Ok(ExitCode::SUCCESS)
        }
        Err(text) => {
            match args.output {
                Output::Json => say!("{}", serde_json::json!({ "verdict": "broken", "text": text })),
                Output::Text => say!("broken: {text}"),
            }
            Ok(ExitCode::from(BROKEN))
        }
    }
}

/// The head, if all that is there holds; otherwise what does not.
fn hold(
    directory: &LogDirectory,
    checkpoint: &[u8],
    keys: &LogKeys,
    genesis: &Header,
) -> Result<CheckedHead, String> {
    let note = SignedNote::parse(checkpoint).map_err(|error| format!("the checkpoint: {error}"))?;
    let checked = keys.check(&note).map_err(|error| format!("the checkpoint: {error}"))?;
    let policy = directory.read_policy().map_err(|error| format!("the policy cannot be read: {error}"))?;
    let policy = TrustPolicy::parse(&policy).map_err(|error| format!("the policy: {error}"))?;
    if policy != keys.policy() {
        return Err("the policy names other keys than the cluster file".to_owned());
    }
    let read = |path: &TilePath| {
        directory.read_tile(path).map_err(|error| format!("{path} cannot be read: {error}"))
    };
    let same = |files: Vec<Resource>| {
        files.into_iter().try_for_each(|file| match read(&file.path)? == file.bytes {
            true => Ok(()),
            false => Err(format!("{} is not what the entries make", file.path)),
        })
    };
    let mut builder = TileBuilder::new();
    for path in resources(checked.head.size).take_while(|path| path.row() == TileRow::Entries) {
        let bytes = read(&path)?;
        for entry in parse_entries(&bytes, path.width()).map_err(|error| format!("{path}: {error}"))? {
            let height = builder.size();
            let header: Header =
                decode(entry).map_err(|error| format!("entry {height} is no header: {error}"))?;
            let expected = height == header.height
                && if height == 0 { header == *genesis } else { header.cluster == genesis.proposal };
            if !expected {
                return Err(format!("entry {height} is another header"));
            }
            if header.log_root != builder.root() {
                return Err(format!(
                    "the header of height {height} names another log than the entries before it"
                ));
            }
            same(builder.append(entry).map_err(|error| error.to_string())?)?;
        }
    }
    same(builder.partial())?;
    if builder.root() != checked.head.root {
        return Err("the entries do not lead to the root that was signed".to_owned());
    }
    Ok(checked)
}

fn print(checked: &CheckedHead, output: Output) {
    let CheckedHead { head, notes, cosignatures } = checked;
    match output {
        Output::Json => say!(
            "{}",
            serde_json::json!({
                "verdict": "holds",
                "size": head.size,
                "root": head.root.to_string(),
                "signers": notes,
                "cosigners": cosignatures,
            })
        ),
        Output::Text => say!(
            "holds: the log of size {}, root {}, signed by {} replicas and cosigned by {}",
            head.size,
            head.root,
            notes.len(),
            cosignatures.len()
        ),
    }
}

/// `audit check` of a file that begins as a tlog-proof.
pub fn check_proof(judged: &Judged<'_>) -> CommandResult {
    let genesis = judged.genesis;
    let keys = LogKeys::new(&genesis.cluster(), &genesis.members)?;
    let proof = match LogProof::parse(judged.bytes) {
        Ok(proof) => proof,
        Err(error) => return Ok(judged.broken(&error)),
    };
    let Some(entry) = &proof.extra else {
        return Err(judged.cannot_tell(&"it has no entry beside it that it could be a proof of"));
    };
    let checked = match proof.verify(&keys, &leaf_hash(entry)) {
        Ok(checked) => checked,
        Err(error @ LogProofError::Head(HeadError::Origin)) => return Err(judged.other_cluster(&error)),
        Err(error) => return Ok(judged.broken(&error)),
    };
    let header: Header = match decode(entry) {
        Ok(header) => header,
        Err(error) => return Ok(judged.broken(&format!("its entry is no header: {error}"))),
    };
    let (height, hash) = (header.height, header.hash());
    if height != proof.index {
        return Ok(judged.broken(&format!("its entry is of height {height} and stands at {}", proof.index)));
    }
    match judged.output {
        Output::Json => say!(
            "{}",
            serde_json::json!({
                "verdict": "holds",
                "type": "log proof",
                "height": height,
                "header": hash.to_string(),
                "state_root": header.state_root.to_string(),
                "size": checked.head.size,
                "root": checked.head.root.to_string(),
                "signers": checked.notes,
            })
        ),
        Output::Text => say!(
            "holds: the header {hash} of height {height}, state root {}, is in the log of size {} that {} replicas signed",
            header.state_root,
            checked.head.size,
            checked.notes.len()
        ),
    }
    Ok(ExitCode::SUCCESS)
}
