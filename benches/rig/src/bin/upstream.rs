//! An agent that reads complete requests and answers 200 with a short body: `upstream LISTEN`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = TcpListener::bind(std::env::args().nth(1).expect("address")).await.expect("bind");
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        stream.set_nodelay(true).expect("nodelay");
        tokio::spawn(serve(stream));
    }
}

async fn serve(mut stream: TcpStream) {
    let mut buffer = vec![0; 256 << 10];
    let mut filled = 0;
    loop {
        let head = loop {
            if let Some(at) = find(&buffer[..filled], b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer[filled..]).await {
                Ok(n) if n > 0 => filled += n,
                _ => return,
            }
        };
        let mut body = length(&buffer[..head]);
        let here = (filled - head).min(body);
        body -= here;
        buffer.copy_within(head + here..filled, 0);
        filled -= head + here;
        while body > 0 {
            let room = body.min(buffer.len());
            match stream.read(&mut buffer[..room]).await {
                Ok(n) if n > 0 => body -= n,
                _ => return,
            }
        }
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |v| v.trim().parse().expect("length"))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
