//! The socket to a server: TCP or a Unix socket.
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

/// A socket that is connected to a server.
///
/// It offers no vectored writes, which `std` makes by `writev`, and `writev` raises SIGPIPE.
pub(super) struct Socket {
    kind: SocketKind,
    activity: Arc<LastActivity>,
    /// The last write found no room.
    is_full: bool,
    #[cfg(feature = "tls")]
    failed_write: FailedWrite,
}

/// What becomes of a write that failed.
#[cfg(feature = "tls")]
enum FailedWrite {
    ReportedAtOnce,
    /// There was none, or what arrived before it is read first.
    ReportedAfterReads(Option<io::Error>),
}

enum SocketKind {
    /// `std` writes to it by `send` with `MSG_NOSIGNAL`, or sets `SO_NOSIGPIPE`.
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Socket {
    pub(super) async fn open(address: &ConnectionAddr) -> io::Result<Self> {
        let kind = match address {
            ConnectionAddr::Tcp(host, port) => SocketKind::Tcp(open_tcp(host, *port).await?),
            ConnectionAddr::Unix(path) => open_unix(path).await?,
            _ => return Err(unsupported("this kind of address is not supported")),
        };
        Ok(Self {
            kind,
            activity: Arc::new(LastActivity::now()),
            is_full: false,
            #[cfg(feature = "tls")]
            failed_write: FailedWrite::ReportedAtOnce,
        })
    }

    /// The same with the failure of a write reported by reads, after what arrived before it.
    ///
    /// A server says in a TLS alert why it refuses a connection, and closes it, perhaps in the
    /// middle of what is still being sent: whoever writes first would never read the reason.
    #[cfg(feature = "tls")]
    pub(super) fn reporting_after_reads(self) -> Self {
        Self {
            failed_write: FailedWrite::ReportedAfterReads(None),
            ..self
        }
    }

    fn poll_read_socket(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.kind {
            SocketKind::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(unix)]
            SocketKind::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }

    fn poll_write_socket(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            SocketKind::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(unix)]
            SocketKind::Unix(stream) => poll_send(stream, context, bytes),
        }
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
async fn open_unix(path: &Path) -> io::Result<SocketKind> {
    tokio::net::UnixStream::connect(path)
        .await
        .map(SocketKind::Unix)
}

#[cfg(not(unix))]
async fn open_unix(_: &Path) -> io::Result<SocketKind> {
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

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.poll_read_socket(context, buffer);
        if buffer.filled().len() > before {
            self.activity.note();
            return read;
        }
        #[cfg(feature = "tls")]
        if read.is_ready()
            && let FailedWrite::ReportedAfterReads(failure) = &mut self.failed_write
            && let Some(error) = failure.take()
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_write_socket(context, bytes);
        // What goes into a buffer that has room says nothing about the other side.
        let was_full = std::mem::replace(&mut self.is_full, written.is_pending());
        if was_full && matches!(written, Poll::Ready(Ok(_))) {
            self.activity.note();
        }
        #[cfg(feature = "tls")]
        if let FailedWrite::ReportedAfterReads(failure) = &mut self.failed_write {
            return written.map(|written| {
                written.or_else(|error| {
                    *failure = Some(error);
                    Ok(bytes.len())
                })
            });
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            SocketKind::Tcp(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(unix)]
            SocketKind::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            SocketKind::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(unix)]
            SocketKind::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
