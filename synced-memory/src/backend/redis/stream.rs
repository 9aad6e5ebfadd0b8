//! The byte stream to a server: TCP or a Unix socket. A new kind of line, such as TLS, is a variant
//! of [`Transport`].
//!
//! It notes when the other side showed that it is there, and writes in a way that never raises
//! SIGPIPE: a server that goes away must not kill a process whose SIGPIPE is at its default.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::select_ok;
use redis::ConnectionAddr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::resolver;
use crate::base::clock::LastActivity;

/// A line to a server.
///
/// It offers no vectored writes, which `std` makes by `writev`, and `writev` raises SIGPIPE.
pub(super) struct Stream {
    transport: Transport,
    activity: Arc<LastActivity>,
    /// The last write found no room.
    is_full: bool,
}

enum Transport {
    /// `std` writes to it by `send` with `MSG_NOSIGNAL`, or sets `SO_NOSIGPIPE`.
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Stream {
    pub(super) async fn open(address: &ConnectionAddr) -> io::Result<Self> {
        let transport = match address {
            ConnectionAddr::Tcp(host, port) => Transport::Tcp(open_tcp(host, *port).await?),
            ConnectionAddr::Unix(path) => open_unix(path).await?,
            _ => return Err(unsupported("this kind of address is not supported")),
        };
        Ok(Self {
            transport,
            activity: Arc::new(LastActivity::now()),
            is_full: false,
        })
    }

    /// When the other side last sent something, or made room for a write that waited.
    pub(super) fn activity(&self) -> Arc<LastActivity> {
        Arc::clone(&self.activity)
    }
}

/// Connects to whichever address of the host answers first.
async fn open_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = resolver::addresses(host, port).await?;
    let attempts: Vec<_> = addresses
        .into_iter()
        .map(|address| Box::pin(TcpStream::connect(address)))
        .collect();
    if attempts.is_empty() {
        let what = "the host has no address";
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    let (stream, _) = select_ok(attempts).await?;
    // A small request must not wait for the acknowledgement of the one before (Nagle).
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(unix)]
async fn open_unix(path: &Path) -> io::Result<Transport> {
    tokio::net::UnixStream::connect(path)
        .await
        .map(Transport::Unix)
}

#[cfg(not(unix))]
async fn open_unix(_: &Path) -> io::Result<Transport> {
    Err(unsupported("there are no Unix sockets on this platform"))
}

fn unsupported(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// `std` writes to Unix sockets by `write`, which raises SIGPIPE if the other side is gone.
#[cfg(unix)]
fn poll_send(
    stream: &tokio::net::UnixStream,
    context: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    use rustix::net::{SendFlags, send};

    // There the socket itself is set not to raise it, when it is made.
    #[cfg(target_vendor = "apple")]
    const FLAGS: SendFlags = SendFlags::empty();
    #[cfg(not(target_vendor = "apple"))]
    const FLAGS: SendFlags = SendFlags::NOSIGNAL;

    loop {
        ready!(stream.poll_write_ready(context))?;
        let sent = stream.try_io(tokio::io::Interest::WRITABLE, || {
            send(stream, bytes, FLAGS).map_err(io::Error::from)
        });
        match sent {
            // It was not ready after all, and is not marked so any more.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return Poll::Ready(sent),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(unix)]
            Transport::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if buffer.filled().len() > before {
            self.activity.note();
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(unix)]
            Transport::Unix(stream) => poll_send(stream, context, bytes),
        };
        // What goes into a buffer that has room says nothing about the other side.
        let was_full = std::mem::replace(&mut self.is_full, written.is_pending());
        if was_full && matches!(written, Poll::Ready(Ok(_))) {
            self.activity.note();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(unix)]
            Transport::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(unix)]
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
