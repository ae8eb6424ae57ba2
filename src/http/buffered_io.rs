//! The byte stream of an accepted connection. Code that has read too many bytes can put the surplus bytes back. The
//! stream collects small writes and sends them together. An idle connection has no buffer.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// The size of the write buffer, in bytes. It is sufficient for the head of a response and a small body. Writes that
/// fit into the buffer are sent at the next flush.
const WRITE_BUFFER_BYTES: usize = 4 << 10;

/// The byte stream of an accepted connection, with a read buffer and a write buffer.
#[derive(Debug)]
pub(crate) struct BufferedIo {
    stream: TcpStream,
    /// The bytes that were put back. The next reads return them.
    read_buffer: Bytes,
    /// The bytes that were written to this stream, but were not sent to the socket yet.
    write_buffer: Vec<u8>,
    /// Whether a read has found the end of the peer's direction.
    peer_has_ended: bool,
    digest: Arc<SocketDigest>,
}

impl BufferedIo {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr) -> Self {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let _ = digest.peer_addr.set(Some(PeerAddr::Inet(peer)));
        let (read_buffer, write_buffer) = (Bytes::new(), Vec::new());
        Self { stream, read_buffer, write_buffer, peer_has_ended: false, digest: Arc::new(digest) }
    }

    /// Puts back bytes that were read too early. The next read returns these bytes again.
    pub(crate) fn rewind(&mut self, bytes: Bytes) {
        self.read_buffer = if self.read_buffer.is_empty() {
            bytes
        } else {
            [bytes, self.read_buffer.clone()].concat().into()
        };
    }

    /// Waits until the connection has data to read or is closed. May return without data, because tokio treats the
    /// socket as readable until a read attempt finds no data.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        if self.read_buffer.is_empty() { self.stream.readable().await } else { Ok(()) }
    }

    /// Waits until the connection has data to read or is closed. Unlike [`BufferedIo::readable`], this function asks
    /// the kernel, so it never returns without data.
    pub(crate) async fn wait_for_data(&self) {
        if self.read_buffer.is_empty() {
            let _ = self.stream.peek(&mut [0]).await;
        }
    }

    fn poll_write_buffer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        let result = loop {
            let Some(rest) = self.write_buffer.get(written..).filter(|rest| !rest.is_empty()) else {
                break Poll::Ready(Ok(()));
            };
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => written += n,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if written == self.write_buffer.len() {
            self.write_buffer = Vec::new();
        } else {
            self.write_buffer.drain(..written);
        }
        result
    }
}

impl AsyncRead for BufferedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_buffer.is_empty() {
            let room = buffer.remaining();
            let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
            self.peer_has_ended |=
                matches!(polled, Poll::Ready(Ok(()))) && room > 0 && buffer.remaining() == room;
            return polled;
        }
        let bytes = self.read_buffer.len().min(buffer.remaining());
        buffer.put_slice(self.read_buffer.get(..bytes).unwrap_or_default());
        self.read_buffer.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BufferedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.write_buffer.len() + bytes.len() <= WRITE_BUFFER_BYTES {
            if self.write_buffer.capacity() == 0 {
                self.write_buffer.reserve_exact(WRITE_BUFFER_BYTES);
            }
            self.write_buffer.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_write_buffer(context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_buffer(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_buffer(context))?;
        // The caller must drop this stream after the shutdown. If the peer has ended its direction, only the drop ends
        // this direction, with one system call less.
        if self.peer_has_ended {
            Poll::Ready(Ok(()))
        } else {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }
}

#[async_trait]
impl Shutdown for BufferedIo {
    async fn shutdown(&mut self) {
        // Shutting down fails only if the peer has already closed the connection.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for BufferedIo {
    fn id(&self) -> UniqueIDType {
        self.stream.as_raw_fd()
    }
}

impl Ssl for BufferedIo {}

impl Peek for BufferedIo {}

impl GetTimingDigest for BufferedIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for BufferedIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for BufferedIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.digest = Arc::new(digest);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn connection() -> (TcpStream, BufferedIo) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        (peer, BufferedIo::new(stream, address))
    }

    #[tokio::test]
    async fn a_shutdown_ends_the_connection_unless_the_peer_has_ended_and_a_drop_ends_it_anyway() {
        // The third case reads into an empty buffer, which finds no end.
        for (peer_ends, reads) in [(false, 0), (true, 1), (true, 0)] {
            let (mut peer, mut io) = connection().await;
            peer.write_all(b"ask").await.unwrap();
            if peer_ends {
                peer.shutdown().await.unwrap();
            }
            io.read_exact(&mut [0; 3]).await.unwrap();
            assert_eq!(if peer_ends { io.read(&mut vec![0; reads]).await.unwrap() } else { 0 }, 0);
            io.write_all(b"answer").await.unwrap();
            AsyncWriteExt::shutdown(&mut io).await.unwrap();
            let mut answer = [0; 6];
            peer.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"answer");
            if peer_ends && reads > 0 {
                let early = tokio::time::timeout(Duration::from_millis(50), peer.read(&mut answer)).await;
                assert!(early.is_err(), "only the drop ends the connection");
                drop(io);
            }
            assert_eq!(peer.read(&mut answer).await.unwrap(), 0);
        }
    }
}
