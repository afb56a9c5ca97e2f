//! Files that hold secrets: the seed of a node, the key of a principal.
//!
//! Invariant: a key file is readable by its owner alone, is never overwritten, and says what it holds, so
//! that the wrong kind or a damaged line is a clear error and never another identity.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use quorate_crypto::{NodeSeed, PublicKey, Role, SecretKey, derive_hash};
use zeroize::Zeroizing;

use crate::cluster_file::sync_directory;

/// Version of the format.
pub const KEY_FILE_VERSION: u32 = 1;
/// Most bytes that a key file may have.
pub const KEY_FILE_BYTES_MAX: u64 = 4096;
/// Permission bits of a key file.
pub const KEY_FILE_MODE: u32 = 0o600;

/// Domain of the checksum.
const CHECK_CONTEXT: &str = "quorate key file v1";
/// Hexadecimal digits of the checksum.
const CHECK_DIGITS: usize = 16;

/// What a key file holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The seed of a replica.
    Node,
    /// The secret key of a principal.
    Principal,
}

impl KeyKind {
    /// The word in the first line of the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Principal => "principal",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A secret from a file.
#[derive(Clone, Debug)]
pub enum KeyFile {
    /// The seed of a replica, from which all its keys are derived.
    Node(NodeSeed),
    /// The secret key of a principal.
    Principal(SecretKey),
}

/// Why a key file is refused. The caller's fault: it names the wrong file, or a damaged one.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written; writing over an existing one is refused.
    #[error("key file {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others may read it.
    #[error("key file {path} has mode {mode:04o}, so others may read it: chmod 600 it, or make a new key",
        path = path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not begin as a key file does.
    #[error("{path} is not a Quorate key file", path = path.display())]
    NotAKeyFile {
        /// Which file.
        path: PathBuf,
    },
    /// Written by a newer program.
    #[error("key file {path} has a version that this program does not know: upgrade it",
        path = path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
    },
    /// A key file, but lines are missing, or checksum or public key do not fit.
    #[error("key file {path} is damaged: {reason}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// In words.
        reason: &'static str,
    },
    /// A sound key file of another kind than asked for.
    #[error("key file {path} holds a {found} key where a {wanted} key is needed", path = path.display())]
    WrongKind {
        /// Which file.
        path: PathBuf,
        /// What it holds.
        found: KeyKind,
        /// What was asked for.
        wanted: KeyKind,
    },
}

impl KeyFile {
    /// What it holds.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        match self {
            Self::Node(_) => KeyKind::Node,
            Self::Principal(_) => KeyKind::Principal,
        }
    }

    /// The public key by which the file is told from others: a node's consensus key, a principal's key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        match self {
            Self::Node(seed) => seed.derive(Role::Consensus).public(),
            Self::Principal(secret) => secret.public(),
        }
    }

    /// Reads a file of either kind.
    ///
    /// # Errors
    /// [`KeyFileError`], but not [`KeyFileError::WrongKind`].
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let text = read_private(path)?;
        parse(&text).map_err(|error| error.at(path))
    }

    /// Reads the seed of a replica.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read_node(path: &Path) -> Result<NodeSeed, KeyFileError> {
        match Self::read(path)? {
            Self::Node(seed) => Ok(seed),
            other => Err(wrong_kind(path, other.kind(), KeyKind::Node)),
        }
    }

    /// Reads the secret key of a principal.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read_principal(path: &Path) -> Result<SecretKey, KeyFileError> {
        match Self::read(path)? {
            Self::Principal(secret) => Ok(secret),
            other => Err(wrong_kind(path, other.kind(), KeyKind::Principal)),
        }
    }

    /// Writes a new file with mode 0600 and syncs it. An existing file is never overwritten.
    ///
    /// # Errors
    /// [`KeyFileError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), KeyFileError> {
        let text = self.to_text();
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(KEY_FILE_MODE)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| sync_directory(path));
        written.map_err(|source| KeyFileError::Io { path: path.to_owned(), source })
    }

    fn secret(&self) -> Zeroizing<[u8; 32]> {
        match self {
            Self::Node(seed) => seed.to_bytes(),
            Self::Principal(secret) => secret.to_bytes(),
        }
    }

    fn to_text(&self) -> Zeroizing<String> {
        let secret = self.secret();
        let digits = Zeroizing::new(hex::encode(*secret));
        Zeroizing::new(format!(
            "quorate {kind} key v{KEY_FILE_VERSION}\npublic {public}\nsecret {digits}\ncheck {check}\n",
            kind = self.kind(),
            public = self.public(),
            digits = *digits,
            check = checksum(self.kind(), &secret),
        ))
    }
}

/// The first digits of a hash over kind and secret: finds typing errors, protects against nothing.
fn checksum(kind: KeyKind, secret: &[u8; 32]) -> String {
    let mut digits = derive_hash(CHECK_CONTEXT, &[kind.name().as_bytes(), secret]).to_string();
    digits.truncate(CHECK_DIGITS);
    digits
}

fn wrong_kind(path: &Path, found: KeyKind, wanted: KeyKind) -> KeyFileError {
    KeyFileError::WrongKind { path: path.to_owned(), found, wanted }
}

/// The text of a file that nobody but its owner may read.
fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let failed = |source| KeyFileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    // Room for all of it from the start: a growing buffer would leave copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(8192));
    match file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(KeyFileError::NotAKeyFile { path: path.to_owned() })
        }
        Err(error) => Err(failed(error)),
    }
}

/// An error without its path.
enum ParseError {
    NotAKeyFile,
    Newer,
    Damaged(&'static str),
}

impl ParseError {
    fn at(self, path: &Path) -> KeyFileError {
        let path = path.to_owned();
        match self {
            Self::NotAKeyFile => KeyFileError::NotAKeyFile { path },
            Self::Newer => KeyFileError::Newer { path },
            Self::Damaged(reason) => KeyFileError::Damaged { path, reason },
        }
    }
}

fn parse(text: &str) -> Result<KeyFile, ParseError> {
    let mut lines = text.lines();
    let kind = parse_kind(lines.next().unwrap_or_default())?;
    let mut field = |name: &str, missing| {
        let line = lines.next().and_then(|line| line.strip_prefix(name)).map(str::trim);
        line.ok_or(ParseError::Damaged(missing))
    };
    let public = field("public ", "no line with the public key")?;
    let digits = field("secret ", "no line with the secret")?;
    let check = field("check ", "no line with the checksum")?;
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, secret.as_mut())
        .map_err(|_| ParseError::Damaged("the secret is not 64 hexadecimal digits"))?;
    if check != checksum(kind, &secret) {
        return Err(ParseError::Damaged("the checksum does not fit"));
    }
    let key = match kind {
        KeyKind::Node => KeyFile::Node(NodeSeed::from_bytes(*secret)),
        KeyKind::Principal => KeyFile::Principal(SecretKey::from_bytes(&secret)),
    };
    if public != key.public().to_string() {
        return Err(ParseError::Damaged("the public key is not that of the secret"));
    }
    Ok(key)
}

/// Reads `quorate KIND key vN`.
fn parse_kind(line: &str) -> Result<KeyKind, ParseError> {
    let mut words = line.split_ascii_whitespace();
    let (Some("quorate"), Some(kind), Some("key"), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(ParseError::NotAKeyFile);
    };
    let version: Option<u32> = version.strip_prefix('v').and_then(|digits| digits.parse().ok());
    match (kind, version) {
        (_, None) => Err(ParseError::NotAKeyFile),
        (_, Some(version)) if version > KEY_FILE_VERSION => Err(ParseError::Newer),
        ("node", Some(KEY_FILE_VERSION)) => Ok(KeyKind::Node),
        ("principal", Some(KEY_FILE_VERSION)) => Ok(KeyKind::Principal),
        _ => Err(ParseError::Damaged("unknown kind or version of key")),
    }
}

#[cfg(test)]
mod tests;
