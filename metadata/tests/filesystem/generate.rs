//! Random operations for the differential test.
//!
//! Invariant: inodes are numbers to choose by, because which exist is known only when an operation runs; no
//! write breaks a bound that no fold could mend.

use proptest::prelude::*;
use quorate_crypto::{Bounded, BoundedBytes};
use quorate_metadata::Caller;
use quorate_protocol::blocks::BlockEvidence;
use quorate_protocol::operation::{
    Authority, OpenMode, Piece, RenameMode, SetXattrMode, SpecialFile, WriteAt,
};
use quorate_protocol::time::SetTime;
use quorate_protocol::{Ino, OperationBody, Timestamp};

use crate::support::{READ, READ_WRITE, Setattr, inline, name, user};

/// An operation whose inodes are still numbers to choose by.
#[derive(Clone, Debug)]
pub struct Step {
    pub caller: usize,
    pub session: u64,
    pub body: OperationBody,
    /// Contents of the blocks that a write names.
    pub blocks: Vec<Vec<u8>>,
    pub reclaim: bool,
}

pub fn callers() -> [Caller; 4] {
    [Caller::root(), user(1000, 1000, &[2000]), user(1001, 1001, &[1000]), user(1002, 2000, &[])]
}

/// A number that stands for a directory, in most cases.
pub const DIRECTORY: Ino = 1 << 20;

fn directory() -> impl Strategy<Value = Ino> {
    prop_oneof![15 => (0..64_u64).prop_map(|pick| DIRECTORY + pick), 1 => 0..64_u64]
}

/// A number that stands for a regular file, if there is one.
pub const FILE: Ino = 1 << 21;

fn file() -> impl Strategy<Value = Ino> {
    prop_oneof![9 => (0..64_u64).prop_map(|pick| FILE + pick), 1 => 0..64_u64]
}

fn any_inode() -> impl Strategy<Value = Ino> {
    0..64_u64
}

fn some_name() -> impl Strategy<Value = quorate_protocol::file::Name> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")].prop_map(name)
}

fn some_mode() -> impl Strategy<Value = u16> {
    let usual = [0o777, 0o777, 0o777, 0o755, 0o700, 0o1777, 0o2777, 0o6777, 0o2670, 0o666, 0o644, 0o444];
    prop_oneof![9 => proptest::sample::select(usual.to_vec()), 1 => 0..0o10000_u16]
}

fn open_mode() -> impl Strategy<Value = OpenMode> {
    let access = prop_oneof![Just((true, false)), Just((false, true)), Just((true, true))];
    (access, proptest::bool::weighted(0.2)).prop_map(|((read, write), truncate)| OpenMode {
        read,
        write,
        truncate,
    })
}

fn release_mode() -> impl Strategy<Value = OpenMode> {
    prop_oneof![Just(READ), Just(READ_WRITE), Just(crate::support::WRITE)]
}

fn authority() -> impl Strategy<Value = Authority> {
    prop_oneof![3 => Just(Authority::Check), 1 => Just(Authority::Grant)]
}

fn naming() -> impl Strategy<Value = OperationBody> {
    let entropy = any::<[u8; 16]>();
    let place = || (directory(), some_name());
    let create = (place(), some_mode(), any::<bool>(), proptest::option::of(open_mode()), entropy).prop_map(
        |((parent, name), mode, exclusive, open, entropy)| OperationBody::Create {
            parent,
            name,
            mode,
            umask: 0o22,
            exclusive: exclusive || open.is_none(),
            open,
            ino: None,
            entropy,
        },
    );
    let mkdir = (place(), some_mode(), any::<[u8; 16]>()).prop_map(|((parent, name), mode, entropy)| {
        OperationBody::Mkdir { parent, name, mode, umask: 0, ino: None, entropy }
    });
    let symlink = (place(), any::<[u8; 16]>()).prop_map(|((parent, name), entropy)| {
        let target = BoundedBytes::try_from(b"over/there".as_slice()).unwrap();
        OperationBody::Symlink { parent, name, target, ino: None, entropy }
    });
    let special = prop_oneof![
        Just(SpecialFile::Regular),
        Just(SpecialFile::Fifo),
        Just(SpecialFile::Socket),
        Just(SpecialFile::CharacterDevice(259)),
        Just(SpecialFile::BlockDevice(7)),
    ];
    let mknod = (place(), special, some_mode(), any::<[u8; 16]>()).prop_map(
        |((parent, name), node, mode, entropy)| OperationBody::Mknod {
            parent,
            name,
            node,
            mode,
            umask: 0,
            ino: None,
            entropy,
        },
    );
    let link =
        (any_inode(), place()).prop_map(|(ino, (parent, name))| OperationBody::Link { ino, parent, name });
    let unlink = place().prop_map(|(parent, name)| OperationBody::Unlink { parent, name });
    let rmdir = place().prop_map(|(parent, name)| OperationBody::Rmdir { parent, name });
    let modes = prop_oneof![3 => Just(RenameMode::Replace), 1 => Just(RenameMode::NoReplace), 1 => Just(RenameMode::Exchange)];
    let rename = (place(), place(), modes).prop_map(|((parent, name), (new_parent, new_name), mode)| {
        OperationBody::Rename { parent, name, new_parent, new_name, mode }
    });
    prop_oneof![5 => create, 5 => mkdir, 1 => symlink, 1 => mknod, 3 => link, 4 => unlink, 2 => rmdir, 6 => rename]
}

fn set_time() -> impl Strategy<Value = SetTime> {
    let explicit = (-5_000_i64..5_000, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanoseconds)| SetTime::To(Timestamp { seconds, nanoseconds }));
    prop_oneof![3 => Just(SetTime::Omit), 2 => Just(SetTime::Now), 1 => explicit]
}

fn attributes() -> impl Strategy<Value = OperationBody> {
    let id = || prop_oneof![Just(0_u32), Just(1000), Just(1001), Just(2000)];
    let one = prop_oneof![
        (any_inode(), some_mode()).prop_map(|(ino, mode)| Setattr { mode: Some(mode), ..Setattr::of(ino) }),
        (any_inode(), proptest::option::of(id()), proptest::option::of(id()))
            .prop_map(|(ino, uid, gid)| Setattr { uid, gid, ..Setattr::of(ino) }),
        (file(), 0..9_000_u64, authority()).prop_map(|(ino, size, authority)| Setattr {
            size: Some(size),
            authority,
            ..Setattr::of(ino)
        }),
        (any_inode(), set_time(), set_time()).prop_map(|(ino, atime, mtime)| Setattr {
            atime,
            mtime,
            ..Setattr::of(ino)
        }),
        (any_inode(), some_mode(), proptest::option::of(id()), set_time(), 0..100_u64).prop_map(
            |(ino, mode, gid, mtime, size)| {
                Setattr { mode: Some(mode), gid, mtime, size: Some(size), ..Setattr::of(ino) }
            }
        ),
    ];
    one.prop_map(Setattr::body)
}

fn xattrs() -> impl Strategy<Value = OperationBody> {
    let names = prop_oneof![Just("user.x"), Just("user.y"), Just("trusted.z"), Just("security.capability")];
    let names = names.prop_map(|name| BoundedBytes::try_from(name.as_bytes()).unwrap());
    let modes = prop_oneof![2 => Just(SetXattrMode::Any), 1 => Just(SetXattrMode::Create), 1 => Just(SetXattrMode::Replace)];
    let value = proptest::collection::vec(any::<u8>(), 0..20);
    let set = (any_inode(), names.clone(), value, modes, any::<[u8; 16]>()).prop_map(
        |(ino, name, value, mode, entropy)| OperationBody::SetXattr {
            ino,
            name,
            value: BoundedBytes::try_from(value).unwrap(),
            mode,
            entropy,
        },
    );
    let remove = (any_inode(), names).prop_map(|(ino, name)| OperationBody::RemoveXattr { ino, name });
    prop_oneof![2 => set, 1 => remove]
}

/// A piece of a write, and the content of its block.
fn piece() -> impl Strategy<Value = (Piece, Option<Vec<u8>>)> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..16).prop_map(|bytes| (inline(&bytes), None));
    let block = (any::<u8>(), prop_oneof![1..100_usize, 1000..3500_usize], 0..50_usize).prop_map(
        |(seed, length, offset)| {
            let content: Vec<u8> = (0..length + offset)
                .map(|index| seed.wrapping_add(u8::try_from(index % 251).unwrap()))
                .collect();
            let offset = u32::try_from(offset).unwrap();
            let piece = crate::support::block(&content, offset, u32::try_from(length).unwrap());
            (piece, Some(content))
        },
    );
    let zero = (0..200_u64).prop_map(|length| (Piece::Zero(length), None));
    prop_oneof![3 => bytes, 2 => block, 1 => zero]
}

fn content() -> impl Strategy<Value = (OperationBody, Vec<Vec<u8>>)> {
    let at = prop_oneof![
        3 => (0..300_u64).prop_map(WriteAt::Offset),
        1 => (0..9_000_u64).prop_map(WriteAt::Offset),
        1 => Just(WriteAt::Append),
    ];
    let single = proptest::collection::vec(piece(), 1);
    let several = proptest::collection::vec(piece(), 0..3);
    let pieces = prop_oneof![2 => single, 1 => several];
    (file(), at, pieces, authority(), any::<[u8; 16]>())
        .prop_filter("at most one large block", |(_, _, pieces, ..)| {
            pieces.iter().filter(|(_, block)| block.as_ref().is_some_and(|block| block.len() > 200)).count()
                < 2
        })
        .prop_map(|(ino, at, pieces, authority, entropy)| {
            let (pieces, blocks): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
            let pieces = Bounded::try_from(pieces).unwrap();
            let evidence = BlockEvidence::default();
            let body = OperationBody::Write { ino, at, pieces, evidence, authority, token: None, entropy };
            (body, blocks.into_iter().flatten().collect())
        })
}

pub fn step() -> impl Strategy<Value = Step> {
    let plain = |body: BoxedStrategy<OperationBody>| body.prop_map(|body| (body, Vec::new())).boxed();
    let opens = (prop_oneof![any_inode(), file()], open_mode())
        .prop_map(|(ino, mode)| OperationBody::Open { ino, mode });
    let releases = (prop_oneof![any_inode(), file()], release_mode(), 1..3_u32)
        .prop_map(|(ino, mode, count)| OperationBody::Release { ino, mode, count });
    let body = prop_oneof![
        10 => plain(naming().boxed()),
        5 => plain(attributes().boxed()),
        2 => plain(xattrs().boxed()),
        8 => content(),
        2 => plain(opens.boxed()),
        2 => plain(releases.boxed()),
    ];
    let caller = prop_oneof![4 => Just(0_usize), 3 => 0..4_usize];
    (caller, 1..3_u64, body, proptest::bool::weighted(0.2)).prop_map(
        |(caller, session, (body, blocks), reclaim)| Step { caller, session, body, blocks, reclaim },
    )
}
