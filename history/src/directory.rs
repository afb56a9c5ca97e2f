//! One directory as POSIX has it, for [`crate::search`]: names, the files that they stand for, links and modes.
//!
//! Invariant: an answer is right in a state or it is not; nothing here knows how a mount comes to it. A file is
//! told from others by its inode number, which no other file of a history may have had.

use std::collections::BTreeMap;
use std::fmt;

use crate::search::Model;

/// Inode number of a file.
pub type Ino = u64;

/// From here on numbers stand for ones that nobody was told.
const UNKNOWN: Ino = 1 << 63;

/// A file.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// Permission bits.
    pub mode: u32,
    /// Names that stand for it.
    pub links: u32,
}

/// What a directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Directory {
    names: BTreeMap<String, Ino>,
    files: BTreeMap<Ino, File>,
}

/// What is asked of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// open(O_CREAT | O_EXCL) with these permission bits. Answer: `Made`, or `Exists`.
    Create {
        /// The name.
        name: String,
        /// Permission bits.
        mode: u32,
    },
    /// unlink. Answer: `Done`, or `Absent`.
    Unlink(String),
    /// rename. Answer: `Done`, or `Absent`.
    Rename(String, String),
    /// link. Answer: `Done`, `Absent`, or `Exists`.
    Link(String, String),
    /// chmod. Answer: `Done`, or `Absent`.
    Chmod {
        /// The name.
        name: String,
        /// Permission bits.
        mode: u32,
    },
    /// stat. Answer: `Found`, or `Absent`.
    Stat(String),
    /// opendir, readdir to the end. Answer: `Names`.
    List,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It was done.
    Done,
    /// A file was made, with this number.
    Made(Ino),
    /// The (new) name is taken: EEXIST.
    Exists,
    /// The (old) name stands for nothing: ENOENT.
    Absent,
    /// A file with this number.
    Found(Ino, File),
    /// All names, ascending.
    Names(Vec<String>),
}

impl Directory {
    fn file(&self, name: &str) -> Option<(Ino, File)> {
        let ino = *self.names.get(name)?;
        Some((ino, *self.files.get(&ino)?))
    }

    /// A file whose number nobody was told gets the one that this answer shows.
    fn named(&self, name: &str, answer: Option<&Reply>) -> Option<Self> {
        let (unknown, file) = self.file(name).filter(|(ino, _)| *ino >= UNKNOWN)?;
        let Some(Reply::Found(ino, found)) = answer else { return None };
        if *found != file || self.files.contains_key(ino) {
            return None;
        }
        let mut next = self.clone();
        next.files.remove(&unknown);
        next.files.insert(*ino, file);
        next.names.values_mut().filter(|other| **other == unknown).for_each(|other| *other = *ino);
        Some(next)
    }

    /// A name stands for a file, in place of what it stood for.
    fn set(&mut self, name: &str, ino: Ino) {
        self.unset(name);
        self.names.insert(name.to_owned(), ino);
        if let Some(file) = self.files.get_mut(&ino) {
            file.links = file.links.saturating_add(1);
        }
    }

    fn unset(&mut self, name: &str) {
        let Some(ino) = self.names.remove(name) else { return };
        let Some(file) = self.files.get_mut(&ino) else { return };
        file.links = file.links.saturating_sub(1);
        if file.links == 0 {
            self.files.remove(&ino);
        }
    }

    fn create(&self, name: &str, mode: u32, reply: Option<&Reply>) -> Option<(Self, Reply)> {
        if self.names.contains_key(name) {
            return Some((self.clone(), Reply::Exists));
        }
        let ino = match reply {
            // A number is never given twice.
            Some(Reply::Made(ino)) if !self.files.contains_key(ino) => *ino,
            Some(_) => return None,
            None => {
                self.files.last_key_value().map_or(UNKNOWN, |(last, _)| last.saturating_add(1).max(UNKNOWN))
            }
        };
        let mut next = self.clone();
        next.files.insert(ino, File { mode, links: 0 });
        next.set(name, ino);
        Some((next, Reply::Made(ino)))
    }

    fn rename(&self, from: &str, to: &str) -> (Self, Reply) {
        let Some((ino, _)) = self.file(from) else { return (self.clone(), Reply::Absent) };
        let mut next = self.clone();
        // Two names of one file: nothing is done.
        if self.names.get(to) != Some(&ino) {
            next.set(to, ino);
            next.unset(from);
        }
        (next, Reply::Done)
    }

    fn link(&self, from: &str, to: &str) -> (Self, Reply) {
        let Some((ino, _)) = self.file(from) else { return (self.clone(), Reply::Absent) };
        if self.names.contains_key(to) {
            return (self.clone(), Reply::Exists);
        }
        let mut next = self.clone();
        next.set(to, ino);
        (next, Reply::Done)
    }

    fn chmod(&self, name: &str, mode: u32) -> (Self, Reply) {
        let Some((ino, file)) = self.file(name) else { return (self.clone(), Reply::Absent) };
        let mut next = self.clone();
        next.files.insert(ino, File { mode, ..file });
        (next, Reply::Done)
    }
}

impl Model for Directory {
    type State = Self;
    type Operation = Question;
    type Answer = Reply;

    fn apply(state: &Self, operation: &Question, answer: Option<&Reply>) -> Option<Self> {
        let (next, right) = match operation {
            Question::Create { name, mode } => state.create(name, *mode, answer)?,
            Question::Unlink(name) if state.names.contains_key(name) => {
                let mut next = state.clone();
                next.unset(name);
                (next, Reply::Done)
            }
            Question::Unlink(_) => (state.clone(), Reply::Absent),
            Question::Rename(from, to) => state.rename(from, to),
            Question::Link(from, to) => state.link(from, to),
            Question::Chmod { name, mode } => state.chmod(name, *mode),
            Question::Stat(name) => {
                if let Some(next) = state.named(name, answer) {
                    return Some(next);
                }
                let found = state.file(name).map_or(Reply::Absent, |(ino, file)| Reply::Found(ino, file));
                (state.clone(), found)
            }
            Question::List => (state.clone(), Reply::Names(state.names.keys().cloned().collect())),
        };
        answer.is_none_or(|answer| *answer == right).then_some(next)
    }

    fn is_idle(operation: &Question, answer: &Reply) -> bool {
        matches!(operation, Question::Stat(_) | Question::List)
            || matches!(answer, Reply::Absent | Reply::Exists)
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() {
            return formatter.write_str("an empty directory");
        }
        for (position, (name, ino)) in self.names.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            let mode = self.files.get(ino).map_or(0, |file| file.mode);
            write!(formatter, "{separator}{name} = file {ino} mode {mode:o}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Question {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { name, mode } => write!(formatter, "create {name} with mode {mode:o}"),
            Self::Unlink(name) => write!(formatter, "unlink {name}"),
            Self::Rename(from, to) => write!(formatter, "rename {from} to {to}"),
            Self::Link(from, to) => write!(formatter, "link {from} to {to}"),
            Self::Chmod { name, mode } => write!(formatter, "chmod {name} to {mode:o}"),
            Self::Stat(name) => write!(formatter, "stat {name}"),
            Self::List => formatter.write_str("list"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => formatter.write_str("done"),
            Self::Made(ino) => write!(formatter, "file {ino}"),
            Self::Exists => formatter.write_str("exists"),
            Self::Absent => formatter.write_str("absent"),
            Self::Found(ino, File { mode, links }) => {
                write!(formatter, "file {ino} with mode {mode:o} and {links} links")
            }
            Self::Names(names) => write!(formatter, "{names:?}"),
        }
    }
}
