use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// A wall clock for other processes, which can be stepped while they run. Their monotonic clocks
/// are not affected.
///
/// Works for Rust programs, Python, Valkey and Redis 6; Debian's `redis-server` does not start
/// under it (its allocator asks for the time before the library is ready).
#[derive(Debug)]
pub struct FakeClock {
    dir: TempDir,
}

impl FakeClock {
    /// A clock that shows the true time until it is stepped.
    pub fn new() -> Self {
        let clock = Self {
            dir: TempDir::new().expect("a temporary directory can be made"),
        };
        clock.set("+0");
        clock
    }

    /// Steps the clock to `by` ahead of the true time.
    pub fn ahead(&self, by: Duration) {
        self.set(&format!("+{}", by.as_secs_f64()));
    }

    /// Steps the clock to `by` behind the true time.
    pub fn behind(&self, by: Duration) {
        self.set(&format!("-{}", by.as_secs_f64()));
    }

    /// Steps the clock to the true time.
    pub fn right(&self) {
        self.set("+0");
    }

    /// Makes this the clock of a command that is to be started.
    pub fn apply(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    /// By a rename, so that a process that reads the file at this moment never finds half of it.
    fn set(&self, offset: &str) {
        let next = self.dir.path().join("next");
        fs::write(&next, offset)
            .and_then(|()| fs::rename(&next, self.file()))
            .expect("the clock's file can be written");
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("offset")
    }
}

impl Default for FakeClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Debian keeps it in `/usr/lib/<architecture>/faketime/`.
fn library() -> PathBuf {
    fs::read_dir("/usr/lib")
        .expect("/usr/lib is there")
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|path| path.exists())
        .expect("libfaketime is missing: run .ci/test")
}
