//! Outcomes as answers to the kernel.
//!
//! Invariant: every outcome is one answer, and an errno is passed on as it is.

use crate::convert;
use crate::shared::Outcome;
use fuser::{Errno, Generation, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyXattr};
use quorate_protocol::file::Attributes;
use std::time::Duration;

/// How long the kernel may believe a name or an attribute.
pub const NEVER: Duration = Duration::ZERO;
/// Inode numbers are never used again, so one generation is enough (rule S8).
pub const GENERATION: Generation = Generation(1);

/// An errno as fuser takes it.
pub fn fail(errno: i32) -> Errno {
    Errno::from_i32(errno)
}

/// Answers with an inode that the kernel learns of.
pub fn entry(reply: ReplyEntry, outcome: Outcome<Attributes>) {
    match outcome {
        Ok(attributes) => reply.entry(&NEVER, &convert::attributes(&attributes), GENERATION),
        Err(errno) => reply.error(fail(errno)),
    }
}

/// Answers with attributes.
pub fn attributes(reply: ReplyAttr, outcome: Outcome<Attributes>) {
    match outcome {
        Ok(attributes) => reply.attr(&NEVER, &convert::attributes(&attributes)),
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
