//! Opening a backend: the one file that knows all of them.

#[cfg(feature = "sqlite")]
use std::path::PathBuf;

use crate::backend::Backend;
use crate::backend::process::ProcessBackend;
#[cfg(feature = "redis")]
use crate::backend::redis::RedisBackend;
#[cfg(feature = "sqlite")]
use crate::backend::sqlite::SqliteBackend;
use crate::base::error::Result;
#[cfg(feature = "redis")]
use crate::base::error::{Error, ErrorKind};
use crate::base::settings::Settings;

/// Which backend, and where it is.
pub(crate) enum Target {
    /// This process; an empty name stands for a space that nobody shares.
    Process(String),
    #[cfg(feature = "redis")]
    Redis {
        server: redis::ConnectionInfo,
        /// The address for messages, without a password.
        target: String,
    },
    /// The file at an absolute path.
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
}

/// Opens the backend at `target`. Nothing is connected yet.
///
/// # Errors
///
/// `Config` if nothing can be connected to that way.
#[cfg_attr(
    not(all(feature = "redis", feature = "sqlite")),
    allow(unused_variables, clippy::unnecessary_wraps)
)]
pub(crate) fn open(target: Target, settings: &Settings) -> Result<Box<dyn Backend>> {
    Ok(match target {
        Target::Process(name) => Box::new(ProcessBackend::open(&name, settings.tombstone_ttl)),
        #[cfg(feature = "redis")]
        Target::Redis { server, target } => {
            let backend =
                RedisBackend::new(server, target, settings.timeout, settings.tombstone_ttl);
            Box::new(backend.map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?)
        }
        #[cfg(feature = "sqlite")]
        Target::Sqlite(path) => Box::new(SqliteBackend::new(
            path,
            settings.durability,
            settings.timeout,
            settings.tombstone_ttl,
        )),
    })
}
