//! What a crash leaves of a directory: an image of it at each step of a process that changes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Watches what one process does to the files of a directory.
#[derive(Debug)]
pub struct CrashingDisk {
    library: PathBuf,
    images: PathBuf,
    _keeps: TempDir,
}

/// What is left in the directory if the process, or the machine, crashes between two changes or
/// within one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// A directory with the files.
    pub path: PathBuf,
    /// How many lines the process had printed before.
    pub lines: usize,
    /// The machine has lost its power: what was not synced is gone.
    pub is_loss_of_power: bool,
}

impl CrashingDisk {
    /// Needs a C compiler.
    pub fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let (library, images) = (
            directory.path().join("watcher.so"),
            directory.path().join("images"),
        );
        fs::create_dir(&images).expect("a directory can be made");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/disk/watcher.c");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source);
        let status = compiler
            .status()
            .expect("there is a C compiler: run .ci/test");
        assert!(status.success(), "the watcher compiles: {status}");
        Self {
            library,
            images,
            _keeps: directory,
        }
    }

    /// Watches what the process of a command that is to be started does to the files of this
    /// directory.
    pub fn watch(&self, directory: &Path, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("WATCHED", directory)
            .env("IMAGES", &self.images);
    }

    /// The images so far, in order.
    pub fn images(&self) -> Vec<Image> {
        let entries = fs::read_dir(&self.images).expect("the directory is there");
        let mut images: Vec<Image> = entries
            .map(|entry| Image::at(entry.expect("it can be read").path()))
            .collect();
        images.sort_unstable();
        images
    }
}

impl Image {
    fn at(path: PathBuf) -> Self {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("it is named by the watcher");
        let parts: Vec<&str> = name.split('-').collect();
        let [_, lines, how] = parts[..] else {
            panic!("{name} is no image")
        };
        Self {
            lines: lines.parse().expect("a number of lines"),
            is_loss_of_power: how == "power",
            path,
        }
    }
}

impl Default for CrashingDisk {
    fn default() -> Self {
        Self::new()
    }
}
