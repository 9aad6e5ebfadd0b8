//! A small file system in memory, to run out of space on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted tmpfs; unmounted on drop.
#[derive(Debug)]
pub struct Tmpfs {
    directory: TempDir,
}

impl Tmpfs {
    /// Mounts one with room for `kilobytes`. Needs root, or `sudo` without a password.
    pub fn of(kilobytes: u32) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let size = format!("size={kilobytes}k");
        as_root(
            "mount",
            [
                "-t".as_ref(),
                "tmpfs".as_ref(),
                "-o".as_ref(),
                size.as_ref(),
                "tmpfs".as_ref(),
                directory.path(),
            ],
        );
        as_root("chmod", ["0777".as_ref(), directory.path()]);
        Self { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fills it up to the last byte. Removing the file that is returned makes room again.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let full = fs::write(&path, vec![0; 1 << 24]).expect_err("it is smaller than that");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have a file on it open.
        as_root("umount", ["-l".as_ref(), self.directory.path()]);
    }
}

fn as_root<const N: usize>(program: &str, arguments: [&Path; N]) {
    let is_root = rustix::process::geteuid().is_root();
    let mut command = if is_root {
        Command::new(program)
    } else {
        Command::new("sudo")
    };
    if !is_root {
        command.args(["-n", program]);
    }
    let status = command
        .args(arguments)
        .status()
        .expect("the program is there");
    assert!(
        status.success() || std::thread::panicking(),
        "{program}: {status}"
    );
}
