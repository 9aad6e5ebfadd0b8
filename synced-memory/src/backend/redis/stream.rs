//! The byte stream to a server: a socket, or TLS over it.
//!
//! It keeps what explains why a login failed: the client library hides the error of the stream, and
//! under TLS 1.3 a server refuses a client's certificate only after the handshake.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;
#[cfg(feature = "tls")]
use super::tls::{Tls, TlsFailure};
use crate::base::clock::LastActivity;

/// A line to a server. As a socket, it offers no vectored writes.
pub(super) struct Stream {
    transport: Transport,
    activity: Arc<LastActivity>,
    failure: Arc<OnceLock<StreamFailure>>,
    /// Something has arrived.
    has_received: bool,
}

enum Transport {
    Plain(Socket),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<Socket>>),
}

/// Why a stream can be used no more, as far as it says more than the error that its user gets.
#[derive(Debug)]
pub(super) enum StreamFailure {
    /// The other side closed it before it had sent anything.
    ClosedUnanswered,
    /// The other side answered in TLS to what was sent in plain text.
    AnsweredInTls,
    #[cfg(feature = "tls")]
    Tls(TlsFailure),
}

/// What a TLS record begins with that holds an alert.
const TLS_ALERT: u8 = 21;

impl Stream {
    /// A stream without TLS.
    pub(super) fn plain(socket: Socket) -> Self {
        let activity = socket.activity();
        Self::of(Transport::Plain(socket), activity)
    }

    /// A stream with TLS over this socket to `host`; it ends with the handshake.
    #[cfg(feature = "tls")]
    pub(super) async fn secure(socket: Socket, host: &str, tls: &Tls) -> Result<Self, TlsFailure> {
        // Of what is below TLS: a record that arrives in parts shows that the server is there.
        let activity = socket.activity();
        let stream = tls.handshake(host, socket.reporting_after_reads()).await?;
        Ok(Self::of(Transport::Tls(Box::new(stream)), activity))
    }

    fn of(transport: Transport, activity: Arc<LastActivity>) -> Self {
        Self {
            transport,
            activity,
            failure: Arc::default(),
            has_received: false,
        }
    }

    /// When the other side last sent something, or made room for a write that waited.
    pub(super) fn activity(&self) -> Arc<LastActivity> {
        Arc::clone(&self.activity)
    }

    /// Why it can be used no more, once it was used.
    pub(super) fn failure(&self) -> Arc<OnceLock<StreamFailure>> {
        Arc::clone(&self.failure)
    }

    fn poll_read_transport(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }

    /// Keeps the first failure.
    fn note_failure(&self, failure: StreamFailure) {
        let _ = self.failure.set(failure);
    }

    /// Notes what is known of an error. `io::Error`s of a socket say nothing that their text does
    /// not say.
    fn note_error(&self, error: &io::Error) {
        #[cfg(feature = "tls")]
        if let Some(failure) = TlsFailure::of_stream(error) {
            self.note_failure(StreamFailure::Tls(failure));
        }
        // Some close a connection with what they have not read, which resets it.
        let is_closed = matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        );
        if is_closed && !self.has_received {
            self.note_failure(StreamFailure::ClosedUnanswered);
        }
    }

    fn note_read(&mut self, read: &io::Result<()>, arrived: &[u8]) {
        match (read, arrived.first()) {
            (Err(error), _) => self.note_error(error),
            _ if self.has_received => {}
            (Ok(()), None) => self.note_failure(StreamFailure::ClosedUnanswered),
            (Ok(()), Some(first)) => {
                self.has_received = true;
                if *first == TLS_ALERT && matches!(self.transport, Transport::Plain(_)) {
                    self.note_failure(StreamFailure::AnsweredInTls);
                }
            }
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
        let room = buffer.remaining();
        let read = ready!(self.poll_read_transport(context, buffer));
        if room > 0 {
            self.note_read(&read, &buffer.filled()[before..]);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        if let Poll::Ready(Err(error)) = &written {
            self.note_error(error);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_flush(context),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        if let Poll::Ready(Err(error)) = &flushed {
            self.note_error(error);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
