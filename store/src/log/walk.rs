//! The walk over a log from its first record to its tail, which recovery and readers share.
//!
//! Invariant: a walk ends at a tail only if nothing that was ever synced lies beyond it as far as the
//! files tell; otherwise it reports damage (hazard PR6). What tells is the synced mark of every frame: a
//! frame whose mark lies beyond the missing record proves that the record had been durable.

use std::fs::File;
use std::path::{Path, PathBuf};

use quorate_crypto::Hash;

use super::window::Window;
use super::{Damage, LogError, Position, files};
use crate::error::FileError;
use crate::segment::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, HeaderFault, SEGMENT_HEADER_BYTES, SegmentHeader,
    decode_frame_header, follows, salt, verify_payload,
};

/// What a step of the walk found.
pub(crate) enum Step {
    /// The next record.
    Record { position: Position, payload: Vec<u8> },
    /// The end of what can be read now.
    Tail(Tail),
}

/// The end of a log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Where the next record belongs; `None` if not even the first segment is in use.
    pub position: Option<Position>,
    /// Whether the segment after it holds the beginnings of a first batch that was never synced.
    pub torn_next: bool,
}

/// A place in a log and what must follow.
pub(crate) struct Walk {
    directory: PathBuf,
    current: Option<Current>,
    next: u64,
    chain: Hash,
    first: Option<Hash>,
}

struct Current {
    header: SegmentHeader,
    window: Window,
    offset: u32,
}

/// What stands where a record is expected.
enum Found {
    Record {
        payload: Vec<u8>,
        header: FrameHeader,
    },
    /// Zeros, or the mark that the writer leaves at its tail.
    Clean,
    /// Anything else: torn, or damaged.
    Broken,
    /// A whole frame of this log that belongs elsewhere.
    OutOfSequence,
}

/// What the segment after the current one holds.
enum Next {
    Used(SegmentHeader, Window),
    Unused,
    Torn(Window),
}

impl Walk {
    /// Starts at the first record. `first` is the chain value before it, if the caller knows it from the
    /// directory's marker: then the beginning of the log is checked as well as the rest.
    pub(crate) fn new(directory: &Path, first: Option<Hash>) -> Self {
        let chain = first.unwrap_or(Hash::ZERO);
        Self { directory: directory.to_owned(), current: None, next: 0, chain, first }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Number of the next record: how many were read.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Chain value of the last record read.
    pub(crate) fn chain(&self) -> Hash {
        self.chain
    }

    /// Header of the segment being read; `None` before the first one is in use.
    pub(crate) fn header(&self) -> Option<&SegmentHeader> {
        self.current.as_ref().map(|current| &current.header)
    }

    /// Reads one record. After a tail it may be called again: a writer may have gone on.
    ///
    /// # Errors
    /// [`LogError::Damaged`], [`LogError::Newer`], [`LogError::Foreign`] or a disk error.
    pub(crate) fn step(&mut self) -> Result<Step, LogError> {
        // What looks torn or damaged may be a write that was under way when it was read, or a window
        // that was read before it. A frame that proves damage was written after the place in doubt had
        // been synced, so damage that a fresh look confirms is real; a tail needs one fresh look as well.
        let (mut fresh, mut suspected) = (false, false);
        loop {
            match self.try_step() {
                Ok(Step::Tail(_)) if !fresh => {}
                Err(LogError::Damaged { .. }) if !suspected => suspected = true,
                found => return found,
            }
            fresh = true;
            if let Some(current) = &mut self.current {
                current.window.refresh();
            }
        }
    }

    /// Opens the first segment. Returns whether it is in use.
    fn begin(&mut self) -> Result<bool, LogError> {
        match self.look_at(0)? {
            Next::Used(header, window) => {
                let expected = self.first.unwrap_or(header.chain);
                if header.segment != 0 || header.first != 0 || header.chain != expected {
                    return Err(LogError::Foreign { path: window.path().to_owned() });
                }
                self.chain = header.chain;
                self.begin_segment(header, window)?;
                Ok(true)
            }
            Next::Unused => self.check_never_used(0).map(|()| false),
            // Without the first chain value the salt is unknown: then it counts as damage.
            Next::Torn(mut window) => {
                let proof = match self.first {
                    Some(chain) => window.find_synced_beyond(0, salt(&chain), 0)?.is_some(),
                    None => true,
                };
                if proof {
                    return Err(self.damaged(0, 0, Damage::Header));
                }
                self.check_never_used(0).map(|()| false)
            }
        }
    }

    fn try_step(&mut self) -> Result<Step, LogError> {
        if self.current.is_none() && !self.begin()? {
            return Ok(Step::Tail(Tail { position: None, torn_next: false }));
        }
        // At most one change of segment per record: a segment in use begins with a record.
        for _ in 0..2 {
            let (segment, offset, found) = self.look()?;
            match found {
                Found::Record { payload, header } => {
                    self.advance(&header);
                    return Ok(Step::Record { position: Position { segment, offset }, payload });
                }
                Found::OutOfSequence => return Err(self.damaged(segment, offset, Damage::Sequence)),
                Found::Clean | Found::Broken => {}
            }
            let clean = matches!(found, Found::Clean);
            match self.look_at(segment + 1)? {
                Next::Used(header, window) => self.enter(segment, offset, header, window)?,
                Next::Unused => {
                    self.check_tail(segment, offset)?;
                    self.check_never_used(segment + 1)?;
                    return Ok(Step::Tail(Tail {
                        position: Some(Position { segment, offset }),
                        torn_next: false,
                    }));
                }
                Next::Torn(window) => {
                    // A segment is begun only when the one before it is complete and synced.
                    if !clean {
                        return Err(self.damaged(segment, offset, Damage::Record));
                    }
                    self.check_tail(segment, offset)?;
                    self.check_torn(segment + 1, window)?;
                    self.check_never_used(segment + 1)?;
                    return Ok(Step::Tail(Tail {
                        position: Some(Position { segment, offset }),
                        torn_next: true,
                    }));
                }
            }
        }
        let at = self.place();
        Err(self.damaged(at.segment, at.offset, Damage::Record))
    }

    /// What stands at the current place.
    fn look(&mut self) -> Result<(u32, u32, Found), LogError> {
        let (next, chain) = (self.next, self.chain);
        let Some(Current { header, window, offset }) = &mut self.current else {
            return Ok((0, 0, Found::Clean));
        };
        let found = look_in(header.salt(), window, *offset, next, &chain)?;
        Ok((header.segment, *offset, found))
    }

    fn advance(&mut self, header: &FrameHeader) {
        self.next = header.number.saturating_add(1);
        self.chain = header.chain;
        if let Some(current) = &mut self.current {
            current.offset = current.offset.saturating_add(header.frame_bytes());
        }
    }

    /// Goes on with the following segment, if it continues where this one ends.
    fn enter(
        &mut self,
        segment: u32,
        offset: u32,
        header: SegmentHeader,
        window: Window,
    ) -> Result<(), LogError> {
        if header.first > self.next {
            return Err(self.damaged(segment, offset, Damage::Record));
        }
        let owner = self.header().map(|current| current.identity);
        if owner != Some(header.identity) {
            return Err(LogError::Foreign { path: window.path().to_owned() });
        }
        if header.segment != segment + 1 || header.first != self.next || header.chain != self.chain {
            return Err(self.damaged(segment + 1, 0, Damage::Sequence));
        }
        self.begin_segment(header, window)
    }

    fn begin_segment(&mut self, header: SegmentHeader, window: Window) -> Result<(), LogError> {
        if window.length()? < u64::from(header.bytes) {
            return Err(self.damaged(header.segment, 0, Damage::Cut));
        }
        self.current = Some(Current { header, window, offset: SEGMENT_HEADER_BYTES });
        Ok(())
    }

    /// No frame beyond the current place says that the missing record was synced.
    fn check_tail(&mut self, segment: u32, offset: u32) -> Result<(), LogError> {
        let next = self.next;
        let proof = match &mut self.current {
            Some(current) => current.window.find_synced_beyond(offset, current.header.salt(), next)?,
            None => None,
        };
        match proof {
            Some(_) => Err(self.damaged(segment, offset, Damage::Record)),
            None => Ok(()),
        }
    }

    /// No frame in a segment without a valid header says that its first record was synced.
    fn check_torn(&self, segment: u32, mut window: Window) -> Result<(), LogError> {
        let proof = window.find_synced_beyond(0, salt(&self.chain), self.next)?;
        match proof {
            Some(_) => Err(self.damaged(segment, 0, Damage::Header)),
            None => Ok(()),
        }
    }

    /// No segment follows one that is not in use: each is made only when the one before it was synced for
    /// the first time.
    fn check_never_used(&self, segment: u32) -> Result<(), LogError> {
        let path = files::segment_path(&self.directory, segment + 1);
        match path.try_exists() {
            Ok(false) => Ok(()),
            Ok(true) => Err(self.damaged(segment, 0, Damage::Header)),
            Err(error) => Err(FileError::new("examine", &path, error).into()),
        }
    }

    fn look_at(&self, segment: u32) -> Result<Next, LogError> {
        let path = files::segment_path(&self.directory, segment);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && segment > 0 => {
                return Ok(Next::Unused);
            }
            Err(error) => return Err(FileError::new("open", &path, error).into()),
        };
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        files::read_up_to(&file, &path, &mut bytes, 0)?;
        match SegmentHeader::decode(&bytes) {
            Ok(header) => Ok(Next::Used(header, Window::new(file, path))),
            Err(HeaderFault::Newer(version)) => Err(LogError::Newer { path, version }),
            Err(HeaderFault::Unused) if files::first_nonzero(&file, &path, 0)?.is_none() => Ok(Next::Unused),
            Err(HeaderFault::Unused | HeaderFault::Invalid) => Ok(Next::Torn(Window::new(file, path))),
        }
    }

    fn place(&self) -> Position {
        self.current.as_ref().map_or(Position { segment: 0, offset: 0 }, |current| Position {
            segment: current.header.segment,
            offset: current.offset,
        })
    }

    fn damaged(&self, segment: u32, offset: u32, what: Damage) -> LogError {
        let path = files::segment_path(&self.directory, segment);
        LogError::Damaged { path, position: Position { segment, offset }, what }
    }
}

/// What stands at `offset`, where record `next` is expected to follow `chain`.
fn look_in(salt: u32, window: &mut Window, offset: u32, next: u64, chain: &Hash) -> Result<Found, FileError> {
    let fixed = window.get(offset, FRAME_HEADER_BYTES)?;
    let Some(header) = decode_frame_header(salt, fixed) else {
        return Ok(if crate::fields::is_zero(fixed) { Found::Clean } else { Found::Broken });
    };
    let frame = window.get(offset, header.frame_bytes())?;
    if !verify_payload(salt, &header, frame) {
        return Ok(Found::Broken);
    }
    if header.number != next || !follows(chain, &header, frame) {
        return Ok(Found::OutOfSequence);
    }
    Ok(match header.kind {
        FrameKind::Mark => Found::Clean,
        FrameKind::Record => {
            let from = FRAME_HEADER_BYTES as usize;
            let payload = frame.get(from..from + header.length as usize).unwrap_or_default().to_vec();
            Found::Record { payload, header }
        }
    })
}
