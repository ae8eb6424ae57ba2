//! `callgate health`: sends `GET /livez` or `GET /readyz` to a running Callgate.
//!
//! The command is the probe in container images that have neither a shell nor curl.

use std::net::SocketAddr;

use clap::Args;

use super::admin_client::ask;
use super::common::{EXIT_UNAVAILABLE, printable};
use crate::source::reachable;

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
    match ask(address, path, None).map(|(status, body)| (status, first_line(&body))) {
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

/// Returns the first line of a response. Characters that a terminal could interpret are replaced, because the response
/// may come from another program than Callgate.
fn first_line(body: &str) -> String {
    printable(body.lines().next().unwrap_or_default())
}
