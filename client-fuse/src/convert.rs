//! Between the kernel's forms and the protocol's: names, times, attributes, modes.
//!
//! Invariant: no conversion invents anything; what does not fit is an errno.

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use quorate_protocol::Timestamp;
use quorate_protocol::file::{Attributes, FileKind, Name, NameError};
use quorate_protocol::time::{NANOSECONDS_PER_SECOND, SetTime};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Permission bits with setuid, setgid and sticky.
const MODE_BITS: u32 = 0o7777;

/// A name that a directory entry may have.
pub fn name(text: &OsStr) -> Result<Name, i32> {
    Name::new(text.as_bytes()).map_err(|error| match error {
        NameError::TooLong => libc::ENAMETOOLONG,
        NameError::Invalid => libc::EINVAL,
    })
}

/// The mode bits of `st_mode`, without its type.
pub fn mode(mode: u32) -> u16 {
    u16::try_from(mode & MODE_BITS).unwrap_or_default()
}

/// The kind as the kernel names it.
pub const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharacterDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// Attributes as the kernel takes them.
pub fn attributes(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: system_time(attributes.atime),
        mtime: system_time(attributes.mtime),
        ctime: system_time(attributes.ctime),
        crtime: system_time(attributes.btime),
        kind: file_type(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        // What cp and tar read and write at a time.
        blksize: 1_u32.checked_shl(u32::from(attributes.block_log2)).unwrap_or(4096).min(131_072),
        flags: 0,
    }
}

/// A timestamp as the standard library has it. Times that it cannot hold become the epoch.
pub fn system_time(time: Timestamp) -> SystemTime {
    let nanoseconds = Duration::from_nanos(u64::from(time.nanoseconds));
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole =
        if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|whole| whole.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

/// The reverse: nanoseconds always count forward, before 1970 as well.
pub fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        },
        Err(error) => {
            let before = error.duration();
            let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
            match before.subsec_nanos() {
                0 => Timestamp { seconds, nanoseconds: 0 },
                part => Timestamp {
                    seconds: seconds.saturating_sub(1),
                    nanoseconds: NANOSECONDS_PER_SECOND - part,
                },
            }
        }
    }
}

/// One of the two times of `utimensat`.
pub fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Omit,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::To(asked_time(time)),
    }
}

/// A time that fuser read. Before 1970 it counts the nanoseconds backwards, where the kernel meant them
/// forwards: -1 s and half a second come as -1.5 s.
fn asked_time(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => timestamp(time),
        Err(error) => {
            let before = error.duration();
            // The one that does not fit is the earliest of all, 2^63 s.
            let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
            Timestamp { seconds, nanoseconds: before.subsec_nanos() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_there_and_back() {
        for (seconds, nanoseconds) in
            [(0, 0), (1, 999_999_999), (-1, 1), (-1, 0), (-86_400, 500), (1 << 33, 7)]
        {
            let time = Timestamp { seconds, nanoseconds };
            assert_eq!(timestamp(system_time(time)), time);
        }
    }

    #[test]
    fn times_before_1970_are_taken_as_the_kernel_means_them() {
        for (seconds, nanoseconds) in [(-1_i64, 500_000_000), (-1, 0), (-7, 1), (i64::MIN, 0)] {
            // As fuser makes it of what the kernel sends.
            let made = UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), nanoseconds);
            let wanted = SetTime::To(Timestamp { seconds, nanoseconds });
            assert_eq!(set_time(Some(TimeOrNow::SpecificTime(made))), wanted);
        }
        let after = Timestamp { seconds: 3, nanoseconds: 5 };
        assert_eq!(set_time(Some(TimeOrNow::SpecificTime(system_time(after)))), SetTime::To(after));
    }

    #[test]
    fn names_that_cannot_be_are_errnos() {
        assert_eq!(name(OsStr::new("..")).unwrap_err(), libc::EINVAL);
        assert_eq!(name(OsStr::new(&"x".repeat(256))).unwrap_err(), libc::ENAMETOOLONG);
        assert_eq!(name(OsStr::from_bytes(b"\xff\xfe")).unwrap().as_bytes(), b"\xff\xfe");
    }
}
