//! A URL: the target, and options in its query.

use percent_encoding::percent_decode_str;
use url::Url;

use super::cluster::cluster_target;
use super::hosts::{HostList, parse_hosts};
use super::sentinel::sentinel_target;
use super::{Environment, Target};
#[cfg(feature = "redis")]
use crate::backend::open::Security;
use crate::base::error::{Error, ErrorKind, Reason, Result};
use crate::base::settings::{OPTIONS, Settings};

/// A scheme of URLs.
pub(super) struct Scheme {
    pub(super) name: &'static str,
    /// How a URL of it is written, for messages.
    usage: &'static str,
    target: TargetParser,
}

/// What makes a target of a URL.
enum TargetParser {
    /// Of one with one host, or none.
    Url(fn(&Url, &mut Settings) -> Result<Target>),
    /// Of one that lists hosts.
    Hosts(fn(HostList, &mut Settings) -> Result<Target>),
}

/// Every scheme. One whose feature is off is refused by the name of the feature.
pub(super) const SCHEMES: &[Scheme] = &[
    Scheme {
        name: "redis",
        usage: "redis://host:port",
        target: TargetParser::Url(server_target),
    },
    Scheme {
        name: "valkey",
        usage: "valkey://",
        target: TargetParser::Url(server_target),
    },
    Scheme {
        name: "rediss",
        usage: "rediss://host:port (TLS)",
        target: TargetParser::Url(server_target),
    },
    Scheme {
        name: "valkeys",
        usage: "valkeys:// (TLS)",
        target: TargetParser::Url(server_target),
    },
    Scheme {
        name: "dragonfly",
        usage: "dragonfly://",
        target: TargetParser::Url(server_target),
    },
    Scheme {
        name: "redis+unix",
        usage: "redis+unix:///path",
        target: TargetParser::Url(server_target),
    },
    Scheme {
        name: "redis-cluster",
        usage: "redis-cluster://host1,host2",
        target: TargetParser::Hosts(cluster_target),
    },
    Scheme {
        name: "valkey-cluster",
        usage: "valkey-cluster://",
        target: TargetParser::Hosts(cluster_target),
    },
    Scheme {
        name: "redis-sentinel",
        usage: "redis-sentinel://host1,host2/service",
        target: TargetParser::Hosts(sentinel_target),
    },
    Scheme {
        name: "valkey-sentinel",
        usage: "valkey-sentinel://",
        target: TargetParser::Hosts(sentinel_target),
    },
    Scheme {
        name: "sqlite",
        usage: "sqlite:path",
        target: TargetParser::Url(file_target),
    },
    Scheme {
        name: "memory",
        usage: "memory: or memory:name",
        target: TargetParser::Url(process_target),
    },
];

/// The server if the environment does not name another one, as in the Python package.
const DEFAULT_HOST: &str = "redis";
const DEFAULT_PORT: u16 = 6379;

/// The URL that `REDIS_HOST` and `REDIS_PORT` stand for, as in the Python package.
///
/// Beside a Service called `redis`, Kubernetes sets `REDIS_PORT=tcp://10.0.0.1:6379` in each of its
/// pods: that counts as far as nothing else says which server is meant.
pub(super) fn url_of_host(env: &Environment<'_>) -> Result<String> {
    let host = env("REDIS_HOST")?
        .map(|text| parse_host(&text))
        .transpose()?;
    let port = env("REDIS_PORT")?
        .map(|text| parse_port(&text))
        .transpose()?;
    let (of_service, port) = match port {
        Some(NamedPort::Port(port)) => (None, Some(port)),
        Some(NamedPort::Service(host, port)) => (Some((host, port)), None),
        None => (None, None),
    };
    let (host, port) = match (host, port, of_service) {
        (Some((_, Some(of_host))), Some(port), _) if of_host != port => {
            return Err(config_error(format!(
                "REDIS_HOST says port {of_host}, and REDIS_PORT says {port}"
            )));
        }
        (Some((host, of_host)), port, of_service) => {
            let of_service = of_service.map(|(_, port)| port);
            let port = of_host.or(port).or(of_service);
            (host, port.unwrap_or(DEFAULT_PORT))
        }
        (None, Some(port), _) => (DEFAULT_HOST.to_owned(), port),
        (None, None, Some((host, port))) => (host, port),
        (None, None, None) => (DEFAULT_HOST.to_owned(), DEFAULT_PORT),
    };
    Ok(format!("redis://{host}:{port}"))
}

/// What `REDIS_PORT` may be.
enum NamedPort {
    Port(u16),
    /// Of Kubernetes: the host of a Service, and its port.
    Service(String, u16),
}

fn parse_port(text: &str) -> Result<NamedPort> {
    let no_port = || config_error(format!("REDIS_PORT is `{text}`, which is no port"));
    let Some(service) = text.strip_prefix("tcp://") else {
        let port = text.parse().map_err(|_| no_port())?;
        return Ok(NamedPort::Port(port));
    };
    let (host, port) = service.rsplit_once(':').ok_or_else(no_port)?;
    let port = port.parse().map_err(|_| no_port())?;
    Ok(NamedPort::Service(bracketed(host), port))
}

/// What `REDIS_HOST` may be: `host`, `host:port`, an IPv6 address, or `[address]:port`.
fn parse_host(text: &str) -> Result<(String, Option<u16>)> {
    let is_plain = |text: &str| !text.is_empty() && !text.contains(['/', '@', '?', '#']);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.map(str::parse).transpose().ok();
    port.filter(|_| is_plain(host))
        .map(|port| (bracketed(host), port))
        .ok_or_else(|| {
            config_error(format!(
                "REDIS_HOST is `{text}`, which is neither a host nor host:port; a URL belongs into \
                 SYNCED_MEMORY_URL"
            ))
        })
}

/// A host as it stands in a URL.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// The target of a URL; its options are set in `settings`. No message repeats the URL, which may
/// hold a password.
pub(super) fn parse(url: &str, settings: &mut Settings) -> Result<Target> {
    let scheme_of = url.split_once(':').map(|(scheme, _)| scheme.trim_start());
    if let Some(scheme) = scheme_of
        && let Some(found) = find_scheme(&scheme.to_ascii_lowercase())
        && let TargetParser::Hosts(target) = found.target
    {
        return target(parse_hosts(url)?, settings);
    }
    let url = Url::parse(url).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            config_error(format!("the URL has no scheme: {}", usages()))
        }
        error => config_error(Reason::caused_by("the URL cannot be read", error)),
    })?;
    match find_scheme(url.scheme()).map(|scheme| &scheme.target) {
        Some(TargetParser::Url(target)) => target(&url, settings),
        Some(TargetParser::Hosts(target)) => target(parse_hosts(url.as_str())?, settings),
        None => Err(unknown_scheme(url.scheme())),
    }
}

fn find_scheme(name: &str) -> Option<&'static Scheme> {
    SCHEMES.iter().find(|scheme| scheme.name == name)
}

fn unknown_scheme(scheme: &str) -> Error {
    config_error(format!("the scheme `{scheme}:` is unknown: {}", usages()))
}

/// What a URL may look like.
fn usages() -> String {
    let usages: Vec<_> = SCHEMES.iter().map(|scheme| scheme.usage).collect();
    format!("write {}", usages.join(", "))
}

/// Sets the options in a URL's query. `scheme_option` takes those that only this scheme has.
pub(super) fn read_options<T: AsRef<str>>(
    scheme: &str,
    query: impl Iterator<Item = (T, T)>,
    settings: &mut Settings,
    scheme_option: &mut dyn FnMut(&str, &str) -> Result<bool>,
) -> Result<()> {
    for (name, value) in query {
        let (name, value) = (name.as_ref(), value.as_ref());
        if !settings.set_from_text(name, value)? && !scheme_option(name, value)? {
            return Err(unknown_option(name, scheme));
        }
    }
    Ok(())
}

/// The same of a URL with one host, or none.
fn read_url_options(
    url: &Url,
    settings: &mut Settings,
    scheme_option: &mut dyn FnMut(&str, &str) -> Result<bool>,
) -> Result<()> {
    read_options(url.scheme(), url.query_pairs(), settings, scheme_option)?;
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
    read_url_options(url, settings, &mut |_, _| Ok(false))?;
    if url.has_authority() {
        return Err(config_error(
            "what lives in this process alone is given as memory: or memory:name, without `//`",
        ));
    }
    Ok(Target::Process(percent_decoded(url.path())?))
}

#[cfg(not(feature = "redis"))]
fn server_target(_: &Url, _: &mut Settings) -> Result<Target> {
    Err(config_error("a server needs the feature `redis`"))
}

/// `redis://` and its relatives.
#[cfg(feature = "redis")]
fn server_target(url: &Url, settings: &mut Settings) -> Result<Target> {
    use redis::{ConnectionAddr, IntoConnectionInfo};

    let mut user = percent_decoded(url.username())?;
    let mut password = url.password().map(percent_decoded).transpose()?;
    let mut database = 0;
    let is_unix = url.scheme() == "redis+unix";
    read_url_options(url, settings, &mut |name, value| {
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
    let user = Some(user).filter(|user| !user.is_empty());
    let login = login(user, password, database);
    let server = address
        .into_connection_info()
        .map_err(|error| config_error(error.to_string()))?;
    Ok(Target::Redis {
        server: server.set_redis_settings(login),
        target,
        security: security(url.scheme())?,
        credentials: None,
    })
}

/// The login that a URL says.
#[cfg(feature = "redis")]
pub(super) fn login(
    user: Option<String>,
    password: Option<String>,
    database: i64,
) -> redis::RedisConnectionInfo {
    let mut login = redis::RedisConnectionInfo::default().set_db(database);
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    login
}

/// How a scheme protects what is sent.
#[cfg(feature = "redis")]
#[cfg_attr(
    feature = "tls",
    allow(clippy::unnecessary_wraps, reason = "it fails without the feature")
)]
fn security(scheme: &str) -> Result<Security> {
    match scheme {
        #[cfg(feature = "tls")]
        "rediss" | "valkeys" => Ok(Security::Tls(None)),
        #[cfg(not(feature = "tls"))]
        "rediss" | "valkeys" => Err(config_error(format!("`{scheme}:` needs the feature `tls`"))),
        _ => Ok(Security::None),
    }
}

#[cfg(feature = "redis")]
pub(super) fn parse_database(text: &str) -> Result<i64> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| config_error("the database in the URL is no number"))
}

#[cfg(not(feature = "sqlite"))]
fn file_target(_: &Url, _: &mut Settings) -> Result<Target> {
    Err(config_error("an embedded file needs the feature `sqlite`"))
}

/// `sqlite:path`, relative or absolute. The path is made absolute here: the process may change its
/// directory, and SQLite gives names such as `:memory:` a meaning of their own.
#[cfg(feature = "sqlite")]
fn file_target(url: &Url, settings: &mut Settings) -> Result<Target> {
    read_url_options(url, settings, &mut |_, _| Ok(false))?;
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

pub(super) fn percent_decoded(text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into)
        .map_err(|_| config_error("the URL is not UTF-8 once its `%` are resolved"))
}

pub(super) fn config_error(what: impl Into<Reason>) -> Error {
    Error::new(ErrorKind::Config, what)
}
