//! Reads and discards the bytes that a caller still sends after a denial. If the connection were closed with unread
//! data, a TCP reset could destroy the response before the caller reads it (RFC 9112 section 9.6).

use std::time::Duration;

use pingora::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::session::Session;

/// The maximum number of bytes that are discarded before a connection is closed.
const BYTES_MAX: usize = 2 << 20;

/// The size of the buffer for discarded data, in bytes.
const READ_BYTES: usize = 16 << 10;

/// Closes the sending direction of the connection. Then discards the bytes that the peer sends, until the peer closes
/// its own direction or has sent `BYTES_MAX` bytes.
pub(crate) async fn close(stream: &mut Stream) {
    let _ = AsyncWriteExt::shutdown(stream).await;
    let (mut buffer, mut bytes_left) = (vec![0; READ_BYTES], BYTES_MAX);
    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
        match bytes_left.checked_sub(bytes) {
            Some(rest) => bytes_left = rest,
            None => return,
        }
    }
}

/// Reads and discards the body of a denied request. Stops after `BYTES_MAX` bytes or after `deadline`.
pub(crate) async fn discard_body(session: &mut Session, deadline: Duration) {
    let mut bytes_left = BYTES_MAX;
    let _ = timeout(deadline, async {
        while let Ok(Some(data)) = session.read_body().await {
            match bytes_left.checked_sub(data.len()) {
                Some(rest) => bytes_left = rest,
                None => return,
            }
        }
    })
    .await;
}
