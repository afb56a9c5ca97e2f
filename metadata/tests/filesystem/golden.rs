//! Golden bytes of every row and key: formats that certified history binds.
//!
//! Whoever changes one of these changes the format of the state, and needs a new version byte.

use quorate_crypto::{Bounded, BoundedBytes, Hash};
use quorate_metadata::rows::{
    Block, Content, CounterRow, DirectoryKey, Entry, FLAG_REMOVED, Grant, Grants, Inode, Link, Occasion,
    ParametersRow, Placement, Presence, Released, Row, SymlinkTarget, Totals, Xattr, value_hash,
};
use quorate_metadata::{Error, keys};
use quorate_protocol::blocks::BlockDescriptor;
use quorate_protocol::file::{FileKind, Segment, SegmentSource};
use quorate_protocol::genesis::Parameters;
use quorate_protocol::{BatchTime, Timestamp};

use crate::support::{ROOT, World, name};

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The row has these bytes; nothing shorter, longer or of another version decodes.
fn golden<T: Row + PartialEq + std::fmt::Debug>(row: &T, expected: &str) {
    let value = row.to_value();
    assert_eq!(hexadecimal(&value), expected.replace([' ', '\n'], ""), "{row:?}");
    assert_eq!(T::from_value(&value).as_ref(), Ok(row));
    let refused = Err(Error::Corrupt(T::DAMAGED));
    assert_eq!(T::from_value(&[]), refused);
    assert_eq!(T::from_value(&value[..value.len() - 1]), refused);
    let mut longer = value.to_vec();
    longer.push(0);
    assert_eq!(T::from_value(&longer), refused);
    let mut newer = value.to_vec();
    newer[0] = 2;
    assert_eq!(T::from_value(&newer), refused);
}

fn inode() -> Inode {
    let time = |seconds| Timestamp { seconds, nanoseconds: 0x0a0b_0c0d };
    Inode {
        kind: FileKind::Regular,
        mode: 0o4755,
        uid: 1000,
        gid: 1001,
        nlink: 1,
        rdev: 0,
        size: 70,
        allocated: 69,
        atime: time(1),
        mtime: time(-2),
        ctime: time(3),
        btime: time(4),
        flags: 0,
        realm: 5,
        parent: 1,
        name: [0x11; 23],
        version: 6,
        block_log2: 20,
        reclaim_from: Some(7),
        xattr_count: 8,
        xattr_bytes: 9,
    }
}

fn block_segment(start: u32, length: u32, offset: u32) -> Segment {
    Segment { start, length, source: SegmentSource::Block { id: Hash([0x22; 32]), offset } }
}

fn inline_segment(start: u32, bytes: &[u8]) -> Segment {
    let length = u32::try_from(bytes.len()).unwrap();
    Segment { start, length, source: SegmentSource::Inline(BoundedBytes::try_from(bytes).unwrap()) }
}

fn content(segments: Vec<Segment>) -> Content {
    Content { entropy: [0xee; 16], segments: Bounded::try_from(segments).unwrap() }
}

#[test]
fn rows_of_inodes() {
    golden(
        &inode(),
        "01 00 ed09 e8030000 e9030000 01000000 00000000 4600000000000000 4500000000000000
         0100000000000000 0d0c0b0a feffffffffffffff 0d0c0b0a 0300000000000000 0d0c0b0a
         0400000000000000 0d0c0b0a 00000000 05000000 0100000000000000
         1111111111111111111111111111111111111111111111 0600000000000000 14 01 0700000000000000 0800 09000000",
    );
    golden(&DirectoryKey { key: [0x33; 32] }, &format!("01 {}", "33".repeat(32)));
    golden(
        &Entry { salt: [0x44; 16], name: name("name"), ino: 258, kind: FileKind::Directory },
        &format!("01 {} 04000000 6e616d65 0201000000000000 01", "44".repeat(16)),
    );
    golden(&Link { parent: 1, name: [0x55; 23] }, &format!("01 0100000000000000 {}", "55".repeat(23)));
    let target = BoundedBytes::try_from(b"to".as_slice()).unwrap();
    let symlink = SymlinkTarget { entropy: [0xee; 16], target };
    golden(&symlink, &format!("01 {} 02000000 746f", "ee".repeat(16)));
    let xattr = Xattr {
        entropy: [0xee; 16],
        name: BoundedBytes::try_from(b"user.a".as_slice()).unwrap(),
        value: BoundedBytes::try_from(b"v".as_slice()).unwrap(),
    };
    golden(&xattr, &format!("01 {} 06000000 757365722e61 01000000 76", "ee".repeat(16)));
    let grant = |read, count| Grant { read, write: true, uid: 1, gid: 2, count };
    golden(
        &Grants { grants: Bounded::try_from(vec![grant(false, 3), grant(true, 4)]).unwrap() },
        "01 02000000 00 01 01000000 02000000 03000000 01 01 01000000 02000000 04000000",
    );
}

#[test]
fn rows_of_content_and_blocks() {
    golden(
        &content(vec![inline_segment(1, b"ab"), block_segment(3, 4, 5)]),
        &format!(
            "01 {} 02000000 01000000 02000000 00 02000000 6162 03000000 04000000 01 {} 05000000",
            "ee".repeat(16),
            "22".repeat(32)
        ),
    );
    let descriptor = BlockDescriptor::copies(b"abc");
    let occasion = |height, time| Occasion { height, time: BatchTime(time) };
    let mut block = Block {
        id: Hash([0x22; 32]),
        descriptor,
        placement: Placement::EveryReplica,
        count: 2,
        born: occasion(3, 4),
        released: None,
    };
    let head = format!(
        "01 {} 00 00 0100 0100 03000000 6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85 {} 00",
        "22".repeat(32),
        "00".repeat(32)
    );
    let born = "0300000000000000 0400000000000000";
    golden(&block, &format!("{head} 0200000000000000 {born} 00"));
    block.count = 0;
    block.released = Some(occasion(5, 6));
    golden(&block, &format!("{head} 0000000000000000 {born} 01 0500000000000000 0600000000000000"));
}

#[test]
fn rows_of_the_system() {
    golden(
        &Totals { inodes: 1, bytes: 2, blocks: 3, block_bytes: 4 },
        "01 0100000000000000 0200000000000000 0300000000000000 0400000000000000",
    );
    golden(&CounterRow { next: 258 }, "01 0201000000000000");
    golden(&Released { id: Hash([0x66; 32]) }, &format!("01 {}", "66".repeat(32)));
    golden(
        &ParametersRow { parameters: Parameters::default() },
        "01 01000000 0400 14 00400000 005847f80d000000 0070c9b28b000000 00010000",
    );
    assert_eq!(hexadecimal(&Presence.to_value()), "01");
    assert_eq!(Presence::from_value(&[1, 0]), Err(Error::Corrupt(Presence::DAMAGED)));
}

#[test]
fn broken_rules_are_refused() {
    fn refused<T: Row + std::fmt::Debug + PartialEq>(row: &T) {
        assert_eq!(T::from_value(&row.to_value()), Err(Error::Corrupt(T::DAMAGED)), "{row:?}");
    }
    refused(&Inode { mode: 0o10000, ..inode() });
    refused(&Inode { flags: FLAG_REMOVED << 1, ..inode() });
    refused(&Inode { parent: keys::INO_END, ..inode() });
    refused(&Inode { parent: 0, ..inode() });
    refused(&Inode { block_log2: 21, ..inode() });
    refused(&Inode { kind: FileKind::Fifo, ..inode() });
    refused(&Entry { salt: [0; 16], name: name("x"), ino: 0, kind: FileKind::Regular });
    refused(&Link { parent: 0, name: [0; 23] });
    refused(&content(vec![]));
    refused(&content(vec![inline_segment(1, b"")]));
    refused(&content(vec![inline_segment(1, b"ab"), inline_segment(2, b"c")]));
    refused(&content(vec![inline_segment(4, b"ab"), inline_segment(2, b"c")]));
    refused(&content(vec![Segment { length: 3, ..inline_segment(0, b"ab") }]));
    refused(&content(vec![block_segment(u32::MAX, 2, 0)]));
    refused(&content(vec![block_segment(0, 2, u32::MAX)]));
    refused(&Grants::default());
    let grant = Grant { read: true, write: true, uid: 1, gid: 2, count: 1 };
    refused(&Grants { grants: Bounded::try_from(vec![grant, grant]).unwrap() });
    refused(&Grants { grants: Bounded::try_from(vec![Grant { count: 0, ..grant }]).unwrap() });
}

#[test]
fn keys_have_their_places() {
    let key = |bytes: &str| format!("{:0<64}", bytes.replace(' ', ""));
    let hash = Hash([0xab; 32]);
    let short = "ab".repeat(23);
    let system = "ffffffffffffffff";
    let cases = [
        (keys::inode(258), "0000000000000102".to_owned()),
        (keys::directory_key(1), "0000000000000001 01".to_owned()),
        (keys::content(1, 3), "0000000000000001 08 0000000000000003".to_owned()),
        (keys::entry(1, &[0xab; 23]), format!("0000000000000001 20 {short}")),
        (keys::symlink(1), "0000000000000001 40".to_owned()),
        (keys::grants(1, 9), "0000000000000001 60 0000000000000009".to_owned()),
        (keys::block(&hash), format!("fe {}", "ab".repeat(31))),
        (keys::counter(keys::Counter::Ino), format!("{system} 01 01")),
        (keys::parameters(), format!("{system} 02")),
        (keys::totals(), format!("{system} 03")),
        (keys::session(5), format!("{system} 10 0000000000000005")),
        (keys::session_id(&hash), format!("{system} 11 {short}")),
        (keys::principal(5), format!("{system} 12 00000005")),
        (keys::deadline(BatchTime(7), 8), format!("{system} 14 0000000000000007 0000000000000008")),
        (keys::held(5, 0x60, 6), format!("{system} 15 0000000000000005 60 0000000000000006")),
        (keys::reclaim(6), format!("{system} 20 0000000000000006")),
        (keys::released(BatchTime(7), &hash), format!("{system} 21 0000000000000007 {}", "ab".repeat(15))),
        (keys::realm(3), format!("{system} 30 00000003")),
        (keys::members(3), format!("{system} 31 0000000000000003")),
        (keys::range(3), format!("{system} 32 0000000000000003")),
        (keys::xattr(1, b"user.a"), XATTR_KEY.to_owned()),
        (keys::link(2, 1, &[0xab; 23]), LINK_KEY.to_owned()),
    ];
    for (real, expected) in cases {
        assert_eq!(hexadecimal(&real), key(&expected));
    }
    let hash = value_hash(b"value");
    assert_eq!(
        hash,
        Hash(*blake3::keyed_hash(&blake3::derive_key("quorate merkle v1 value", &[]), b"value").as_bytes())
    );
}

const XATTR_KEY: &str = "0000000000000001104862e6428a182e7c543e95938c6a2066201c32d9d0ca95";
const LINK_KEY: &str = "000000000000000230ce360e607eabcf067807410417991f9689c2e1ca7451a2";

/// The rows of genesis and of one file under it, with their hashed names.
#[test]
fn a_small_state_has_these_rows() {
    let mut world = World::with(Parameters::default());
    world.create(ROOT, "file", 0o644).unwrap();
    let mut hasher = blake3::Hasher::new();
    for (key, value) in &world.view.rows {
        hasher.update(key).update(&(value.len() as u64).to_le_bytes()).update(value);
    }
    let keys: Vec<String> = world.view.rows.keys().map(|key| hexadecimal(key)).collect();
    assert_eq!(keys.join("\n"), SMALL_STATE_KEYS.join("\n"));
    assert_eq!(hasher.finalize().to_hex().as_str(), SMALL_STATE_DIGEST);
}

const SMALL_STATE_DIGEST: &str = "89ebfff74378b980e4ec104ffb83bfece55e2feaf2435f7f1357544940ff4844";
const SMALL_STATE_KEYS: [&str; 10] = [
    "0000000000000001000000000000000000000000000000000000000000000000",
    "0000000000000001010000000000000000000000000000000000000000000000",
    "0000000000000001205c45b3e848aaea1a5ab571b6ad5448f2e194d1a5705225",
    "0000000000000002000000000000000000000000000000000000000000000000",
    "ffffffffffffffff010100000000000000000000000000000000000000000000",
    "ffffffffffffffff010200000000000000000000000000000000000000000000",
    "ffffffffffffffff010300000000000000000000000000000000000000000000",
    "ffffffffffffffff010400000000000000000000000000000000000000000000",
    "ffffffffffffffff020000000000000000000000000000000000000000000000",
    "ffffffffffffffff030000000000000000000000000000000000000000000000",
];
