//! A plain POSIX filesystem in memory: maps of names and vectors of bytes, written from the manual pages.
//!
//! It knows nothing of rows, hashes, segments or reclaiming. Invariant: `perform` either changes the tree as
//! the system call would, or answers the number of the error that Linux answers and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use quorate_metadata::{Caller, Errno};
use quorate_protocol::file::{Attributes, FileKind};
use quorate_protocol::operation::{
    Authority, OpenMode, Piece, RenameMode, SetXattrMode, SpecialFile, WriteAt,
};
use quorate_protocol::time::SetTime;
use quorate_protocol::{Ino, OperationBody, Timestamp};

/// Bytes of a row in the world under test, by which `st_blocks` is not affected but folds are.
pub const ROW: usize = 64;

#[derive(Clone, Debug, Default)]
pub struct Node {
    pub kind: Option<FileKind>,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub nlink: u32,
    pub entries: BTreeMap<Vec<u8>, Ino>,
    pub parent: Ino,
    /// `None` is a hole.
    pub bytes: Vec<Option<u8>>,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub times: [Timestamp; 4],
    pub version: u64,
    /// Sessions and modes (read, write) that have it open, with counts.
    pub open: BTreeMap<(u64, bool, bool), u32>,
}

const ATIME: usize = 0;
const MTIME: usize = 1;
const CTIME: usize = 2;

/// Who, when and under which number.
pub struct Act<'a> {
    pub caller: &'a Caller,
    pub session: u64,
    pub time: Timestamp,
    pub operation: u64,
}

/// What the model says an operation answers: the inode concerned and the byte offset, if any.
pub type Outcome = Result<(Option<Ino>, u64), Errno>;

pub struct Model {
    pub nodes: BTreeMap<Ino, Node>,
    next: Ino,
    /// Contents of the blocks that operations may name.
    pub blocks: BTreeMap<[u8; 32], Vec<u8>>,
}

impl Node {
    fn is_dir(&self) -> bool {
        self.kind == Some(FileKind::Directory)
    }

    fn is_file(&self) -> bool {
        self.kind == Some(FileKind::Regular)
    }

    fn allows(&self, who: &Caller, want: u16) -> bool {
        if who.uid == 0 {
            return self.is_dir() || want & 1 == 0 || self.mode & 0o111 != 0;
        }
        let in_group = who.gid == self.gid || who.groups.contains(&self.gid);
        let shift = if who.uid == self.uid {
            6
        } else if in_group {
            3
        } else {
            0
        };
        (self.mode >> shift) & want == want
    }

    fn belongs_to(&self, who: &Caller) -> bool {
        who.uid == 0 || who.uid == self.uid
    }

    fn strip_on_change(&mut self, who: &Caller, even_root: bool) {
        self.xattrs.remove(b"security.capability".as_slice());
        let member = who.uid == 0 || who.gid == self.gid || who.groups.contains(&self.gid);
        if who.uid == 0 && !even_root {
            return;
        }
        self.mode &= !0o4000;
        if self.mode & 0o010 != 0 || !member {
            self.mode &= !0o2000;
        }
    }

    fn stamp(&mut self, act: &Act<'_>, which: &[usize]) {
        for index in which {
            self.times[*index] = act.time;
        }
        self.version = act.operation;
    }

    pub fn attributes(&self, ino: Ino) -> Attributes {
        let covered = self.bytes.iter().flatten().count() as u64;
        Attributes {
            ino,
            kind: self.kind.unwrap(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            rdev: self.rdev,
            size: match self.kind.unwrap() {
                FileKind::Directory => self.entries.len(),
                FileKind::Symlink => self.target.len(),
                _ => self.bytes.len(),
            } as u64,
            blocks: covered.div_ceil(512),
            atime: self.times[ATIME],
            mtime: self.times[MTIME],
            ctime: self.times[CTIME],
            btime: self.times[3],
            version: self.version,
            block_log2: 6,
        }
    }
}

fn ensure(condition: bool, errno: Errno) -> Result<(), Errno> {
    if condition { Ok(()) } else { Err(errno) }
}

impl Model {
    pub fn new(time: Timestamp) -> Self {
        let kind = Some(FileKind::Directory);
        let root = Node { kind, mode: 0o777, nlink: 2, parent: 1, times: [time; 4], ..Node::default() };
        Self { nodes: BTreeMap::from([(1, root)]), next: 2, blocks: BTreeMap::new() }
    }

    fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::ESTALE)
    }

    fn at(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).unwrap()
    }

    /// What a name stands for in a directory that `who` may search.
    fn search(&self, who: &Caller, parent: Ino, name: &[u8]) -> Result<Option<Ino>, Errno> {
        let directory = self.node(parent)?;
        ensure(directory.is_dir(), Errno::ENOTDIR)?;
        ensure(directory.allows(who, 1), Errno::EACCES)?;
        Ok(directory.entries.get(name).copied())
    }

    /// Whether `who` may add a name.
    fn may_add(&self, who: &Caller, parent: Ino) -> Result<(), Errno> {
        ensure(self.nodes[&parent].nlink > 0, Errno::ENOENT)?;
        ensure(self.nodes[&parent].allows(who, 3), Errno::EACCES)
    }

    /// Whether `who` may take a name away.
    fn may_take(&self, who: &Caller, parent: Ino, victim: Ino) -> Result<(), Errno> {
        let directory = &self.nodes[&parent];
        ensure(directory.allows(who, 3), Errno::EACCES)?;
        let sticky = directory.mode & 0o1000 != 0;
        let owner = directory.belongs_to(who) || self.nodes[&victim].belongs_to(who);
        ensure(!sticky || owner, Errno::EPERM)
    }

    /// Forgets inodes that have neither names nor opens.
    fn sweep(&mut self) {
        self.nodes.retain(|_, node| node.nlink > 0 || !node.open.is_empty());
    }

    fn born(&mut self, act: &Act<'_>, parent: Ino, name: &[u8], mut node: Node) -> Outcome {
        let ino = self.next;
        self.next += 1;
        let who = act.caller;
        let directory = self.at(parent);
        (node.uid, node.gid, node.parent) = (who.uid, who.gid, parent);
        node.nlink = 1;
        if directory.mode & 0o2000 != 0 {
            node.gid = directory.gid;
            let member = who.uid == 0 || who.gid == directory.gid || who.groups.contains(&directory.gid);
            if node.is_dir() {
                node.mode |= 0o2000;
            } else if node.mode & 0o2010 == 0o2010 && !member {
                node.mode &= !0o2000;
            }
        }
        if node.is_dir() {
            node.nlink = 2;
            directory.nlink += 1;
        }
        directory.entries.insert(name.to_vec(), ino);
        directory.stamp(act, &[MTIME, CTIME]);
        node.stamp(act, &[0, 1, 2, 3]);
        self.nodes.insert(ino, node);
        Ok((Some(ino), 0))
    }

    fn make(&mut self, act: &Act<'_>, parent: Ino, name: &[u8], node: Node) -> Outcome {
        ensure(self.search(act.caller, parent, name)?.is_none(), Errno::EEXIST)?;
        self.may_add(act.caller, parent)?;
        let device = matches!(node.kind, Some(FileKind::CharacterDevice | FileKind::BlockDevice));
        ensure(!device || act.caller.uid == 0, Errno::EPERM)?;
        self.born(act, parent, name, node)
    }

    pub fn perform(&mut self, act: &Act<'_>, body: &OperationBody) -> Outcome {
        let outcome = self.dispatch(act, body);
        self.sweep();
        outcome
    }

    fn dispatch(&mut self, act: &Act<'_>, body: &OperationBody) -> Outcome {
        let fresh = |kind, mode: &u16| Node { kind: Some(kind), mode: *mode, ..Node::default() };
        match body {
            OperationBody::Create { parent, name, mode, exclusive, open, .. } => {
                let found = self.search(act.caller, *parent, name.as_bytes())?;
                match found {
                    Some(_) if *exclusive => Err(Errno::EEXIST),
                    Some(ino) => {
                        ensure(!self.nodes[&ino].is_dir(), Errno::EISDIR)?;
                        self.open(act, ino, open.unwrap())
                    }
                    None => {
                        self.may_add(act.caller, *parent)?;
                        let made =
                            self.born(act, *parent, name.as_bytes(), fresh(FileKind::Regular, mode))?;
                        if let Some(mode) = open {
                            self.grant(act, made.0.unwrap(), *mode);
                        }
                        Ok(made)
                    }
                }
            }
            OperationBody::Mkdir { parent, name, mode, .. } => {
                self.make(act, *parent, name.as_bytes(), fresh(FileKind::Directory, &(mode & 0o1777)))
            }
            OperationBody::Symlink { parent, name, target, .. } => {
                let mut node = fresh(FileKind::Symlink, &0o777);
                node.target = target.to_vec();
                self.make(act, *parent, name.as_bytes(), node)
            }
            OperationBody::Mknod { parent, name, node, mode, .. } => {
                let (kind, rdev) = match node {
                    SpecialFile::Regular => (FileKind::Regular, 0),
                    SpecialFile::Fifo => (FileKind::Fifo, 0),
                    SpecialFile::Socket => (FileKind::Socket, 0),
                    SpecialFile::CharacterDevice(number) => (FileKind::CharacterDevice, *number),
                    SpecialFile::BlockDevice(number) => (FileKind::BlockDevice, *number),
                };
                self.make(act, *parent, name.as_bytes(), Node { rdev, ..fresh(kind, mode) })
            }
            OperationBody::Link { ino, parent, name } => self.link(act, *ino, *parent, name.as_bytes()),
            OperationBody::Unlink { parent, name } => self.take(act, *parent, name.as_bytes(), false),
            OperationBody::Rmdir { parent, name } => self.take(act, *parent, name.as_bytes(), true),
            OperationBody::Rename { parent, name, new_parent, new_name, mode } => {
                let (from, to) = ((*parent, name.as_bytes()), (*new_parent, new_name.as_bytes()));
                self.rename(act, from, to, *mode)
            }
            OperationBody::SetAttributes { .. } => self.set_attributes(act, body),
            OperationBody::SetXattr { ino, name, value, mode, .. } => {
                self.check_xattr(act, *ino, name)?;
                let node = self.at(*ino);
                match (node.xattrs.contains_key(name.as_slice()), mode) {
                    (true, SetXattrMode::Create) => return Err(Errno::EEXIST),
                    (false, SetXattrMode::Replace) => return Err(Errno::ENODATA),
                    _ => {}
                }
                node.xattrs.insert(name.to_vec(), value.to_vec());
                node.stamp(act, &[CTIME]);
                Ok((Some(*ino), 0))
            }
            OperationBody::RemoveXattr { ino, name } => {
                self.check_xattr(act, *ino, name)?;
                let node = self.at(*ino);
                ensure(node.xattrs.remove(name.as_slice()).is_some(), Errno::ENODATA)?;
                node.stamp(act, &[CTIME]);
                Ok((Some(*ino), 0))
            }
            OperationBody::Open { ino, mode } => {
                self.node(*ino)?;
                self.open(act, *ino, *mode)
            }
            OperationBody::Release { ino, mode, count } => self.release(act, *ino, *mode, *count),
            OperationBody::Write { ino, at, pieces, authority, .. } => {
                self.write(act, *ino, *at, pieces, *authority)
            }
            other => panic!("the model does not know {other:?}"),
        }
    }

    fn open(&mut self, act: &Act<'_>, ino: Ino, mode: OpenMode) -> Outcome {
        let node = self.nodes.get_mut(&ino).unwrap();
        let writes = mode.write || mode.truncate;
        ensure(node.kind != Some(FileKind::Symlink), Errno::ELOOP)?;
        ensure(!(node.is_dir() && writes), Errno::EISDIR)?;
        let want = if mode.read { 4 } else { 0 } | if writes { 2 } else { 0 };
        ensure(node.allows(act.caller, want), Errno::EACCES)?;
        if mode.truncate && node.is_file() {
            node.bytes.clear();
            node.strip_on_change(act.caller, false);
            node.stamp(act, &[MTIME, CTIME]);
        }
        self.grant(act, ino, mode);
        Ok((Some(ino), 0))
    }

    fn grant(&mut self, act: &Act<'_>, ino: Ino, mode: OpenMode) {
        *self.at(ino).open.entry((act.session, mode.read, mode.write)).or_default() += 1;
    }

    fn release(&mut self, act: &Act<'_>, ino: Ino, mode: OpenMode, count: u32) -> Outcome {
        let node = self.nodes.get_mut(&ino).ok_or(Errno::EBADF)?;
        ensure(node.open.keys().any(|(session, ..)| *session == act.session), Errno::EBADF)?;
        let key = (act.session, mode.read, mode.write);
        let held = node.open.get(&key).copied().unwrap_or(0);
        ensure(held >= count, Errno::EBADF)?;
        node.open.insert(key, held - count);
        node.open.retain(|_, count| *count > 0);
        Ok((None, 0))
    }

    fn link(&mut self, act: &Act<'_>, ino: Ino, parent: Ino, name: &[u8]) -> Outcome {
        self.node(ino)?;
        ensure(self.search(act.caller, parent, name)?.is_none(), Errno::EEXIST)?;
        self.may_add(act.caller, parent)?;
        ensure(!self.nodes[&ino].is_dir(), Errno::EPERM)?;
        ensure(self.nodes[&ino].nlink > 0, Errno::ENOENT)?;
        self.at(parent).entries.insert(name.to_vec(), ino);
        self.at(parent).stamp(act, &[MTIME, CTIME]);
        self.at(ino).nlink += 1;
        self.at(ino).stamp(act, &[CTIME]);
        Ok((Some(ino), 0))
    }

    fn take(&mut self, act: &Act<'_>, parent: Ino, name: &[u8], directory: bool) -> Outcome {
        let ino = self.search(act.caller, parent, name)?.ok_or(Errno::ENOENT)?;
        self.may_take(act.caller, parent, ino)?;
        let is_dir = self.nodes[&ino].is_dir();
        ensure(directory || !is_dir, Errno::EISDIR)?;
        ensure(!directory || is_dir, Errno::ENOTDIR)?;
        ensure(self.nodes[&ino].entries.is_empty(), Errno::ENOTEMPTY)?;
        self.at(parent).entries.remove(name);
        self.at(parent).stamp(act, &[MTIME, CTIME]);
        self.lose(act, ino, parent);
        Ok((None, 0))
    }

    /// An inode loses one name, which was in `parent`.
    fn lose(&mut self, act: &Act<'_>, ino: Ino, parent: Ino) {
        let node = self.at(ino);
        let is_dir = node.is_dir();
        node.nlink = if is_dir { 0 } else { node.nlink - 1 };
        node.stamp(act, &[CTIME]);
        if is_dir {
            self.at(parent).nlink -= 1;
        }
    }

    fn ancestors(&self, start: Ino) -> BTreeSet<Ino> {
        let mut all = BTreeSet::from([start]);
        let mut current = start;
        while current != 1 {
            current = self.nodes[&current].parent;
            all.insert(current);
        }
        all
    }

    fn rename(
        &mut self,
        act: &Act<'_>,
        (from, name): (Ino, &[u8]),
        (to, new_name): (Ino, &[u8]),
        mode: RenameMode,
    ) -> Outcome {
        let who = act.caller;
        // Both directories are looked at before either name is.
        let found = self.search(who, from, name)?;
        let target = self.search(who, to, new_name)?;
        let ino = found.ok_or(Errno::ENOENT)?;
        let exchange = mode == RenameMode::Exchange;
        ensure(mode != RenameMode::NoReplace || target.is_none(), Errno::EEXIST)?;
        ensure(!exchange || target.is_some(), Errno::ENOENT)?;
        let is_dir = |ino: Ino| self.nodes[&ino].is_dir();
        if from != to && self.nodes[&to].nlink > 0 {
            ensure(!is_dir(ino) || !self.ancestors(to).contains(&ino), Errno::EINVAL)?;
        }
        if let Some(target) = target.filter(|target| from != to && is_dir(*target)) {
            let errno = if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY };
            ensure(!self.ancestors(from).contains(&target), errno)?;
        }
        if target == Some(ino) {
            return Ok((None, 0));
        }
        self.may_take(who, from, ino)?;
        match target {
            None => self.may_add(who, to)?,
            Some(target) => {
                self.may_take(who, to, target)?;
                ensure(exchange || !is_dir(ino) || is_dir(target), Errno::ENOTDIR)?;
                ensure(exchange || is_dir(ino) || !is_dir(target), Errno::EISDIR)?;
            }
        }
        if from != to {
            let moved = [Some(ino), target.filter(|_| exchange)];
            for ino in moved.into_iter().flatten().filter(|ino| is_dir(*ino)) {
                ensure(self.nodes[&ino].allows(who, 2), Errno::EACCES)?;
            }
        }
        if let Some(target) = target.filter(|_| !exchange) {
            ensure(self.nodes[&target].entries.is_empty(), Errno::ENOTEMPTY)?;
        }
        self.perform_rename(act, (from, name, ino), (to, new_name, target), exchange);
        Ok((None, 0))
    }

    fn perform_rename(
        &mut self,
        act: &Act<'_>,
        (from, name, ino): (Ino, &[u8], Ino),
        (to, new_name, target): (Ino, &[u8], Option<Ino>),
        exchange: bool,
    ) {
        if let Some(target) = target {
            if exchange {
                self.settle(act, target, to, from, name);
            } else {
                self.lose(act, target, to);
            }
        }
        if !exchange {
            self.at(from).entries.remove(name);
        }
        self.settle(act, ino, from, to, new_name);
        self.at(from).stamp(act, &[MTIME, CTIME]);
        self.at(to).stamp(act, &[MTIME, CTIME]);
    }

    /// An inode moves from one directory into another under a name.
    fn settle(&mut self, act: &Act<'_>, ino: Ino, from: Ino, to: Ino, name: &[u8]) {
        self.at(to).entries.insert(name.to_vec(), ino);
        self.at(ino).stamp(act, &[CTIME]);
        if self.nodes[&ino].is_dir() {
            self.at(ino).parent = to;
            self.at(from).nlink -= 1;
            self.at(to).nlink += 1;
        }
    }

    fn set_attributes(&mut self, act: &Act<'_>, body: &OperationBody) -> Outcome {
        let OperationBody::SetAttributes { ino, mode, uid, gid, size, atime, mtime, authority, .. } = body
        else {
            panic!("not an operation on attributes")
        };
        let who = act.caller;
        let node = self.node(*ino)?;
        if size.is_some() {
            ensure(!node.is_dir(), Errno::EISDIR)?;
            ensure(node.is_file(), Errno::EINVAL)?;
            match authority {
                Authority::Check => ensure(node.allows(who, 2), Errno::EACCES)?,
                Authority::Grant => self.check_grant(act, *ino)?,
            }
        }
        let node = self.at(*ino);
        if let (Some(_), _) | (_, Some(_)) = (uid, gid) {
            let keeps = uid.is_none_or(|uid| uid == node.uid);
            let group = |gid: u32| gid == node.gid || gid == who.gid || who.groups.contains(&gid);
            let own = who.uid == node.uid && keeps && gid.is_none_or(group);
            ensure(who.uid == 0 || own, Errno::EPERM)?;
        }
        if mode.is_some() {
            ensure(node.belongs_to(who), Errno::EPERM)?;
            ensure(node.kind != Some(FileKind::Symlink), Errno::EOPNOTSUPP)?;
        }
        let arbitrary = matches!(atime, SetTime::To(_)) || matches!(mtime, SetTime::To(_));
        match (atime, mtime) {
            (SetTime::Omit, SetTime::Omit) => {}
            _ if arbitrary => ensure(node.belongs_to(who), Errno::EPERM)?,
            _ if size.is_some() => {}
            (SetTime::Now, SetTime::Now) => {
                ensure(node.belongs_to(who) || node.allows(who, 2), Errno::EACCES)?;
            }
            _ => ensure(node.belongs_to(who), Errno::EPERM)?,
        }
        let mut changed = false;
        if uid.is_some() || gid.is_some() {
            changed = true;
            if !node.is_dir() {
                node.strip_on_change(who, true);
            }
            node.uid = uid.unwrap_or(node.uid);
            node.gid = gid.unwrap_or(node.gid);
        }
        if let Some(mode) = mode {
            changed = true;
            let member = who.uid == 0 || who.gid == node.gid || who.groups.contains(&node.gid);
            node.mode = if member { *mode } else { mode & !0o2000 };
        }
        if let Some(size) = size {
            changed = true;
            node.bytes.resize(usize::try_from(*size).unwrap(), None);
            node.strip_on_change(who, false);
            node.stamp(act, &[MTIME]);
        }
        for (index, time) in [(ATIME, atime), (MTIME, mtime)] {
            match time {
                SetTime::Omit => continue,
                SetTime::Now => node.times[index] = act.time,
                SetTime::To(time) => node.times[index] = *time,
            }
            changed = true;
        }
        if changed {
            node.stamp(act, &[CTIME]);
        }
        Ok((Some(*ino), 0))
    }

    fn check_grant(&self, act: &Act<'_>, ino: Ino) -> Result<(), Errno> {
        let mut keys = self.nodes[&ino].open.keys();
        ensure(keys.any(|(session, _, write)| *session == act.session && *write), Errno::EBADF)
    }

    fn check_xattr(&self, act: &Act<'_>, ino: Ino, name: &[u8]) -> Result<(), Errno> {
        let node = self.node(ino)?;
        if !name.starts_with(b"user.") {
            return ensure(act.caller.uid == 0, Errno::EPERM);
        }
        ensure(node.is_file() || node.is_dir(), Errno::EPERM)?;
        ensure(!(node.is_dir() && node.mode & 0o1000 != 0) || node.belongs_to(act.caller), Errno::EPERM)?;
        ensure(node.allows(act.caller, 2), Errno::EACCES)
    }

    fn write(
        &mut self,
        act: &Act<'_>,
        ino: Ino,
        at: WriteAt,
        pieces: &[Piece],
        authority: Authority,
    ) -> Outcome {
        let node = self.node(ino)?;
        ensure(!node.is_dir(), Errno::EISDIR)?;
        ensure(node.is_file(), Errno::EINVAL)?;
        match authority {
            Authority::Check => {
                ensure(node.belongs_to(act.caller) || node.allows(act.caller, 2), Errno::EACCES)?;
            }
            Authority::Grant => self.check_grant(act, ino)?,
        }
        let mut data: Vec<Option<u8>> = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Inline(bytes) => data.extend(bytes.iter().copied().map(Some)),
                Piece::Zero(length) => {
                    data.extend(std::iter::repeat_n(None, usize::try_from(*length).unwrap()));
                }
                Piece::Block { id, offset, length } => {
                    let (start, length) = (*offset as usize, *length as usize);
                    data.extend(self.blocks[&id.0][start..start + length].iter().copied().map(Some));
                }
            }
        }
        let node = self.at(ino);
        let offset = match at {
            WriteAt::Offset(offset) => usize::try_from(offset).unwrap(),
            WriteAt::Append => node.bytes.len(),
        };
        if !data.is_empty() {
            let end = offset + data.len();
            node.bytes.resize(node.bytes.len().max(end), None);
            node.bytes[offset..end].copy_from_slice(&data);
            node.strip_on_change(act.caller, false);
            node.stamp(act, &[MTIME, CTIME]);
        }
        Ok((Some(ino), offset as u64))
    }

    /// A fold of a row that fills its holes.
    pub fn fold(&mut self, act: &Act<'_>, ino: Ino, index: usize) {
        let node = self.at(ino);
        let end = node.bytes.len().min((index + 1) * ROW);
        for byte in &mut node.bytes[index * ROW..end] {
            *byte = Some(byte.unwrap_or(0));
        }
        node.strip_on_change(act.caller, false);
        node.stamp(act, &[MTIME, CTIME]);
    }
}
