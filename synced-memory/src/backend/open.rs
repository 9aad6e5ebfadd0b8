//! Opening a backend: the one file that knows all of them.

#[cfg(feature = "sqlite")]
use std::path::PathBuf;

use crate::backend::Backend;
use crate::backend::process::ProcessBackend;
#[cfg(feature = "redis")]
use crate::backend::redis::RedisBackend;
#[cfg(feature = "sqlite")]
use crate::backend::sqlite::SqliteBackend;
#[cfg(feature = "redis")]
use crate::base::client_name;
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
#[cfg_attr(
    not(all(feature = "redis", feature = "sqlite")),
    allow(unused_variables)
)]
pub(crate) fn open(target: Target, settings: &Settings) -> Box<dyn Backend> {
    match target {
        Target::Process(name) => Box::new(ProcessBackend::open(&name, settings.tombstone_ttl)),
        #[cfg(feature = "redis")]
        Target::Redis { server, target } => {
            let (timeout, sidecar_ttl) = (settings.timeout, settings.tombstone_ttl);
            let client_name = settings.client_name.clone();
            let client_name = client_name.or_else(client_name::of_program);
            Box::new(RedisBackend::new(
                &server,
                target,
                client_name.unwrap_or_default(),
                timeout,
                sidecar_ttl,
            ))
        }
        #[cfg(feature = "sqlite")]
        Target::Sqlite(path) => Box::new(SqliteBackend::new(
            path,
            settings.durability,
            settings.timeout,
            settings.tombstone_ttl,
        )),
    }
}
