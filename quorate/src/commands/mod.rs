//! The commands, one file each.

pub mod audit;
pub mod bench;
pub mod check;
pub mod connect;
pub mod dev;
pub mod diff;
pub mod evidence;
pub mod init;
pub mod key;
pub mod mount;
pub mod new_file;
pub mod past;
pub mod prove;
pub mod receipt;
pub mod replay;
pub mod replica;
pub mod sources;
pub mod status;
pub mod tlog;
pub mod transition;
pub mod trust;
