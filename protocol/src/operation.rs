//! The operations of the state machine, as clients sign them.
//!
//! Invariant: an operation holds all that its execution may depend on besides the state and the batch:
//! identity, entropy and explicit times come with it, never from the machine that executes it.

use crate::blocks::BlockEvidence;
use crate::file::{Entropy, Name, Segment};
use crate::limits::{
    IDENTITIES_PER_PRINCIPAL_MAX, INLINE_PIECE_BYTES_MAX, PIECES_PER_WRITE_MAX, SEGMENTS_PER_ROW_MAX,
    SYMLINK_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX,
};
use crate::time::SetTime;
use crate::{BatchTime, Ino, PrincipalNumber, Timestamp};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, BoundedBytes, Hash, PublicKey};

/// One operation of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Operation {
    /// Index into the envelope's table of credentials.
    pub credential: u8,
    /// 0, or the distance back to an operation of the session that must have succeeded (rule S8).
    pub requires: u16,
    /// A time of the client's own, accepted only under a delegation (rule S8); otherwise refused.
    pub at: Option<Timestamp>,
    /// What to do.
    pub body: OperationBody,
}

/// The right by which content is changed (rule S6).
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Authority {
    /// A fresh permission check, in which the owner passes.
    Check,
    /// An open grant of this session on the inode.
    Grant,
}

/// Where a write lands.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum WriteAt {
    /// At this byte.
    Offset(u64),
    /// At the committed size; the result says where.
    Append,
}

/// A run of bytes of a write, one after the other without gaps.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Piece {
    /// These bytes.
    Inline(BoundedBytes<INLINE_PIECE_BYTES_MAX>),
    /// `length` bytes of a block from `offset`.
    Block {
        /// The block's identifier.
        id: Hash,
        /// First byte within the block.
        offset: u32,
        /// Bytes.
        length: u32,
    },
    /// A hole of this many bytes.
    Zero(u64),
}

/// How `setxattr` treats an existing attribute.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SetXattrMode {
    /// Create or replace.
    Any,
    /// `XATTR_CREATE`.
    Create,
    /// `XATTR_REPLACE`.
    Replace,
}

/// The flags of `renameat2`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum RenameMode {
    /// Replace an existing target.
    Replace,
    /// `RENAME_NOREPLACE`.
    NoReplace,
    /// `RENAME_EXCHANGE`.
    Exchange,
}

/// What an open file may do.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct OpenMode {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// `O_TRUNC`: truncate as part of the open.
    pub truncate: bool,
}

/// A node for `mknod`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SpecialFile {
    /// An empty regular file.
    Regular,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character device of this number.
    CharacterDevice(u32),
    /// A block device of this number.
    BlockDevice(u32),
}

/// Which identities a principal may act as, and in which roles.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PrincipalRights {
    /// May act as any uid and gid, root included.
    pub anyone: bool,
    /// May change principals, parameters and members.
    pub administrator: bool,
    /// May read the log and exports.
    pub auditor: bool,
    /// Uids that it may act as, strictly ascending.
    pub uids: Bounded<u32, IDENTITIES_PER_PRINCIPAL_MAX>,
    /// Gids that it may act with, strictly ascending; also its "groups of the principal table".
    pub gids: Bounded<u32, IDENTITIES_PER_PRINCIPAL_MAX>,
    /// Act as this uid and gid when the credential names uid 0 (root squash).
    pub squash_root: Option<(u32, u32)>,
    /// Realms that it may enter, strictly ascending; empty means all.
    pub realms: Bounded<u32, IDENTITIES_PER_PRINCIPAL_MAX>,
}

/// The bodies of operations, by family.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum OperationBody {
    // Sessions and system.
    /// Does nothing: measures consensus, or keeps a session alive.
    Null,
    /// Registers the envelope's session: sequence 0 of it, alone in its envelope (rule R8).
    Register {
        /// Makes the session's identifier unique together with cluster and key.
        nonce: [u8; 32],
    },
    /// Ends the session and releases all that it holds.
    CloseSession,
    /// Registers a principal's key, or replaces its rights. Administrators only.
    PutPrincipal {
        /// The key.
        key: PublicKey,
        /// Its rights.
        rights: PrincipalRights,
    },
    /// Revokes a principal. Administrators only.
    RemovePrincipal {
        /// Its number.
        principal: PrincipalNumber,
    },

    // Names.
    /// `open(O_CREAT)` of a regular file; grants an open when `open` is given.
    Create {
        /// Directory.
        parent: Ino,
        /// New name.
        name: Name,
        /// Permission bits after umask.
        mode: u16,
        /// The caller's umask, for default ACLs.
        umask: u16,
        /// `O_EXCL`: an existing name is EEXIST; otherwise it is opened.
        exclusive: bool,
        /// The grant to take on it.
        open: Option<OpenMode>,
        /// An inode number of the session's range (rule S8); `None` for the dense counter.
        ino: Option<Ino>,
        /// For what it creates.
        entropy: Entropy,
    },
    /// `mkdir`.
    Mkdir {
        /// Directory.
        parent: Ino,
        /// New name.
        name: Name,
        /// Permission bits after umask.
        mode: u16,
        /// The caller's umask, for default ACLs.
        umask: u16,
        /// As in `Create`.
        ino: Option<Ino>,
        /// Source of the directory's key (rule S3).
        entropy: Entropy,
    },
    /// `symlink`.
    Symlink {
        /// Directory.
        parent: Ino,
        /// New name.
        name: Name,
        /// What it points to: 1 to 4095 bytes without NUL.
        target: BoundedBytes<SYMLINK_BYTES_MAX>,
        /// As in `Create`.
        ino: Option<Ino>,
        /// Hides the target (rule S3).
        entropy: Entropy,
    },
    /// `mknod`.
    Mknod {
        /// Directory.
        parent: Ino,
        /// New name.
        name: Name,
        /// Its kind.
        node: SpecialFile,
        /// Permission bits after umask.
        mode: u16,
        /// The caller's umask, for default ACLs.
        umask: u16,
        /// As in `Create`.
        ino: Option<Ino>,
        /// For what it creates.
        entropy: Entropy,
    },
    /// `link`.
    Link {
        /// The file.
        ino: Ino,
        /// Directory of the new name.
        parent: Ino,
        /// New name.
        name: Name,
    },
    /// `unlink`.
    Unlink {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Name,
    },
    /// `rmdir`.
    Rmdir {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Name,
    },
    /// `renameat2`.
    Rename {
        /// Source directory.
        parent: Ino,
        /// Source name.
        name: Name,
        /// Target directory.
        new_parent: Ino,
        /// Target name.
        new_name: Name,
        /// Flags.
        mode: RenameMode,
    },

    // Attributes.
    /// `chmod`, `chown`, `truncate`, `utimensat` in one.
    SetAttributes {
        /// The inode.
        ino: Ino,
        /// New permission bits.
        mode: Option<u16>,
        /// New owner.
        uid: Option<u32>,
        /// New group.
        gid: Option<u32>,
        /// New size.
        size: Option<u64>,
        /// Access time.
        atime: SetTime,
        /// Modification time.
        mtime: SetTime,
        /// Right to change the size.
        authority: Authority,
        /// Fencing token of a lock, if one guards the file.
        token: Option<u64>,
    },
    /// `setxattr`.
    SetXattr {
        /// The inode.
        ino: Ino,
        /// Full name with its namespace.
        name: BoundedBytes<XATTR_NAME_BYTES_MAX>,
        /// Value.
        value: BoundedBytes<XATTR_VALUE_BYTES_MAX>,
        /// Create, replace or both.
        mode: SetXattrMode,
        /// Hides the value (rule S3).
        entropy: Entropy,
    },
    /// `removexattr`.
    RemoveXattr {
        /// The inode.
        ino: Ino,
        /// Full name with its namespace.
        name: BoundedBytes<XATTR_NAME_BYTES_MAX>,
    },

    // Content.
    /// Takes an open grant (rule S6).
    Open {
        /// The inode.
        ino: Ino,
        /// For what.
        mode: OpenMode,
    },
    /// Gives `count` grants of this mode back; the last one lets an unlinked inode go.
    Release {
        /// The inode.
        ino: Ino,
        /// As in the open.
        mode: OpenMode,
        /// How many.
        count: u32,
    },
    /// Splices bytes into a file (rule S4).
    Write {
        /// The inode.
        ino: Ino,
        /// Where.
        at: WriteAt,
        /// What, one after the other.
        pieces: Bounded<Piece, PIECES_PER_WRITE_MAX>,
        /// Proof that a quorum holds the blocks that are not referred to yet.
        evidence: BlockEvidence,
        /// Right to write.
        authority: Authority,
        /// Fencing token of a lock, if one guards the file.
        token: Option<u64>,
        /// Hides inline bytes (rule S3).
        entropy: Entropy,
    },
    /// Replaces a row that has too many segments, if it is still the one expected (rule S4).
    Fold {
        /// The inode.
        ino: Ino,
        /// The row.
        index: u64,
        /// Value hash of the row that was folded.
        expected: Hash,
        /// The same bytes in fewer segments.
        segments: Bounded<Segment, SEGMENTS_PER_ROW_MAX>,
        /// Proof for new blocks.
        evidence: BlockEvidence,
        /// Right to write.
        authority: Authority,
        /// Hides inline bytes (rule S3).
        entropy: Entropy,
    },
    /// Extends the session's life to this batch time, if that is later.
    Renew {
        /// New deadline.
        until: BatchTime,
    },
    /// Takes an open grant for what was opened before, under a session that is over or without a grant: as
    /// [`OperationBody::Open`], but the owner passes, as with [`Authority::Check`]. Nothing is truncated.
    Reopen {
        /// The inode.
        ino: Ino,
        /// For what it was opened.
        mode: OpenMode,
    },
}
