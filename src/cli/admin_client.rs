//! Sends one request to a listener of a running Callgate.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The default timeout for the connection to the admin listener, and for each read and write. It is shorter than the
/// typical timeout of a container probe that runs `callgate health`.
const PATIENCE: Duration = Duration::from_secs(2);
/// The maximum size of a response of a running Callgate, in bytes. The rest of a larger response is not read.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Sends a GET request to the admin listener at `address`. `token` is its bearer token, if one is configured. Returns
/// the HTTP status and the body.
///
/// # Errors
/// Returns an explanation if there is no valid response.
pub(super) fn ask(address: SocketAddr, path: &str, token: Option<&str>) -> Result<(u16, String), String> {
    send(address, &Request { token: token.map(str::as_bytes), ..Request::to("GET", path) })
}

/// A request to a listener of a running Callgate.
pub(super) struct Request<'r> {
    pub(super) method: &'r str,
    /// The value of the header `Host`. `None` means the address to which the request is sent.
    pub(super) host: Option<&'r str>,
    pub(super) path: &'r str,
    /// The bearer token of the admin listener. `None` if the listener has no token.
    pub(super) token: Option<&'r [u8]>,
    /// The JSON body of the request. Empty if the request has no body.
    pub(super) body: &'r str,
    /// The timeout for the connection, and for each read and write.
    pub(super) patience: Duration,
}

impl<'r> Request<'r> {
    /// Creates a request without a token and without a body.
    pub(super) fn to(method: &'r str, path: &'r str) -> Self {
        Self { method, host: None, path, token: None, body: "", patience: PATIENCE }
    }
}

/// Sends a request to the listener at `address`. Returns the HTTP status and the body.
///
/// # Errors
/// Returns an explanation if there is no valid response.
pub(super) fn send(address: SocketAddr, request: &Request<'_>) -> Result<(u16, String), String> {
    let words = |error: std::io::Error| error.to_string();
    let Request { method, host, path, token, body, patience } = request;
    let mut stream = TcpStream::connect_timeout(&address, *patience).map_err(words)?;
    stream.set_read_timeout(Some(*patience)).map_err(words)?;
    stream.set_write_timeout(Some(*patience)).map_err(words)?;
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let length = match *method {
        "GET" => String::new(),
        _ => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
    };
    let mut message =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{length}connection: close\r\n").into_bytes();
    if let Some(token) = token {
        message.extend_from_slice(b"authorization: Bearer ");
        message.extend_from_slice(token);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(body.as_bytes());
    stream.write_all(&message).map_err(words)?;
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
