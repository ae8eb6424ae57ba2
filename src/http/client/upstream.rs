//! A connection to the agent or to a provider: TCP, a Unix socket, or TLS over TCP.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pingora::tls::ClientTlsStream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The length of the header of a TLS record (RFC 8446 section 5.1), in bytes.
const RECORD_HEADER_BYTES: usize = 5;

/// A byte stream to the agent or to a provider.
pub(crate) enum Upstream {
    /// A plain TCP connection.
    Tcp(TcpStream),
    /// A TLS connection over TCP.
    Tls(Box<ClientTlsStream<Records>>),
    /// A connection to a Unix socket.
    Unix(UnixStream),
}

/// The result of checking an idle connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum IdleState {
    /// The peer closed the connection or sent unexpected bytes.
    Ended,
    /// The connection is open, and the peer has sent no bytes.
    Quiet,
}

impl Upstream {
    /// Asks the kernel whether the peer has closed the connection or sent any bytes. tokio's own state of the socket
    /// may be outdated when the workers are busy. Unexpected bytes that are not noticed here would be mistaken for the
    /// next response.
    pub(crate) fn idle_state(&mut self) -> IdleState {
        match self {
            Self::Tcp(stream) => peek(stream),
            Self::Unix(stream) => peek(stream),
            Self::Tls(stream) => tls_idle_state(stream),
        }
    }
}

/// Checks whether a non-blocking socket is still idle. Unread bytes, or a closed connection, end the idle state.
fn peek(socket: &impl AsFd) -> IdleState {
    let mut byte = [MaybeUninit::uninit()];
    match SockRef::from(socket).peek(&mut byte) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => IdleState::Quiet,
        Ok(_) | Err(_) => IdleState::Ended,
    }
}

/// Checks whether a TLS connection is still idle. Unread bytes in the socket or in the TLS session, or a closed
/// connection, end the idle state.
fn tls_idle_state(stream: &mut ClientTlsStream<Records>) -> IdleState {
    if peek(&stream.get_ref().0.stream) == IdleState::Ended {
        // The unread bytes may be TLS 1.3 session tickets, which can arrive at any time. A read consumes session
        // tickets without returning data.
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        let read = Pin::new(&mut *stream).poll_read(&mut context, &mut buffer);
        if read.is_ready() || peek(&stream.get_ref().0.stream) == IdleState::Ended {
            return IdleState::Ended;
        }
    }
    let (records, session) = stream.get_mut();
    let is_empty = session
        .process_new_packets()
        .is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed());
    if is_empty && records.is_at_boundary() { IdleState::Quiet } else { IdleState::Ended }
}

/// The TCP stream below a TLS session. This type tracks the boundaries of TLS records, because the TLS library does not
/// report whether it has buffered an incomplete record.
pub(crate) struct Records {
    stream: TcpStream,
    boundary: RecordBoundary,
}

impl Records {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, boundary: RecordBoundary::default() }
    }

    fn is_at_boundary(&self) -> bool {
        self.boundary.header_bytes == 0 && self.boundary.body_bytes_left == 0
    }
}

/// A position within a sequence of TLS records.
#[derive(Debug, Default)]
struct RecordBoundary {
    /// The number of bytes of the current TLS record header that were already read.
    header_bytes: usize,
    /// The two bytes that were read last from the current TLS record header. When the header is complete, these bytes
    /// are the length of the record body.
    length: u16,
    /// The number of bytes of the current TLS record body that are still unread.
    body_bytes_left: usize,
}

impl RecordBoundary {
    fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.body_bytes_left > 0 {
                let skipped = self.body_bytes_left.min(bytes.len());
                self.body_bytes_left -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            self.length = (self.length << 8) | u16::from(*first);
            self.header_bytes += 1;
            if self.header_bytes == RECORD_HEADER_BYTES {
                // The last two bytes of the header are the length. The shift has dropped the bytes before them.
                self.body_bytes_left = usize::from(self.length);
                (self.header_bytes, self.length) = (0, 0);
            }
            bytes = rest;
        }
    }
}

impl AsyncRead for Records {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.boundary.advance(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Records {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_boundaries_are_found_in_reads_of_any_size() {
        let records = [&[23, 3, 3, 0, 3, 1, 2, 3][..], &[22, 3, 3, 1, 0], &[9; 256]].concat();
        for size in [1, 2, 3, 5, 8, 100, records.len()] {
            let (mut boundary, mut read) = (RecordBoundary::default(), 0);
            for piece in records.chunks(size) {
                boundary.advance(piece);
                read += piece.len();
                let at_boundary = boundary.header_bytes == 0 && boundary.body_bytes_left == 0;
                assert_eq!(at_boundary, [8, records.len()].contains(&read), "{read} bytes by {size}");
            }
        }
    }
}
