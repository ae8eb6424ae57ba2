//! `callgate health`: asks a running Callgate for `/livez` or `/readyz`.
//!
//! It serves as a probe in container images that have neither a shell nor curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::common::EXIT_UNAVAILABLE;
use crate::source::reachable;

/// Timeout for the connection and for each read and write. It is shorter than the timeout of a typical probe.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum size of the response, in bytes. The rest is not read.
const ANSWER_BYTES_MAX: u64 = 4 << 10;

#[derive(Args)]
pub(super) struct HealthArgs {
    /// Address of the admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Ask whether Callgate accepts callbacks (`/readyz`), not only whether it is alive (`/livez`).
    #[arg(long)]
    ready: bool,
}

pub(super) fn health(args: &HealthArgs) -> u8 {
    let address = reachable(args.admin);
    let path = if args.ready { "/readyz" } else { "/livez" };
    match ask(address, path) {
        Ok((200, said)) => {
            println!("{said}");
            0
        }
        Ok((status, said)) => {
            eprintln!("error: {said} (HTTP {status} from {address}{path})");
            EXIT_UNAVAILABLE
        }
        Err(error) => {
            eprintln!("error: no answer from {address}{path}: {error}");
            EXIT_UNAVAILABLE
        }
    }
}

/// Sends a GET request. Returns the status and the first line of the response body, without control characters.
fn ask(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let words = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(words)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(words)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(words)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(words)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(words)?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    match (head.parse(&answer), head.code) {
        (Ok(httparse::Status::Complete(end)), Some(status)) => {
            let body = String::from_utf8_lossy(answer.get(end..).unwrap_or_default());
            // The server on that port may be another program. Its text must not send escape sequences to the terminal.
            let line = body.lines().next().unwrap_or_default();
            Ok((status, line.chars().filter(|c| !c.is_control()).collect()))
        }
        _ => Err("not HTTP".to_owned()),
    }
}
