//! Addresses of hosts. The runtime's own resolver panics in a process that cannot start another
//! thread; this one fails, and is asked again with the next attempt to connect.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;

use tokio::sync::oneshot;

/// The addresses of a host. They are looked up on a thread of its own, which ends with the answer:
/// the C library blocks.
pub(super) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (sender, resolved) = oneshot::channel();
    let host = host.to_owned();
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
