//! Addresses of hosts. The runtime's own resolver panics in a process that cannot start another
//! thread; this one fails, and is asked again with the next attempt to connect.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;

use redis::RedisFuture;
use redis::io::AsyncDNSResolver;
use tokio::sync::oneshot;

/// Resolves on a thread of its own, which ends with the answer: the C library blocks.
pub(super) struct Resolver;

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        let host = host.to_owned();
        Box::pin(async move {
            let addresses: Box<dyn Iterator<Item = SocketAddr> + Send> = match host.parse() {
                Ok(ip) => Box::new(std::iter::once(SocketAddr::new(ip, port))),
                Err(_) => Box::new(addresses(host, port).await?.into_iter()),
            };
            Ok(addresses)
        })
    }
}

async fn addresses(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (sender, resolved) = oneshot::channel();
    let resolve = move || {
        (host.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect)
    };
    thread::Builder::new()
        .name("synced-memory-dns".to_owned())
        .spawn(move || _ = sender.send(resolve()))?;
    resolved
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the resolver panicked")))
}
