//! The map of the user's from the addresses that servers name to those at which they are reached.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::base::lock::assert_unlocked;

/// Code of the user's that says where a server is reached whose address another server names.
#[derive(Clone)]
pub(crate) struct AddressMap(Arc<MapAddress>);

type MapAddress = dyn Fn(&str, u16) -> (String, u16) + Send + Sync;

impl fmt::Debug for AddressMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddressMap")
    }
}

impl AddressMap {
    pub(crate) fn new(map: impl Fn(&str, u16) -> (String, u16) + Send + Sync + 'static) -> Self {
        Self(Arc::new(map))
    }

    /// Calls it, on this thread. An IPv6 address has no brackets, before and after.
    ///
    /// # Errors
    ///
    /// What is wrong: it panicked, or returned no address.
    pub(crate) fn call(&self, host: &str, port: u16) -> Result<(String, u16), String> {
        assert_unlocked();
        let mapped = catch_unwind(AssertUnwindSafe(|| (self.0)(host, port)));
        let (mapped, to_port) = mapped.map_err(|_| {
            format!("`addresses` panicked when it was called with `{host}` and {port}")
        })?;
        let bare = mapped
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let bare = bare.unwrap_or(&mapped);
        if bare.is_empty() || to_port == 0 {
            return Err(format!(
                "`addresses` returns no address for `{host}` and {port}: `{mapped}` and {to_port}"
            ));
        }
        Ok((bare.to_owned(), to_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_mapped_and_a_panic_is_an_error() {
        let map = AddressMap::new(|host, port| match host {
            "panic" => panic!("on purpose"),
            "ipv6" => ("[::1]".to_owned(), port),
            "nowhere" => (String::new(), port),
            _ => (format!("{host}.example.com"), port + 1),
        });
        assert_eq!(map.call("db", 1), Ok(("db.example.com".to_owned(), 2)));
        assert_eq!(map.call("ipv6", 1), Ok(("::1".to_owned(), 1)));
        assert!(map.call("panic", 7).unwrap_err().contains("`panic` and 7"));
        assert!(map.call("nowhere", 7).unwrap_err().contains("no address"));
        assert!(map.call("ipv6", 0).unwrap_err().contains("no address"));
    }
}
