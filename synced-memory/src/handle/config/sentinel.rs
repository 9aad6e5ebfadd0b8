//! `redis-sentinel://host1,host2/service/database`, and the options for servers that others name.

use super::Target;
use super::hosts::HostList;
#[cfg(feature = "redis")]
use super::hosts::shown_hosts;
use super::url::config_error;
#[cfg(feature = "redis")]
use super::url::{parse_database, read_options};
#[cfg(feature = "redis")]
use crate::backend::layout::Node;
#[cfg(feature = "redis")]
use crate::backend::open::SentinelTarget;
#[cfg(feature = "redis")]
use crate::base::address_map::AddressMap;
use crate::base::error::Result;
use crate::base::settings::Settings;

/// The port of a sentinel if the URL has none.
#[cfg(feature = "redis")]
const DEFAULT_PORT: u16 = 26379;

#[cfg(not(feature = "redis"))]
pub(super) fn sentinel_target(_: HostList, _: &mut Settings) -> Result<Target> {
    Err(config_error("a server needs the feature `redis`"))
}

/// The target of a URL.
///
/// # Errors
///
/// `Config`.
#[cfg(feature = "redis")]
pub(super) fn sentinel_target(url: HostList, settings: &mut Settings) -> Result<Target> {
    let HostList {
        scheme,
        user,
        password,
        hosts,
        path_segments,
        query,
    } = url;
    let pairs = query
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    read_options(&scheme, pairs, settings, &mut |_, _| Ok(false))?;
    let (service, database) = match &path_segments[..] {
        [service] if !service.is_empty() => (service, 0),
        [service, database] if !service.is_empty() => (service, parse_database(database)?),
        [_, _, _, ..] => {
            return Err(config_error(format!(
                "the path of a {scheme}:// URL has more than a service and a database: write \
                 {scheme}://host1,host2/service/0"
            )));
        }
        _ => {
            return Err(config_error(format!(
                "the {scheme}:// URL names no service: write {scheme}://host1,host2/service"
            )));
        }
    };
    let hosts: Vec<_> = hosts
        .into_iter()
        .map(|(host, port)| (host, port.unwrap_or(DEFAULT_PORT)))
        .collect();
    let mut login = redis::RedisConnectionInfo::default().set_db(database);
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    Ok(Target::Sentinel(SentinelTarget {
        target: format!("{scheme}://{}/{service}/{database}", shown_hosts(&hosts)),
        sentinels: hosts
            .into_iter()
            .map(|(host, port)| Node {
                host: host.into(),
                port,
            })
            .collect(),
        service: service.clone(),
        login,
        credentials: None,
        addresses: None,
        #[cfg(feature = "tls")]
        tls_config: None,
    }))
}

/// Refuses options that have no effect on this target, or only half of one.
///
/// # Errors
///
/// `Config`.
pub(super) fn check(target: &Target, settings: &Settings) -> Result<()> {
    let set = [
        ("tls", settings.tls),
        ("sentinel_user", settings.sentinel_user.is_some()),
        ("sentinel_password", settings.sentinel_password.is_some()),
        ("name", settings.name.is_some()),
    ];
    let option = set.into_iter().find(|(_, is_set)| *is_set);
    if let Some((option, _)) = option
        && !is_sentinel(target)
    {
        return Err(config_error(match option {
            "tls" => "`tls` is for redis-sentinel://: a URL of one server asks for TLS as \
                      rediss:// or valkeys://"
                .to_owned(),
            _ => format!("`{option}` is for redis-sentinel://"),
        }));
    }
    if settings.tls && cfg!(not(feature = "tls")) {
        return Err(config_error("`tls` needs the feature `tls`"));
    }
    if settings.sentinel_user.is_some() && settings.sentinel_password.is_none() {
        return Err(config_error(
            "`sentinel_user` needs `sentinel_password`, the password of it",
        ));
    }
    if settings.name.as_deref() == Some("") {
        return Err(config_error("`name` is empty"));
    }
    Ok(())
}

/// Sets the map of addresses.
///
/// # Errors
///
/// `Config` for a target that no other server names.
#[cfg(feature = "redis")]
pub(super) fn set_addresses(target: &mut Target, map: AddressMap) -> Result<()> {
    let Target::Sentinel(target) = target else {
        return Err(config_error(
            "`addresses` are for redis-sentinel://, whose servers are named by others",
        ));
    };
    target.addresses = Some(map);
    Ok(())
}

fn is_sentinel(target: &Target) -> bool {
    match target {
        #[cfg(feature = "redis")]
        Target::Sentinel(_) => true,
        _ => false,
    }
}
