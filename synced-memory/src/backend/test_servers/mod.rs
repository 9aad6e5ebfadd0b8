//! Real servers and files, for the tests of this room.
//!
//! - `mod.rs`: directories; `server.rs`: servers; `cluster.rs`: clusters of them

#[cfg(all(feature = "redis", unix))]
pub(crate) mod cluster;
#[cfg(all(feature = "redis", unix))]
pub(crate) mod server;

use std::path::PathBuf;

use crate::base::random;

/// A directory that is removed at the end.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        Self(new_directory())
    }
}

pub(crate) fn new_directory() -> PathBuf {
    let path = std::env::temp_dir().join(format!("synced-memory-{:016x}", random::rng().u64(..)));
    std::fs::create_dir(&path).unwrap();
    path
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
