//! A file of frames, each preceded by its length and checksum, so that a torn or changed one is
//! noticed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt;
use serde::de::IgnoredAny;

use crate::base::files::{self, FileId};
use crate::base::random;

/// Length and checksum, as little-endian `u32`s.
const HEAD: usize = 8;

/// No first frame is longer: it holds a path and a prefix.
const LONGEST_FIRST: u64 = 1 << 16;

/// The extension of the file that is about to replace a journal.
const REWRITTEN: &str = "new";

/// The extension of a journal that could not be read to its end.
const DAMAGED: &str = "damaged";

/// A journal's file, locked for as long as it is open.
#[derive(Debug)]
pub(super) struct JournalFile {
    file: File,
    path: PathBuf,
    id: FileId,
    /// The length of its whole frames.
    len: u64,
}

/// What was read from a file.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) whole: Vec<Vec<u8>>,
    /// How many bytes could not be read. What is behind them is not read either.
    pub(super) damaged: usize,
}

impl JournalFile {
    /// # Errors
    ///
    /// Nothing is left of it. `AlreadyExists` also if another process has taken it for the file of
    /// one that is gone, before it was locked.
    pub(super) fn create(path: &Path, first: &[u8]) -> io::Result<Self> {
        let mut file = Self::locked(files::create(path)?, path)?
            .filter(Self::is_in_place)
            .ok_or(io::ErrorKind::AlreadyExists)?;
        match file.append(first, false) {
            Ok(()) => Ok(file),
            Err(error) => {
                file.remove();
                Err(error)
            }
        }
    }

    /// Adopts the file of a process that is gone; nothing while another process uses it, if the
    /// file is gone, or if a link is there.
    pub(super) fn adopt(path: &Path) -> Option<Self> {
        let mut file = Self::locked(files::open(path).ok()?, path).ok()??;
        file.len = file.file.metadata().ok()?.len();
        // Whoever had it before may have removed or replaced it before the lock was ours.
        file.is_in_place().then_some(file)
    }

    fn locked(file: File, path: &Path) -> io::Result<Option<Self>> {
        let id = FileId::of(&file)?;
        let is_locked = FileExt::try_lock_exclusive(&file)?;
        Ok(is_locked.then(|| Self {
            file,
            path: path.to_owned(),
            id,
            len: 0,
        }))
    }

    /// Whether it is the one that others find at its path: it was neither removed nor replaced.
    pub(super) fn is_in_place(&self) -> bool {
        FileId::at(&self.path) == Some(self.id)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a frame; if that fails, the file is as it was.
    pub(super) fn append(&mut self, payload: &[u8], durable: bool) -> io::Result<()> {
        let frame = framed(payload);
        let result = self
            .file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| self.file.write_all(&frame));
        let result = result.and_then(|()| {
            if durable {
                self.file.sync_data()
            } else {
                Ok(())
            }
        });
        match result {
            Ok(()) => self.len += frame.len() as u64,
            // A part of it may be written: the next frame replaces it.
            Err(_) => _ = self.file.set_len(self.len),
        }
        result
    }

    /// Replaces all frames, in one step; if that fails before the step, they are as they were.
    pub(super) fn rewrite(
        &mut self,
        payloads: impl Iterator<Item = Vec<u8>>,
        durable: bool,
    ) -> io::Result<()> {
        let directory = File::open(self.path.parent().unwrap_or(Path::new(".")))?;
        let mut new = self
            .replace_with(payloads, durable)
            .inspect_err(|_| self.remove_unfinished())?;

        // From here on it is the one that others find, whatever else goes wrong.
        std::mem::swap(&mut self.file, &mut new.file);
        (self.id, self.len) = (new.id, new.len);
        // Its name is in the directory, which has to be on disk as well.
        if durable {
            directory.sync_all()?;
        }
        Ok(())
    }

    /// Writes a new file, and renames it to the path of this one.
    fn replace_with(
        &self,
        payloads: impl Iterator<Item = Vec<u8>>,
        durable: bool,
    ) -> io::Result<Self> {
        let beside = self.path.with_extension(REWRITTEN);
        self.remove_unfinished();
        let mut new =
            Self::locked(files::create(&beside)?, &beside)?.ok_or(io::ErrorKind::WouldBlock)?;
        // Whoever was given access to the journal keeps it.
        new.file
            .set_permissions(self.file.metadata()?.permissions())?;

        let mut bytes = Vec::new();
        for payload in payloads {
            bytes.extend(framed(&payload));
        }
        new.file.write_all(&bytes)?;
        new.len = bytes.len() as u64;
        if durable {
            new.file.sync_all()?;
        }
        std::fs::rename(&beside, &self.path)?;
        Ok(new)
    }

    /// The first frame, if it is whole. No more than that is read: the file may be anybody's.
    pub(super) fn first_frame(&self) -> io::Result<Option<Vec<u8>>> {
        let start = self.read(HEAD as u64 + LONGEST_FIRST)?;
        Ok(split(&start).map(|(payload, _)| payload.to_vec()))
    }

    /// Whether it ends within its first frame, which was to be this one, or is empty.
    pub(super) fn ends_within(&self, first: &[u8]) -> io::Result<bool> {
        let frame = framed(first);
        let start = self.read(frame.len() as u64)?;
        Ok(start.len() < frame.len() && frame.starts_with(&start))
    }

    /// All frames up to the first that is changed. One that is torn off at the end of the file was
    /// being written when its process ended: nobody has relied on it, and it counts as not there.
    pub(super) fn frames(&self) -> io::Result<Frames> {
        let bytes = self.read(u64::MAX)?;
        let mut whole = Vec::new();
        let mut rest = &bytes[..];
        while let Some((payload, after)) = split(rest) {
            whole.push(payload.to_vec());
            rest = after;
        }
        let damaged = if is_torn(rest) { 0 } else { rest.len() };
        Ok(Frames { whole, damaged })
    }

    /// What it begins with: at most so many bytes.
    fn read(&self, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A path at which it can be kept for whoever wants to look into it.
    pub(super) fn path_if_damaged(&self) -> PathBuf {
        let first = self.path.with_extension(DAMAGED);
        if FileId::at(&first).is_none() {
            return first;
        }
        self.path
            .with_extension(format!("{:016x}.{DAMAGED}", random::rng().u64(..)))
    }

    /// Keeps it at another path, at which nobody looks for journals.
    pub(super) fn keep_at(self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)
    }

    /// Removes a file that was to replace it and did not, since its process ended or failed.
    pub(super) fn remove_unfinished(&self) {
        let _ = std::fs::remove_file(self.path.with_extension(REWRITTEN));
    }

    pub(super) fn remove(self) {
        // While the lock is held: nobody else has begun to read it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for JournalFile {
    /// A child process that is being started may keep the file open for a moment longer, but must
    /// not keep the lock.
    fn drop(&mut self) {
        let _ = FileExt::unlock(&self.file);
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + payload.len());
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    frame.extend(length.to_le_bytes());
    frame.extend(checksum(length, payload).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// It covers the length as well: zeros at the end of a file are no frames.
fn checksum(length: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().map(u32::from_le_bytes).ok()
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (length, sum) = (number(&head[..4])?, number(&head[4..])?);
    let (payload, rest) = rest.split_at_checked(length as usize)?;
    (checksum(length, payload) == sum).then_some((payload, rest))
}

/// Whether the end of a file is the beginning of a frame and no more, as a process leaves it that
/// ends while it writes. Otherwise the frame was whole once, and was changed since.
fn is_torn(rest: &[u8]) -> bool {
    let Some((head, payload)) = rest.split_at_checked(HEAD) else {
        return true;
    };
    let is_cut_off = number(&head[..4]).is_some_and(|length| length as usize > payload.len());
    // A record is one JSON value: its beginning is none.
    let is_beginning = matches!(payload.first(), None | Some(b'{' | b'"'))
        && serde_json::from_slice::<IgnoredAny>(payload).is_err();
    // A length that was changed may reach beyond what follows. No text holds the head of a frame:
    // JSON has no raw zero bytes.
    is_cut_off && is_beginning && !(1..rest.len()).any(|at| is_record(&rest[at..]))
}

/// Whether a record begins here: a whole frame with an object in it.
fn is_record(bytes: &[u8]) -> bool {
    bytes.get(HEAD) == Some(&b'{') && split(bytes).is_some()
}
