//! Opens a tunnel through a forward proxy with the method CONNECT (RFC 9110 section 9.3.6).

use std::fmt;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::fault::ResponseFault;
use super::response_head::read_final_head;

/// The reason why a forward proxy did not open a tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TunnelFault {
    /// The proxy closed the connection before it sent a response.
    Closed,
    /// The response of the proxy is not the head of an HTTP/1 response, or more bytes follow the head.
    Garbled,
    /// The status of the proxy's response, which is not 2xx.
    Refused(u16),
}

impl fmt::Display for TunnelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("it closed the connection before it answered"),
            Self::Garbled => f.write_str("its answer to CONNECT is not HTTP/1"),
            Self::Refused(407) => f.write_str(
                "it answered CONNECT with status 407: it asks for credentials, or does not accept those in \
                 `outbound_proxy.credentials`",
            ),
            Self::Refused(status) => write!(f, "it answered CONNECT with status {status}"),
        }
    }
}

/// Sends `request`, a CONNECT request, to a forward proxy, and reads the head of the response. The size of the head is
/// limited. After success, the stream is connected to the target of the CONNECT request.
///
/// # Errors
/// Returns a [`TunnelFault`] if the proxy did not open the tunnel. The connection must then be closed.
pub(crate) async fn open_tunnel(stream: &mut TcpStream, request: &[u8]) -> Result<(), TunnelFault> {
    // A failed write is ignored, because the proxy may have responded before it closed the connection.
    let _ = stream.write_all(request).await;
    let (head, rest) = read_final_head(stream, false).await.map_err(|fault| match fault {
        ResponseFault::Reset => TunnelFault::Closed,
        _ => TunnelFault::Garbled,
    })?;
    match head.status.as_u16() {
        // The tunnel begins directly after the head, because a 2xx response to CONNECT has no body. The target sends no
        // bytes before the client, neither with TLS nor with HTTP.
        200..=299 if rest.is_empty() => Ok(()),
        200..=299 => Err(TunnelFault::Garbled),
        status => Err(TunnelFault::Refused(status)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Sends CONNECT to a proxy that responds with `answer` and then closes the connection.
    async fn ask(answer: &'static [u8]) -> Result<(), TunnelFault> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        let asked = open_tunnel(&mut ours, b"CONNECT a:1 HTTP/1.1\r\n\r\n");
        let answered = async {
            let _ = theirs.read(&mut [0; 100]).await.unwrap();
            let _ = theirs.write_all(answer).await;
            theirs.shutdown().await.unwrap();
            // Reads until the client closes the connection, so that no unread data causes a reset.
            while !matches!(theirs.read(&mut [0; 4096]).await, Ok(0) | Err(_)) {}
        };
        tokio::select! {
            asked = asked => asked,
            () = answered => panic!("the client waits for more"),
        }
    }

    #[tokio::test]
    async fn a_tunnel_is_open_after_a_2xx_head_and_nothing_else() {
        let huge: &[u8] = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), b"y".repeat(200_000)].concat().leak();
        for (answer, expected) in [
            (&b"HTTP/1.1 200 Connection established\r\n\r\n"[..], Ok(())),
            (b"HTTP/1.0 200 OK\r\nvia: x\r\n\r\n", Ok(())),
            (b"HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
            // A 2xx response to CONNECT has no body, even if it has the header `Content-Length`.
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Ok(())),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Err(TunnelFault::Garbled)),
            (b"HTTP/1.1 407 Who\r\ncontent-length: 5\r\n\r\nhello", Err(TunnelFault::Refused(407))),
            (
                b"HTTP/1.1 302 Found\r\nlocation: http://login.example/\r\n\r\n",
                Err(TunnelFault::Refused(302)),
            ),
            (b"HTTP/1.1 503 Busy\r\n\r\n", Err(TunnelFault::Refused(503))),
            (b"HTTP/1.1 101 Switching\r\n\r\n", Err(TunnelFault::Garbled)),
            (b"<html>", Err(TunnelFault::Garbled)),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Err(TunnelFault::Garbled)),
            (b"HTTP/1.1 200 OK\r\n", Err(TunnelFault::Closed)),
            (b"", Err(TunnelFault::Closed)),
            (huge, Err(TunnelFault::Garbled)),
        ] {
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
            assert_eq!(ask(answer).await, expected, "{shown}");
        }
    }
}
