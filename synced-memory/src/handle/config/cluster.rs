//! `redis-cluster://host1,host2`.

use super::Target;
use super::hosts::HostList;
use super::url::config_error;
use crate::base::error::Result;
use crate::base::settings::Settings;
#[cfg(feature = "redis")]
use {
    super::hosts::shown_hosts, super::url::read_options, crate::backend::layout::Node,
    crate::backend::open::ClusterTarget,
};

/// The port of a node if the URL has none.
#[cfg(feature = "redis")]
const DEFAULT_PORT: u16 = 6379;

#[cfg(not(feature = "redis"))]
pub(super) fn cluster_target(_: HostList, _: &mut Settings) -> Result<Target> {
    Err(config_error("a server needs the feature `redis`"))
}

/// The target of a URL.
///
/// # Errors
///
/// `Config`.
#[cfg(feature = "redis")]
pub(super) fn cluster_target(url: HostList, settings: &mut Settings) -> Result<Target> {
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
    if !path_segments.iter().all(|segment| segment == "0") || path_segments.len() > 1 {
        return Err(config_error(format!(
            "a cluster has only the database 0: write {scheme}://host1,host2"
        )));
    }
    let hosts: Vec<_> = hosts
        .into_iter()
        .map(|(host, port)| (host, port.unwrap_or(DEFAULT_PORT)))
        .collect();
    let mut login = redis::RedisConnectionInfo::default();
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    Ok(Target::Cluster(ClusterTarget {
        target: format!("{scheme}://{}", shown_hosts(&hosts)),
        seeds: hosts
            .into_iter()
            .map(|(host, port)| Node {
                host: host.into(),
                port,
            })
            .collect(),
        login,
        credentials: None,
        addresses: None,
        #[cfg(feature = "tls")]
        tls_config: None,
    }))
}
