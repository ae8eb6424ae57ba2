//! Tests of the HTTP/1 client over sockets of this host.

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(20);

fn message(body: usize) -> Message {
    let head = format!("POST / HTTP/1.1\r\ncontent-length: {body}\r\n\r\n").into_bytes();
    Message::new(head, vec![b'x'; body].into(), true)
}

/// Sends a request with a body of `body` bytes to a peer that has already sent the response `answer` and closed the
/// connection. Returns the status of the response.
async fn ask_a_closed_peer(answer: &str, body: usize) -> Result<u16, ResponseFault> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(answer.as_bytes()).await.unwrap();
    drop(theirs);
    let connection = Connection::new(Upstream::Unix(ours), 0);
    exchange(connection, message(body), TIMEOUT).await.map(|response| {
        assert!(!response.keep_alive);
        response.status().as_u16()
    })
}

#[tokio::test]
async fn an_answer_counts_although_the_request_could_not_be_written() {
    let busy = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
    let continued = format!("HTTP/1.1 100 Continue\r\n\r\n{busy}");
    for body in [0, 2, ONE_BUFFER_BYTES_MAX + 1, 8 << 20] {
        assert_eq!(ask_a_closed_peer(busy, body).await, Ok(503), "{body}");
        assert_eq!(ask_a_closed_peer(&continued, body).await, Ok(503), "{body}");
        let success = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(ask_a_closed_peer(success, body).await, Err(ResponseFault::Early), "{body}");
        assert_eq!(ask_a_closed_peer("", body).await, Err(ResponseFault::Reset), "{body}");
        assert_eq!(ask_a_closed_peer("HTTP/1.1 503 B", body).await, Err(ResponseFault::Reset), "{body}");
        assert_eq!(ask_a_closed_peer("<html>", body).await, Err(ResponseFault::Garbled), "{body}");
    }
}

/// Sends a body of 64 MiB. The peer sends its response after it has read one byte, and closes the connection. The
/// client must return a response with status 413, and must treat a response with status 200 as an error.
#[tokio::test]
async fn an_answer_counts_although_the_request_is_still_being_written() {
    for (answer, expected) in [
        ("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n", Ok(413)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Err(ResponseFault::Early)),
        ("", Err(ResponseFault::Reset)),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        let connection = Connection::new(Upstream::Tcp(ours), 0);
        let asked = exchange(connection, message(64 << 20), TIMEOUT);
        let answered = async {
            let mut byte = [0];
            theirs.read_exact(&mut byte).await.unwrap();
            theirs.write_all(answer.as_bytes()).await.unwrap();
            // Closing the socket with unread data sends a TCP reset.
            drop(theirs);
        };
        let (asked, ()) = tokio::join!(asked, answered);
        assert_eq!(asked.map(|response| response.status().as_u16()), expected, "{answer:?}");
    }
}

/// Sends a head of 8 MiB and receives a response with status 101. The client must accept this response only if the
/// request asks for WebSocket and the peer has read the whole head.
#[tokio::test]
async fn a_large_request_can_ask_for_another_protocol() {
    const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello";
    let padding = "x".repeat(8 << 20);
    let head = format!("GET / HTTP/1.1\r\nupgrade: websocket\r\nx-padding: {padding}\r\n\r\n");
    for (asks, is_read, expected) in [
        (true, true, Ok(101)),
        (true, false, Err(ResponseFault::Early)),
        (false, true, Err(ResponseFault::Garbled)),
    ] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(Upstream::Unix(ours), 0);
        let message = Message::new(head.clone().into_bytes(), Bytes::new(), true).with_upgrade(asks);
        let answered = async {
            let mut request = vec![0; if is_read { head.len() } else { 1 }];
            theirs.read_exact(&mut request).await.unwrap();
            theirs.write_all(SWITCHED).await.unwrap();
        };
        let (asked, ()) = tokio::join!(exchange(connection, message, TIMEOUT), answered);
        let switched = asked.map(|response| {
            let status = response.status().as_u16();
            assert_eq!(response.into_upgraded().unwrap().1, "hello");
            status
        });
        assert_eq!(switched, expected, "{asks} {is_read}");
    }
}
