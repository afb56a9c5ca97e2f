//! A world to test in: one state in memory, a clock that ticks with each operation, callers and sessions.
//!
//! Invariant: a failed operation leaves the state as it was, as the executor guarantees too.

use std::collections::BTreeMap;

use quorate_crypto::{Bounded, BoundedBytes, Hash, Signature, derive_hash};
use quorate_metadata::rows::{self, Inode, Row};
use quorate_metadata::{
    Answer, BlockChecker, Caller, Context, Errno, Error, Key, Missing, Moment, Progress, ROOT_INO, Reader,
    Value, View, apply, genesis, keys, read, reclaim,
};
use quorate_protocol::blocks::{BlockDescriptor, BlockEvidence, BlockGrant, BlockReceipt, BlockReceiptBody};
use quorate_protocol::file::{Attributes, Name};
use quorate_protocol::genesis::{GENESIS_VERSION, Genesis, Parameters};
use quorate_protocol::operation::{Authority, OpenMode, Piece, RenameMode, SpecialFile, WriteAt};
use quorate_protocol::query::Query;
use quorate_protocol::time::SetTime;
use quorate_protocol::{BatchTime, Ino, OperationBody, Reply, SessionId, Timestamp};

/// Batch time of the genesis.
pub const START: u64 = 1_000_000_000_000;

/// A state in memory that can be rolled back to the last commit.
#[derive(Default)]
pub struct MemoryView {
    pub rows: BTreeMap<Key, Value>,
    undo: Vec<(Key, Option<Value>)>,
}

impl MemoryView {
    /// Makes everything so far the state that a failed operation goes back to.
    pub fn commit(&mut self) {
        self.undo.clear();
    }

    fn roll_back(&mut self) {
        while let Some((key, old)) = self.undo.pop() {
            match old {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }
}

impl View for MemoryView {
    fn get(&self, key: &Key) -> Result<Option<Value>, Missing> {
        Ok(self.rows.get(key).cloned())
    }

    fn next(&self, from: &Key, end: Option<&Key>) -> Result<Option<(Key, Value)>, Missing> {
        let found = self.rows.range(*from..).next().filter(|(key, _)| end.is_none_or(|end| *key < end));
        Ok(found.map(|(key, value)| (*key, value.clone())))
    }

    fn put(&mut self, key: Key, value: Value) {
        let old = self.rows.insert(key, value);
        self.undo.push((key, old));
    }

    fn delete(&mut self, key: Key) {
        let old = self.rows.remove(&key);
        self.undo.push((key, old));
    }
}

/// A checker whose signatures are their first byte, and whose trees are one hash of root and leaf.
pub struct TestChecker;

pub fn path_of(root: &Hash, leaf: &[u8], index: u32) -> Hash {
    derive_hash("quorate test path", &[&root.0, leaf, &index.to_le_bytes()])
}

impl BlockChecker for TestChecker {
    fn epoch(&self) -> u64 {
        3
    }

    fn quorum(&self) -> usize {
        3
    }

    fn signed(&self, receipt: &BlockReceipt) -> bool {
        receipt.signature.0[0] == 1 && receipt.replica < 4
    }

    fn included(&self, leaf: &[u8], index: u32, count: u32, path: &[Hash], root: &Hash) -> bool {
        index < count && path == [path_of(root, leaf, index)]
    }
}

/// Good evidence for these blocks and this session.
pub fn evidence(session: SessionId, contents: &[&[u8]]) -> BlockEvidence {
    let descriptors: Vec<_> = contents.iter().map(|content| BlockDescriptor::copies(content)).collect();
    let ids: Vec<u8> = descriptors.iter().flat_map(|descriptor| descriptor.id().0).collect();
    let root = derive_hash("quorate test root", &[&ids]);
    let count = u32::try_from(contents.len()).unwrap();
    let body = BlockReceiptBody { session, expires: BatchTime(u64::MAX), count, root };
    let receipt = |replica| {
        let mut signature = Signature([0; 64]);
        signature.0[0] = 1;
        BlockReceipt { epoch: 3, replica, body: body.clone(), signature }
    };
    let grant = |(index, descriptor): (usize, &BlockDescriptor)| {
        let index = u32::try_from(index).unwrap();
        let leaf = quorate_protocol::blocks::receipt_leaf(&descriptor.id(), descriptor.length);
        let path = Bounded::try_from(vec![path_of(&root, &leaf, index)]).unwrap();
        BlockGrant { descriptor: descriptor.clone(), index, path }
    };
    BlockEvidence {
        blocks: Bounded::try_collect(descriptors.iter().enumerate().map(grant)).unwrap(),
        receipts: Bounded::try_collect((0..3).map(receipt)).unwrap(),
    }
}

pub fn session_id(session: u64) -> SessionId {
    derive_hash("quorate test session", &[&session.to_le_bytes()])
}

/// Everything around a state.
pub struct World {
    pub view: MemoryView,
    pub parameters: Parameters,
    pub height: u64,
    pub now: u64,
    pub operation: u64,
    /// The caller of the next operations.
    pub caller: Caller,
    /// Their session.
    pub session: u64,
    entropy: u8,
}

pub fn user(uid: u32, gid: u32, groups: &[u32]) -> Caller {
    Caller { uid, gid, groups: groups.to_vec() }
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

impl World {
    /// A world whose root directory belongs to root and is open to all, with rows of 64 bytes.
    pub fn new() -> Self {
        Self::with(Parameters {
            block_log2: 6,
            inline_bytes_max: 48,
            block_grace: 1000,
            ..Parameters::default()
        })
    }

    pub fn with(parameters: Parameters) -> Self {
        let mut view = MemoryView::default();
        genesis(&mut view, &genesis_of(&parameters));
        view.commit();
        let caller = Caller::root();
        Self { view, parameters, height: 0, now: START, operation: 0, caller, session: 1, entropy: 0 }
    }

    pub fn as_user(&mut self, uid: u32, gid: u32) -> &mut Self {
        self.caller = user(uid, gid, &[]);
        self
    }

    pub fn as_root(&mut self) -> &mut Self {
        self.caller = Caller::root();
        self
    }

    pub fn time(&self) -> Timestamp {
        BatchTime(self.now).timestamp()
    }

    pub fn moment(&self) -> Moment {
        Moment { height: self.height, time: BatchTime(self.now) }
    }

    pub fn entropy(&mut self) -> [u8; 16] {
        self.entropy = self.entropy.wrapping_add(1);
        [self.entropy; 16]
    }

    /// Applies one operation a tick later.
    pub fn apply(&mut self, body: &OperationBody) -> Result<Reply, Errno> {
        self.height += 1;
        self.operation += 1;
        self.now += 1_000_001;
        let context = Context {
            session: self.session,
            session_id: session_id(self.session),
            caller: &self.caller,
            time: BatchTime(self.now).timestamp(),
            moment: Moment { height: self.height, time: BatchTime(self.now) },
            operation: self.operation,
            parameters: &self.parameters,
            blocks: &TestChecker,
        };
        match apply(&mut self.view, &context, body) {
            Ok(reply) => {
                self.view.commit();
                Ok(reply)
            }
            Err(Error::Errno(errno)) => {
                self.view.roll_back();
                Err(errno)
            }
            Err(error) => panic!("{body:?}: {error}"),
        }
    }

    /// Applies an operation that answers an inode.
    pub fn inode(&mut self, body: &OperationBody) -> Result<Attributes, Errno> {
        match self.apply(body)? {
            Reply::Inode { attributes, .. } | Reply::Written { attributes, .. } => Ok(attributes),
            reply => panic!("{body:?} answered {reply:?}"),
        }
    }

    pub fn read(&self, query: &Query) -> Result<Answer, Errno> {
        let reader = Reader { caller: &self.caller, session: Some(self.session) };
        match read(&self.view, &reader, query) {
            Ok(answer) => Ok(answer),
            Err(Error::Errno(errno)) => Err(errno),
            Err(error) => panic!("{query:?}: {error}"),
        }
    }

    pub fn stat(&self, ino: Ino) -> Attributes {
        match self.read(&Query::Attributes { ino }) {
            Ok(Answer::Attributes(attributes)) => attributes,
            other => panic!("stat of {ino} answered {other:?}"),
        }
    }

    pub fn lookup(&self, parent: Ino, text: &str) -> Result<Attributes, Errno> {
        match self.read(&Query::Lookup { parent, name: name(text) })? {
            Answer::Attributes(attributes) => Ok(attributes),
            other => panic!("lookup answered {other:?}"),
        }
    }

    pub fn row(&self, ino: Ino) -> Inode {
        Inode::from_value(&self.view.rows[&keys::inode(ino)]).unwrap()
    }

    pub fn change_row(&mut self, ino: Ino, change: impl FnOnce(&mut Inode)) {
        let mut inode = self.row(ino);
        change(&mut inode);
        rows::put(&mut self.view, keys::inode(ino), &inode);
        self.view.commit();
    }

    /// One batch of reclaiming.
    pub fn reclaim(&mut self) -> Progress {
        self.height += 1;
        let moment = self.moment();
        let outcome = reclaim(&mut self.view, moment, &self.parameters).unwrap();
        self.view.commit();
        outcome.progress
    }

    /// Reclaims until nothing is left.
    pub fn drain(&mut self) {
        while self.reclaim() == Progress::More {}
    }

    pub fn create(&mut self, parent: Ino, text: &str, mode: u16) -> Result<Ino, Errno> {
        let entropy = self.entropy();
        let body = create_body(parent, text, mode, true, None, entropy);
        Ok(self.inode(&body)?.ino)
    }

    pub fn open_create(&mut self, parent: Ino, text: &str, mode: u16, open: OpenMode) -> Result<Ino, Errno> {
        let entropy = self.entropy();
        let body = create_body(parent, text, mode, false, Some(open), entropy);
        Ok(self.inode(&body)?.ino)
    }

    pub fn mkdir(&mut self, parent: Ino, text: &str, mode: u16) -> Result<Ino, Errno> {
        let entropy = self.entropy();
        let body = OperationBody::Mkdir { parent, name: name(text), mode, umask: 0, ino: None, entropy };
        Ok(self.inode(&body)?.ino)
    }

    pub fn symlink(&mut self, parent: Ino, text: &str, target: &[u8]) -> Result<Ino, Errno> {
        let target = BoundedBytes::try_from(target).unwrap();
        let entropy = self.entropy();
        let body = OperationBody::Symlink { parent, name: name(text), target, ino: None, entropy };
        Ok(self.inode(&body)?.ino)
    }

    pub fn mknod(&mut self, parent: Ino, text: &str, node: SpecialFile) -> Result<Ino, Errno> {
        let entropy = self.entropy();
        let name = name(text);
        let body = OperationBody::Mknod { parent, name, node, mode: 0o644, umask: 0, ino: None, entropy };
        Ok(self.inode(&body)?.ino)
    }

    pub fn link(&mut self, ino: Ino, parent: Ino, text: &str) -> Result<Attributes, Errno> {
        self.inode(&OperationBody::Link { ino, parent, name: name(text) })
    }

    pub fn unlink(&mut self, parent: Ino, text: &str) -> Result<Reply, Errno> {
        self.apply(&OperationBody::Unlink { parent, name: name(text) })
    }

    pub fn rmdir(&mut self, parent: Ino, text: &str) -> Result<Reply, Errno> {
        self.apply(&OperationBody::Rmdir { parent, name: name(text) })
    }

    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> Result<Reply, Errno> {
        self.apply(&OperationBody::Rename {
            parent: from.0,
            name: name(from.1),
            new_parent: to.0,
            new_name: name(to.1),
            mode,
        })
    }

    pub fn chmod(&mut self, ino: Ino, mode: u16) -> Result<Attributes, Errno> {
        self.inode(&Setattr { mode: Some(mode), ..Setattr::of(ino) }.body())
    }

    pub fn chown(&mut self, ino: Ino, uid: Option<u32>, gid: Option<u32>) -> Result<Attributes, Errno> {
        self.inode(&Setattr { uid, gid, ..Setattr::of(ino) }.body())
    }

    pub fn truncate(&mut self, ino: Ino, size: u64) -> Result<Reply, Errno> {
        self.apply(&Setattr { size: Some(size), ..Setattr::of(ino) }.body())
    }

    pub fn utimes(&mut self, ino: Ino, atime: SetTime, mtime: SetTime) -> Result<Attributes, Errno> {
        self.inode(&Setattr { atime, mtime, ..Setattr::of(ino) }.body())
    }

    pub fn open(&mut self, ino: Ino, mode: OpenMode) -> Result<Attributes, Errno> {
        self.inode(&OperationBody::Open { ino, mode })
    }

    pub fn release(&mut self, ino: Ino, mode: OpenMode, count: u32) -> Result<Reply, Errno> {
        self.apply(&OperationBody::Release { ino, mode, count })
    }

    /// Writes pieces that bring evidence for these blocks.
    pub fn write_pieces(
        &mut self,
        ino: Ino,
        at: WriteAt,
        pieces: Vec<Piece>,
        blocks: &[&[u8]],
        authority: Authority,
    ) -> Result<Reply, Errno> {
        let evidence = if blocks.is_empty() {
            BlockEvidence::default()
        } else {
            evidence(session_id(self.session), blocks)
        };
        let entropy = self.entropy();
        self.apply(&OperationBody::Write {
            ino,
            at,
            pieces: Bounded::try_from(pieces).unwrap(),
            evidence,
            authority,
            token: None,
            entropy,
        })
    }

    /// Writes inline bytes.
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<Reply, Errno> {
        self.write_pieces(ino, WriteAt::Offset(offset), vec![inline(bytes)], &[], Authority::Check)
    }

    /// Writes whole blocks of one row each, from a row on.
    pub fn write_rows(&mut self, ino: Ino, first: u64, count: u64) {
        for index in first..first + count {
            let content = [u8::try_from(index % 251).unwrap(); 64];
            let at = WriteAt::Offset(index * 64);
            let pieces = vec![block(&content, 0, 64)];
            let reply = self.write_pieces(ino, at, pieces, &[&content], Authority::Check).unwrap();
            assert!(matches!(reply, Reply::Written { .. }));
        }
    }
}

pub fn inline(bytes: &[u8]) -> Piece {
    Piece::Inline(BoundedBytes::try_from(bytes).unwrap())
}

pub fn block(content: &[u8], offset: u32, length: u32) -> Piece {
    Piece::Block { id: BlockDescriptor::copies(content).id(), offset, length }
}

pub const READ: OpenMode = OpenMode { read: true, write: false, truncate: false };
pub const WRITE: OpenMode = OpenMode { read: false, write: true, truncate: false };
pub const READ_WRITE: OpenMode = OpenMode { read: true, write: true, truncate: false };

/// The fields of `SetAttributes`, none of them set.
#[derive(Clone, Debug)]
pub struct Setattr {
    pub ino: Ino,
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: SetTime,
    pub mtime: SetTime,
    pub authority: Authority,
    pub token: Option<u64>,
}

impl Setattr {
    pub fn of(ino: Ino) -> Self {
        let (atime, mtime) = (SetTime::Omit, SetTime::Omit);
        let authority = Authority::Check;
        Self { ino, mode: None, uid: None, gid: None, size: None, atime, mtime, authority, token: None }
    }

    pub fn body(self) -> OperationBody {
        let Self { ino, mode, uid, gid, size, atime, mtime, authority, token } = self;
        OperationBody::SetAttributes { ino, mode, uid, gid, size, atime, mtime, authority, token }
    }
}

pub fn create_body(
    parent: Ino,
    text: &str,
    mode: u16,
    exclusive: bool,
    open: Option<OpenMode>,
    entropy: [u8; 16],
) -> OperationBody {
    let name = name(text);
    OperationBody::Create { parent, name, mode, umask: 0, exclusive, open, ino: None, entropy }
}

pub fn genesis_of(parameters: &Parameters) -> Genesis {
    use quorate_crypto::{Address, Member, MemberSet, NodeSeed};
    let member = |seed: u8| {
        let address = Address::try_from(format!("127.0.0.1:{seed}")).unwrap();
        Member::from_seed(&NodeSeed::from_bytes([seed; 32]), address)
    };
    let members = MemberSet::new(0, (1..=4).map(member).collect()).unwrap();
    Genesis {
        version: GENESIS_VERSION,
        nonce: [9; 32],
        time: BatchTime(START),
        principal: members.members()[0].consensus,
        members,
        rights: quorate_protocol::operation::PrincipalRights {
            anyone: true,
            administrator: true,
            auditor: true,
            uids: Bounded::new(),
            gids: Bounded::new(),
            squash_root: None,
            realms: Bounded::new(),
        },
        parameters: parameters.clone(),
        root: (0, 0, 0o777),
        entropy: [7; 16],
    }
}

/// The number of rows of an inode's kind.
pub fn rows_of_kind(world: &World, ino: Ino, kind: u8) -> usize {
    world.view.rows.range(keys::kind_start(ino, kind)..keys::kind_end(ino, kind)).count()
}

pub const ROOT: Ino = ROOT_INO;
