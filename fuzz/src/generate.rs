//! Operations, queries and block evidence out of the bytes of an input.
//!
//! Invariant: what is generated meets what exists often: few inode numbers, few names, few identities; and
//! strays to what does not exist, and to the ends of every range, now and then.

use quorate_crypto::{Bounded, BoundedBytes, Hash, KeyedHashSigner, Role, Signer};
use quorate_merkle::{log::inclusion_proof, rfc6962};
use quorate_protocol::blocks::{
    BlockDescriptor, BlockEvidence, BlockGrant, BlockReceipt, BlockReceiptBody, receipt_leaf,
};
use quorate_protocol::file::{Name, Segment, SegmentSource};
use quorate_protocol::operation::*;
use quorate_protocol::query::Query;
use quorate_protocol::time::SetTime;
use quorate_protocol::{BatchTime, Ino, Operation, OperationBody, SessionId, Timestamp};

use crate::chain;
use crate::source::Source;

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "dir", "file", "link", "..x", "-", "\u{fffd}"];

/// What operations refer to besides the state.
pub struct Surroundings {
    pub cluster: Hash,
    pub session: SessionId,
    /// Batch time about which receipts expire.
    pub time: BatchTime,
}

pub fn name(source: &mut Source<'_>) -> Name {
    if source.below(12) == 0 {
        let bytes = source.some(255);
        if let Ok(name) = Name::new(bytes) {
            return name;
        }
    }
    Name::new(source.choose(&NAMES).as_bytes()).expect("a name")
}

pub fn ino(source: &mut Source<'_>) -> Ino {
    match source.below(16) {
        0 => source.choose(&[0, 1 << 53, u64::MAX, (1 << 53) - 1]),
        1..=4 => 1,
        _ => 1 + u64::from(source.byte() % 20),
    }
}

fn mode(source: &mut Source<'_>) -> u16 {
    source.choose(&[0o644, 0o755, 0, 0o777, 0o1777, 0o4755, 0o2775, 0o600, u16::MAX])
}

fn offset(source: &mut Source<'_>) -> u64 {
    let base = source.choose(&[
        0,
        0,
        100,
        4096,
        1 << 20,
        (1 << 20) - 3,
        5 << 20,
        1 << 40,
        i64::MAX as u64,
        u64::MAX,
    ]);
    base.saturating_add(u64::from(source.byte()))
}

fn entropy(source: &mut Source<'_>) -> [u8; 16] {
    [source.byte(); 16]
}

fn timestamp(source: &mut Source<'_>) -> Timestamp {
    let seconds = source.choose(&[0, -1, 1_700_000_000, i64::MIN, i64::MAX]);
    Timestamp { seconds, nanoseconds: source.choose(&[0, 1, 999_999_999]) }
}

fn set_time(source: &mut Source<'_>) -> SetTime {
    match source.below(3) {
        0 => SetTime::Omit,
        1 => SetTime::Now,
        _ => SetTime::To(timestamp(source)),
    }
}

fn open_mode(source: &mut Source<'_>) -> OpenMode {
    OpenMode { read: source.flag(), write: source.flag(), truncate: source.flag() }
}

fn authority(source: &mut Source<'_>) -> Authority {
    if source.flag() { Authority::Grant } else { Authority::Check }
}

fn xattr_name(source: &mut Source<'_>) -> Vec<u8> {
    match source.below(6) {
        0 => source.some(255).to_vec(),
        number => [&b"user.a"[..], b"user.b", b"security.x", b"trusted.y", b"system.posix_acl_access"]
            [number - 1]
            .to_vec(),
    }
}

/// Contents of blocks: few, so that references meet.
fn descriptor(source: &mut Source<'_>) -> BlockDescriptor {
    let mut descriptor = BlockDescriptor::copies(&vec![source.byte() % 3; source.choose(&[1, 700, 4096])]);
    if source.below(16) == 0 {
        descriptor.length = source.choose(&[0, 1, 1 << 20, u32::MAX]);
    }
    descriptor
}

fn evidence(source: &mut Source<'_>, around: &Surroundings) -> (Vec<BlockDescriptor>, BlockEvidence) {
    let descriptors: Vec<_> = (0..1 + source.below(2)).map(|_| descriptor(source)).collect();
    let leaf = |block: &BlockDescriptor| rfc6962::leaf_hash(&receipt_leaf(&block.id(), block.length));
    let leaves: Vec<Hash> = descriptors.iter().map(leaf).collect();
    let count = u32::try_from(leaves.len()).expect("few blocks");
    let expires = if source.below(8) == 1 { BatchTime(1) } else { around.time.plus(1 << 40) };
    let session = if source.below(8) == 1 { Hash::ZERO } else { around.session };
    let body = BlockReceiptBody { session, expires, count, root: rfc6962::root(&leaves) };
    let statement = BlockReceipt::statement(around.cluster, 0, &body);
    let mut receipts = Vec::new();
    for replica in 0..4_u8 {
        if source.below(8) == 1 {
            continue;
        }
        let signer = KeyedHashSigner::new(&chain::seed(replica).derive(Role::Blocks));
        let mut signature = signer.sign(&statement);
        signature.0[0] ^= u8::from(source.below(16) == 1);
        receipts.push(BlockReceipt { epoch: 0, replica, body: body.clone(), signature });
    }
    let grants = (0_u32..).zip(&descriptors).map(|(index, descriptor)| BlockGrant {
        descriptor: descriptor.clone(),
        index,
        path: inclusion_proof(&leaves, index.into()).expect("in range").try_into().expect("a short path"),
    });
    let blocks = Bounded::try_collect(grants).expect("few blocks");
    (descriptors, BlockEvidence { blocks, receipts: receipts.try_into().expect("few receipts") })
}

fn piece(source: &mut Source<'_>, blocks: &[BlockDescriptor]) -> Piece {
    match source.below(4) {
        0 if !blocks.is_empty() => {
            let block = &blocks[source.below(blocks.len())];
            let offset = source.choose(&[0, 0, 1, u32::MAX]);
            let length = source.choose(&[block.length, block.length, 1, 0, u32::MAX]);
            Piece::Block { id: block.id(), offset, length }
        }
        1 => Piece::Zero(source.choose(&[0, 1, 5000, 1 << 20, 3 << 20, u64::MAX])),
        _ => {
            let length = source.choose(&[0, 1, 5, 300, 5000]);
            Piece::Inline(vec![source.byte(); length].try_into().expect("a short piece"))
        }
    }
}

fn write(source: &mut Source<'_>, around: &Surroundings) -> OperationBody {
    let (blocks, evidence) =
        if source.below(3) == 0 { evidence(source, around) } else { (Vec::new(), BlockEvidence::default()) };
    OperationBody::Write {
        ino: ino(source),
        at: if source.flag() { WriteAt::Append } else { WriteAt::Offset(offset(source)) },
        pieces: Bounded::try_collect((0..source.below(4)).map(|_| piece(source, &blocks)))
            .expect("few pieces"),
        evidence,
        authority: authority(source),
        token: None,
        entropy: entropy(source),
    }
}

fn fold(source: &mut Source<'_>, around: &Surroundings) -> OperationBody {
    let (blocks, evidence) =
        if source.flag() { evidence(source, around) } else { (Vec::new(), BlockEvidence::default()) };
    let segment = |source: &mut Source<'_>| {
        let from = match blocks.first() {
            Some(block) if source.flag() => SegmentSource::Block { id: block.id(), offset: 0 },
            _ => SegmentSource::Inline(source.some(20).to_vec().try_into().expect("a short piece")),
        };
        let length = match &from {
            SegmentSource::Inline(bytes) => u32::try_from(bytes.len()).expect("a short piece"),
            SegmentSource::Block { .. } => 1,
        };
        Segment { start: u32::from(source.byte()), length, source: from }
    };
    OperationBody::Fold {
        ino: ino(source),
        index: u64::from(source.byte() % 4),
        expected: if source.flag() {
            quorate_metadata::rows::value_hash(source.some(40))
        } else {
            Hash::ZERO
        },
        segments: Bounded::try_collect((0..source.below(4)).map(|_| segment(source))).expect("few segments"),
        evidence,
        authority: authority(source),
        entropy: entropy(source),
    }
}

fn rights(source: &mut Source<'_>) -> PrincipalRights {
    let mut ids =
        |max| Bounded::try_collect((0..source.below(max)).map(|n| u32::try_from(n).unwrap_or(0) + 1000));
    let (uids, gids, realms) = (ids(3), ids(3), ids(2));
    PrincipalRights {
        anyone: source.flag(),
        administrator: source.flag(),
        auditor: source.flag(),
        uids: uids.expect("few identities"),
        gids: gids.expect("few identities"),
        squash_root: source.flag().then_some((65_534, 65_534)),
        realms: realms.expect("few identities"),
    }
}

pub fn operation(source: &mut Source<'_>, around: &Surroundings) -> Operation {
    let credential = source.choose(&[0, 0, 1, 2, 3, 255]);
    let requires = if source.below(12) == 0 { u16::from(source.byte()) } else { 0 };
    let at = (source.below(8) == 0).then(|| timestamp(source));
    Operation { credential, requires, at, body: body(source, around) }
}

fn body(source: &mut Source<'_>, around: &Surroundings) -> OperationBody {
    match source.below(22) {
        0..=2 => OperationBody::Create {
            parent: ino(source),
            name: name(source),
            mode: mode(source),
            umask: source.choose(&[0, 0o022]),
            exclusive: source.flag(),
            open: source.flag().then(|| open_mode(source)),
            ino: (source.below(16) == 0).then(|| ino(source)),
            entropy: entropy(source),
        },
        3 | 4 => OperationBody::Mkdir {
            parent: ino(source),
            name: name(source),
            mode: mode(source),
            umask: 0,
            ino: None,
            entropy: entropy(source),
        },
        5 => OperationBody::Symlink {
            parent: ino(source),
            name: name(source),
            target: source.some(40).to_vec().try_into().expect("a short target"),
            ino: None,
            entropy: entropy(source),
        },
        6 => OperationBody::Mknod {
            parent: ino(source),
            name: name(source),
            node: match source.below(5) {
                0 => SpecialFile::Regular,
                1 => SpecialFile::Fifo,
                2 => SpecialFile::Socket,
                3 => SpecialFile::CharacterDevice(u32::from(source.byte())),
                _ => SpecialFile::BlockDevice(u32::MAX),
            },
            mode: mode(source),
            umask: 0,
            ino: None,
            entropy: entropy(source),
        },
        7 => OperationBody::Link { ino: ino(source), parent: ino(source), name: name(source) },
        8 => OperationBody::Unlink { parent: ino(source), name: name(source) },
        9 => OperationBody::Rmdir { parent: ino(source), name: name(source) },
        10 | 11 => OperationBody::Rename {
            parent: ino(source),
            name: name(source),
            new_parent: ino(source),
            new_name: name(source),
            mode: source.choose(&[RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]),
        },
        12 => OperationBody::SetAttributes {
            ino: ino(source),
            mode: source.flag().then(|| mode(source)),
            uid: source.flag().then(|| source.choose(&[0, 1000, 1001, u32::MAX])),
            gid: source.flag().then(|| source.choose(&[0, 100, 1000, u32::MAX])),
            size: source.flag().then(|| offset(source)),
            atime: set_time(source),
            mtime: set_time(source),
            authority: authority(source),
            token: None,
        },
        13 => OperationBody::SetXattr {
            ino: ino(source),
            name: xattr_name(source).try_into().expect("a short name"),
            value: vec![source.byte(); source.choose(&[0, 4, 44, 5000])].try_into().expect("a short value"),
            mode: source.choose(&[SetXattrMode::Any, SetXattrMode::Create, SetXattrMode::Replace]),
            entropy: entropy(source),
        },
        14 => OperationBody::RemoveXattr {
            ino: ino(source),
            name: xattr_name(source).try_into().expect("a short name"),
        },
        15 => OperationBody::Open { ino: ino(source), mode: open_mode(source) },
        16 => OperationBody::Release {
            ino: ino(source),
            mode: open_mode(source),
            count: source.choose(&[1, 0, 2, u32::MAX]),
        },
        17 | 18 => write(source, around),
        19 => fold(source, around),
        20 => system(source),
        _ => OperationBody::Null,
    }
}

fn system(source: &mut Source<'_>) -> OperationBody {
    match source.below(5) {
        0 => OperationBody::Register { nonce: [source.byte() % 4; 32] },
        1 => OperationBody::CloseSession,
        2 => OperationBody::PutPrincipal {
            key: chain::principal_secret(source.byte() % 3).public(),
            rights: rights(source),
        },
        3 => OperationBody::RemovePrincipal { principal: u32::from(source.byte() % 4) },
        _ => OperationBody::Renew { until: BatchTime(source.choose(&[0, 1 << 62, u64::MAX])) },
    }
}

pub fn query(source: &mut Source<'_>, session: SessionId) -> Query {
    match source.below(11) {
        0 => Query::Attributes { ino: ino(source) },
        1 => Query::Lookup { parent: ino(source), name: name(source) },
        2 => Query::Parent { ino: ino(source) },
        3 => {
            let components: Vec<_> = (0..source.below(4)).map(|_| name(source)).collect();
            Query::Walk { start: ino(source), components: components.try_into().expect("few names") }
        }
        4 | 5 => Query::Directory {
            ino: ino(source),
            after: source.choose(&[0, 1, 2, 1 << 62, u64::MAX]),
            limit: source.choose(&[0, 1, 2, 5, 512, u16::MAX]),
            attributes: source.flag(),
        },
        6 => Query::Symlink { ino: ino(source) },
        7 => Query::Xattr {
            ino: ino(source),
            name: BoundedBytes::try_from(xattr_name(source)).expect("a short name"),
        },
        8 => Query::Xattrs { ino: ino(source) },
        9 => Query::Content {
            ino: ino(source),
            first: source.choose(&[0, 1, u64::MAX]),
            count: source.choose(&[0, 1, 3, 64, u16::MAX]),
            session: source.flag().then_some(session),
        },
        _ => Query::Totals,
    }
}
