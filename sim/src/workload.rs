//! What the clients do: a few names for the stand-in, and small trees of files for real execution.
//!
//! Invariant: operations depend on the client's stream of chance alone; names are drawn from a few, so that
//! sessions meet each other and errors occur as well as successes.

use quorate_crypto::{Bounded, BoundedBytes};
use quorate_protocol::blocks::BlockEvidence;
use quorate_protocol::file::Name;
use quorate_protocol::operation::{Authority, OpenMode, Piece, RenameMode, WriteAt};
use quorate_protocol::time::SetTime;
use quorate_protocol::{Ino, OperationBody};

use crate::random::Random;

/// Directory entries are drawn from this many names.
pub const NAMES: u64 = 6;
/// Inodes are guessed up to this number, the root's being 1.
pub const INODES: u64 = 12;
/// Most bytes of one write.
pub const WRITE_BYTES_MAX: u64 = 64;

/// Which operations a client sends.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Workload {
    /// Null operations, and names made, removed and renamed.
    #[default]
    Names,
    /// Operations on files and directories.
    Files,
}

impl Workload {
    /// The next operation.
    pub fn operation(self, random: &mut Random) -> OperationBody {
        match self {
            Self::Names => name_operation(random),
            Self::Files => file_operation(random),
        }
    }
}

fn name(random: &mut Random) -> Name {
    nth_name(random.below(NAMES))
}

/// The name of this number.
///
/// # Panics
/// Never: a letter is a name.
#[must_use]
pub fn nth_name(number: u64) -> Name {
    let text = [b'a' + (number % NAMES) as u8];
    Name::new(&text).unwrap_or_else(|error| panic!("a letter is a name: {error}"))
}

/// On names of the root alone, as the stand-in knows them.
fn name_operation(random: &mut Random) -> OperationBody {
    let parent = 1;
    match random.below(8) {
        0..3 => OperationBody::Null,
        3 | 4 => OperationBody::Create {
            parent,
            name: name(random),
            mode: 0o644,
            umask: 0,
            exclusive: random.one_in(2),
            open: None,
            ino: None,
            entropy: random.bytes(),
        },
        5 | 6 => OperationBody::Unlink { parent, name: name(random) },
        _ => {
            let (name, new_name) = (name(random), name(random));
            OperationBody::Rename { parent, name, new_parent: parent, new_name, mode: RenameMode::Replace }
        }
    }
}

/// Half of the time the root, otherwise an inode that may or may not exist.
fn inode(random: &mut Random) -> Ino {
    if random.one_in(2) { 1 } else { random.between(1, INODES) }
}

fn file_operation(random: &mut Random) -> OperationBody {
    let parent = inode(random);
    match random.below(9) {
        0 => OperationBody::Mkdir {
            parent,
            name: name(random),
            mode: 0o755,
            umask: 0,
            ino: None,
            entropy: random.bytes(),
        },
        1 | 2 => OperationBody::Create {
            parent,
            name: name(random),
            mode: 0o644,
            umask: 0,
            exclusive: random.one_in(2),
            open: random.one_in(3).then_some(OpenMode {
                read: true,
                write: true,
                truncate: random.one_in(4),
            }),
            ino: None,
            entropy: random.bytes(),
        },
        3 | 4 => write(random),
        5 => OperationBody::Unlink { parent, name: name(random) },
        6 => OperationBody::Rmdir { parent, name: name(random) },
        7 => {
            let mode = random.pick(&[RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]);
            let (name, new_parent, new_name) = (name(random), inode(random), name(random));
            OperationBody::Rename { parent, name, new_parent, new_name, mode }
        }
        _ => OperationBody::SetAttributes {
            ino: parent,
            mode: Some(0o700),
            uid: None,
            gid: None,
            size: random.one_in(2).then_some(random.below(2 * WRITE_BYTES_MAX)),
            atime: SetTime::Omit,
            mtime: SetTime::Now,
            authority: Authority::Check,
            token: None,
        },
    }
}

fn write(random: &mut Random) -> OperationBody {
    let bytes = vec![b'.'; random.between(1, WRITE_BYTES_MAX) as usize];
    let piece = Piece::Inline(BoundedBytes::try_from(bytes).unwrap_or_default());
    OperationBody::Write {
        ino: random.between(2, INODES),
        at: if random.one_in(2) { WriteAt::Append } else { WriteAt::Offset(random.below(1 << 21)) },
        pieces: Bounded::try_collect([piece]).unwrap_or_default(),
        evidence: BlockEvidence::default(),
        authority: Authority::Check,
        token: None,
        entropy: random.bytes(),
    }
}
