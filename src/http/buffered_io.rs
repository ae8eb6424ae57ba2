//! The bytes of one connection: what was read too far is read again, small writes leave as one, and an idle
//! connection holds no buffer.

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

/// Writes up to this size, in bytes, are gathered until somebody flushes: the head of an answer and a small body.
const GATHERED_BYTES_MAX: usize = 4 << 10;

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct BufferedIo {
    stream: TcpStream,
    /// What was read and is to be read again.
    front: Bytes,
    /// What was written and has not left.
    gathered: Vec<u8>,
    digest: Arc<SocketDigest>,
}

impl BufferedIo {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr) -> Self {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let _ = digest.peer_addr.set(Some(PeerAddr::Inet(peer)));
        Self { stream, front: Bytes::new(), gathered: Vec::new(), digest: Arc::new(digest) }
    }

    /// Puts back what was read last.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.front = if self.front.is_empty() { bytes } else { [bytes, self.front.clone()].concat().into() };
    }

    /// Waits until there is something to read, or its end.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        if self.front.is_empty() { self.stream.readable().await } else { Ok(()) }
    }

    /// The same, asking the system each time: `readable` may return early, after a read that filled its buffer.
    pub(crate) async fn something_came(&self) {
        if self.front.is_empty() {
            let _ = self.stream.peek(&mut [0]).await;
        }
    }

    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gone = 0;
        let result = loop {
            let Some(rest) = self.gathered.get(gone..).filter(|rest| !rest.is_empty()) else {
                break Poll::Ready(Ok(()));
            };
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => gone += n,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if gone == self.gathered.len() {
            self.gathered = Vec::new();
        } else {
            self.gathered.drain(..gone);
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
        if self.front.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let bytes = self.front.len().min(buffer.remaining());
        buffer.put_slice(self.front.get(..bytes).unwrap_or_default());
        self.front.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BufferedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.gathered.len() + bytes.len() <= GATHERED_BYTES_MAX {
            if self.gathered.capacity() == 0 {
                self.gathered.reserve_exact(GATHERED_BYTES_MAX);
            }
            self.gathered.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_leave(context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_leave(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_leave(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for BufferedIo {
    async fn shutdown(&mut self) {
        // A peer that is gone is told nothing.
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
