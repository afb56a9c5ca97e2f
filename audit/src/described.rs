//! Operations and their results in words and numbers, as commands print them.
//!
//! Invariant: bytes that a client chose (names, targets) are escaped, so that they cannot pass for what is said of
//! them; content and values of attributes are counted, not shown.

use std::fmt;

use quorate_execution::Errno;
use quorate_protocol::file::Attributes;
use quorate_protocol::operation::{
    OpenMode, OperationBody, Piece, PrincipalRights, RenameMode, SetXattrMode, SpecialFile, WriteAt,
};
use quorate_protocol::time::SetTime;
use quorate_protocol::{OperationResult, Reply, SkipReason};

/// What is said of one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A number.
    Number(u64),
    /// Text; bytes that are not printable ASCII are escaped as `\xNN`, `\n` and the like.
    Text(String),
    /// Yes or no.
    Flag(bool),
}

impl fmt::Display for Detail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
            Self::Flag(flag) => flag.fmt(formatter),
        }
    }
}

impl From<u64> for Detail {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Detail {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Detail {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&str> for Detail {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Detail {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Arguments by name, in a fixed order.
pub type Details = Vec<(&'static str, Detail)>;

/// The name of an operation's kind.
#[must_use]
pub const fn operation_kind(body: &OperationBody) -> &'static str {
    match body {
        OperationBody::Null => "null",
        OperationBody::Register { .. } => "register",
        OperationBody::CloseSession => "close-session",
        OperationBody::PutPrincipal { .. } => "put-principal",
        OperationBody::RemovePrincipal { .. } => "remove-principal",
        OperationBody::Create { .. } => "create",
        OperationBody::Mkdir { .. } => "mkdir",
        OperationBody::Symlink { .. } => "symlink",
        OperationBody::Mknod { .. } => "mknod",
        OperationBody::Link { .. } => "link",
        OperationBody::Unlink { .. } => "unlink",
        OperationBody::Rmdir { .. } => "rmdir",
        OperationBody::Rename { .. } => "rename",
        OperationBody::SetAttributes { .. } => "set-attributes",
        OperationBody::SetXattr { .. } => "set-xattr",
        OperationBody::RemoveXattr { .. } => "remove-xattr",
        OperationBody::Open { .. } => "open",
        OperationBody::Release { .. } => "release",
        OperationBody::Write { .. } => "write",
        OperationBody::Fold { .. } => "fold",
        OperationBody::Renew { .. } => "renew",
        OperationBody::Reopen { .. } => "reopen",
    }
}

fn escaped(bytes: &[u8]) -> Detail {
    Detail::Text(bytes.escape_ascii().to_string())
}

fn octal(mode: u16) -> Detail {
    Detail::Text(format!("{mode:04o}"))
}

fn open_mode(mode: OpenMode) -> Detail {
    let named = [(mode.read, "read"), (mode.write, "write"), (mode.truncate, "truncate")];
    let words: Vec<&str> = named.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
    Detail::Text(words.join(","))
}

/// What an operation was asked to do; entropy, umask and proofs for blocks are left out.
#[must_use]
pub fn operation_details(body: &OperationBody) -> Details {
    match body {
        OperationBody::Null | OperationBody::CloseSession => Vec::new(),
        OperationBody::Register { nonce } => vec![("nonce", hexadecimal(nonce))],
        OperationBody::PutPrincipal { key, rights } => principal(key.to_string(), rights),
        OperationBody::RemovePrincipal { principal } => vec![("principal", (*principal).into())],
        OperationBody::Renew { until } => vec![("until_ns", until.0.into())],
        OperationBody::Create { .. }
        | OperationBody::Mkdir { .. }
        | OperationBody::Symlink { .. }
        | OperationBody::Mknod { .. }
        | OperationBody::Link { .. }
        | OperationBody::Unlink { .. }
        | OperationBody::Rmdir { .. }
        | OperationBody::Rename { .. } => of_names(body),
        OperationBody::SetAttributes { .. }
        | OperationBody::SetXattr { .. }
        | OperationBody::RemoveXattr { .. } => of_attributes(body),
        OperationBody::Open { .. }
        | OperationBody::Release { .. }
        | OperationBody::Write { .. }
        | OperationBody::Fold { .. }
        | OperationBody::Reopen { .. } => of_content(body),
    }
}

fn hexadecimal(bytes: &[u8; 32]) -> Detail {
    Detail::Text(quorate_crypto::Hash(*bytes).to_string())
}

fn principal(key: String, rights: &PrincipalRights) -> Details {
    let numbers = |numbers: &[u32]| {
        let all: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        Detail::Text(all.join(","))
    };
    let mut details = vec![
        ("key", key.into()),
        ("anyone", rights.anyone.into()),
        ("administrator", rights.administrator.into()),
        ("auditor", rights.auditor.into()),
        ("uids", numbers(&rights.uids)),
        ("gids", numbers(&rights.gids)),
    ];
    if let Some((uid, gid)) = rights.squash_root {
        details.push(("squash_root", format!("{uid}:{gid}").into()));
    }
    details
}

/// Of the family of names.
fn of_names(body: &OperationBody) -> Details {
    let new = |parent: u64, name: &[u8], mode: u16| {
        vec![("parent", parent.into()), ("name", escaped(name)), ("mode", octal(mode))]
    };
    match body {
        OperationBody::Create { parent, name, mode, exclusive, open, .. } => {
            let mut details = new(*parent, name.as_bytes(), *mode);
            details.push(("exclusive", (*exclusive).into()));
            details.extend(open.map(|open| ("open", open_mode(open))));
            details
        }
        OperationBody::Mkdir { parent, name, mode, .. } => new(*parent, name.as_bytes(), *mode),
        OperationBody::Mknod { parent, name, node, mode, .. } => {
            let mut details = new(*parent, name.as_bytes(), *mode);
            let (kind, device) = match node {
                SpecialFile::Regular => ("regular", None),
                SpecialFile::Fifo => ("fifo", None),
                SpecialFile::Socket => ("socket", None),
                SpecialFile::CharacterDevice(number) => ("character", Some(*number)),
                SpecialFile::BlockDevice(number) => ("block", Some(*number)),
            };
            details.push(("node", kind.into()));
            details.extend(device.map(|number| ("device", number.into())));
            details
        }
        OperationBody::Symlink { parent, name, target, .. } => vec![
            ("parent", (*parent).into()),
            ("name", escaped(name.as_bytes())),
            ("target", escaped(target)),
        ],
        OperationBody::Link { ino, parent, name } => {
            vec![("ino", (*ino).into()), ("parent", (*parent).into()), ("name", escaped(name.as_bytes()))]
        }
        OperationBody::Unlink { parent, name } | OperationBody::Rmdir { parent, name } => {
            vec![("parent", (*parent).into()), ("name", escaped(name.as_bytes()))]
        }
        OperationBody::Rename { parent, name, new_parent, new_name, mode } => {
            let mode = match mode {
                RenameMode::Replace => "replace",
                RenameMode::NoReplace => "no-replace",
                RenameMode::Exchange => "exchange",
            };
            vec![
                ("parent", (*parent).into()),
                ("name", escaped(name.as_bytes())),
                ("new_parent", (*new_parent).into()),
                ("new_name", escaped(new_name.as_bytes())),
                ("rename", mode.into()),
            ]
        }
        _ => Vec::new(),
    }
}

/// Of the family of attributes.
fn of_attributes(body: &OperationBody) -> Details {
    let time = |time: &SetTime| match time {
        SetTime::Omit => None,
        SetTime::Now => Some(Detail::from("now")),
        SetTime::To(time) => Some(Detail::Text(format!("{}.{:09}", time.seconds, time.nanoseconds))),
    };
    match body {
        OperationBody::SetAttributes { ino, mode, uid, gid, size, atime, mtime, .. } => {
            let mut details = vec![("ino", (*ino).into())];
            details.extend(mode.map(|mode| ("mode", octal(mode))));
            details.extend(uid.map(|uid| ("uid", uid.into())));
            details.extend(gid.map(|gid| ("gid", gid.into())));
            details.extend(size.map(|size| ("size", size.into())));
            details.extend(time(atime).map(|time| ("atime", time)));
            details.extend(time(mtime).map(|time| ("mtime", time)));
            details
        }
        OperationBody::SetXattr { ino, name, value, mode, .. } => {
            let mode = match mode {
                SetXattrMode::Any => "any",
                SetXattrMode::Create => "create",
                SetXattrMode::Replace => "replace",
            };
            vec![
                ("ino", (*ino).into()),
                ("name", escaped(name)),
                ("bytes", (value.len() as u64).into()),
                ("xattr", mode.into()),
            ]
        }
        OperationBody::RemoveXattr { ino, name } => vec![("ino", (*ino).into()), ("name", escaped(name))],
        _ => Vec::new(),
    }
}

/// Of the family of content.
fn of_content(body: &OperationBody) -> Details {
    match body {
        OperationBody::Open { ino, mode } | OperationBody::Reopen { ino, mode } => {
            vec![("ino", (*ino).into()), ("open", open_mode(*mode))]
        }
        OperationBody::Release { ino, mode, count } => {
            vec![("ino", (*ino).into()), ("open", open_mode(*mode)), ("count", (*count).into())]
        }
        OperationBody::Write { ino, at, pieces, .. } => {
            let at = match at {
                WriteAt::Offset(offset) => Detail::Number(*offset),
                WriteAt::Append => "append".into(),
            };
            let length = |piece: &Piece| match piece {
                Piece::Inline(bytes) => bytes.len() as u64,
                Piece::Block { length, .. } => u64::from(*length),
                Piece::Zero(length) => *length,
            };
            let bytes = pieces.iter().map(length).fold(0, u64::saturating_add);
            vec![("ino", (*ino).into()), ("at", at), ("bytes", bytes.into())]
        }
        OperationBody::Fold { ino, index, segments, .. } => vec![
            ("ino", (*ino).into()),
            ("row", (*index).into()),
            ("segments", (segments.len() as u64).into()),
        ],
        _ => Vec::new(),
    }
}

/// What came of an operation: `done`, `failed` or `skipped`, and more about it.
#[must_use]
pub fn result_details(result: &OperationResult) -> (&'static str, Details) {
    match result {
        OperationResult::Done(reply) => ("done", reply_details(reply)),
        OperationResult::Failed(number) => ("failed", vec![("errno", errno(*number))]),
        OperationResult::Skipped(reason) => ("skipped", vec![("reason", skip_reason(reason).into())]),
    }
}

/// The symbol of an error number; the number itself if this program does not know it.
fn errno(number: u16) -> Detail {
    let known = Errno::ALL.iter().find(|errno| errno.number() == number);
    Detail::Text(known.map_or_else(|| number.to_string(), |errno| errno.symbol().to_owned()))
}

fn reply_details(reply: &Reply) -> Details {
    let inode = |attributes: &Attributes| ("ino", Detail::Number(attributes.ino));
    match reply {
        Reply::Empty => Vec::new(),
        Reply::Registered { session } => vec![("session_number", (*session).into())],
        Reply::Inode { attributes, created } => vec![inode(attributes), ("created", (*created).into())],
        Reply::Written { offset, attributes } => {
            vec![inode(attributes), ("offset", (*offset).into()), ("size", attributes.size.into())]
        }
        Reply::NeedsFold { ino, index } => {
            vec![("retry", "fold".into()), ("ino", (*ino).into()), ("row", (*index).into())]
        }
        Reply::Continue => vec![("retry", "continue".into())],
    }
}

const fn skip_reason(reason: &SkipReason) -> &'static str {
    match reason {
        SkipReason::Duplicate { .. } => "duplicate",
        SkipReason::Gap { .. } => "gap",
        SkipReason::Overlap { .. } => "overlap",
        SkipReason::UnknownSession => "unknown-session",
        SkipReason::Expired => "expired",
        SkipReason::UnknownPrincipal => "unknown-principal",
        SkipReason::WrongKey => "wrong-key",
        SkipReason::BadRegistration => "bad-registration",
        SkipReason::Budget => "budget",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_protocol::file::Name;

    #[test]
    fn what_a_client_chose_cannot_pass_for_what_is_said_of_it() {
        let name = Name::new(b"a\nb\xff\"c").map_err(|_| ());
        let Ok(name) = name else { return assert_eq!(name, Err(()), "a name") };
        let body = OperationBody::Unlink { parent: 7, name };
        assert_eq!(operation_kind(&body), "unlink");
        let details = operation_details(&body);
        assert_eq!(details, [("parent", 7_u64.into()), ("name", r#"a\nb\xff\"c"#.into())]);
        let (outcome, details) = result_details(&OperationResult::Failed(2));
        assert_eq!((outcome, details), ("failed", vec![("errno", "ENOENT".into())]));
        assert_eq!(errno(4000), "4000".into());
    }
}
