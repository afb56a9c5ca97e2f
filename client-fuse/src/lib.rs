//! The mount: fuser on top of the verified client.
//!
//! Invariants: every request becomes a task at once and ends by its deadline, or when its caller is being killed,
//! because fuser cannot be interrupted; the kernel caches no name and no attribute (time-outs are 0), so that what
//! one mount has done is visible on another when the call has returned, but for a mount of one height, which never
//! changes; data is written back at close, fsync, by
//! size and by age, and an error of a write-back is reported once by close or fsync, and never followed by a
//! rename before. What `df` looks at, the totals and the root's own attributes, may be old while the cluster does
//! not answer; nothing else ever is.

#![deny(unsafe_code)]

mod adapter;
mod answer;
mod caller;
mod convert;
mod credentials;
mod dirty;
mod files;
mod mounting;
mod opening;
mod operations;
mod options;
mod reading;
mod releases;
mod remembered;
mod shared;
mod sleep;
mod writing;

pub use mounting::{MountError, Mounted, is_mounted, mount, unmount};
pub use options::{MountOptions, OptionError};
