//! Signed notes (C2SP signed-note): a text, and lines of signatures under named keys; verifier keys.
//!
//! Invariant: a note that parses is written again to the same bytes, and says nothing about its text until a
//! signature under a known key was verified.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_crypto::{KeyError, PublicKey, Signature};
use sha2::{Digest as _, Sha256};

/// Most bytes of a note: 32 replicas sign twice, and further cosigners find room.
pub const NOTE_BYTES_MAX: usize = 256 << 10;
/// Most signatures of a note.
pub const NOTE_SIGNATURES_MAX: usize = 96;
/// Most bytes of a key's name.
pub const NOTE_NAME_BYTES_MAX: usize = 255;

/// What a signature line begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";
/// What the message of a cosignature begins with.
const COSIGNATURE_HEADER: &str = "cosignature/v1";
/// Bytes of the time before a cosignature.
const TIME_BYTES: usize = 8;
/// The last second that a cosignature may name.
const TIME_MAX: u64 = i64::MAX as u64;

/// The first bytes of a hash over name, type and key: tells keys of one name apart.
pub type KeyId = [u8; 4];

/// What is wrong with a note, a key or a signature. The fault of whoever wrote it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// More than [`NOTE_BYTES_MAX`] or [`NOTE_SIGNATURES_MAX`].
    #[error("the note is too large")]
    TooLarge,
    /// Not UTF-8, or with control characters.
    #[error("the note has other bytes than those of text and newlines")]
    Text,
    /// No empty line with signatures after it.
    #[error("the note has no signatures")]
    Unsigned,
    /// A line after the text is no signature.
    #[error("a signature line is malformed")]
    Line,
    /// A key's name is empty, too long, or has spaces, plus signs or control characters.
    #[error("malformed name of a key")]
    Name,
    /// Not `NAME+ID+KEY`, or the ID is not that of name and key.
    #[error("malformed verifier key")]
    VerifierKey,
    /// Neither Ed25519 for notes (0x01) nor for cosignatures (0x04).
    #[error("keys of type {0:#04x} are not known")]
    Kind(u8),
    /// The key cannot verify anything.
    #[error("unusable key: {0}")]
    Key(#[from] KeyError),
    /// A signature has the wrong length, names a time that is none, or does not hold.
    #[error("a signature does not hold")]
    Signature,
}

/// What a key signs, by its number in key ids and verifier keys.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum KeyKind {
    /// The text of a note, with Ed25519.
    Note = 0x01,
    /// A time and a checkpoint, with Ed25519 (tlog-cosignature).
    Cosignature = 0x04,
}

impl KeyKind {
    /// The number that is hashed into key ids.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// A public key with its name and use, as policies and configurations name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    public: PublicKey,
}

impl VerifierKey {
    /// A key under a name.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn new(name: &str, kind: KeyKind, public: PublicKey) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), kind, public })
    }

    /// Reads `NAME+ID+KEY`, in the one form that [`VerifierKey::fmt`] writes.
    ///
    /// # Errors
    /// [`NoteError`] of name, form, type or key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let mut part = || parts.next().ok_or(NoteError::VerifierKey);
        let (name, id, key) = (part()?, part()?, part()?);
        // Bounded before it is decoded.
        if key.len() > 64 {
            return Err(NoteError::VerifierKey);
        }
        let bytes = STANDARD.decode(key).map_err(|_| NoteError::VerifierKey)?;
        let (kind, public) = bytes.split_first().ok_or(NoteError::VerifierKey)?;
        let kind = match *kind {
            0x01 => KeyKind::Note,
            0x04 => KeyKind::Cosignature,
            other => return Err(NoteError::Kind(other)),
        };
        let public = public.try_into().map_err(|_| NoteError::VerifierKey)?;
        let key = Self::new(name, kind, PublicKey(public))?;
        key.public.parse()?;
        if hex_id(key.id()) == id { Ok(key) } else { Err(NoteError::VerifierKey) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key itself.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The beginning of SHA-256 over name, newline, type and key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let hash = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', self.kind.number()])
            .chain_update(self.public.0)
            .finalize();
        let mut id = KeyId::default();
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        id
    }

    /// Whether a signature line names this key.
    #[must_use]
    pub fn is_named_by(&self, line: &NoteSignature) -> bool {
        line.name == self.name && line.id == self.id()
    }

    /// The line with a signature of a note's text under this key.
    #[must_use]
    pub fn note_line(&self, signature: &Signature) -> NoteSignature {
        NoteSignature { name: self.name.clone(), id: self.id(), bytes: signature.0.to_vec() }
    }

    /// The line with a cosignature of this time under this key.
    #[must_use]
    pub fn cosignature_line(&self, time: u64, signature: &Signature) -> NoteSignature {
        let mut bytes = time.to_be_bytes().to_vec();
        bytes.extend_from_slice(&signature.0);
        NoteSignature { name: self.name.clone(), id: self.id(), bytes }
    }

    /// Checks a line that names this key against a note's text; the time of a cosignature.
    ///
    /// # Errors
    /// [`NoteError::Signature`], [`NoteError::Key`].
    pub fn verify(&self, text: &str, line: &NoteSignature) -> Result<Option<u64>, NoteError> {
        let key = self.public.parse()?;
        let (time, bytes) = match self.kind {
            KeyKind::Note => (None, line.bytes.as_slice()),
            KeyKind::Cosignature => {
                let (time, rest) =
                    line.bytes.split_first_chunk::<TIME_BYTES>().ok_or(NoteError::Signature)?;
                (Some(u64::from_be_bytes(*time)), rest)
            }
        };
        let signature = Signature(bytes.try_into().map_err(|_| NoteError::Signature)?);
        let message = match time {
            None => text.to_owned(),
            Some(time) => cosigned_message(time, text).ok_or(NoteError::Signature)?,
        };
        key.verify_bytes(message.as_bytes(), &signature).map_err(|_| NoteError::Signature)?;
        Ok(time)
    }
}

/// `NAME+ID+KEY`: the id in hexadecimal digits, type and key in base64.
impl fmt::Display for VerifierKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![self.kind.number()];
        bytes.extend_from_slice(&self.public.0);
        write!(formatter, "{}+{}+{}", self.name, hex_id(self.id()), STANDARD.encode(bytes))
    }
}

fn hex_id(id: KeyId) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let bad = |character: char| character.is_whitespace() || character.is_control() || character == '+';
    if name.is_empty() || name.len() > NOTE_NAME_BYTES_MAX || name.contains(bad) {
        return Err(NoteError::Name);
    }
    Ok(())
}

/// What a cosignature of this time covers; nothing for a time out of bounds.
#[must_use]
pub(crate) fn cosigned_message(time: u64, text: &str) -> Option<String> {
    (time <= TIME_MAX).then(|| format!("{COSIGNATURE_HEADER}\ntime {time}\n{text}"))
}

/// One line of signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The key's name.
    pub name: String,
    /// Tells keys of one name apart.
    pub id: KeyId,
    /// What the key's type says: of type 0x01 a signature, of type 0x04 a time before it. Never empty.
    pub bytes: Vec<u8>,
}

impl NoteSignature {
    fn parse(line: &str) -> Result<Self, NoteError> {
        let rest = line.strip_prefix(DASH).ok_or(NoteError::Line)?;
        let (name, encoded) = rest.split_once(' ').ok_or(NoteError::Line)?;
        check_name(name)?;
        let decoded = STANDARD.decode(encoded).map_err(|_| NoteError::Line)?;
        let (id, bytes) = decoded.split_first_chunk::<4>().ok_or(NoteError::Line)?;
        if bytes.is_empty() {
            return Err(NoteError::Line);
        }
        Ok(Self { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
    }
}

/// The line without its newline.
impl fmt::Display for NoteSignature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.to_vec();
        bytes.extend_from_slice(&self.bytes);
        write!(formatter, "{DASH}{} {}", self.name, STANDARD.encode(bytes))
    }
}

/// A text with signatures that nobody has checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    /// The text, with the newline at its end.
    pub text: String,
    /// The lines of signatures, one at least.
    pub signatures: Vec<NoteSignature>,
}

impl SignedNote {
    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError`] of size, text or form.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLarge);
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Text)?;
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::Text);
        }
        // The last empty line, because the text may have some.
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Unsigned)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Line)?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() >= NOTE_SIGNATURES_MAX {
                return Err(NoteError::TooLarge);
            }
            signatures.push(NoteSignature::parse(line)?);
        }
        Ok(Self { text: format!("{text}\n"), signatures })
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| writeln!(formatter, "{line}"))
    }
}
