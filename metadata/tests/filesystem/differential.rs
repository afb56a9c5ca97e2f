//! Random operations by several users in several sessions, on the state machine and on the model at once.
//!
//! Compared are every result, after every few operations the whole tree with its attributes and bytes, and
//! the state's own counts; at the end everything is removed and no row may be left.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use quorate_crypto::{Bounded, BoundedBytes};
use quorate_metadata::rows::{Row, Totals, value_hash};
use quorate_metadata::{Answer, Caller, ContentRows, Errno, Progress, keys, release_session};
use quorate_protocol::blocks::{BlockDescriptor, BlockEvidence};
use quorate_protocol::file::{FileKind, Segment, SegmentSource};
use quorate_protocol::operation::{Authority, WriteAt};
use quorate_protocol::query::Query;
use quorate_protocol::{Ino, OperationBody, Reply};

use crate::check;
use crate::generate::{DIRECTORY, FILE, Step, callers, step};
use crate::model::{Act, Model, Outcome, ROW};
use crate::support::{ROOT, World, evidence, inline, session_id};

/// Both implementations, side by side.
struct Pair {
    world: World,
    model: Model,
    /// How often each operation came to each end.
    seen: BTreeMap<String, u32>,
}

impl Pair {
    fn new() -> Self {
        let mut world = World::new();
        world.parameters.reclaim_rows_per_batch = 40;
        let model = Model::new(world.time());
        Self { world, model, seen: BTreeMap::new() }
    }

    /// The inode that a number stands for: one that exists, in most cases.
    fn choose(&self, pick: Ino) -> Ino {
        let (offset, kind) = match pick {
            FILE.. => (FILE, Some(FileKind::Regular)),
            DIRECTORY.. => (DIRECTORY, Some(FileKind::Directory)),
            _ => (0, None),
        };
        let nodes = self.model.nodes.iter();
        let nodes = nodes.filter(|(_, node)| kind.is_none() || node.kind == kind);
        let mut all: Vec<Ino> = nodes.map(|(ino, _)| *ino).collect();
        if kind.is_none() || all.is_empty() {
            // Inodes that were, or will be.
            all.extend([0, all.len() as u64 + 1]);
        }
        all[usize::try_from(pick - offset).unwrap() % all.len()]
    }

    fn resolve(&self, mut body: OperationBody) -> OperationBody {
        match &mut body {
            OperationBody::Create { parent, .. }
            | OperationBody::Mkdir { parent, .. }
            | OperationBody::Symlink { parent, .. }
            | OperationBody::Mknod { parent, .. }
            | OperationBody::Unlink { parent, .. }
            | OperationBody::Rmdir { parent, .. } => *parent = self.choose(*parent),
            OperationBody::Link { ino, parent, .. } => {
                *ino = self.choose(*ino);
                *parent = self.choose(*parent);
            }
            OperationBody::Rename { parent, new_parent, .. } => {
                *parent = self.choose(*parent);
                *new_parent = self.choose(*new_parent);
            }
            OperationBody::SetAttributes { ino, .. }
            | OperationBody::SetXattr { ino, .. }
            | OperationBody::RemoveXattr { ino, .. }
            | OperationBody::Open { ino, .. }
            | OperationBody::Release { ino, .. }
            | OperationBody::Write { ino, .. } => *ino = self.choose(*ino),
            other => panic!("{other:?}"),
        }
        body
    }

    fn act(&self) -> (Caller, u64) {
        (self.world.caller.clone(), self.world.session)
    }

    fn run(&mut self, step: Step) {
        self.world.caller = callers()[step.caller].clone();
        self.world.session = step.session;
        let mut body = self.resolve(step.body);
        if let OperationBody::Write { evidence: brought, .. } = &mut body {
            let contents: Vec<&[u8]> = step.blocks.iter().map(Vec::as_slice).collect();
            *brought = evidence(session_id(step.session), &contents);
        }
        for content in step.blocks {
            self.model.blocks.insert(BlockDescriptor::copies(&content).id().0, content);
        }
        let real = self.apply(&body);
        self.note(&body, real.as_ref().map_or_else(|errno| errno.symbol(), |_| "done"));
        let (caller, session) = self.act();
        let (time, operation) = (self.world.time(), self.world.operation);
        let act = Act { caller: &caller, session, time, operation };
        let expected = self.model.perform(&act, &body);
        self.compare(&body, real, expected);
        if step.reclaim {
            self.world.reclaim();
        }
    }

    fn note(&mut self, body: &OperationBody, end: &str) {
        let debug = format!("{body:?}");
        let operation: String = debug.chars().take_while(|letter| letter.is_alphabetic()).collect();
        *self.seen.entry(format!("{operation} {end}")).or_default() += 1;
    }

    /// Applies an operation, again after `Continue`, and after a fold when one is asked for.
    fn apply(&mut self, body: &OperationBody) -> Result<Reply, Errno> {
        for _ in 0..100 {
            match self.world.apply(body) {
                Ok(Reply::Continue) => self.note(body, "continue"),
                Ok(Reply::NeedsFold { ino, index }) => {
                    self.note(body, "fold");
                    self.fold(ino, index);
                }
                outcome => return outcome,
            }
        }
        panic!("{body:?} does not end");
    }

    /// Folds a row into one block, as its owner, and tells the model that holes were filled.
    fn fold(&mut self, ino: Ino, index: u64) {
        let (caller, session) = self.act();
        self.world.as_root();
        let bytes = self.bytes(ino);
        let start = usize::try_from(index).unwrap() * ROW;
        let row: Vec<u8> =
            bytes[start..bytes.len().min(start + ROW)].iter().map(|byte| byte.unwrap_or(0)).collect();
        let descriptor = BlockDescriptor::copies(&row);
        self.model.blocks.insert(descriptor.id().0, row.clone());
        let source = SegmentSource::Block { id: descriptor.id(), offset: 0 };
        let segment = Segment { start: 0, length: descriptor.length, source };
        let body = OperationBody::Fold {
            ino,
            index,
            expected: value_hash(&self.world.view.rows[&keys::content(ino, index)]),
            segments: Bounded::try_from(vec![segment]).unwrap(),
            evidence: evidence(session_id(session), &[&row]),
            authority: Authority::Check,
            entropy: [3; 16],
        };
        self.world.apply(&body).unwrap();
        let (time, operation) = (self.world.time(), self.world.operation);
        let act = Act { caller: &Caller::root(), session, time, operation };
        self.model.fold(&act, ino, usize::try_from(index).unwrap());
        self.world.caller = caller;
    }

    fn compare(&self, body: &OperationBody, real: Result<Reply, Errno>, expected: Outcome) {
        let (reply, (ino, offset)) = match (real, expected) {
            (Ok(reply), Ok(outcome)) => (reply, outcome),
            (Err(real), Err(expected)) => return assert_eq!(real, expected, "{body:?}"),
            (real, expected) => panic!("{body:?} answered {real:?} instead of {expected:?}"),
        };
        match reply {
            Reply::Empty => assert_eq!(ino, None, "{body:?}"),
            Reply::Inode { attributes, .. } => self.same(ino.unwrap(), attributes),
            Reply::Written { offset: real, attributes } => {
                assert_eq!(real, offset);
                self.same(ino.unwrap(), attributes);
            }
            other => panic!("{body:?} answered {other:?}"),
        }
    }

    /// Attributes are equal; `blocks` only when the inode waits for no reclaiming.
    fn same(&self, ino: Ino, mut real: quorate_protocol::file::Attributes) {
        let expected = self.model.nodes[&ino].attributes(ino);
        if self.world.row(ino).reclaim_from.is_some() {
            assert!(real.blocks >= expected.blocks);
            real.blocks = expected.blocks;
        }
        assert_eq!(real, expected);
    }

    /// A file's bytes; holes are `None`.
    fn bytes(&self, ino: Ino) -> Vec<Option<u8>> {
        let size = usize::try_from(self.world.stat(ino).size).unwrap();
        let mut bytes = vec![None; size];
        for first in (0..size.div_ceil(ROW) as u64).step_by(5) {
            let query = Query::Content { ino, first, count: 5, session: None };
            let Ok(Answer::Content(ContentRows { rows, .. })) = self.world.read(&query) else {
                panic!("no content of {ino}")
            };
            for (index, segments) in rows {
                for segment in segments {
                    let start = usize::try_from(index).unwrap() * ROW + segment.start as usize;
                    for position in 0..segment.length as usize {
                        let byte = match &segment.source {
                            SegmentSource::Inline(bytes) => bytes[position],
                            SegmentSource::Block { id, offset } => {
                                self.model.blocks[&id.0][*offset as usize + position]
                            }
                        };
                        bytes[start + position] = Some(byte);
                    }
                }
            }
        }
        bytes
    }

    fn entries(&self, ino: Ino) -> BTreeMap<Vec<u8>, Ino> {
        let mut entries = BTreeMap::new();
        let mut after = 0;
        loop {
            let query = Query::Directory { ino, after, limit: 2, attributes: true };
            let Ok(Answer::Directory(page)) = self.world.read(&query) else { panic!("no page of {ino}") };
            for entry in page.entries {
                assert!(entry.cookie > after);
                after = entry.cookie;
                self.same(entry.ino, entry.attributes.unwrap());
                assert_eq!(Some(entry.kind), self.model.nodes[&entry.ino].kind);
                assert!(entries.insert(entry.name, entry.ino).is_none());
            }
            if page.complete {
                return entries;
            }
        }
    }

    /// The whole trees are equal.
    fn compare_all(&mut self) {
        let (caller, _) = self.act();
        self.world.as_root();
        for (ino, node) in &self.model.nodes {
            self.same(*ino, self.world.stat(*ino));
            match node.kind.unwrap() {
                FileKind::Directory if node.nlink > 0 => {
                    let mut expected = node.entries.clone();
                    expected.insert(b".".to_vec(), *ino);
                    expected.insert(b"..".to_vec(), node.parent);
                    assert_eq!(self.entries(*ino), expected);
                }
                FileKind::Regular => assert_eq!(self.bytes(*ino), node.bytes, "bytes of {ino}"),
                FileKind::Symlink => {
                    let target = self.world.read(&Query::Symlink { ino: *ino });
                    assert_eq!(target, Ok(Answer::Symlink(node.target.clone())));
                }
                _ => {}
            }
            self.compare_xattrs(*ino, &node.xattrs);
        }
        check::consistent(&self.world);
        self.world.caller = caller;
    }

    fn compare_xattrs(&self, ino: Ino, expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let Ok(Answer::Xattrs(mut names)) = self.world.read(&Query::Xattrs { ino }) else {
            panic!("no attributes of {ino}")
        };
        names.sort();
        assert!(names.iter().eq(expected.keys()));
        for (name, value) in expected {
            let query = Query::Xattr { ino, name: BoundedBytes::try_from(name.clone()).unwrap() };
            assert_eq!(self.world.read(&query), Ok(Answer::Xattr(value.clone())));
        }
    }

    /// Removes everything, ends the sessions, reclaims, and looks for what is left.
    fn tear_down(mut self) {
        self.world.as_root();
        self.remove_below(ROOT);
        for name in self.model.nodes[&ROOT].xattrs.keys() {
            let name = BoundedBytes::try_from(name.clone()).unwrap();
            self.world.apply(&OperationBody::RemoveXattr { ino: ROOT, name }).unwrap();
        }
        for session in 1..3 {
            let moment = self.world.moment();
            while release_session(&mut self.world.view, moment, session, 2).unwrap() == Progress::More {}
        }
        check::consistent(&self.world);
        self.world.drain();
        check::consistent(&self.world);
        self.world.now += self.world.parameters.block_grace;
        self.world.drain();
        let system: Vec<_> = self.world.view.rows.keys().filter(|key| key[0] == 0xFF).collect();
        assert_eq!(system.len(), 6, "four counters, parameters and totals");
        assert_eq!(self.world.view.rows.len(), system.len() + 2, "the root and its key");
        let totals = Totals::from_value(&self.world.view.rows[&keys::totals()]).unwrap();
        assert_eq!(totals, Totals { inodes: 1, ..Totals::default() });
    }

    fn remove_below(&mut self, directory: Ino) {
        for (text, ino) in self.entries(directory) {
            let parent = directory;
            if text == b"." || text == b".." {
                continue;
            }
            let name = quorate_protocol::file::Name::new(&text).unwrap();
            let body = if self.model.nodes[&ino].kind == Some(FileKind::Directory) {
                self.remove_below(ino);
                OperationBody::Rmdir { parent, name }
            } else {
                OperationBody::Unlink { parent, name }
            };
            self.world.apply(&body).unwrap();
            let (time, operation) = (self.world.time(), self.world.operation);
            let act = Act { caller: &Caller::root(), session: 1, time, operation };
            self.model.perform(&act, &body).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_machine_is_the_model(steps in proptest::collection::vec(step(), 1..300)) {
        let mut pair = Pair::new();
        for (index, step) in steps.into_iter().enumerate() {
            pair.run(step);
            if index % 7 == 6 {
                pair.compare_all();
            }
        }
        pair.compare_all();
        pair.tear_down();
    }
}

/// The operations above are worth their name: every one succeeds often, and fails in all the usual ways.
#[test]
fn random_operations_reach_every_end() {
    let mut runner = TestRunner::deterministic();
    let steps = proptest::collection::vec(step(), 300);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..100 {
        let mut pair = Pair::new();
        for step in steps.new_tree(&mut runner).unwrap().current() {
            pair.run(step);
        }
        for (end, count) in std::mem::take(&mut pair.seen) {
            *seen.entry(end).or_default() += count;
        }
        pair.tear_down();
    }
    let wanted = [
        "Create done",
        "Create EISDIR",
        "Create EEXIST",
        "Mkdir done",
        "Mknod EPERM",
        "Symlink done",
        "Link done",
        "Link EPERM",
        "Unlink done",
        "Unlink EISDIR",
        "Unlink EPERM",
        "Rmdir done",
        "Rmdir ENOTEMPTY",
        "Rename done",
        "Rename EINVAL",
        "Rename EISDIR",
        "Rename ENOTDIR",
        "Rename ENOTEMPTY",
        "Rename EACCES",
        "SetAttributes done",
        "SetAttributes EPERM",
        "SetAttributes EACCES",
        "SetAttributes EBADF",
        "SetXattr done",
        "SetXattr ENODATA",
        "RemoveXattr done",
        "Open done",
        "Release done",
        "Write done",
        "Write EBADF",
        "Write EACCES",
    ];
    for end in wanted {
        assert!(seen.get(end).is_some_and(|count| *count > 1), "hardly any {end} in {seen:#?}");
    }
}

/// A few files, written over and over in small pieces: rows fill up with segments and are folded.
#[test]
fn many_small_writes_fold_and_stay_right() {
    let mut pair = Pair::new();
    let caller = 0;
    let create = crate::support::create_body(DIRECTORY, "a", 0o644, true, None, [1; 16]);
    pair.run(Step { caller, session: 1, body: create, blocks: vec![], reclaim: false });
    let mut random = 12345_u32;
    let mut folds = 0;
    for round in 0..600_u32 {
        random = random.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let offset = u64::from(random >> 16) % 180;
        let byte = [u8::try_from(round % 256).unwrap()];
        let (piece, blocks) = if round % 3 == 0 {
            (inline(&byte), vec![])
        } else {
            (crate::support::block(&byte, 0, 1), vec![byte.to_vec()])
        };
        let before = pair.world.operation;
        let body = OperationBody::Write {
            ino: FILE,
            at: WriteAt::Offset(offset),
            pieces: Bounded::try_from(vec![piece]).unwrap(),
            evidence: BlockEvidence::default(),
            authority: Authority::Check,
            token: None,
            entropy: [5; 16],
        };
        pair.run(Step { caller, session: 1, body, blocks, reclaim: false });
        folds += u32::from(pair.world.operation > before + 1);
    }
    assert!(folds > 3, "only {folds} folds");
    pair.compare_all();
    pair.tear_down();
}
