//! Queries: what a replica answers on its full state and a client evaluates again on the pruned copy.
//!
//! Invariant: permission is checked before anything is touched that only the permitted may see (rules S3 and
//! S6), so a denial needs no more rows than the predicate looks at.

use quorate_protocol::Ino;
use quorate_protocol::file::{Attributes, FileKind, Name, Segment};
use quorate_protocol::limits::{CONTENT_ROWS_PER_READ_MAX, PAGE_ENTRIES_MAX};
use quorate_protocol::query::Query;

use crate::context::{Caller, Reader};
use crate::directory::{self, COOKIE_LAST, COOKIE_PARENT, COOKIE_SELF};
use crate::errno::Errno;
use crate::grants;
use crate::inodes;
use crate::keys::{self, KIND_CONTENT, KIND_ENTRY};
use crate::permission::{self, EXECUTE, READ, may, require};
use crate::rows::{self, Content, Entry, Inode, Row, SymlinkTarget, Totals};
use crate::view::{Error, View};
use crate::xattr;

/// What a query answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `Attributes`, `Lookup` and `Parent`.
    Attributes(Attributes),
    /// To `Walk`.
    Walk {
        /// The inodes that the components name, as far as the walk came.
        found: Vec<Attributes>,
        /// Why it stopped before its end.
        stopped: Option<Errno>,
    },
    /// To `Directory`.
    Directory(DirectoryPage),
    /// To `Symlink`: the target.
    Symlink(Vec<u8>),
    /// To `Xattr`: the value.
    Xattr(Vec<u8>),
    /// To `Xattrs`: full names.
    Xattrs(Vec<Vec<u8>>),
    /// To `Content`.
    Content(ContentRows),
    /// To `Totals`.
    Totals(Totals),
}

/// A page of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPage {
    /// Entries in ascending order of their cookies, `.` and `..` included.
    pub entries: Vec<DirectoryEntry>,
    /// Whether nothing follows.
    pub complete: bool,
}

/// An entry of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its cookie: the next page begins after it (rule S7).
    pub cookie: u64,
    /// Its name; `.` and `..` too.
    pub name: Vec<u8>,
    /// What it names.
    pub ino: Ino,
    /// The kind of that.
    pub kind: FileKind,
    /// The attributes of that, when they are wanted and the caller may search the directory.
    pub attributes: Option<Attributes>,
}

/// Content rows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRows {
    /// The file.
    pub attributes: Attributes,
    /// Rows that have segments, by index; what is not here, and what no segment covers, is a hole.
    pub rows: Vec<(u64, Vec<Segment>)>,
}

/// Answers a query. `Session` belongs to the executor: EOPNOTSUPP here.
///
/// # Errors
/// [`Error::Errno`] as the system call would fail, absence and denial included; [`Error::Missing`] when the
/// view is a pruned copy that does not hold the answer; [`Error::Corrupt`] when the state is damaged.
pub fn read(view: &dyn View, reader: &Reader<'_>, query: &Query) -> Result<Answer, Error> {
    let caller = reader.caller;
    match query {
        Query::Attributes { ino } => Ok(Answer::Attributes(inodes::load(view, *ino)?.attributes(*ino))),
        Query::Lookup { parent, name } => Ok(Answer::Attributes(lookup(view, caller, *parent, name)?)),
        Query::Parent { ino } => Ok(Answer::Attributes(parent(view, caller, *ino)?)),
        Query::Walk { start, components } => walk(view, caller, *start, components),
        Query::Directory { ino, after, limit, attributes } => {
            Ok(Answer::Directory(page(view, caller, *ino, *after, *limit, *attributes)?))
        }
        Query::Symlink { ino } => symlink(view, *ino),
        Query::Xattr { ino, name } => Ok(Answer::Xattr(xattr::get(view, caller, *ino, name)?)),
        Query::Xattrs { ino } => Ok(Answer::Xattrs(xattr::list(view, caller, *ino)?)),
        Query::Content { ino, first, count, session } => {
            let session = session.and(reader.session);
            content(view, &Reader { caller, session }, *ino, *first, *count)
        }
        Query::Session { .. } => Err(Errno::EOPNOTSUPP.into()),
        Query::Totals => Ok(Answer::Totals(inodes::totals(view)?)),
    }
}

fn lookup(view: &dyn View, caller: &Caller, parent: Ino, name: &Name) -> Result<Attributes, Error> {
    inodes::searchable(view, caller, parent)?;
    let (_, entry) = directory::find(view, parent, name)?.ok_or(Errno::ENOENT)?;
    Ok(inodes::named(view, entry.ino)?.attributes(entry.ino))
}

fn parent(view: &dyn View, caller: &Caller, ino: Ino) -> Result<Attributes, Error> {
    let inode = inodes::searchable(view, caller, ino)?;
    if inode.nlink == 0 {
        return Err(Errno::ENOENT.into());
    }
    Ok(inodes::named(view, inode.parent)?.attributes(inode.parent))
}

fn walk(view: &dyn View, caller: &Caller, start: Ino, components: &[Name]) -> Result<Answer, Error> {
    let mut found = Vec::with_capacity(components.len());
    let mut current = start;
    for name in components {
        match lookup(view, caller, current, name) {
            Ok(attributes) => {
                current = attributes.ino;
                found.push(attributes);
            }
            Err(Error::Errno(errno)) => return Ok(Answer::Walk { found, stopped: Some(errno) }),
            Err(error) => return Err(error),
        }
    }
    Ok(Answer::Walk { found, stopped: None })
}

fn symlink(view: &dyn View, ino: Ino) -> Result<Answer, Error> {
    let inode = inodes::load(view, ino)?;
    if inode.kind != FileKind::Symlink {
        return Err(Errno::EINVAL.into());
    }
    let damaged = Error::Corrupt("a symbolic link has no target");
    let row: SymlinkTarget = rows::get(view, &keys::symlink(ino))?.ok_or(damaged)?;
    Ok(Answer::Symlink(row.target.into_inner()))
}

/// A page of at most `limit` entries after a cookie. It reveals names to who may read the directory, and
/// not the key that hashes them.
fn page(
    view: &dyn View,
    caller: &Caller,
    ino: Ino,
    after: u64,
    limit: u16,
    attributes: bool,
) -> Result<DirectoryPage, Error> {
    let inode = inodes::load(view, ino)?;
    if !inode.is_directory() {
        return Err(Errno::ENOTDIR.into());
    }
    require(caller, &inode, READ)?;
    if inode.nlink == 0 {
        return Err(Errno::ENOENT.into());
    }
    let limit = usize::from(limit).min(PAGE_ENTRIES_MAX);
    if limit == 0 {
        return Err(Errno::EINVAL.into());
    }
    let attributes = attributes && may(caller, &inode, EXECUTE);
    let mut entries = dots(view, ino, &inode, after, limit, attributes)?;
    let end = keys::kind_end(ino, KIND_ENTRY);
    let mut cookie = after.max(COOKIE_PARENT);
    while cookie < COOKIE_LAST {
        let from = keys::entry_cookie(ino, cookie.saturating_add(1));
        let Some((key, value)) = view.next(&from, Some(&end))? else { break };
        if entries.len() >= limit {
            return Ok(DirectoryPage { entries, complete: false });
        }
        cookie = keys::cookie_of(&key);
        let Entry { salt: _, name, ino, kind } = Entry::from_value(&value)?;
        let named = attributes.then(|| inodes::named(view, ino)).transpose()?;
        entries.push(DirectoryEntry {
            cookie,
            name: name.as_bytes().to_vec(),
            ino,
            kind,
            attributes: named.map(|inode| inode.attributes(ino)),
        });
    }
    Ok(DirectoryPage { entries, complete: true })
}

/// `.` and `..`, as far as they come after the cookie and fit.
fn dots(
    view: &dyn View,
    ino: Ino,
    inode: &Inode,
    after: u64,
    limit: usize,
    attributes: bool,
) -> Result<Vec<DirectoryEntry>, Error> {
    let mut entries = Vec::new();
    let both: [(u64, &[u8], Ino); 2] = [(COOKIE_SELF, b".", ino), (COOKIE_PARENT, b"..", inode.parent)];
    for (cookie, name, ino) in both {
        if cookie > after && entries.len() < limit {
            let named = attributes.then(|| inodes::named(view, ino)).transpose()?;
            entries.push(DirectoryEntry {
                cookie,
                name: name.to_vec(),
                ino,
                kind: FileKind::Directory,
                attributes: named.map(|inode| inode.attributes(ino)),
            });
        }
    }
    Ok(entries)
}

/// Content rows for who may read or execute the file, owns it, or holds it open for reading: an owner could
/// have opened it before its mode changed, and whoever executes a program on another machine has to fetch it
/// (ADR 8).
fn content(view: &dyn View, reader: &Reader<'_>, ino: Ino, first: u64, count: u16) -> Result<Answer, Error> {
    let inode = inodes::load(view, ino)?;
    match inode.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    let mut allowed = permission::owns(reader.caller, &inode)
        || may(reader.caller, &inode, READ)
        || may(reader.caller, &inode, EXECUTE);
    if let (false, Some(session)) = (allowed, reader.session) {
        allowed = grants::holds(view, session, ino, true, false)?;
    }
    if !allowed {
        return Err(Errno::EACCES.into());
    }
    if !(1..=CONTENT_ROWS_PER_READ_MAX).contains(&usize::from(count)) {
        return Err(Errno::EINVAL.into());
    }
    let end = first.saturating_add(u64::from(count)).min(inode.rows_of(inode.size));
    let rows = content_rows(view, ino, first, end)?;
    Ok(Answer::Content(ContentRows { attributes: inode.attributes(ino), rows }))
}

/// The rows in `[first, end)` that have segments. Rows beyond the file's size are not looked at.
fn content_rows(view: &dyn View, ino: Ino, first: u64, end: u64) -> Result<Vec<(u64, Vec<Segment>)>, Error> {
    let mut found = Vec::new();
    let mut index = first;
    let limit = keys::content(ino, end);
    while index < end {
        let Some((key, value)) = view.next(&keys::content(ino, index), Some(&limit))? else { break };
        debug_assert_eq!(keys::kind_of(&key), KIND_CONTENT);
        index = keys::content_index(&key);
        found.push((index, Content::from_value(&value)?.segments.into_inner()));
        index = index.saturating_add(1);
    }
    Ok(found)
}
