//! The target and the settings of a memory: the builder over the URL over the environment.
//!
//! What can be set is one table, [`with_options`]: the builder has a method for each row.

mod cluster;
mod hosts;
mod sentinel;
mod tls;
mod url;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::PathBuf;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use self::url::{parse, url_of_host};
use crate::backend::open::Target;
use crate::backend::sidecar::check_prefix;
#[cfg(feature = "redis")]
use crate::base::address_map::AddressMap;
use crate::base::client_name;
#[cfg(feature = "redis")]
use crate::base::credentials::{BoxError, Credentials, CredentialsCallback};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::{ConnectPolicy, Durability, ReadPolicy, WritePolicy};
use crate::base::redaction::Secret;
use crate::base::settings::{Settings, with_options};
use crate::handle::key::check_scope;

macro_rules! builder {
    ($(
        $(#[$doc:meta])*
        $name:ident: $type:ty = $default:expr,
            set ($($argument:ident: $argument_type:ty),+) as $value:expr,
            $(url ($text:ty),)?
            readme ($shown:literal, $($meaning:literal)+);
    )+) => {
        /// Options for opening a [`Memory`](crate::Memory); made by
        /// [`Memory::builder`](crate::Memory::builder).
        ///
        /// What is set here wins over the URL's query (`?prefix=app:&timeout=200ms`), and that over
        /// the environment (`REDIS_PREFIX`) and the defaults.
        ///
        /// ```
        /// use std::time::Duration;
        /// use synced_memory::Memory;
        ///
        /// let memory = Memory::builder()
        ///     .url("memory:")
        ///     .prefix("shop:")
        ///     .timeout(Duration::from_millis(200))
        ///     .build()?;
        /// # Ok::<(), synced_memory::Error>(())
        /// ```
        ///
        #[doc = include_str!("../../../servers.md")]
        #[derive(Clone, Default)]
        #[must_use = "nothing is opened before `build`"]
        pub struct Builder {
            url: Option<String>,
            #[cfg(feature = "tls")]
            tls_config: Option<Arc<rustls::ClientConfig>>,
            #[cfg(feature = "redis")]
            credentials: Option<CredentialsCallback>,
            #[cfg(feature = "redis")]
            addresses: Option<AddressMap>,
            $($name: Option<$type>,)+
        }

        impl Builder {
            $(
                $(#[$doc])*
                pub fn $name(mut self, $($argument: $argument_type),+) -> Self {
                    self.$name = Some($value);
                    self
                }
            )+

            /// Puts what was set here over what the URL and the environment say.
            fn apply_to(self, settings: &mut Settings) {
                $(
                    if let Some(value) = self.$name {
                        settings.$name = value;
                    }
                )+
            }
        }

        impl std::fmt::Debug for Builder {
            /// Without the URL, which may hold a password.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("Builder")
                    $(.field(stringify!($name), &self.$name))+
                    .finish_non_exhaustive()
            }
        }
    };
}

with_options!(builder);

// Nothing in it is changed once it was set.
impl UnwindSafe for Builder {}
impl RefUnwindSafe for Builder {}

impl Builder {
    /// Where the state is. Without it the environment says so: `SYNCED_MEMORY_URL`, or else
    /// `REDIS_HOST` (default `redis`) and `REDIS_PORT` (default `6379`).
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// How TLS is spoken, instead of by `tls_ca`, `tls_cert`, `tls_key` and `tls_insecure`: for
    /// other roots of trust, keys in hardware, or another provider of cryptography. It is of the
    /// version of `rustls` that this crate exports. The feature `tls`.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use synced_memory::{Memory, rustls};
    ///
    /// # fn roots() -> rustls::RootCertStore { rustls::RootCertStore::empty() }
    /// let provider = rustls::crypto::ring::default_provider();
    /// let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
    ///     .with_protocol_versions(&[&rustls::version::TLS13])?
    ///     .with_root_certificates(roots())
    ///     .with_no_client_auth();
    /// let builder = Memory::builder()
    ///     .url("rediss://cache.example.com:6380")
    ///     .tls_config(Arc::new(config));
    /// # Ok::<(), rustls::Error>(())
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls_config = Some(config);
        self
    }

    /// What issues the user and the password of a server, if they expire: tokens of a cloud, or a
    /// file of secrets that is replaced. They are asked for at each connect, and again before they
    /// expire; then the open connections log in anew, and none is lost. All about it:
    /// [`Credentials`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use synced_memory::{BoxError, Credentials, Memory};
    ///
    /// # fn token() -> Result<String, BoxError> { Ok("t0ken".to_string()) }
    /// let builder = Memory::builder().url("redis://cache.example.com").credentials(|| {
    ///     Ok(Credentials::new("app", token()?).expires_in(Duration::from_secs(900)))
    /// });
    /// ```
    ///
    /// `issue` is called on a thread of its own, by one call at a time. It may block, for at most
    /// 10 s. While it fails, it is called again after 1 s, doubled each time up to 60 s, and
    /// [`Status::last_error`](crate::Status::last_error) says why; a connection that is open stays.
    #[cfg(feature = "redis")]
    pub fn credentials(
        mut self,
        issue: impl Fn() -> std::result::Result<Credentials, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.credentials = Some(CredentialsCallback::new(issue));
        self
    }

    /// Where a server is reached that another server names, given its host and its port: behind
    /// NAT, in a container network, or through a tunnel. For `redis-sentinel://`, whose sentinels
    /// name the primary and each other, and for `redis-cluster://`, whose nodes name all nodes. The
    /// hosts of the URL are used as they are.
    ///
    /// ```
    /// use synced_memory::Memory;
    ///
    /// let builder = Memory::builder()
    ///     .url("redis-sentinel://sentinel.example.com/mymaster")
    ///     .addresses(|host, port| match host {
    ///         "10.0.0.7" => ("cache.example.com".to_string(), port),
    ///         _ => (host.to_string(), port),
    ///     });
    /// ```
    ///
    /// `map` is called on the thread that answers all calls: it must not block. If it panics, or
    /// returns an empty host or port 0, nothing is connected to, and
    /// [`Status::last_error`](crate::Status::last_error) says so.
    #[cfg(feature = "redis")]
    pub fn addresses(
        mut self,
        map: impl Fn(&str, u16) -> (String, u16) + Send + Sync + 'static,
    ) -> Self {
        self.addresses = Some(AddressMap::new(map));
        self
    }

    pub(crate) fn resolve(self) -> Result<(Target, Settings)> {
        self.resolve_with(&|name| {
            std::env::var_os(name)
                .map(|value| environment_value(name, value))
                .transpose()
                .map(Option::flatten)
        })
    }

    fn resolve_with(mut self, env: &Environment<'_>) -> Result<(Target, Settings)> {
        let mut settings = Settings::default();
        if let Some(prefix) = env("REDIS_PREFIX")? {
            check_prefix(&prefix).map_err(|error| of_variable("REDIS_PREFIX", &error))?;
            settings.prefix = prefix;
        }

        #[cfg_attr(not(feature = "redis"), allow(unused_mut))]
        let mut target = if let Some(url) = self.url.take() {
            parse(&url, &mut settings)?
        } else if let Some(url) = env("SYNCED_MEMORY_URL")? {
            parse(&url, &mut settings).map_err(|error| of_variable("SYNCED_MEMORY_URL", &error))?
        } else {
            let url = url_of_host(env)?;
            parse(&url, &mut settings).map_err(|error| of_variable("REDIS_HOST", &error))?
        };

        #[cfg(feature = "tls")]
        let tls_config = self.tls_config.take();
        #[cfg(feature = "redis")]
        if let Some(callback) = self.credentials.take() {
            set_credentials(&mut target, callback)?;
        }
        #[cfg(feature = "redis")]
        if let Some(map) = self.addresses.take() {
            sentinel::set_addresses(&mut target, map)?;
        }
        self.apply_to(&mut settings);
        check_settings(&settings)?;
        sentinel::check(&target, &settings)?;
        tls::check(&target, &settings)?;
        #[cfg(feature = "tls")]
        if let Some(config) = tls_config {
            tls::set_config(&mut target, config, &settings)?;
        }
        Ok((target, settings))
    }
}

/// # Errors
///
/// `Config` if the target has no login, or another one.
#[cfg(feature = "redis")]
fn set_credentials(target: &mut Target, callback: CredentialsCallback) -> Result<()> {
    const NO_LOGIN: &str =
        "`credentials` are for servers: only a URL such as redis://host has a login";
    let refuse = |what: &str| Err(Error::new(ErrorKind::Config, what));
    let (login, credentials) = match target {
        Target::Redis {
            server,
            credentials,
            ..
        } => (server.redis_settings(), credentials),
        Target::Sentinel(target) => (&target.login, &mut target.credentials),
        Target::Cluster(target) => (&target.login, &mut target.credentials),
        Target::Process(_) => return refuse(NO_LOGIN),
        #[cfg(feature = "sqlite")]
        Target::Sqlite(_) => return refuse(NO_LOGIN),
    };
    if login.username().is_some() || login.password().is_some() {
        return refuse("`credentials` say who logs in: the URL may have no user and no password");
    }
    *credentials = Some(callback);
    Ok(())
}

/// The value of an environment variable; `None` if it is not set or empty.
type Environment<'a> = dyn Fn(&str) -> Result<Option<String>> + 'a;

/// Without the white space around it: what comes from a file of secrets ends in a newline.
fn environment_value(name: &str, value: OsString) -> Result<Option<String>> {
    let value = value.into_string().map_err(|_| {
        let what = format!("the environment variable {name} is not UTF-8");
        Error::new(ErrorKind::Config, what)
    })?;
    Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
}

/// An error in what an environment variable says.
fn of_variable(name: &str, error: &Error) -> Error {
    Error::new(
        error.kind(),
        format!("the environment variable {name}: {error}"),
    )
}

fn check_settings(settings: &Settings) -> Result<()> {
    let refuse = |what: &str| Err(Error::new(ErrorKind::Config, what));
    settings.check()?;
    check_prefix(&settings.prefix)?;
    settings.scope.as_deref().map_or(Ok(()), check_scope)?;
    if let Some(Err(what)) = settings.client_name.as_deref().map(client_name::check) {
        return refuse(&format!("`client_name` {what}"));
    }
    if settings.timeout.is_zero() {
        return refuse("`timeout` is zero: no answer could ever be in time");
    }
    let (least, most) = settings.backoff;
    if least.is_zero() || least > most {
        return refuse("`backoff` starts at zero, or ends below its start");
    }
    if settings.tombstone_ttl.is_zero() {
        return refuse("`tombstone_ttl` is zero: deletes would be forgotten at once");
    }
    if settings.outbox_limit == 0 {
        return refuse("`outbox_limit` is zero: every write would be refused");
    }
    Ok(())
}
