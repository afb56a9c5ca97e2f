//! A check of the whole state from scratch: every count, link and mark that rows keep about other rows.

use std::collections::BTreeMap;

use quorate_crypto::Hash;
use quorate_metadata::rows::{
    Block, Content, DirectoryKey, Entry, Grants, Inode, Link, Row, SymlinkTarget, Totals, Xattr,
};
use quorate_metadata::{Key, ROOT_INO, keys};
use quorate_protocol::Ino;
use quorate_protocol::file::{FileKind, SegmentSource};

use crate::support::World;

/// What a scan of the state finds.
#[derive(Default)]
struct Found {
    inodes: BTreeMap<Ino, Inode>,
    entries: Vec<(Ino, Key, Entry)>,
    links: BTreeMap<Key, Link>,
    content: BTreeMap<Ino, Vec<(u64, Content)>>,
    xattrs: BTreeMap<Ino, Vec<Xattr>>,
    directory_keys: Vec<Ino>,
    symlinks: Vec<Ino>,
    grants: Vec<(Ino, u64)>,
    blocks: BTreeMap<Hash, Block>,
    held: Vec<(u64, Ino)>,
    queue: Vec<Ino>,
    released: Vec<Key>,
    totals: Option<Totals>,
}

fn number(key: &Key, offset: usize) -> u64 {
    u64::from_be_bytes(key[offset..offset + 8].try_into().unwrap())
}

fn scan(world: &World) -> Found {
    let mut found = Found::default();
    for (key, value) in &world.view.rows {
        let ino = number(key, 0);
        match (key[0], key[8]) {
            (0xFE, _) => {
                let block = Block::from_value(value).unwrap();
                assert_eq!(*key, keys::block(&block.id));
                assert_eq!(block.descriptor.id(), block.id);
                found.blocks.insert(block.id, block);
            }
            (0xFF, keys::TABLE_TOTALS) => found.totals = Some(Totals::from_value(value).unwrap()),
            (0xFF, keys::TABLE_HELD) => found.held.push((number(key, 9), number(key, 18))),
            (0xFF, keys::TABLE_RECLAIM) => found.queue.push(number(key, 9)),
            (0xFF, keys::TABLE_RELEASED) => found.released.push(*key),
            (0xFF, keys::TABLE_COUNTERS | keys::TABLE_PARAMETERS) => {}
            (0, keys::KIND_INODE) => drop(found.inodes.insert(ino, Inode::from_value(value).unwrap())),
            (0, keys::KIND_DIRECTORY_KEY) => {
                DirectoryKey::from_value(value).unwrap();
                found.directory_keys.push(ino);
            }
            (0, keys::KIND_CONTENT) => {
                let row = (number(key, 9), Content::from_value(value).unwrap());
                found.content.entry(ino).or_default().push(row);
            }
            (0, keys::KIND_XATTR) => {
                found.xattrs.entry(ino).or_default().push(Xattr::from_value(value).unwrap());
            }
            (0, keys::KIND_ENTRY) => found.entries.push((ino, *key, Entry::from_value(value).unwrap())),
            (0, keys::KIND_LINK) => drop(found.links.insert(*key, Link::from_value(value).unwrap())),
            (0, keys::KIND_SYMLINK) => {
                SymlinkTarget::from_value(value).unwrap();
                found.symlinks.push(ino);
            }
            (0, keys::KIND_GRANTS) => {
                Grants::from_value(value).unwrap();
                found.grants.push((ino, number(key, 9)));
            }
            other => panic!("an unknown row {other:?}"),
        }
    }
    found
}

/// Panics at the first thing that does not add up.
pub fn consistent(world: &World) {
    let found = scan(world);
    check_names(&found);
    check_inodes(&found);
    check_blocks(&found);
    check_totals(&found);
}

fn check_names(found: &Found) {
    let mut names: BTreeMap<Ino, Vec<(Ino, keys::KeyHash)>> = BTreeMap::new();
    let mut cookies = BTreeMap::new();
    for (parent, key, entry) in &found.entries {
        let target = &found.inodes[&entry.ino];
        assert_eq!(target.kind, entry.kind);
        assert!(cookies.insert((*parent, keys::cookie_of(key)), ()).is_none(), "two entries share a cookie");
        names.entry(entry.ino).or_default().push((*parent, key[9..].try_into().unwrap()));
    }
    let mut links = 0;
    for (ino, inode) in &found.inodes {
        let named = names.get(ino).cloned().unwrap_or_default();
        if inode.is_directory() {
            assert!(named.len() <= 1);
        } else {
            assert_eq!(inode.nlink as usize, named.len(), "links of {ino}");
        }
        match named.as_slice() {
            [(parent, hash)] => assert_eq!((inode.parent, inode.name), (*parent, *hash)),
            [] if *ino == ROOT_INO => assert_eq!(inode.parent, ROOT_INO),
            [] => assert_eq!((inode.nlink, inode.parent, inode.name), (0, 0, [0; 23])),
            several => {
                assert_eq!((inode.parent, inode.name), (0, [0; 23]));
                for (parent, hash) in several {
                    let link = &found.links[&keys::link(*ino, *parent, hash)];
                    assert_eq!((link.parent, link.name), (*parent, *hash));
                    links += 1;
                }
            }
        }
    }
    assert_eq!(links, found.links.len(), "link rows without entries");
}

fn check_inodes(found: &Found) {
    for (ino, inode) in &found.inodes {
        let entries: Vec<_> = found.entries.iter().filter(|(parent, ..)| parent == ino).collect();
        let open = found.grants.iter().any(|(open, _)| open == ino);
        if inode.is_directory() {
            let subdirectories =
                entries.iter().filter(|(.., entry)| entry.kind == FileKind::Directory).count();
            assert_eq!(inode.size as usize, entries.len(), "entries of {ino}");
            if inode.nlink > 0 {
                assert_eq!(inode.nlink as usize, 2 + subdirectories, "links of directory {ino}");
            }
        } else {
            assert!(entries.is_empty());
        }
        if !inode.is_removed() {
            assert_eq!(inode.is_directory(), found.directory_keys.contains(ino));
            assert_eq!(inode.kind == FileKind::Symlink, found.symlinks.contains(ino));
        }
        assert_eq!(inode.is_removed(), inode.nlink == 0 && !open, "removal of {ino}");
        let waits = inode.is_removed() || inode.reclaim_from.is_some();
        assert_eq!(waits, found.queue.contains(ino), "queueing of {ino}");
        check_content(*ino, inode, found);
        if !inode.is_removed() {
            let xattrs = found.xattrs.get(ino).map_or(&[][..], Vec::as_slice);
            let bytes: usize = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
            assert_eq!((inode.xattr_count as usize, inode.xattr_bytes as usize), (xattrs.len(), bytes));
        }
    }
    for ino in found.queue.iter().chain(found.content.keys()).chain(found.xattrs.keys()) {
        assert!(found.inodes.contains_key(ino), "rows of {ino}, which is not there");
    }
    let mut held: Vec<_> = found.held.iter().map(|(session, ino)| (*ino, *session)).collect();
    held.sort_unstable();
    assert_eq!(held, found.grants, "held-by-session rows");
}

fn check_content(ino: Ino, inode: &Inode, found: &Found) {
    let rows = found.content.get(&ino).map_or(&[][..], Vec::as_slice);
    let covered: u64 =
        rows.iter().flat_map(|(_, row)| row.segments.iter()).map(|segment| u64::from(segment.length)).sum();
    assert_eq!(inode.allocated, covered, "allocated bytes of {ino}");
    if inode.is_removed() {
        return;
    }
    let visible = inode.rows_of(inode.size);
    for (index, row) in rows {
        let hidden = inode.reclaim_from.is_some_and(|from| *index >= from);
        assert!(hidden || *index < visible, "row {index} of {ino} lies beyond its size");
        let end = row.segments.last().map_or(0, |segment| u64::from(segment.start + segment.length));
        assert!(end <= inode.block_bytes());
        assert!(hidden || index * inode.block_bytes() + end <= inode.size, "bytes beyond the size of {ino}");
    }
    assert!(inode.reclaim_from.is_none_or(|from| from >= visible), "hidden rows of {ino} are visible");
}

fn check_blocks(found: &Found) {
    let mut counts: BTreeMap<Hash, u64> = BTreeMap::new();
    for (_, row) in found.content.values().flatten() {
        for segment in &row.segments {
            if let SegmentSource::Block { id, .. } = &segment.source {
                *counts.entry(*id).or_default() += 1;
            }
        }
    }
    for (id, block) in &found.blocks {
        assert_eq!(block.count, counts.remove(id).unwrap_or(0), "references to {id}");
    }
    assert!(counts.is_empty(), "references to blocks without rows");
    let mut released: Vec<_> = found
        .blocks
        .values()
        .filter_map(|block| block.released.map(|released| keys::released(released.time, &block.id)))
        .collect();
    released.sort_unstable();
    assert_eq!(released, found.released);
}

fn check_totals(found: &Found) {
    let counted = Totals {
        inodes: found.inodes.len() as u64,
        bytes: found.inodes.values().map(|inode| inode.allocated).sum(),
        blocks: found.blocks.len() as u64,
        block_bytes: found.blocks.values().map(|block| u64::from(block.descriptor.length)).sum(),
    };
    assert_eq!(found.totals, Some(counted));
}
