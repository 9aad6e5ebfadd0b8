//! A Redis Cluster: the promises that one server keeps, while slots move and nodes go.

mod addresses;
mod basics;
mod combined;
mod crew;
mod failovers;
mod growth;
mod moves;
mod outages;
mod redirects;
mod secured;

use std::time::Duration;

use support::Cluster;
use synced_memory::{Builder, Memory};

const DEADLINE: Duration = Duration::from_secs(60);

fn builder(cluster: &Cluster) -> Builder {
    let builder = Memory::builder().url(cluster.url());
    builder.timeout(Duration::from_millis(500))
}

/// A memory that reads what was stored in the end, however busy the machine is.
fn reader_of(builder: Builder) -> Memory {
    builder.timeout(DEADLINE).build().unwrap()
}

/// Whether this is the long form.
fn soak() -> bool {
    std::env::var_os("SYNCED_MEMORY_SOAK").is_some()
}
