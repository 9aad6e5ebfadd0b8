//! `redis-cluster://host1,host2`.

use super::Target;
use super::hosts::HostList;
use super::url::config_error;
use crate::base::error::Result;
use crate::base::settings::Settings;
#[cfg(feature = "redis")]
use {super::hosts::shown_nodes, super::url::login, crate::backend::open::ClusterTarget};

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
    url.read_options(settings)?;
    let seeds = url.nodes(DEFAULT_PORT);
    let HostList {
        scheme,
        user,
        password,
        path_segments,
        ..
    } = url;
    if !path_segments.iter().all(|segment| segment == "0") || path_segments.len() > 1 {
        return Err(config_error(format!(
            "a cluster has only the database 0: write {scheme}://host1,host2"
        )));
    }
    Ok(Target::Cluster(ClusterTarget {
        target: format!("{scheme}://{}", shown_nodes(&seeds)),
        seeds,
        login: login(user, password, 0),
        credentials: None,
        addresses: None,
        #[cfg(feature = "tls")]
        tls_config: None,
    }))
}
