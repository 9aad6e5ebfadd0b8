//! The settings of a memory: one table of options.
//!
//! Everything else reads the table: [`Settings`] and its defaults, the query of a URL, the builder
//! and its documentation, the names in messages, and (by a test) the README.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::{ConnectPolicy, Durability, ReadPolicy, WritePolicy};
use crate::base::redaction::Secret;

/// Hands the table of options to the macro `$with`.
///
/// A row has: the documentation of the builder's method; the field of [`Settings`] with its type
/// and default; the argument of the builder's method and how it becomes the field; the type that
/// parses the option in a URL, if it may be there; the row of the README, as its default and its
/// meaning.
macro_rules! with_options {
    ($with:ident) => {
        $with! {
            /// What all keys begin with. Default: `REDIS_PREFIX`, or `memory:` without it.
            ///
            /// It may be empty; then no name may begin with `synced-memory/`, where the library's
            /// own keys are. No other beginning of that is a prefix.
            ///
            /// One hash tag such as `app{shop}:` puts all keys of the prefix into one slot of a
            /// cluster.
            prefix: String = "memory:".to_owned(),
                set (prefix: impl Into<String>) as prefix.into(),
                url (String),
                readme ("`memory:`", "what all keys begin with");

            /// A namespace under the prefix: keys are `<prefix><scope>:<name>`. Default: none.
            scope: Option<String> = None,
                set (scope: impl Into<String>) as Some(scope.into()),
                url (String),
                readme ("none", "a namespace below it: `<prefix><scope>:<name>`");

            /// How long one call waits at most for a backend that does not answer. Default: 0.5 s.
            ///
            /// A connection is taken for dead, and made anew, if a call is not answered and for
            /// `timeout` no byte arrives either. A value that takes longer to arrive is waited for
            /// in the background, and a large write is queued, and delivered.
            timeout: Duration = Duration::from_millis(500),
                set (timeout: Duration) as timeout,
                url (HumanDuration),
                readme ("`500ms`",
                    "how long one call waits at most, and how long a server may be "
                    "silent that owes an answer");

            /// Whether opening needs the backend: with [`ConnectPolicy::Required`] it is an error
            /// of kind `Unavailable` if no backend answers within `timeout`, so that a misspelt
            /// host is noticed at once. Default: [`ConnectPolicy::Optional`].
            connect: ConnectPolicy = ConnectPolicy::default(),
                set (policy: ConnectPolicy) as policy,
                url (ConnectPolicy),
                readme ("`optional`",
                    "`required`: opening is `Unavailable` if no backend answers within `timeout`");

            /// A file with the certificates (PEM) of the authorities that may have signed the
            /// server's certificate. Default: those that the system trusts.
            ///
            /// This file and those of `tls_cert` and `tls_key` are read again at each connect if
            /// they have changed. If they cannot be used then, those of before are, and an event
            /// and [`Status::last_error`](crate::Status::last_error) say so.
            tls_ca: Option<PathBuf> = None,
                set (file: impl Into<PathBuf>) as Some(file.into()),
                url (PathBuf),
                readme ("none",
                    "TLS: a file (PEM) with the authorities that are trusted, "
                    "instead of the system's");

            /// A file with the certificate (PEM) that this process shows to the server, and those
            /// between it and its authority. It needs `tls_key`. Default: none is shown.
            tls_cert: Option<PathBuf> = None,
                set (file: impl Into<PathBuf>) as Some(file.into()),
                url (PathBuf),
                readme ("none", "TLS: a file (PEM) with the certificate that this process shows");

            /// A file with the private key (PEM, without a passphrase) of `tls_cert`. Default:
            /// none.
            tls_key: Option<PathBuf> = None,
                set (file: impl Into<PathBuf>) as Some(file.into()),
                url (PathBuf),
                readme ("none", "TLS: a file (PEM) with its private key");

            /// The name, or the address, that the server's certificate has to have, if the URL has
            /// another one: for a tunnel, or an address that no certificate names. Default: the
            /// host of the URL.
            tls_name: Option<String> = None,
                set (name: impl Into<String>) as Some(name.into()),
                url (String),
                readme ("none",
                    "TLS: the name in the server's certificate, if the URL has another one");

            /// Whether every certificate of the server is taken. **Anybody between this process and
            /// the server can then read and change everything, passwords included**; each open
            /// emits a warning. Default: `false`.
            tls_insecure: bool = false,
                set (insecure: bool) as insecure,
                url (bool),
                readme ("`false`",
                    "TLS: `true` takes every certificate, so that nothing is safe; for trials");

            /// Whether the servers of `redis-sentinel://` and `redis-cluster://` are spoken to in
            /// TLS, and the sentinels, too. Other URLs say it by their scheme: `rediss://`,
            /// `valkeys://`. Default: `false`.
            tls: bool = false,
                set (tls: bool) as tls,
                url (bool),
                readme ("`false`",
                    "`redis-sentinel://` and `redis-cluster://`: `true` for TLS to the servers, "
                    "and to the sentinels");

            /// The user as whom this process logs in to the sentinels of `redis-sentinel://`: they
            /// have logins of their own. It needs `sentinel_password`. Default: their default user.
            sentinel_user: Option<String> = None,
                set (user: impl Into<String>) as Some(user.into()),
                url (String),
                readme ("none", "`redis-sentinel://`: the user for the sentinels");

            /// The password for the sentinels of `redis-sentinel://`. That of the servers is in the
            /// URL, or is issued by `credentials`. Default: none.
            sentinel_password: Option<Secret> = None,
                set (password: impl Into<String>) as Some(Secret::new(password)),
                url (Secret),
                readme ("none",
                    "`redis-sentinel://`: the password for the sentinels; that of the servers is "
                    "before the hosts");

            /// What the [`journal`](Self::journal) calls the servers of `redis-sentinel://` and
            /// `redis-cluster://`. Two services of one name need it if memories of both use one
            /// directory and prefix, and a cluster if the hosts of its URL change. Default: the
            /// name of the service, or the hosts of the URL in their alphabetical order.
            name: Option<String> = None,
                set (name: impl Into<String>) as Some(name.into()),
                url (String),
                readme ("none",
                    "`redis-sentinel://` and `redis-cluster://`: what journals call the servers, "
                    "instead of the name of the service or the hosts");

            /// How many replicas of a server have to have a write before it counts as stored: then
            /// it is not lost if the server is and one of them takes over. A write that too few of
            /// them have after half of `timeout` is queued, although others see it; it is sent
            /// again until enough have it. Only servers have replicas. Default: 0.
            replicas: u16 = 0,
                set (count: u16) as count,
                url (u16),
                readme ("`0`",
                    "how many replicas of a server have to have a write before it counts as stored");

            /// How long the drop of the last handle waits at most for what is still queued.
            /// Default: 2 s.
            shutdown_timeout: Duration = Duration::from_secs(2),
                set (timeout: Duration) as timeout,
                url (HumanDuration),
                readme ("`2s`", "how long the last drop waits at most");

            /// How long a delete is remembered, so that an older queued write does not undo it. A
            /// write that is queued for longer becomes a dead letter. Default: 10 days.
            tombstone_ttl: Duration = Duration::from_secs(10 * 24 * 3600),
                set (ttl: Duration) as ttl,
                url (HumanDuration),
                readme ("`10days`", "how long a delete is remembered");

            /// How many bytes of writes are queued at most, keys and bookkeeping included. Beyond
            /// that a write is refused as [`ErrorKind::OutboxFull`]. Default: 64 MiB.
            outbox_limit: usize = 64 << 20,
                set (bytes: usize) as bytes,
                url (ByteCount),
                readme ("`67108864`", "bytes that may be queued");

            /// How many bytes the local copies of values take at most, with 1 KiB for each key.
            /// Beyond that, those that no view, handle or watch holds are dropped, least recently
            /// used first; what was dropped is unknown while the backend is away. Default: 64 MiB.
            cache_limit: usize = 64 << 20,
                set (bytes: usize) as bytes,
                url (ByteCount),
                readme ("`67108864`",
                    "bytes of local copies, beyond which those that no view, "
                    "handle or watch holds are dropped");

            /// What reads ask, unless a key or a field says `near`. Default:
            /// [`ReadPolicy::Through`].
            read_policy: ReadPolicy = ReadPolicy::default(),
                set (policy: ReadPolicy) as policy,
                url (ReadPolicy),
                readme ("`through`", "`near`: reads of local memory that the server keeps current");

            /// What writes wait for, unless a key or a field says `behind` or `confirmed`. Default:
            /// [`WritePolicy::Through`].
            write_policy: WritePolicy = WritePolicy::default(),
                set (policy: WritePolicy) as policy,
                url (WritePolicy),
                readme ("`through`",
                    "`behind`: writes return once they are queued; `confirmed`: "
                    "what they return is [a fact](#facts-and-what-is-known-here)");

            /// Keeps what is queued on disk, in this directory, which is created if it is missing:
            /// `Queued` then means that the write survives a crash of this process. The next memory
            /// that is opened with the same directory, backend and prefix delivers it. Several
            /// processes may share a directory. Default: none.
            journal: Option<PathBuf> = None,
                set (directory: impl Into<PathBuf>) as Some(directory.into()),
                url (PathBuf),
                readme ("none", "a directory: queued writes survive the process there");

            /// What the journal, and what is stored in the file of `sqlite:path`, survives.
            /// Default: [`Durability::Process`].
            durability: Durability = Durability::default(),
                set (durability: Durability) as durability,
                url (Durability),
                readme ("`process`",
                    "what is on this machine's disk survives a crash of the "
                    "process; with `fsync` a loss of power too");

            /// What the server's `CLIENT LIST` calls the connections of this memory, so that
            /// whoever looks at the server finds the process; of at most 255 bytes, ASCII without
            /// spaces. An empty one is none. Default: the file name of the program, without path
            /// and extension, which is the same in all pods of a service: name the pod instead.
            ///
            /// It is set by `CLIENT SETNAME` with the first request of each connection. A user who
            /// has no right to that gets no error, and an event at `debug`.
            client_name: Option<String> = None,
                set (name: impl Into<String>) as Some(name.into()),
                url (String),
                readme ("the program's name",
                    "what `CLIENT LIST` of a server calls the connections; an empty one is none");

            /// The shortest and the longest wait between attempts to reconnect: it doubles from one
            /// to the other, with jitter. Default: 50 ms and 5 s.
            backoff: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5)),
                set (least: Duration, most: Duration) as (least, most),
                readme ("50 ms, 5 s", "the first and the longest wait between tries to reconnect");
        }
    };
}
pub(crate) use with_options;

macro_rules! settings {
    ($(
        $(#[$doc:meta])*
        $name:ident: $type:ty = $default:expr,
            set ($($argument:ident: $argument_type:ty),+) as $value:expr,
            $(url ($text:ty),)?
            readme ($shown:literal, $($meaning:literal)+);
    )+) => {
        /// The settings of a memory: everything but its target.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct Settings {
            $(pub(crate) $name: $type,)+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Settings {
            /// Sets what the option `name` of a URL says; whether there is such an option.
            pub(crate) fn set_from_text(&mut self, name: &str, text: &str) -> Result<bool> {
                match name {
                    $($(
                        known if known == stringify!($name) => {
                            self.$name = parsed::<$text>(name, text)?.into();
                        }
                    )?)+
                    _ => return Ok(false),
                }
                Ok(true)
            }

            /// Refuses what no option of its type may be.
            ///
            /// # Errors
            ///
            /// `Config`.
            pub(crate) fn check(&self) -> Result<()> {
                $(
                    self.$name.check().map_err(|what| {
                        let message = format!("`{}` {what}", stringify!($name));
                        Error::new(ErrorKind::Config, message)
                    })?;
                )+
                Ok(())
            }
        }

        /// Every option, in the order of the README.
        pub(crate) const OPTIONS: &[OptionRow] = &[$(
            OptionRow {
                name: stringify!($name),
                is_in_urls: [$(stringify!($text),)? ""].len() > 1,
                #[cfg(test)]
                default: $shown,
                #[cfg(test)]
                meaning: concat!($($meaning),+),
            },
        )+];
    };
}

/// An option, for messages and for the README.
pub(crate) struct OptionRow {
    pub(crate) name: &'static str,
    /// Otherwise the builder alone has it.
    pub(crate) is_in_urls: bool,
    #[cfg(test)]
    pub(crate) default: &'static str,
    #[cfg(test)]
    pub(crate) meaning: &'static str,
}

with_options!(settings);

/// The longest duration that an option may be, 1,000 years as a URL counts them. Sums of a few of
/// them, and points in time so far away, can be expressed by every clock here.
pub(crate) const LONGEST: Duration = Duration::from_secs(1_000 * 31_557_600);

/// Which values of a type no option may have.
trait OptionValue {
    /// # Errors
    ///
    /// What is wrong with it.
    fn check(&self) -> std::result::Result<(), &'static str> {
        Ok(())
    }
}

impl OptionValue for Duration {
    fn check(&self) -> std::result::Result<(), &'static str> {
        if *self > LONGEST {
            Err("is longer than 1000 years")
        } else {
            Ok(())
        }
    }
}

impl OptionValue for (Duration, Duration) {
    fn check(&self) -> std::result::Result<(), &'static str> {
        self.0.check().and_then(|()| self.1.check())
    }
}

impl<T: OptionValue> OptionValue for Option<T> {
    fn check(&self) -> std::result::Result<(), &'static str> {
        self.as_ref().map_or(Ok(()), T::check)
    }
}

impl OptionValue for String {}
impl OptionValue for Secret {}
impl OptionValue for usize {}
impl OptionValue for u16 {}
impl OptionValue for bool {}
impl OptionValue for PathBuf {}
impl OptionValue for ReadPolicy {}
impl OptionValue for WritePolicy {}
impl OptionValue for ConnectPolicy {}
impl OptionValue for Durability {}

fn parsed<T: FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error| {
        let what = format!("the option `{name}` cannot be read: {error}");
        Error::new(ErrorKind::Config, what)
    })
}

/// A duration as it is written in a URL: `500ms`, `2s`, `10days`.
struct HumanDuration(Duration);

impl FromStr for HumanDuration {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| "expected a duration such as 500ms or 2s")
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

/// A number of bytes as it is written in a URL: `67108864`.
struct ByteCount(usize);

impl FromStr for ByteCount {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        text.parse()
            .map(Self)
            .map_err(|_| "expected a number of bytes")
    }
}

impl From<ByteCount> for usize {
    fn from(bytes: ByteCount) -> Self {
        bytes.0
    }
}
