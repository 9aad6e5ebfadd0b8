//! A URL: the target, and options in its query.

use percent_encoding::percent_decode_str;
use url::Url;

use super::Target;
use crate::base::error::{Error, ErrorKind, Reason, Result};
use crate::base::settings::{OPTIONS, Settings};

/// What a URL may look like, for messages.
const SCHEMES: &str = "write redis://host:port, valkey://, dragonfly://, redis+unix:///path, \
                       sqlite:path, memory: or memory:name";

/// The URL that `REDIS_HOST` and `REDIS_PORT` stand for, as in the Python package.
pub(super) fn url_of_host(env: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let host = env("REDIS_HOST").unwrap_or_else(|| "redis".to_owned());
    let port = env("REDIS_PORT").unwrap_or_else(|| "6379".to_owned());
    let port: u16 = port
        .parse()
        .map_err(|_| config_error(format!("REDIS_PORT is `{port}`, which is no port")))?;
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host
    };
    Ok(format!("redis://{host}:{port}"))
}

/// The target of a URL; its options are set in `settings`. No message repeats the URL, which may
/// hold a password.
pub(super) fn parse(url: &str, settings: &mut Settings) -> Result<Target> {
    let url = Url::parse(url).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            config_error(format!("the URL has no scheme: {SCHEMES}"))
        }
        error => config_error(Reason::caused_by("the URL cannot be read", error)),
    })?;
    match url.scheme() {
        "memory" => process_target(&url, settings),
        #[cfg(feature = "redis")]
        "redis" | "valkey" | "dragonfly" | "redis+unix" => server_target(&url, settings),
        #[cfg(not(feature = "redis"))]
        "redis" | "valkey" | "dragonfly" | "redis+unix" => {
            Err(config_error("a server needs the feature `redis`"))
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => file_target(&url, settings),
        #[cfg(not(feature = "sqlite"))]
        "sqlite" => Err(config_error("an embedded file needs the feature `sqlite`")),
        "rediss" | "valkeys" => Err(config_error(format!(
            "`{}:` asks for TLS, which this version does not have: write redis://host:port, and \
             lead the connection through a TLS tunnel if it leaves this network",
            url.scheme()
        ))),
        "redis-cluster" | "redis-sentinel" => Err(config_error(format!(
            "`{}:` is not supported by this version, which connects to one server",
            url.scheme()
        ))),
        other => Err(config_error(format!(
            "the scheme `{other}:` is unknown: {SCHEMES}"
        ))),
    }
}

/// Sets the options in a URL's query. `scheme_option` takes those that only this scheme has.
fn read_options(
    url: &Url,
    settings: &mut Settings,
    scheme_option: &mut dyn FnMut(&str, &str) -> Result<bool>,
) -> Result<()> {
    for (name, value) in url.query_pairs() {
        if !settings.set_from_text(&name, &value)? && !scheme_option(&name, &value)? {
            return Err(unknown_option(&name, url.scheme()));
        }
    }
    if url.fragment().is_some() {
        return Err(config_error(
            "a `#` in the URL makes no sense; in a password or a path it is written `%23`",
        ));
    }
    Ok(())
}

fn unknown_option(name: &str, scheme: &str) -> Error {
    let known = OPTIONS.iter().filter(|option| option.is_in_urls);
    let known: Vec<_> = known.map(|option| option.name).collect();
    config_error(format!(
        "the option `{name}` is unknown in a `{scheme}:` URL: known are {}; the database of a \
         server is a path, as in redis://host/2",
        known.join(", ")
    ))
}

/// `memory:` and `memory:name`.
fn process_target(url: &Url, settings: &mut Settings) -> Result<Target> {
    read_options(url, settings, &mut |_, _| Ok(false))?;
    if url.has_authority() {
        return Err(config_error(
            "what lives in this process alone is given as memory: or memory:name, without `//`",
        ));
    }
    Ok(Target::Process(percent_decoded(url.path())?))
}

/// `redis://` and its relatives.
#[cfg(feature = "redis")]
fn server_target(url: &Url, settings: &mut Settings) -> Result<Target> {
    use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

    let mut user = percent_decoded(url.username())?;
    let mut password = url.password().map(percent_decoded).transpose()?;
    let mut database = 0;
    let is_unix = url.scheme() == "redis+unix";
    read_options(url, settings, &mut |name, value| {
        match name {
            "db" if is_unix => database = parse_database(value)?,
            "user" if is_unix => value.clone_into(&mut user),
            "password" if is_unix => password = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (address, target) = if is_unix {
        let path = percent_decoded(url.path())?;
        if url.host_str().is_some_and(|host| !host.is_empty()) || path.len() < 2 {
            return Err(config_error(
                "a socket is given as redis+unix:///path/of/the/socket",
            ));
        }
        let target = format!("redis+unix://{path}");
        (ConnectionAddr::Unix(path.into()), target)
    } else {
        let host = url.host_str().filter(|host| !host.is_empty());
        let host =
            host.ok_or_else(|| config_error(format!("the {}:// URL has no host", url.scheme())))?;
        let port = url.port().unwrap_or(6379);
        let path = url.path().trim_start_matches('/');
        if !path.is_empty() {
            database = parse_database(path)?;
        }
        let target = format!("{}://{host}:{port}/{database}", url.scheme());
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        (ConnectionAddr::Tcp(bare, port), target)
    };
    let mut login = RedisConnectionInfo::default().set_db(database);
    if !user.is_empty() {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    let server = address
        .into_connection_info()
        .map_err(|error| config_error(error.to_string()))?;
    Ok(Target::Redis {
        server: server.set_redis_settings(login),
        target,
    })
}

#[cfg(feature = "redis")]
fn parse_database(text: &str) -> Result<i64> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| config_error("the database in the URL is no number"))
}

/// `sqlite:path`, relative or absolute. The path is made absolute here: the process may change its
/// directory, and SQLite gives names such as `:memory:` a meaning of their own.
#[cfg(feature = "sqlite")]
fn file_target(url: &Url, settings: &mut Settings) -> Result<Target> {
    read_options(url, settings, &mut |_, _| Ok(false))?;
    if url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(config_error(
            "a file is given as sqlite:path or sqlite:/absolute/path, without `//`",
        ));
    }
    let path = percent_decoded(url.path())?;
    if path.is_empty() || path.ends_with('/') {
        return Err(config_error(
            "a file is given as sqlite:path; the URL has none",
        ));
    }
    if path == ":memory:" {
        return Err(config_error(
            "what lives in this process alone is given as memory: or memory:name",
        ));
    }
    let path = std::path::absolute(&path)
        .map_err(|error| config_error(Reason::io(format_args!("the path `{path}`"), &error)))?;
    Ok(Target::Sqlite(path))
}

fn percent_decoded(text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into)
        .map_err(|_| config_error("the URL is not UTF-8 once its `%` are resolved"))
}

fn config_error(what: impl Into<Reason>) -> Error {
    Error::new(ErrorKind::Config, what)
}
