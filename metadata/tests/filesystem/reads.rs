//! Queries: pages with stable cookies, walks, denials, and what a partial view may not be taken for.

use std::cell::RefCell;
use std::collections::BTreeSet;

use quorate_crypto::Bounded;
use quorate_metadata::rows::Totals;
use quorate_metadata::{
    Answer, Caller, DirectoryPage, Errno, Error, Key, Missing, Reader, Value, View, keys, read,
};
use quorate_protocol::file::FileKind;
use quorate_protocol::query::Query;
use quorate_protocol::{BatchTime, Ino, OperationBody};

use crate::support::{ROOT, World, name, user};

fn page(world: &World, ino: Ino, after: u64, limit: u16, attributes: bool) -> Result<DirectoryPage, Errno> {
    match world.read(&Query::Directory { ino, after, limit, attributes })? {
        Answer::Directory(page) => Ok(page),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_begin_with_dot_and_dot_dot_and_resume_after_any_cookie() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    for index in 0..20 {
        world.create(directory, &format!("f{index}"), 0o644).unwrap();
    }
    let whole = page(&world, directory, 0, 100, true).unwrap();
    assert!(whole.complete);
    assert_eq!(whole.entries.len(), 22);
    let dots: Vec<_> = whole.entries[..2].iter().map(|e| (e.cookie, e.name.as_slice(), e.ino)).collect();
    assert_eq!(dots, [(1, b".".as_slice(), directory), (2, b"..", ROOT)]);
    assert!(whole.entries.windows(2).all(|pair| pair[0].cookie < pair[1].cookie));
    assert!(whole.entries.iter().all(|entry| entry.cookie < (1 << 63) - 1));
    assert!(whole.entries.iter().all(|entry| entry.attributes.as_ref().unwrap().ino == entry.ino));
    for (index, entry) in whole.entries.iter().enumerate() {
        let rest = page(&world, directory, entry.cookie, 100, true).unwrap();
        assert_eq!(rest.entries, whole.entries[index + 1..]);
    }
    for limit in [1, 2, 21] {
        let first = page(&world, directory, 0, limit, false).unwrap();
        assert_eq!((first.entries.len(), first.complete), (usize::from(limit), false));
    }
    assert!(page(&world, directory, 0, 22, false).unwrap().complete);
    assert!(page(&world, directory, u64::MAX, 5, false).unwrap().entries.is_empty());
    assert_eq!(page(&world, directory, 0, 0, false), Err(Errno::EINVAL));
}

#[test]
fn a_listing_survives_removal_and_creation_in_between() {
    let mut world = World::new();
    for index in 0..50 {
        world.create(ROOT, &format!("f{index}"), 0o644).unwrap();
    }
    let mut seen = BTreeSet::new();
    let mut after = 2;
    let mut round = 0;
    loop {
        let page = page(&world, ROOT, after, 7, false).unwrap();
        for entry in &page.entries {
            assert!(seen.insert(entry.name.clone()), "twice");
            after = entry.cookie;
        }
        if page.complete {
            break;
        }
        let last = String::from_utf8(page.entries.last().unwrap().name.clone()).unwrap();
        world.unlink(ROOT, &last).unwrap();
        world.create(ROOT, &format!("new{round}"), 0o644).unwrap();
        round += 1;
    }
    for index in 0..50 {
        assert!(seen.contains(format!("f{index}").as_bytes()), "f{index} is missing");
    }
}

#[test]
fn listing_needs_read_and_attributes_need_search() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o744).unwrap();
    world.create(directory, "f", 0o644).unwrap();
    world.as_user(1000, 1000);
    let names = page(&world, directory, 0, 10, true).unwrap();
    assert!(names.entries.iter().all(|entry| entry.attributes.is_none()));
    assert_eq!(world.lookup(directory, "f"), Err(Errno::EACCES));
    world.as_root().chmod(directory, 0o711).unwrap();
    world.as_user(1000, 1000);
    assert_eq!(page(&world, directory, 0, 10, false), Err(Errno::EACCES));
    assert!(world.lookup(directory, "f").is_ok());
    let file = world.lookup(directory, "f").unwrap().ino;
    assert_eq!(page(&world, file, 0, 10, false), Err(Errno::ENOTDIR));
}

#[test]
fn walks_stop_where_they_must() {
    let mut world = World::new();
    let a = world.mkdir(ROOT, "a", 0o755).unwrap();
    let b = world.mkdir(a, "b", 0o755).unwrap();
    let file = world.create(b, "f", 0o644).unwrap();
    let walk = |world: &World, parts: &[&str]| {
        let components = Bounded::try_collect(parts.iter().map(|part| name(part))).unwrap();
        match world.read(&Query::Walk { start: ROOT, components }) {
            Ok(Answer::Walk { found, stopped }) => {
                (found.into_iter().map(|attributes| attributes.ino).collect::<Vec<_>>(), stopped)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(walk(&world, &["a", "b", "f"]), (vec![a, b, file], None));
    assert_eq!(walk(&world, &["a", "x", "f"]), (vec![a], Some(Errno::ENOENT)));
    assert_eq!(walk(&world, &["a", "b", "f", "g"]), (vec![a, b, file], Some(Errno::ENOTDIR)));
    world.chmod(b, 0o600).unwrap();
    world.as_user(1000, 1000);
    assert_eq!(walk(&world, &["a", "b", "f"]), (vec![a, b], Some(Errno::EACCES)));
}

#[test]
fn parents_targets_totals_and_what_is_not_here() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o755).unwrap();
    let file = world.create(directory, "f", 0o644).unwrap();
    let link = world.symlink(ROOT, "s", b"target").unwrap();
    world.write(file, 0, b"12345").unwrap();
    let ino_of = |answer| match answer {
        Ok(Answer::Attributes(attributes)) => Ok(attributes.ino),
        Err(errno) => Err(errno),
        other => panic!("{other:?}"),
    };
    assert_eq!(ino_of(world.read(&Query::Parent { ino: directory })), Ok(ROOT));
    assert_eq!(ino_of(world.read(&Query::Parent { ino: ROOT })), Ok(ROOT));
    assert_eq!(ino_of(world.read(&Query::Parent { ino: file })), Err(Errno::ENOTDIR));
    assert_eq!(world.read(&Query::Symlink { ino: link }), Ok(Answer::Symlink(b"target".to_vec())));
    assert_eq!(world.read(&Query::Symlink { ino: file }), Err(Errno::EINVAL));
    let totals = Totals { inodes: 4, bytes: 5, blocks: 0, block_bytes: 0 };
    assert_eq!(world.read(&Query::Totals), Ok(Answer::Totals(totals)));
    let session = crate::support::session_id(1);
    assert_eq!(world.read(&Query::Session { session }), Err(Errno::EOPNOTSUPP));
    let until = BatchTime(1);
    assert_eq!(world.apply(&OperationBody::Renew { until }), Err(Errno::EOPNOTSUPP));
    let content = |first, count| Query::Content { ino: file, first, count, session: None };
    assert_eq!(world.read(&content(0, 0)), Err(Errno::EINVAL));
    assert_eq!(world.read(&content(0, 65)), Err(Errno::EINVAL));
    assert!(world.read(&content(u64::MAX, 64)).is_ok());
    let of = |ino| Query::Content { ino, first: 0, count: 1, session: None };
    assert_eq!(world.read(&of(directory)), Err(Errno::EISDIR));
    assert_eq!(world.read(&of(link)), Err(Errno::EINVAL));
}

/// Whoever may execute a program on another machine has to fetch it; nobody else gains anything by it.
#[test]
fn content_is_for_who_may_read_or_execute() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o600).unwrap();
    let directory = world.mkdir(ROOT, "d", 0o711).unwrap();
    let content = |ino| Query::Content { ino, first: 0, count: 1, session: None };
    for (mode, allowed) in [(0o700, false), (0o710, false), (0o711, true), (0o722, false), (0o744, true)] {
        world.as_root().chmod(file, mode).unwrap();
        let answer = world.as_user(1000, 1000).read(&content(file));
        assert_eq!(answer.is_ok(), allowed, "{mode:o}: {answer:?}");
        let list = Query::Directory { ino: directory, after: 0, limit: 1, attributes: false };
        assert_eq!(world.read(&list), Err(Errno::EACCES), "searching is not listing");
    }
    world.as_root();
}

/// Remembers which rows a query looks at.
struct Recorder<'a> {
    world: &'a World,
    touched: RefCell<BTreeSet<Key>>,
}

impl View for Recorder<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>, Missing> {
        self.touched.borrow_mut().insert(*key);
        self.world.view.get(key)
    }

    fn next(&self, from: &Key, end: Option<&Key>) -> Result<Option<(Key, Value)>, Missing> {
        let found = self.world.view.next(from, end)?;
        self.touched.borrow_mut().insert(found.as_ref().map_or(*from, |(key, _)| *key));
        Ok(found)
    }

    fn put(&mut self, _: Key, _: Value) {
        panic!("a query writes");
    }

    fn delete(&mut self, _: Key) {
        panic!("a query deletes");
    }
}

/// Rule S3: the rows of a denial are those of the predicate, and a listing does not show the directory's key.
#[test]
fn denials_and_listings_touch_no_more_than_they_may() {
    let mut world = World::new();
    let directory = world.mkdir(ROOT, "d", 0o700).unwrap();
    let file = world.create(directory, "f", 0o600).unwrap();
    world.write(file, 0, b"secret").unwrap();
    let touched = |caller: &Caller, query: &Query| {
        let recorder = Recorder { world: &world, touched: RefCell::default() };
        let answer = read(&recorder, &Reader { caller, session: None }, query);
        (answer, recorder.touched.into_inner())
    };
    let stranger = user(1000, 1000, &[]);
    let denied = Err(Error::Errno(Errno::EACCES));
    let lookup = Query::Lookup { parent: directory, name: name("f") };
    let list = Query::Directory { ino: directory, after: 0, limit: 10, attributes: true };
    let content = Query::Content { ino: file, first: 0, count: 1, session: None };
    for (query, ino) in [(&lookup, directory), (&list, directory), (&content, file)] {
        assert_eq!(touched(&stranger, query), (denied.clone(), BTreeSet::from([keys::inode(ino)])));
    }
    let (answer, rows) = touched(&Caller::root(), &list);
    assert!(answer.is_ok());
    assert!(!rows.contains(&keys::directory_key(directory)));
    assert!(touched(&Caller::root(), &lookup).1.contains(&keys::directory_key(directory)));
}

/// Holds only some rows, as a verified proof does.
struct Partial<'a> {
    world: &'a World,
    held: BTreeSet<Key>,
}

impl View for Partial<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>, Missing> {
        if self.held.contains(key) { self.world.view.get(key) } else { Err(Missing(*key)) }
    }

    fn next(&self, from: &Key, _: Option<&Key>) -> Result<Option<(Key, Value)>, Missing> {
        Err(Missing(*from))
    }

    fn put(&mut self, _: Key, _: Value) {}

    fn delete(&mut self, _: Key) {}
}

#[test]
fn what_a_view_does_not_hold_is_never_absent() {
    let mut world = World::new();
    let file = world.create(ROOT, "f", 0o644).unwrap();
    let caller = Caller::root();
    let reader = Reader { caller: &caller, session: None };
    let lookup = Query::Lookup { parent: ROOT, name: name("f") };
    let mut partial = Partial { world: &world, held: BTreeSet::new() };
    let mut needed = Vec::new();
    loop {
        match read(&partial, &reader, &lookup) {
            Err(Error::Missing(Missing(key))) => {
                assert!(partial.held.insert(key));
                needed.push(keys::kind_of(&key));
            }
            Ok(Answer::Attributes(attributes)) => {
                assert_eq!((attributes.ino, attributes.kind), (file, FileKind::Regular));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(needed, [keys::KIND_INODE, keys::KIND_DIRECTORY_KEY, keys::KIND_ENTRY, keys::KIND_INODE]);
    let list = Query::Directory { ino: ROOT, after: 0, limit: 10, attributes: false };
    assert!(matches!(read(&partial, &reader, &list), Err(Error::Missing(_))));
}
