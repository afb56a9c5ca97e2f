//! The commands, one file each.

pub mod against;
pub mod audit;
pub mod bench;
pub mod check;
pub mod compare;
pub mod connect;
pub mod dev;
pub mod diff;
pub mod evidence;
pub mod init;
pub mod key;
pub mod memory;
pub mod mount;
pub mod new_file;
pub mod past;
pub mod prove;
pub mod receipt;
pub mod replay;
pub mod replica;
pub mod sources;
pub mod status;
pub mod transition;
pub mod trust;
pub mod verify;
pub mod watch;
