//! Tiles and entry bundles (C2SP tlog-tiles): the log as files that never change.
//!
//! Invariants: a full tile holds 256 hashes, a partial one those that there are; a path has one form; what is cut
//! from the log at one size leads to the root of that size.

use std::fmt;

use quorate_crypto::{HASH_BYTES, Hash};
use quorate_merkle::log::{LOG_SIZE_MAX, LogError, LogFrontier};
use quorate_merkle::rfc6962;

use super::canonical_decimal;

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_HASHES: usize = 256;
/// Most bytes of an entry: its length stands before it as u16.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// 2^8 = [`TILE_HASHES`]: levels of the tree in one tile.
const TILE_HEIGHT: u32 = 8;
/// The highest level that the format knows.
const LEVEL_MAX: u8 = 63;
/// Most bytes of a path.
const PATH_BYTES_MAX: usize = 64;

/// Why tiles cannot be made or read. The fault of whoever wrote them, unless said otherwise.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// The log is full, or a question goes beyond it (the caller's fault).
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry has more than [`ENTRY_BYTES_MAX`] bytes: the caller's fault.
    #[error("an entry of {0} bytes")]
    EntryTooLong(usize),
    /// A tile has not the bytes of its width.
    #[error("a tile of the wrong size")]
    TileSize,
    /// A bundle has not the entries of its width, or bytes after them.
    #[error("an entry bundle of the wrong size")]
    BundleSize,
}

/// Which row of files.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TileRow {
    /// Hashes; level 0 are those of the leaves, each further one hashes full tiles of the level below.
    Level(u8),
    /// The entries themselves.
    Entries,
}

/// The name of a tile or bundle below the log's prefix.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TilePath {
    row: TileRow,
    index: u64,
    width: u16,
}

impl TilePath {
    /// The file `index` of a row, of a width from 1 to 256.
    #[must_use]
    pub fn new(row: TileRow, index: u64, width: usize) -> Option<Self> {
        let known = !matches!(row, TileRow::Level(level) if level > LEVEL_MAX);
        if !known || !(1..=TILE_HASHES).contains(&width) || index > LOG_SIZE_MAX {
            return None;
        }
        Some(Self { row, index, width: u16::try_from(width).ok()? })
    }

    /// Reads `tile/LEVEL/INDEX` or `tile/entries/INDEX` with an optional `.p/WIDTH`, in its one form.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        if path.len() > PATH_BYTES_MAX {
            return None;
        }
        let (row, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let row = match row {
            "entries" => TileRow::Entries,
            level => TileRow::Level(u8::try_from(canonical_decimal(level)?).ok()?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, usize::try_from(canonical_decimal(width)?).ok()?),
            None => (rest, TILE_HASHES),
        };
        let digits: String = index.chars().filter(char::is_ascii_digit).collect();
        let parsed = Self::new(row, digits.parse().ok()?, width)?;
        (parsed.to_string() == path).then_some(parsed)
    }

    /// Its row.
    #[must_use]
    pub const fn row(&self) -> TileRow {
        self.row
    }

    /// Its number within the row.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds.
    #[must_use]
    pub fn width(&self) -> usize {
        usize::from(self.width)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            TileRow::Level(level) => write!(formatter, "tile/{level}")?,
            TileRow::Entries => write!(formatter, "tile/entries")?,
        }
        // Groups of three digits, the lowest last; all others begin with an x.
        let digits = self.index.to_string();
        let groups = digits.len().div_ceil(3);
        let padded = format!("{:0>width$}", digits, width = groups.saturating_mul(3));
        let mut rest = padded.as_str();
        while let Some((group, after)) = rest.split_at_checked(3) {
            let mark = if after.is_empty() { "" } else { "x" };
            write!(formatter, "/{mark}{group}")?;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        if self.width() == TILE_HASHES { Ok(()) } else { write!(formatter, ".p/{}", self.width) }
    }
}

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub path: TilePath,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How many hashes a level has in a log of `size` entries.
fn level_size(size: u64, level: u8) -> u64 {
    size.checked_shr(u32::from(level).saturating_mul(TILE_HEIGHT)).unwrap_or(0)
}

/// The path of file `index` of a row in a log of `size` entries, if there is one.
fn path_at(size: u64, row: TileRow, index: u64) -> Option<TilePath> {
    let level = match row {
        TileRow::Level(level) => level,
        TileRow::Entries => 0,
    };
    let there = level_size(size, level).checked_sub(index.checked_mul(TILE_HASHES as u64)?)?;
    TilePath::new(row, index, usize::try_from(there.min(TILE_HASHES as u64)).ok()?)
}

/// The paths of all files of a log of `size` entries: the entries, then the tiles, level by level.
pub fn resources(size: u64) -> impl Iterator<Item = TilePath> {
    let rows = std::iter::once(TileRow::Entries).chain((0..=LEVEL_MAX).map(TileRow::Level));
    rows.flat_map(move |row| (0..).map_while(move |index| path_at(size, row, index)))
}

/// The hashes of a tile of this width.
///
/// # Errors
/// [`TileError::TileSize`].
pub fn parse_hashes(bytes: &[u8], width: usize) -> Result<Vec<Hash>, TileError> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    if hashes.len() != width || !rest.is_empty() {
        return Err(TileError::TileSize);
    }
    Ok(hashes.iter().copied().map(Hash).collect())
}

/// The entries of a bundle of this width.
///
/// # Errors
/// [`TileError::BundleSize`].
pub fn parse_entries(bytes: &[u8], width: usize) -> Result<Vec<&[u8]>, TileError> {
    let mut rest = bytes;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<2>().ok_or(TileError::BundleSize)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or(TileError::BundleSize)?;
        if entries.len() >= width {
            return Err(TileError::BundleSize);
        }
        entries.push(entry);
        rest = after;
    }
    if entries.len() == width { Ok(entries) } else { Err(TileError::BundleSize) }
}

/// Cuts a log that grows into files. Holds one partial file of each row.
#[derive(Clone, Debug, Default)]
pub struct TileBuilder {
    frontier: LogFrontier,
    /// The hashes of the last, partial tile of each level.
    levels: Vec<Vec<Hash>>,
    /// The entries of the last, partial bundle, as they are written.
    entries: Vec<u8>,
}

impl TileBuilder {
    /// Of the empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries the log has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root over them.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Appends an entry; the files that are full with it.
    ///
    /// # Errors
    /// [`TileError::EntryTooLong`], [`TileError::Log`]; nothing was appended then.
    pub fn append(&mut self, entry: &[u8]) -> Result<Vec<Resource>, TileError> {
        let length = u16::try_from(entry.len()).map_err(|_| TileError::EntryTooLong(entry.len()))?;
        self.frontier.append(entry)?;
        self.entries.extend_from_slice(&length.to_be_bytes());
        self.entries.extend_from_slice(entry);
        let mut full = Vec::new();
        let mut hash = rfc6962::leaf_hash(entry);
        for level in 0..=LEVEL_MAX {
            let row = usize::from(level);
            if self.levels.len() == row {
                self.levels.push(Vec::new());
            }
            let Some(tile) = self.levels.get_mut(row) else { break };
            tile.push(hash);
            if tile.len() < TILE_HASHES {
                break;
            }
            let tile = std::mem::take(tile);
            hash = rfc6962::root(&tile);
            // The tile that was just filled is the last one of its level.
            let index = level_size(self.frontier.size(), level.saturating_add(1)).saturating_sub(1);
            if level == 0 {
                let bytes = std::mem::take(&mut self.entries);
                full.extend(resource(TileRow::Entries, index, TILE_HASHES, bytes));
            }
            full.extend(resource(TileRow::Level(level), index, TILE_HASHES, concatenated(&tile)));
        }
        Ok(full)
    }

    /// The files at the right edge that are not full.
    #[must_use]
    pub fn partial(&self) -> Vec<Resource> {
        let mut files = Vec::new();
        for (level, hashes) in (0..=LEVEL_MAX).zip(&self.levels) {
            let index = level_size(self.frontier.size(), level.saturating_add(1));
            if level == 0 {
                files.extend(resource(TileRow::Entries, index, hashes.len(), self.entries.clone()));
            }
            files.extend(resource(TileRow::Level(level), index, hashes.len(), concatenated(hashes)));
        }
        files
    }
}

/// Nothing for a width of zero.
fn resource(row: TileRow, index: u64, width: usize, bytes: Vec<u8>) -> Option<Resource> {
    Some(Resource { path: TilePath::new(row, index, width)?, bytes })
}

fn concatenated(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The proof that entry `index` is in the log of `size` entries, from the leaf upward, out of its tiles. Each tile
/// that is asked for through `tile` is one of [`resources`]; at most two for each level of the tree.
///
/// # Errors
/// Those of `tile`, and [`TileError`] for an index beyond the log or a tile without the hashes of its width.
pub fn inclusion_path<E: From<TileError>>(
    size: u64,
    index: u64,
    mut tile: impl FnMut(&TilePath) -> Result<Vec<Hash>, E>,
) -> Result<Vec<Hash>, E> {
    if size > LOG_SIZE_MAX || index >= size {
        return Err(TileError::Log(LogError::OutOfRange).into());
    }
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while let Some(left) = left_size(low, high) {
        let middle = low.saturating_add(left);
        if index < middle {
            path.push(range_root(size, middle, high, &mut tile)?);
            high = middle;
        } else {
            path.push(range_root(size, low, middle, &mut tile)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The size of the left part of a tree with at least two leaves: the largest power of two below theirs.
fn left_size(low: u64, high: u64) -> Option<u64> {
    let last = high.checked_sub(low)?.checked_sub(1)?;
    last.checked_ilog2().and_then(|bit| 1_u64.checked_shl(bit))
}

/// The root over a range that begins where a subtree of its size may begin: that of complete subtrees, largest
/// first.
fn range_root<E: From<TileError>>(
    size: u64,
    low: u64,
    high: u64,
    tile: &mut impl FnMut(&TilePath) -> Result<Vec<Hash>, E>,
) -> Result<Hash, E> {
    let (mut at, mut peaks) = (low, Vec::new());
    while let Some(height) = high.saturating_sub(at).checked_ilog2() {
        peaks.push(node(size, at, height, tile)?);
        at = at.saturating_add(1_u64.checked_shl(height).unwrap_or(u64::MAX));
    }
    let folded = peaks.into_iter().rev().reduce(|right, left| rfc6962::node_hash(&left, &right));
    Ok(folded.unwrap_or_else(rfc6962::empty_root))
}

/// The root of the complete subtree of this height that begins at a leaf.
fn node<E: From<TileError>>(
    size: u64,
    first: u64,
    height: u32,
    tile: &mut impl FnMut(&TilePath) -> Result<Vec<Hash>, E>,
) -> Result<Hash, E> {
    let beyond = || E::from(TileError::Log(LogError::OutOfRange));
    let (level, within) = (height / TILE_HEIGHT, height % TILE_HEIGHT);
    let level = u8::try_from(level).map_err(|_| beyond())?;
    // Its place in the row of hashes of that level.
    let place = level_size(first, level);
    let index = level_size(place, 1);
    let offset = place.checked_rem(TILE_HASHES as u64).and_then(|offset| usize::try_from(offset).ok());
    let offset = offset.ok_or_else(beyond)?;
    let path = path_at(size, TileRow::Level(level), index).ok_or_else(beyond)?;
    let hashes = tile(&path)?;
    let count = 1_usize.checked_shl(within).unwrap_or(usize::MAX);
    let mine = hashes.get(offset..).and_then(|rest| rest.get(..count)).ok_or(TileError::TileSize)?;
    Ok(rfc6962::root(mine))
}
