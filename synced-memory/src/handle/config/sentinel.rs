//! `redis-sentinel://host1,host2/service/database`, and the options for servers that others name.

use super::Target;
use super::hosts::HostList;
#[cfg(feature = "redis")]
use super::hosts::shown_nodes;
use super::url::config_error;
#[cfg(feature = "redis")]
use super::url::{login, parse_database};
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
    url.read_options(settings)?;
    let sentinels = url.nodes(DEFAULT_PORT);
    let HostList {
        scheme,
        user,
        password,
        path_segments,
        ..
    } = url;
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
    let shown = shown_nodes(&sentinels);
    Ok(Target::Sentinel(SentinelTarget {
        target: format!("{scheme}://{shown}/{service}/{database}"),
        sentinels,
        service: service.clone(),
        login: login(user, password, database),
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
    let (is_sentinel, is_cluster) = match target {
        #[cfg(feature = "redis")]
        Target::Sentinel(_) => (true, false),
        #[cfg(feature = "redis")]
        Target::Cluster(_) => (false, true),
        _ => (false, false),
    };
    let of_sentinel = [
        ("sentinel_user", settings.sentinel_user.is_some()),
        ("sentinel_password", settings.sentinel_password.is_some()),
    ];
    let of_both = [("tls", settings.tls), ("name", settings.name.is_some())];
    let first_of = |options: [(&'static str, bool); 2], is_meant: bool| {
        let option = options.into_iter().find(|(_, is_set)| *is_set && !is_meant);
        option.map(|(option, _)| option)
    };
    if let Some(option) = first_of(of_sentinel, is_sentinel) {
        return Err(config_error(format!("`{option}` is for redis-sentinel://")));
    }
    match first_of(of_both, is_sentinel || is_cluster) {
        Some("tls") => {
            return Err(config_error(
                "`tls` is for redis-sentinel:// and redis-cluster://: a URL of one server asks for \
                 TLS as rediss:// or valkeys://",
            ));
        }
        Some(option) => {
            return Err(config_error(format!(
                "`{option}` is for redis-sentinel:// and redis-cluster://"
            )));
        }
        None => {}
    }
    if settings.replicas > 0 && !is_server(target) {
        return Err(config_error(
            "`replicas` is for servers: nothing else has any",
        ));
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

fn is_server(target: &Target) -> bool {
    match target {
        #[cfg(feature = "redis")]
        Target::Redis { .. } | Target::Sentinel(_) | Target::Cluster(_) => true,
        _ => false,
    }
}

/// Sets the map of addresses.
///
/// # Errors
///
/// `Config` for a target that no other server names.
#[cfg(feature = "redis")]
pub(super) fn set_addresses(target: &mut Target, map: AddressMap) -> Result<()> {
    let addresses = match target {
        Target::Sentinel(target) => &mut target.addresses,
        Target::Cluster(target) => &mut target.addresses,
        _ => {
            return Err(config_error(
                "`addresses` are for redis-sentinel:// and redis-cluster://, whose servers are \
                 named by others",
            ));
        }
    };
    *addresses = Some(map);
    Ok(())
}
