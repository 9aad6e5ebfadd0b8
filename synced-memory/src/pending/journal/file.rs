//! A file of frames, each preceded by its length and checksum, so that a torn or changed one is
//! noticed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt;

/// Length and checksum, as little-endian `u32`s.
const HEAD: usize = 8;

/// The extension of the file that is about to replace a journal.
const REWRITTEN: &str = "new";

/// A journal's file, locked for as long as it is open.
#[derive(Debug)]
pub(super) struct JournalFile {
    file: File,
    path: PathBuf,
    /// The length of its whole frames.
    len: u64,
}

/// What was read from a file.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub(super) whole: Vec<Vec<u8>>,
    /// How many bytes at the end are no whole frame.
    pub(super) damaged: usize,
}

impl JournalFile {
    pub(super) fn create(path: &Path, first: &[u8]) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(path)?;
        let mut file = Self::locked(file, path)?.ok_or(io::ErrorKind::AlreadyExists)?;
        file.append(first, false)?;
        Ok(file)
    }

    /// Adopts the file of a process that is gone; nothing while another process uses it, or if the
    /// file is gone.
    pub(super) fn adopt(path: &Path) -> Option<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let mut file = Self::locked(file, path).ok()??;
        // Whoever had it before may have removed or replaced it before the lock was ours.
        let is_still_there = is_file_at(&file.file, path);
        file.len = file.file.metadata().ok()?.len();
        is_still_there.then_some(file)
    }

    fn locked(file: File, path: &Path) -> io::Result<Option<Self>> {
        let is_locked = FileExt::try_lock_exclusive(&file)?;
        Ok(is_locked.then(|| Self {
            file,
            path: path.to_owned(),
            len: 0,
        }))
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
        self.len = new.len;
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
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&beside)?;
        let mut new = Self::locked(file, &beside)?.ok_or(io::ErrorKind::WouldBlock)?;

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

    /// All frames up to the first that is torn or changed.
    pub(super) fn frames(&self) -> io::Result<Frames> {
        let mut bytes = Vec::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        let mut frames = Frames::default();
        let mut rest = &bytes[..];
        while let Some((payload, after)) = split(rest) {
            frames.whole.push(payload.to_vec());
            rest = after;
        }
        frames.damaged = rest.len();
        Ok(frames)
    }

    /// Copies it for whoever wants to look into it.
    pub(super) fn copy_damaged(&self) -> io::Result<PathBuf> {
        let copy = self.path.with_extension("damaged");
        std::fs::copy(&self.path, &copy)?;
        Ok(copy)
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

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).ok();
    let (length, sum) = (number(&head[..4])?, number(&head[4..])?);
    let (payload, rest) = rest.split_at_checked(length as usize)?;
    (checksum(length, payload) == sum).then_some((payload, rest))
}

/// Whether this file is the one at `path`.
#[cfg(unix)]
fn is_file_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata()
        .is_ok_and(|own| std::fs::metadata(path).is_ok_and(|there| id(&own) == id(&there)))
}

#[cfg(not(unix))]
fn is_file_at(_: &File, path: &Path) -> bool {
    path.exists()
}
