//! Sends one request to the admin listener of a running Callgate.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Timeout for the connection and for each read and write. It is shorter than the timeout of a typical probe.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum size of the response, in bytes. The rest is not read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Sends a GET request, with the bearer token of the admin listener if there is one. Returns the status and the body.
///
/// # Errors
/// Returns an explanation if there is no valid response.
pub(super) fn ask(address: SocketAddr, path: &str, token: Option<&str>) -> Result<(u16, String), String> {
    send("GET", (address, &address.to_string()), path, token.map(str::as_bytes))
}

/// Sends a request without a body, with the bearer token of the admin listener if there is one. `to` is the address and
/// the value of `Host`. Returns the status and the body.
///
/// # Errors
/// Returns an explanation if there is no valid response.
pub(super) fn send(
    method: &str,
    to: (SocketAddr, &str),
    path: &str,
    token: Option<&[u8]>,
) -> Result<(u16, String), String> {
    let (address, host) = to;
    let words = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(words)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(words)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(words)?;
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n").into_bytes();
    if let Some(token) = token {
        request.extend_from_slice(b"authorization: Bearer ");
        request.extend_from_slice(token);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).map_err(words)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(words)?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    match (head.parse(&answer), head.code) {
        (Ok(httparse::Status::Complete(end)), Some(status)) => {
            Ok((status, String::from_utf8_lossy(answer.get(end..).unwrap_or_default()).into_owned()))
        }
        _ => Err("not HTTP".to_owned()),
    }
}
