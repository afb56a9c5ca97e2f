//! Reads: questions that a replica answers with a pruned copy of the state.
//!
//! Invariant: a query is evaluated by the same code on the replica's full state and on the client's
//! pruned copy; no answer is sent besides the proof.

use crate::file::Name;
use crate::limits::{WALK_COMPONENTS_MAX, XATTR_NAME_BYTES_MAX};
use crate::{Credential, Height, Ino, SessionId};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_crypto::{Bounded, BoundedBytes};

/// A question about the state at one height.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Query {
    /// `stat` by inode.
    Attributes {
        /// The inode.
        ino: Ino,
    },
    /// A name in a directory; absence is proven too.
    Lookup {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Name,
    },
    /// The parent of a directory (`..`).
    Parent {
        /// The directory.
        ino: Ino,
    },
    /// A path from an inode, component by component, without following symbolic links.
    Walk {
        /// Start.
        start: Ino,
        /// Names.
        components: Bounded<Name, WALK_COMPONENTS_MAX>,
    },
    /// A page of a directory.
    Directory {
        /// The directory.
        ino: Ino,
        /// Cookie of the last entry seen; 0 for the start (rule S7).
        after: u64,
        /// Entries at most, up to `PAGE_ENTRIES_MAX`.
        limit: u16,
        /// Whether the entries' attributes are wanted.
        attributes: bool,
    },
    /// A symbolic link's target.
    Symlink {
        /// The link.
        ino: Ino,
    },
    /// An extended attribute.
    Xattr {
        /// The inode.
        ino: Ino,
        /// Full name.
        name: BoundedBytes<XATTR_NAME_BYTES_MAX>,
    },
    /// The names of all extended attributes.
    Xattrs {
        /// The inode.
        ino: Ino,
    },
    /// Content rows, with the inode.
    Content {
        /// The inode.
        ino: Ino,
        /// First row.
        first: u64,
        /// Rows, up to `CONTENT_ROWS_PER_READ_MAX`.
        count: u16,
        /// Whether an open grant of `session` stands in for the read permission.
        session: Option<SessionId>,
    },
    /// A session's next sequence number and deadline.
    Session {
        /// The session.
        session: SessionId,
    },
    /// Totals of the filesystem.
    Totals,
}

/// Which heights may answer a read.
#[derive(Copy, Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ReadAt {
    /// This one and later ones.
    AtLeast(Height),
    /// This one and later ones, from the highest height on that the replica has sent a COMMIT for: the answer
    /// counts as one to the linearizable question (rule R4).
    Fresh(Height),
    /// This one alone, for as long as the replica keeps its rows (rule S10).
    Exactly(Height),
}

impl ReadAt {
    /// Whether an answer of this height will do, as far as whoever asked can tell.
    #[must_use]
    pub const fn admits(self, height: Height) -> bool {
        match self {
            Self::AtLeast(least) | Self::Fresh(least) => height >= least,
            Self::Exactly(wanted) => height == wanted,
        }
    }
}

/// A read as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReadRequest {
    /// At which height.
    pub at: ReadAt,
    /// Who asks.
    pub credential: Credential,
    /// What.
    pub query: Query,
}
