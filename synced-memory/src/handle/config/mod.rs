//! The target and the settings of a memory: the builder over the URL over the environment.
//!
//! What can be set is one table, [`with_options`]: the builder has a method for each row.

mod url;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use self::url::{parse, url_of_host};
use crate::backend::open::Target;
use crate::backend::sidecar::check_prefix;
use crate::base::client_name;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::{ConnectPolicy, Durability, ReadPolicy, WritePolicy};
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
        #[derive(Clone, Default)]
        #[must_use = "nothing is opened before `build`"]
        pub struct Builder {
            url: Option<String>,
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

impl Builder {
    /// Where the state is. Without it the environment says so: `SYNCED_MEMORY_URL`, or else
    /// `REDIS_HOST` (default `redis`) and `REDIS_PORT` (default `6379`).
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
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

        let target = if let Some(url) = self.url.take() {
            parse(&url, &mut settings)?
        } else if let Some(url) = env("SYNCED_MEMORY_URL")? {
            parse(&url, &mut settings).map_err(|error| of_variable("SYNCED_MEMORY_URL", &error))?
        } else {
            let url = url_of_host(env)?;
            parse(&url, &mut settings).map_err(|error| of_variable("REDIS_HOST", &error))?
        };

        self.apply_to(&mut settings);
        check_settings(&settings)?;
        Ok((target, settings))
    }
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
