//! Which options of TLS go together, and with which targets.

#[cfg(feature = "tls")]
use std::sync::Arc;

use super::Target;
#[cfg(feature = "tls")]
use crate::backend::open::Security;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::settings::Settings;

/// How a URL asks for TLS.
const HOW_TO_ASK: &str = "which a URL asks for as rediss:// or valkeys://, and one of \
                          redis-sentinel:// or redis-cluster:// by `tls=true`";

/// Refuses options of TLS that have no effect, or only half of one.
///
/// # Errors
///
/// `Config`.
pub(super) fn check(target: &Target, settings: &Settings) -> Result<()> {
    if let Some(option) = options(settings).first()
        && !is_tls(target, settings)
    {
        return Err(config_error(format!("`{option}` needs TLS, {HOW_TO_ASK}")));
    }
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(_), None) => Err(config_error(
            "`tls_cert` needs `tls_key`, the key of it".into(),
        )),
        (None, Some(_)) => Err(config_error(
            "`tls_key` needs `tls_cert`, the certificate of it".into(),
        )),
        _ if settings.tls_insecure && settings.tls_ca.is_some() => Err(config_error(
            "`tls_insecure` verifies nothing, so that `tls_ca` has no effect".into(),
        )),
        _ => Ok(()),
    }
}

/// Sets the configuration that the builder has instead of options.
///
/// # Errors
///
/// `Config`.
#[cfg(feature = "tls")]
pub(super) fn set_config(
    target: &mut Target,
    config: Arc<rustls::ClientConfig>,
    settings: &Settings,
) -> Result<()> {
    let others = options(settings);
    if let Some(option) = others.iter().find(|option| **option != "tls_name") {
        return Err(config_error(format!(
            "`tls_config` says everything that `{option}` could say"
        )));
    }
    match target {
        Target::Redis {
            security: Security::Tls(given),
            ..
        } => *given = Some(config),
        Target::Sentinel(target) if settings.tls => target.tls_config = Some(config),
        Target::Cluster(target) if settings.tls => target.tls_config = Some(config),
        _ => {
            let what = format!("`tls_config` needs TLS, {HOW_TO_ASK}");
            return Err(config_error(what));
        }
    }
    Ok(())
}

/// The names of the options of TLS that are set.
fn options(settings: &Settings) -> Vec<&'static str> {
    let set = [
        ("tls_ca", settings.tls_ca.is_some()),
        ("tls_cert", settings.tls_cert.is_some()),
        ("tls_key", settings.tls_key.is_some()),
        ("tls_name", settings.tls_name.is_some()),
        ("tls_insecure", settings.tls_insecure),
    ];
    set.into_iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(name, _)| name)
        .collect()
}

#[cfg_attr(not(feature = "tls"), allow(unused_variables))]
fn is_tls(target: &Target, settings: &Settings) -> bool {
    match target {
        #[cfg(feature = "tls")]
        Target::Redis { security, .. } => matches!(security, Security::Tls(_)),
        #[cfg(feature = "tls")]
        Target::Sentinel(_) | Target::Cluster(_) => settings.tls,
        _ => false,
    }
}

fn config_error(what: String) -> Error {
    Error::new(ErrorKind::Config, what)
}
