//! Trust policies (C2SP tlog-policy): which keys sign a log, which cosign it, and how many must.
//!
//! Invariant: a policy that parses refers only to names defined before, names each at most once as a member, and
//! has one quorum; so whether it is satisfied is decided by one pass without recursion.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::note::{KeyKind, NoteError, VerifierKey};

/// Most bytes of a policy.
pub const POLICY_BYTES_MAX: usize = 256 << 10;
/// Most logs, witnesses and groups, each.
pub const POLICY_NAMES_MAX: usize = 64;

/// The name that stands for no cosignatures at all.
const NONE: &str = "none";

/// Why a file is no policy: the fault of its writer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More than [`POLICY_BYTES_MAX`], or too many logs, witnesses, groups or members.
    #[error("the policy is too large")]
    TooLarge,
    /// Not UTF-8, or with control characters. (The format would allow other bytes in names.)
    #[error("the policy has other bytes than those of text, tabs and newlines")]
    Text,
    /// The last line has no newline.
    #[error("the last line of the policy has no newline")]
    Unended,
    /// A line is none of the known ones, or has too few or too many items.
    #[error("line {0} of the policy is malformed")]
    Line(usize),
    /// A key is malformed, of the wrong type for its place, or there twice.
    #[error("line {line} of the policy: {error}")]
    Key {
        /// Which line.
        line: usize,
        /// What is wrong.
        error: NoteError,
    },
    /// A name is defined twice, not defined before it is used, or a member twice.
    #[error("line {0} of the policy uses a name that it may not")]
    Name(usize),
    /// No quorum line, or more than one.
    #[error("a policy has one quorum line")]
    Quorum,
}

/// A group of witnesses and groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyGroup {
    /// Its name.
    pub name: String,
    /// How many of its members must be there, 1 to all.
    pub needed: usize,
    /// Names of witnesses and of groups before it.
    pub members: Vec<String>,
}

/// Who is trusted to sign a log. URLs, which the format allows, are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    /// Keys of which any one signs the log.
    pub logs: Vec<VerifierKey>,
    /// Cosigners with their names in this file.
    pub witnesses: Vec<(String, VerifierKey)>,
    /// Groups, each after those that it names.
    pub groups: Vec<PolicyGroup>,
    /// The witness or group that must have cosigned; nothing for `none`.
    pub quorum: Option<String>,
}

impl TrustPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| PolicyError::Text)?;
        let control = |byte: u8| (byte < 0x20 && byte != b'\n' && byte != b'\t') || byte == 0x7f;
        if text.bytes().any(control) {
            return Err(PolicyError::Text);
        }
        let text = text.strip_suffix('\n').ok_or(PolicyError::Unended)?;
        let mut reading = Reading::default();
        for (number, line) in (1..).zip(text.split('\n')) {
            reading.line(number, line)?;
        }
        let Reading { mut policy, quorum, .. } = reading;
        policy.quorum = quorum.ok_or(PolicyError::Quorum)?;
        Ok(policy)
    }

    /// Whether signatures of these log keys and cosigners are enough.
    #[must_use]
    pub fn is_satisfied(&self, signers: &[&VerifierKey]) -> bool {
        let signed = |key: &VerifierKey| signers.contains(&key);
        if !self.logs.iter().any(signed) {
            return false;
        }
        let Some(quorum) = &self.quorum else { return true };
        let witnesses = self.witnesses.iter().filter(|(_, key)| signed(key));
        let mut present: BTreeSet<&str> = witnesses.map(|(name, _)| name.as_str()).collect();
        for group in &self.groups {
            let there = group.members.iter().filter(|name| present.contains(name.as_str())).count();
            if there >= group.needed {
                present.insert(&group.name);
            }
        }
        present.contains(quorum.as_str())
    }
}

/// A policy as far as it was read.
#[derive(Default)]
struct Reading {
    policy: TrustPolicy,
    /// Names defined, and whether each is a member of a group already.
    names: BTreeMap<String, bool>,
    /// The quorum line, once it came.
    quorum: Option<Option<String>>,
}

impl Reading {
    fn line(&mut self, number: usize, line: &str) -> Result<(), PolicyError> {
        let items: Vec<&str> = line.split([' ', '\t']).filter(|item| !item.is_empty()).collect();
        match items.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", key] | ["log", key, _] => self.log(number, key),
            ["witness", name, key] | ["witness", name, key, _] => self.witness(number, name, key),
            ["group", name, needed, members @ ..] => self.group(number, name, needed, members),
            ["quorum", name] => self.quorum(number, name),
            _ => Err(PolicyError::Line(number)),
        }
    }

    fn log(&mut self, number: usize, key: &str) -> Result<(), PolicyError> {
        let known = self.policy.logs.iter();
        let key = parse_key(number, key, KeyKind::Note, known)?;
        push(&mut self.policy.logs, key)
    }

    fn witness(&mut self, number: usize, name: &str, key: &str) -> Result<(), PolicyError> {
        let known = self.policy.witnesses.iter().map(|(_, key)| key);
        let key = parse_key(number, key, KeyKind::Cosignature, known)?;
        self.define(number, name)?;
        push(&mut self.policy.witnesses, (name.to_owned(), key))
    }

    fn group(
        &mut self,
        number: usize,
        name: &str,
        needed: &str,
        members: &[&str],
    ) -> Result<(), PolicyError> {
        let needed = match needed {
            "any" => 1,
            "all" => members.len(),
            count => super::canonical_decimal(count)
                .and_then(|count| usize::try_from(count).ok())
                .ok_or(PolicyError::Line(number))?,
        };
        if needed == 0 || needed > members.len() {
            return Err(PolicyError::Line(number));
        }
        for member in members {
            match self.names.get_mut(*member) {
                Some(taken @ false) => *taken = true,
                _ => return Err(PolicyError::Name(number)),
            }
        }
        self.define(number, name)?;
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        push(&mut self.policy.groups, PolicyGroup { name: name.to_owned(), needed, members })
    }

    fn quorum(&mut self, number: usize, name: &str) -> Result<(), PolicyError> {
        if self.quorum.is_some() {
            return Err(PolicyError::Quorum);
        }
        let named = (name != NONE).then(|| name.to_owned());
        if named.is_some() && !self.names.contains_key(name) {
            return Err(PolicyError::Name(number));
        }
        self.quorum = Some(named);
        Ok(())
    }

    fn define(&mut self, number: usize, name: &str) -> Result<(), PolicyError> {
        if name == NONE || self.names.insert(name.to_owned(), false).is_some() {
            return Err(PolicyError::Name(number));
        }
        Ok(())
    }
}

fn parse_key<'a>(
    line: usize,
    text: &str,
    kind: KeyKind,
    mut known: impl Iterator<Item = &'a VerifierKey>,
) -> Result<VerifierKey, PolicyError> {
    let key = VerifierKey::parse(text).map_err(|error| PolicyError::Key { line, error })?;
    if key.kind() != kind {
        return Err(PolicyError::Key { line, error: NoteError::Kind(key.kind().number()) });
    }
    if known.any(|other| other.public() == key.public()) {
        return Err(PolicyError::Name(line));
    }
    Ok(key)
}

fn push<T>(all: &mut Vec<T>, one: T) -> Result<(), PolicyError> {
    if all.len() >= POLICY_NAMES_MAX {
        return Err(PolicyError::TooLarge);
    }
    all.push(one);
    Ok(())
}

/// The form in which policies are written here; comments and URLs of one that was read are gone.
impl fmt::Display for TrustPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.logs.iter().try_for_each(|key| writeln!(formatter, "log {key}"))?;
        self.witnesses.iter().try_for_each(|(name, key)| writeln!(formatter, "witness {name} {key}"))?;
        for PolicyGroup { name, needed, members } in &self.groups {
            writeln!(formatter, "group {name} {needed} {}", members.join(" "))?;
        }
        writeln!(formatter, "quorum {}", self.quorum.as_deref().unwrap_or(NONE))
    }
}
