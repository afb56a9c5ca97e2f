//! Opening the block store: finds every block by reading the packs' structure, without their content.
//!
//! Invariant: a block that is found is complete and durable. What a crash may have torn, which is what
//! was written after the last synced mark of the last pack, is read whole; what fails is discarded, since
//! nobody was promised it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use super::commit::{Commit, PackFile};
use super::pack::{self, BLOCK_HEADER_BYTES, Checker, Fixed, PAGE_BYTES, PackHeader, Place, pages};
use super::{BlockError, BlockOptions, Blocks, Entry, Known, Pack, Packs, Usage, check, release};
use crate::directory::{Directory, Marker};
use crate::error::{At, FileError, sync_directory};
use quorate_crypto::Hash;

/// What was found on opening, beside the blocks.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Blocks that a crash left incomplete; nobody had been promised them.
    pub torn: u64,
    /// Places where a block had been synced and no longer is; such blocks must be fetched again when
    /// they are asked for.
    pub damaged: u64,
}

/// What was found so far.
struct Table {
    known: Known,
    packs: Packs,
}

/// One pack while it is being read.
struct Scan {
    handle: PackFile,
    found: Vec<(Place, Fixed)>,
    // Runs of pages that hold no block, as (first, count).
    gaps: Vec<(u32, u32)>,
    // Pages of gaps that an earlier opening found to be torn.
    settled: u32,
    end: u32,
}

impl Blocks {
    /// Opens the block store of a locked directory.
    ///
    /// # Errors
    /// [`BlockError::Foreign`], [`BlockError::Newer`] or a disk error. Damaged blocks are no error here:
    /// they are counted, and reported when they are read.
    pub fn open(directory: &Directory, options: BlockOptions) -> Result<(Self, OpenReport), BlockError> {
        Self::open_packs(&directory.blocks_path(), directory.marker(), options)
    }

    fn open_packs(
        path: &Path,
        marker: &Marker,
        options: BlockOptions,
    ) -> Result<(Self, OpenReport), BlockError> {
        let checker = Checker::new(marker);
        let mut table = Table {
            known: Known { blocks: BTreeMap::new(), usage: Usage::default() },
            packs: Packs { packs: BTreeMap::new(), active: None },
        };
        let mut report = OpenReport::default();
        let mut tail = (0, 1);
        let packs = pack::list(path)?;
        for number in &packs {
            let last = packs.last() == Some(number);
            let Some((scan, intact)) = read_pack(&checker, path, *number, last)? else { continue };
            let synced = if last { synced_pages(&scan) } else { scan.end };
            report.damaged += u64::from(!intact);
            report.damaged += scan.gaps.iter().filter(|(first, _)| *first < synced).count() as u64;
            tail = (*number, scan.end);
            report.torn += add_pack(&checker, &mut table, *number, scan, synced)?;
            if last && intact {
                table.packs.active = Some(*number);
            }
        }
        if report.damaged > 0 {
            tracing::error!(places = report.damaged, path = %path.display(), "stored blocks are damaged");
        }
        let commit = Commit::new(tail);
        let (packs, known) = (Mutex::new(table.packs), RwLock::new(table.known));
        let blocks = Self { directory: path.to_owned(), checker, options, packs, known, commit };
        blocks.remove_empty_packs()?;
        Ok((blocks, report))
    }
}

/// Reads the structure of a pack; `None` if it was never used, and is now removed. The flag says whether
/// its header holds.
fn read_pack(
    checker: &Checker,
    directory: &Path,
    number: u32,
    last: bool,
) -> Result<Option<(Scan, bool)>, BlockError> {
    let path = pack::path(directory, number);
    let file = File::options().read(true).write(true).open(&path).at("open", &path)?;
    let mut header = vec![0; PAGE_BYTES as usize];
    let read = crate::log::read_up_to(&file, &path, &mut header, 0)?;
    header.truncate(read);
    let verdict = checker.check_pack(number, &header);
    match verdict {
        PackHeader::Foreign => return Err(BlockError::Foreign(path)),
        PackHeader::Newer(version) => return Err(BlockError::Newer { path, version }),
        PackHeader::Ours | PackHeader::Unused | PackHeader::Invalid => {}
    }
    let intact = verdict == PackHeader::Ours;
    let scan = scan(checker, number, PackFile { file: Arc::new(file), path: path.clone() })?;
    if last && !intact && scan.found.is_empty() {
        // A pack is used only when its header is synced: this one never was.
        fs::remove_file(&path).at("remove", &path)?;
        sync_directory(directory)?;
        return Ok(None);
    }
    if last {
        // What follows the last whole block was never promised. And what was read may so far be in the
        // system's cache alone.
        let file = &scan.handle.file;
        file.set_len(u64::from(scan.end) * PAGE_BYTES).at("cut", &path)?;
        file.sync_all().at("sync", &path)?;
    }
    Ok(Some((scan, intact)))
}

fn scan(checker: &Checker, number: u32, handle: PackFile) -> Result<Scan, FileError> {
    let bytes = handle.file.metadata().at("examine", &handle.path)?.len();
    let total = u32::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX);
    let mut scan = Scan { handle, found: Vec::new(), gaps: Vec::new(), settled: 0, end: 1 };
    let mut fixed = vec![0; BLOCK_HEADER_BYTES];
    let mut page = 1;
    let mut gap = 0;
    while page < total {
        let place = Place { pack: number, page };
        fixed.fill(0);
        crate::log::read_up_to(&scan.handle.file, &scan.handle.path, &mut fixed, place.offset())?;
        let rest = total - page;
        let block = checker.decode(place, &fixed).filter(|block| pages(block.descriptor.length) <= rest);
        let settled = checker.decode_gap(place, &fixed).filter(|count| *count <= rest);
        let taken = block.as_ref().map(|block| pages(block.descriptor.length)).or(settled);
        let Some(taken) = taken else {
            gap += 1;
            page += 1;
            continue;
        };
        if gap > 0 {
            scan.gaps.push((page - gap, gap));
            gap = 0;
        }
        page += taken;
        scan.end = page;
        match block {
            Some(block) => scan.found.push((place, block)),
            None => scan.settled = scan.settled.saturating_add(taken),
        }
    }
    Ok(scan)
}

/// How many pages of a pack were synced, as its own blocks tell.
fn synced_pages(scan: &Scan) -> u32 {
    scan.found.iter().map(|(_, block)| block.synced).max().unwrap_or(1)
}

/// Adds the blocks of a pack to the table. Returns how many were torn.
fn add_pack(
    checker: &Checker,
    table: &mut Table,
    number: u32,
    scan: Scan,
    synced: u32,
) -> Result<u64, BlockError> {
    let Scan { handle, found, gaps, settled, end } = scan;
    let gap_pages = gaps.iter().fold(settled, |sum, (_, count)| sum.saturating_add(*count));
    let torn_gaps = gaps.iter().filter(|(first, _)| *first >= synced);
    let mut torn = 0;
    for (page, count) in torn_gaps {
        let place = Place { pack: number, page: *page };
        let bytes = checker.encode_gap(place, *count);
        handle.file.write_all_at(&bytes, place.offset()).at("write", &handle.path)?;
        torn += 1;
    }
    let mut pack = Pack { handle: handle.clone(), pages: end, live: 0, dead: gap_pages };
    let mut killed = Vec::new();
    let mut kept = Vec::new();
    for (place, block) in found {
        let length = block.descriptor.length;
        if block.dead {
            release(place, length, &handle);
            pack.dead = pack.dead.saturating_add(1);
        } else if place.page >= synced && !is_whole(&handle, place, &block)? {
            torn += 1;
            pack.dead = pack.dead.saturating_add(1);
            killed.push((place, length));
        } else {
            pack.live += 1;
            let entry = Entry { place, length, expires: block.expires, slot: block.slot };
            kept.push((block.id, entry));
        }
    }
    for (place, _) in &killed {
        checker.write_dead(&handle.file, *place).at("write", &handle.path)?;
    }
    if torn > 0 {
        handle.file.sync_data().at("sync", &handle.path)?;
    }
    for (place, length) in killed {
        release(place, length, &handle);
    }
    table.known.usage.disk_bytes += u64::from(pack.dead.saturating_add(1)) * PAGE_BYTES;
    table.packs.packs.insert(number, pack);
    for (id, entry) in kept {
        add_block(checker, table, id, entry)?;
    }
    Ok(torn)
}

/// Adds a block. Of two copies, which a crash in the middle of a repair leaves, the later one stays, and
/// the longer promise.
fn add_block(checker: &Checker, table: &mut Table, id: Hash, mut entry: Entry) -> Result<(), BlockError> {
    let earlier = table.known.blocks.get(&id).copied();
    if let Some(earlier) = earlier {
        if let Some(pack) =
            table.packs.packs.get(&entry.place.pack).filter(|_| earlier.expires > entry.expires)
        {
            let (file, path) = (&pack.handle.file, &pack.handle.path);
            checker.write_promise(file, entry.place, entry.slot, earlier.expires).at("write", path)?;
            file.sync_data().at("sync", path)?;
            entry = Entry { expires: earlier.expires, slot: 1 - entry.slot, ..entry };
        }
        if let Some(pack) = table.packs.packs.get_mut(&earlier.place.pack) {
            let (file, path) = (&pack.handle.file, &pack.handle.path);
            checker.write_dead(file, earlier.place).at("write", path)?;
            file.sync_data().at("sync", path)?;
            release(earlier.place, earlier.length, &pack.handle);
            pack.live = pack.live.saturating_sub(1);
            pack.dead = pack.dead.saturating_add(1);
        }
        let freed = u64::from(pages(earlier.length).saturating_sub(1)) * PAGE_BYTES;
        table.known.usage.disk_bytes = table.known.usage.disk_bytes.saturating_sub(freed);
        table.known.usage.content_bytes =
            table.known.usage.content_bytes.saturating_sub(u64::from(earlier.length));
    } else {
        table.known.usage.blocks += 1;
    }
    table.known.usage.content_bytes += u64::from(entry.length);
    table.known.usage.disk_bytes += u64::from(pages(entry.length)) * PAGE_BYTES;
    table.known.blocks.insert(id, entry);
    Ok(())
}

fn is_whole(handle: &PackFile, place: Place, block: &Fixed) -> Result<bool, FileError> {
    let mut content = vec![0; block.descriptor.length as usize];
    let at = place.offset() + BLOCK_HEADER_BYTES as u64;
    match handle.file.read_exact_at(&mut content, at) {
        Ok(()) => Ok(check(&block.descriptor, &content).is_ok_and(|id| id == block.id)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(FileError::new("read", &handle.path, error)),
    }
}
