//! The commands, one file each.

pub mod audit;
pub mod bench;
pub mod connect;
pub mod dev;
pub mod evidence;
pub mod heights;
pub mod init;
pub mod key;
pub mod mount;
pub mod new_file;
pub mod prove;
pub mod replica;
pub mod sources;
pub mod status;
