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

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::backend::commit::Writer;
use crate::base::error::{Error, ErrorKind, Reason, Result};
use crate::base::events::event;
use crate::base::files;
pub use crate::base::policy::Durability;
use crate::base::random;
use crate::pending::outbox::LetterRecord;
use file::{Frames, JournalFile};
use replay::Replayed;

/// Below so many bytes a journal is not worth rewriting.
const SLACK: u64 = 1 << 20;

/// How many names are tried for a new file.
const NAMES: usize = 8;

/// A journal that is in use.
pub(crate) struct Journal {
    file: JournalFile,
    directory: PathBuf,
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
    /// The damaged files, with the path at which each is to be kept after that.
    damaged_files: Vec<(JournalFile, PathBuf)>,
    /// What is wrong with which file.
    pub(crate) damage: Vec<Error>,
}

/// Whose a journal is, by its first record.
enum Owner {
    /// Memories with the target of this one.
    Target,
    /// Others, or a later version.
    Others,
    /// A process with this target that ended before it had written the first record.
    Unfinished,
    /// Nobody can know.
    Unknown,
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
        files::create_directory(&directory).map_err(|error| failed(&directory, &error))?;
        let mut adopted = Adopted::default();
        for path in left_behind(&directory)? {
            adopted.add(&path, &target, origin);
        }
        let file = new_file(&directory, writer, &target)?;
        Ok((
            Self {
                file,
                directory,
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

    /// Whether the next process finds it: nobody has removed or replaced its file.
    pub(crate) fn is_in_place(&self) -> bool {
        self.file.is_in_place()
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
        self.letters = write_all(&mut self.file, (&self.target, self.durability), records)?;
        Ok(())
    }

    /// Goes on in a new file with these records, since its own is not in place any more.
    ///
    /// # Errors
    ///
    /// `Journal`: it is as it was.
    pub(crate) fn begin_anew<'a>(
        &mut self,
        records: impl Iterator<Item = JournalRecord<'a>>,
    ) -> Result<()> {
        let Self {
            directory, target, ..
        } = self;
        files::create_directory(directory).map_err(|error| failed(directory, &error))?;
        // Under another name: what may be there now under the old one is not ours.
        let mut file = new_file(directory, random::rng().u64(..), target)?;
        match write_all(&mut file, (target, self.durability), records) {
            Ok(letters) => (self.file, self.letters) = (file, letters),
            Err(error) => {
                file.remove();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes it: nothing in it is needed any more.
    pub(crate) fn remove(self) {
        // What is at its path may be somebody else's by now.
        if self.is_in_place() {
            self.file.remove();
        }
    }
}

/// A new file in the directory, which is named after `writer` if that name is free.
fn new_file(directory: &Path, writer: Writer, target: &str) -> Result<JournalFile> {
    let header = JournalRecord::header(target);
    let names = std::iter::once(writer).chain(std::iter::repeat_with(|| random::rng().u64(..)));
    let mut last = (directory.to_owned(), io::ErrorKind::AlreadyExists.into());
    for name in names.take(NAMES) {
        let path = directory.join(format!("{name:016x}.{EXTENSION}"));
        match JournalFile::create(&path, &header) {
            Ok(file) => return Ok(file),
            Err(error) => last = (path, error),
        }
        if last.1.kind() != io::ErrorKind::AlreadyExists {
            break;
        }
    }
    let (path, error) = last;
    Err(failed(&path, &error))
}

/// Replaces all records of a file by these. Returns how many bytes of them are dead letters.
fn write_all<'a>(
    file: &mut JournalFile,
    (target, durability): (&str, Durability),
    records: impl Iterator<Item = JournalRecord<'a>>,
) -> Result<u64> {
    let mut letters = 0;
    let records = records.map(|record| {
        let frame = record.encoded();
        if matches!(record, JournalRecord::Letter(_)) {
            letters += frame.len() as u64;
        }
        frame
    });
    let frames = std::iter::once(JournalRecord::header(target)).chain(records);
    file.rewrite(frames, durability == Durability::Fsync)
        .map_err(|error| failed(file.path(), &error))?;
    Ok(letters)
}

impl Adopted {
    /// Removes the files: their writes are all in the journal of this memory.
    pub(crate) fn release(self) {
        for file in self.files {
            file.remove();
        }
        for (file, kept_at) in self.damaged_files {
            // If that fails, it is adopted again by the next process.
            if let Err(error) = file.keep_at(&kept_at) {
                let path = kept_at.display().to_string();
                event!(ERROR, path, %error, "a damaged journal could not be kept there").emit();
            }
        }
    }

    /// Adopts the journal at `path`, unless another process uses it, or it is for another target.
    fn add(&mut self, path: &Path, target: &str, origin: ClockOrigin) {
        let Some(file) = JournalFile::adopt(path) else {
            return;
        };
        match Owner::of(&file, target) {
            Ok(Owner::Target) => {}
            Ok(Owner::Others) => return,
            Ok(Owner::Unfinished) => return file.remove(),
            Ok(Owner::Unknown) => {
                let what = "it is no journal, or its first record is damaged, so that nobody knows \
                    whose writes are in it; it stays as it is";
                let what = format!("{}: {what}", path.display());
                return self.report(Error::new(ErrorKind::Journal, what));
            }
            Err(error) => return self.report(failed(path, &error)),
        }
        let Frames { whole, damaged } = match file.frames() {
            Ok(frames) => frames,
            Err(error) => return self.report(failed(path, &error)),
        };

        let Replayed {
            pending,
            mut letters,
            unread,
        } = replay::replay(whole.get(1..).unwrap_or_default(), origin);
        self.pending.extend(pending);
        // A process that ended while it adopted has left some of them in two journals.
        let known: HashSet<u64> = self.letters.iter().map(|letter| letter.id).collect();
        letters.retain(|letter| !known.contains(&letter.id));
        self.letters.append(&mut letters);
        file.remove_unfinished();
        if damaged == 0 && unread == 0 {
            return self.files.push(file);
        }

        let kept_at = file.path_if_damaged();
        let what = format!(
            "{}: {damaged} bytes and {unread} records could not be read; it is kept as {}",
            path.display(),
            kept_at.display()
        );
        self.report(Error::new(ErrorKind::Journal, what));
        self.damaged_files.push((file, kept_at));
    }

    fn report(&mut self, error: Error) {
        self.damage.push(error.clone());
        event!(ERROR, %error, "a journal is damaged").emit();
    }
}

impl Owner {
    fn of(file: &JournalFile, target: &str) -> io::Result<Self> {
        Ok(match file.first_frame()? {
            Some(frame) if JournalRecord::is_header(&frame, target) => Self::Target,
            Some(frame) if JournalRecord::is_any_header(&frame) => Self::Others,
            None if file.ends_within(&JournalRecord::header(target))? => Self::Unfinished,
            _ => Self::Unknown,
        })
    }
}

const EXTENSION: &str = "journal";

/// The journals in a directory, oldest first.
fn left_behind(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(|error| failed(directory, &error))?;
    let mut journals = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let is_journal = path
            .extension()
            .is_some_and(|extension| extension == EXTENSION);
        // A link, a directory or a pipe is none of ours.
        if is_journal && entry.file_type().is_ok_and(|kind| kind.is_file()) {
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
