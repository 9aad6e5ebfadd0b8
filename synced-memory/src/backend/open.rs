//! Opening a backend: the one file that knows all of them.

#[cfg(feature = "sqlite")]
use std::path::PathBuf;
#[cfg(feature = "tls")]
use std::sync::Arc;

use crate::backend::Backend;
use crate::backend::process::ProcessBackend;
#[cfg(feature = "redis")]
use crate::backend::redis::cluster::ClusterBackend;
#[cfg(feature = "redis")]
pub(crate) use crate::backend::redis::cluster::ClusterTarget;
#[cfg(feature = "redis")]
use crate::backend::redis::sentinel::SentinelBackend;
#[cfg(feature = "redis")]
pub(crate) use crate::backend::redis::sentinel::SentinelTarget;
#[cfg(feature = "redis")]
use crate::backend::redis::{RedisBackend, SessionOptions};
#[cfg(feature = "sqlite")]
use crate::backend::sqlite::SqliteBackend;
#[cfg(feature = "redis")]
use crate::base::client_name;
#[cfg(feature = "redis")]
use crate::base::credentials::CredentialsCallback;
use crate::base::error::Result;
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
        security: Security,
        /// What issues the login, if none is in `server`.
        credentials: Option<CredentialsCallback>,
    },
    /// The primaries of a cluster.
    #[cfg(feature = "redis")]
    Cluster(ClusterTarget),
    /// The primary that sentinels name.
    #[cfg(feature = "redis")]
    Sentinel(SentinelTarget),
    /// The file at an absolute path.
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
}

/// How the bytes to a server are protected.
#[cfg(feature = "redis")]
pub(crate) enum Security {
    None,
    /// By TLS: as the options say, or by a configuration of the user's.
    #[cfg(feature = "tls")]
    Tls(Option<Arc<rustls::ClientConfig>>),
}

/// Opens the backend at `target`. Nothing is connected yet.
///
/// # Errors
///
/// `Config` if the certificates of TLS cannot be used.
#[cfg_attr(
    not(all(feature = "redis", feature = "sqlite")),
    allow(unused_variables)
)]
#[cfg_attr(
    not(feature = "tls"),
    allow(clippy::unnecessary_wraps, reason = "only TLS reads files here")
)]
pub(crate) fn open(target: Target, settings: &Settings) -> Result<Box<dyn Backend>> {
    Ok(match target {
        Target::Process(name) => Box::new(ProcessBackend::open(&name, settings.tombstone_ttl)),
        #[cfg(feature = "redis")]
        Target::Cluster(target) => Box::new(ClusterBackend::new(
            target,
            &client_name(settings),
            settings,
        )?),
        #[cfg(feature = "redis")]
        Target::Sentinel(target) => Box::new(SentinelBackend::new(
            target,
            &client_name(settings),
            settings,
        )?),
        #[cfg(feature = "redis")]
        Target::Redis {
            server,
            target,
            security,
            credentials,
        } => {
            let backend = RedisBackend::new(
                &server,
                target,
                client_name(settings),
                credentials,
                SessionOptions::of(settings),
            );
            match security {
                Security::None => Box::new(backend),
                #[cfg(feature = "tls")]
                Security::Tls(config) => Box::new(backend.over_tls(config, settings)?),
            }
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

/// What servers call our connections; nothing if it is empty.
#[cfg(feature = "redis")]
fn client_name(settings: &Settings) -> String {
    let given = settings.client_name.clone();
    given.or_else(client_name::of_program).unwrap_or_default()
}
