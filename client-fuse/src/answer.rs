//! Outcomes as answers to the kernel.
//!
//! Invariant: every outcome is one answer, and an errno is passed on as it is.

use crate::convert;
use crate::options::MountOptions;
use crate::shared::Outcome;
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr,
};
use quorate_protocol::file::Attributes;
use std::time::Duration;

/// Inode numbers are never used again, so one generation is enough (rule S8).
pub const GENERATION: Generation = Generation(1);

/// An errno as fuser takes it.
pub fn fail(errno: i32) -> Errno {
    Errno::from_i32(errno)
}

/// Answers with an inode that the kernel learns of, and believes in for so long.
pub fn entry(reply: ReplyEntry, belief: Duration, outcome: Outcome<Attributes>) {
    match outcome {
        Ok(attributes) => reply.entry(&belief, &convert::attributes(&attributes), GENERATION),
        Err(errno) => reply.error(fail(errno)),
    }
}

/// Answers with attributes, which the kernel believes for so long.
pub fn attributes(reply: ReplyAttr, belief: Duration, outcome: Outcome<Attributes>) {
    match outcome {
        Ok(attributes) => reply.attr(&belief, &convert::attributes(&attributes)),
        Err(errno) => reply.error(fail(errno)),
    }
}

/// Answers with a handle; where nothing ever changes, the kernel keeps what it reads by it.
pub fn opened(reply: ReplyOpen, options: &MountOptions, outcome: Outcome<u64>) {
    let kept = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
    match outcome {
        Ok(handle) if options.past.is_some() => reply.opened(FileHandle(handle), kept),
        Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
        Err(errno) => reply.error(fail(errno)),
    }
}

/// Answers that it is done.
pub fn empty(reply: ReplyEmpty, outcome: Outcome<()>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(fail(errno)),
    }
}

/// Answers with an extended attribute, or a list of them: a size of 0 asks for the size.
pub fn xattr(reply: ReplyXattr, size: u32, outcome: Outcome<Vec<u8>>) {
    match outcome {
        Err(errno) => reply.error(fail(errno)),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(length) if size == 0 => reply.size(length),
            Ok(length) if length <= size => reply.data(&value),
            _ => reply.error(fail(libc::ERANGE)),
        },
    }
}
