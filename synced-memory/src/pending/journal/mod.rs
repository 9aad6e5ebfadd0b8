//! The journal: the outbox on disk.
//!
//! One file for each opened memory, in a directory that several processes may share. A write is in
//! it before it is reported as queued, and is marked once it was answered. A memory that opens
//! adopts the files of processes that ended without delivering: their writes keep their writer ids
//! and sequence numbers, so that each is applied once, whatever had been sent before.
//!
//! - `record.rs`: what is written; `replay.rs`: how it is replayed into an outbox
//! - `file.rs`: frames with checksums, locks, compaction

mod file;
mod record;
mod replay;

pub(crate) use record::{ClockOrigin, Ends, JournalRecord};
pub(crate) use replay::LeftBehind;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::backend::commit::Writer;
use crate::base::error::{Error, ErrorKind, Reason, Result};
use crate::base::events::event;
pub use crate::base::policy::Durability;
use crate::pending::outbox::LetterRecord;
use file::{Frames, JournalFile};
use replay::Replayed;

/// Below so many bytes a journal is not worth rewriting.
const SLACK: u64 = 1 << 20;

/// A journal that is in use.
pub(crate) struct Journal {
    file: JournalFile,
    target: String,
    durability: Durability,
    pub(crate) origin: ClockOrigin,
    /// How many bytes of it are dead letters.
    letters: u64,
}

/// Where a journal is to be, and how safe.
#[derive(Debug, Clone)]
pub(crate) struct JournalConfig {
    pub(crate) directory: PathBuf,
    pub(crate) target: String,
    pub(crate) durability: Durability,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// What processes that are gone have left behind.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    pub(crate) pending: Vec<LeftBehind>,
    pub(crate) letters: Vec<LetterRecord>,
    /// The files to remove once everything in them is in this memory's own journal.
    files: Vec<JournalFile>,
    /// What was wrong with them.
    pub(crate) damage: Option<Error>,
}

impl Journal {
    /// A new journal for `writer` in the directory, which is created if it is missing; and what
    /// processes that are gone have left there for the same target.
    ///
    /// # Errors
    ///
    /// `Journal` if the directory cannot be used.
    pub(crate) fn open(
        config: JournalConfig,
        writer: Writer,
        origin: ClockOrigin,
    ) -> Result<(Self, Adopted)> {
        let JournalConfig {
            directory,
            target,
            durability,
        } = config;
        let directory = &directory;
        std::fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
        let mut adopted = Adopted::default();
        for path in left_behind(directory)? {
            adopted.add(&path, &target, origin);
        }
        let path = directory.join(format!("{writer:016x}.{EXTENSION}"));
        let file = JournalFile::create(&path, &JournalRecord::header(&target))
            .map_err(|error| failed(&path, &error))?;
        Ok((
            Self {
                file,
                target,
                durability,
                origin,
                letters: 0,
            },
            adopted,
        ))
    }

    /// Adds a record, before anybody relies on it.
    ///
    /// # Errors
    ///
    /// `Journal`: it was not added, and what was there before is still there.
    pub(crate) fn append(&mut self, record: &JournalRecord<'_>) -> Result<()> {
        let is_durable = self.durability == Durability::Fsync && record.is_relied_on();
        let frame = record.encoded();
        self.file
            .append(&frame, is_durable)
            .map_err(|error| failed(self.file.path(), &error))?;
        if matches!(record, JournalRecord::Letter(_)) {
            self.letters += frame.len() as u64;
        }
        Ok(())
    }

    /// Whether it has grown far beyond what is needed of it: `pending` bytes, and dead letters.
    pub(crate) fn is_worth_rewriting(&self, pending: usize) -> bool {
        self.file.len() > SLACK + 4 * (pending as u64 + self.letters)
    }

    /// Replaces all records by these.
    ///
    /// # Errors
    ///
    /// `Journal`: it is as it was.
    pub(crate) fn rewrite<'a>(
        &mut self,
        records: impl Iterator<Item = JournalRecord<'a>>,
    ) -> Result<()> {
        let mut letters = 0;
        let records = records.map(|record| {
            let frame = record.encoded();
            if matches!(record, JournalRecord::Letter(_)) {
                letters += frame.len() as u64;
            }
            frame
        });
        let frames = std::iter::once(JournalRecord::header(&self.target)).chain(records);
        let durable = self.durability == Durability::Fsync;
        self.file
            .rewrite(frames, durable)
            .map_err(|error| failed(self.file.path(), &error))?;
        self.letters = letters;
        Ok(())
    }

    /// Removes it: nothing in it is needed any more.
    pub(crate) fn remove(self) {
        self.file.remove();
    }
}

impl Adopted {
    /// Removes the files: their writes are all in the journal of this memory.
    pub(crate) fn release(self) {
        for file in self.files {
            file.remove();
        }
    }

    /// Adopts the journal at `path`, unless another process uses it, or it is for another target.
    fn add(&mut self, path: &Path, target: &str, origin: ClockOrigin) {
        let Some(file) = JournalFile::adopt(path) else {
            return;
        };
        let frames = match file.frames() {
            Ok(frames) => frames,
            Err(error) => return self.report(failed(path, &error)),
        };
        let Frames { mut whole, damaged } = frames;
        if whole.is_empty() || !JournalRecord::is_header(&whole.remove(0), target) {
            if damaged == 0 && whole.is_empty() && file.len() == 0 {
                // Its process ended before it wrote anything.
                file.remove();
            }
            return;
        }

        let Replayed {
            pending,
            mut letters,
            unread,
        } = replay::replay(&whole, origin);
        if damaged > 0 || unread > 0 {
            let copy = match file.copy_damaged() {
                Ok(copy) => format!("a copy is {}", copy.display()),
                Err(error) => format!("no copy could be kept: {error}"),
            };
            let what = format!(
                "{}: {damaged} bytes and {unread} records could not be read; {copy}",
                path.display()
            );
            self.report(Error::new(ErrorKind::Journal, what));
        }
        file.remove_unfinished();
        self.pending.extend(pending);
        self.letters.append(&mut letters);
        self.files.push(file);
    }

    fn report(&mut self, error: Error) {
        self.damage = Some(error.clone());
        event!(ERROR, %error, "a journal is damaged").emit();
    }
}

const EXTENSION: &str = "journal";

/// The journals in a directory, oldest first.
fn left_behind(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(|error| failed(directory, &error))?;
    let mut journals = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
        {
            let metadata = entry.metadata();
            let modified = metadata.and_then(|metadata| metadata.modified()).ok();
            journals.push((modified, path));
        }
    }
    journals.sort_unstable();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Journal, Reason::io(path.display(), error))
}
