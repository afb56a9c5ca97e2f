//! `quorate audit tlog prove`: the proof that a height is in the log, out of an exported directory.
//!
//! Invariant: a proof that does not hold is not written.

use super::directory::LogDirectory;
use super::trusted;
use crate::args::TlogProveArgs;
use crate::commands::prove::write;
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_audit::tlog::{
    LogProof, SignedNote, TILE_HASHES, TileError, TilePath, TileRow, inclusion_path, parse_entries,
    parse_hashes, resources,
};
use quorate_crypto::Hash;
use quorate_merkle::rfc6962::leaf_hash;
use std::process::ExitCode;

/// Exit status when the directory does not hold.
const BROKEN: u8 = 1;

/// Why a tile is of no use.
#[derive(Debug, thiserror::Error)]
enum TileFailure {
    #[error("a tile cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Tile(#[from] TileError),
}

/// Writes a proof.
pub fn run(args: &TlogProveArgs) -> CommandResult {
    let (_, keys) = trusted(&args.cluster)?;
    let directory = LogDirectory::new(&args.directory);
    let of = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", args.directory.display()));
    let broken = |error: &dyn std::fmt::Display| {
        say!("broken: {error}");
        Ok(ExitCode::from(BROKEN))
    };
    let checkpoint = directory.read_checkpoint().map_err(|error| of(&error))?;
    let checkpoint = checkpoint.ok_or_else(|| of(&"it has no checkpoint"))?;
    let checked = SignedNote::parse(&checkpoint).map_err(quorate_audit::tlog::HeadError::from);
    let (note, head) = match checked.and_then(|note| keys.check(&note).map(|checked| (note, checked.head))) {
        Ok(checked) => checked,
        Err(error) => return broken(&format!("the checkpoint: {error}")),
    };
    if args.height >= head.size {
        return Err(of(&format!("its log ends at height {}", head.size.saturating_sub(1))));
    }
    let made = path(&directory, head.size, args.height)
        .and_then(|path| Ok((path, entry(&directory, head.size, args.height)?)));
    let (path, entry) = match made {
        Ok(made) => made,
        Err(TileFailure::Io(error)) => return Err(of(&error)),
        Err(error) => return broken(&error),
    };
    let leaf = leaf_hash(&entry);
    let proof = LogProof { extra: Some(entry), index: args.height, path, checkpoint: note };
    if let Err(error) = proof.verify(&keys, &leaf) {
        return broken(&error);
    }
    write(&args.out, proof.to_string().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn path(directory: &LogDirectory, size: u64, height: u64) -> Result<Vec<Hash>, TileFailure> {
    inclusion_path(size, height, |path| Ok(parse_hashes(&directory.read_tile(path)?, path.width())?))
}

/// The entry of a height out of its bundle.
fn entry(directory: &LogDirectory, size: u64, height: u64) -> Result<Vec<u8>, TileFailure> {
    let bundle = height / TILE_HASHES as u64;
    let mut bundles = resources(size).take_while(|path| path.row() == TileRow::Entries);
    let path: TilePath = bundles.find(|path| path.index() == bundle).ok_or(TileError::BundleSize)?;
    let bytes = directory.read_tile(&path)?;
    let entries = parse_entries(&bytes, path.width())?;
    let index = usize::try_from(height % TILE_HASHES as u64).unwrap_or(usize::MAX);
    Ok(entries.get(index).ok_or(TileError::BundleSize)?.to_vec())
}
