//! The errors that the filesystem answers, with the numbers that Linux gives them on every architecture
//! that Quorate supports.
//!
//! Invariant: a number is part of the certified receipts, so an entry is never renumbered or removed.

use std::fmt;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// A POSIX error, as `apply` and `read` answer it. Never the fault of a replica.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        #[allow(clippy::upper_case_acronyms)]
        pub enum Errno {
            $($(#[$doc])* $name = $number,)*
        }

        impl Errno {
            /// All of them, in ascending order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The symbol, for instance `ENOENT`.
            #[must_use]
            pub const fn symbol(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it means, in words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

errnos! {
    /// The caller is neither owner nor root, or the rule allows nobody.
    EPERM = 1, "operation not permitted";
    /// No such name, or the directory was removed.
    ENOENT = 2, "no such file or directory";
    /// Data is lost.
    EIO = 5, "input/output error";
    /// The session holds no grant that allows this.
    EBADF = 9, "bad file descriptor";
    /// Try again.
    EAGAIN = 11, "resource temporarily unavailable";
    /// Permission bits deny it.
    EACCES = 13, "permission denied";
    /// In use.
    EBUSY = 16, "device or resource busy";
    /// The name or attribute exists already.
    EEXIST = 17, "file exists";
    /// The two ends lie in different realms.
    EXDEV = 18, "invalid cross-device link";
    /// A directory was needed.
    ENOTDIR = 20, "not a directory";
    /// A directory was not allowed.
    EISDIR = 21, "is a directory";
    /// An argument makes no sense.
    EINVAL = 22, "invalid argument";
    /// A grant row is full.
    EMFILE = 24, "too many open files";
    /// Beyond the largest file.
    EFBIG = 27, "file too large";
    /// No room: cookie collision, or a bound on attributes.
    ENOSPC = 28, "no space left on device";
    /// Read-only.
    EROFS = 30, "read-only file system";
    /// Too many hard links or subdirectories.
    EMLINK = 31, "too many links";
    /// A result does not fit, or an attribute's name is empty.
    ERANGE = 34, "numerical result out of range";
    /// A name or path is too long.
    ENAMETOOLONG = 36, "file name too long";
    /// No lock can be had.
    ENOLCK = 37, "no locks available";
    /// The directory has entries.
    ENOTEMPTY = 39, "directory not empty";
    /// A symbolic link where none may be, or directories nested beyond the bound.
    ELOOP = 40, "too many levels of symbolic links";
    /// No such attribute.
    ENODATA = 61, "no data available";
    /// The evidence for a block does not hold.
    EBADMSG = 74, "bad message";
    /// The file system does not do this.
    EOPNOTSUPP = 95, "operation not supported";
    /// The inode, row or token that the operation names is not there any more.
    ESTALE = 116, "stale file handle";
    /// Over quota.
    EDQUOT = 122, "disk quota exceeded";
    /// An operation that this one requires did not succeed (rule S8).
    ECANCELED = 125, "operation canceled";
}

impl Errno {
    /// The Linux number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The error with this number; `None` for a number that no operation answers.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|errno| errno.number() == number)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.symbol(), self.text())
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_ascending_and_found_again() {
        for pair in Errno::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number());
        }
        for errno in Errno::ALL {
            assert_eq!(Errno::from_number(errno.number()), Some(*errno));
        }
        assert_eq!(Errno::from_number(0), None);
        assert_eq!(Errno::ENOTEMPTY.to_string(), "ENOTEMPTY: directory not empty");
    }
}
