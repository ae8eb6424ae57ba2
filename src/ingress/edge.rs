//! The settings and the fetched data that all routes share.

use std::net::IpAddr;

use crate::agent::Agent;
use crate::request::write_line as line;
use crate::signature::Keyring;
use crate::source::{ClientAddress, Lists, write_address};

/// The settings and the data that all routes share: the public URL, the rule for client addresses, and the fetched keys
/// and address lists.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The authority (host and port) of the public URL. Empty if no public URL is configured.
    pub authority: Box<str>,
    /// The rule for finding the client address. If it is `None`, the client address is the address of the connected
    /// peer.
    pub client_address: Option<ClientAddress>,
    /// The fetched keys and address lists.
    pub fetched_data: FetchedData,
    /// The beginning of every external URL, without a trailing slash. Empty if no public URL is configured.
    pub public_url: Box<str>,
}

impl Edge {
    /// Returns the value of the `Host` header in requests to this agent: the authority of the public URL, or the
    /// agent's own authority if no public URL is configured.
    pub(super) fn host<'a>(&'a self, agent: &'a Agent) -> &'a str {
        if self.authority.is_empty() { agent.authority() } else { &self.authority }
    }

    /// Writes the `X-Forwarded-*` headers, unless they are turned off for the agent. `X-Forwarded-Proto` and
    /// `X-Forwarded-Host` contain the scheme and the authority of the public URL. Without a public URL, `is_tls`
    /// determines `X-Forwarded-Proto`, and `X-Forwarded-Host` is omitted. `X-Forwarded-For` contains the client
    /// address. A notice has no caller, so `is_tls` and `client` must be `None` for a notice.
    pub(super) fn write_forwarded_headers(
        &self,
        agent: &Agent,
        is_tls: Option<bool>,
        client: Option<IpAddr>,
        out: &mut Vec<u8>,
    ) {
        if !agent.forwarded_headers {
            return;
        }
        let is_https = match self.public_url.split_once("://") {
            Some((scheme, _)) => Some(scheme.eq_ignore_ascii_case("https")),
            None => is_tls,
        };
        if let Some(is_https) = is_https {
            line(out, "x-forwarded-proto", if is_https { b"https" } else { b"http" });
        }
        if !self.public_url.is_empty() {
            line(out, "x-forwarded-host", self.authority.as_bytes());
        }
        if let Some(client) = client {
            out.extend_from_slice(b"x-forwarded-for: ");
            write_address(out, client);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A snapshot of the fetched keys and address lists. Each request is checked with a single snapshot.
#[derive(Clone, Debug, Default)]
pub struct FetchedData {
    /// The fetched key sets and certificates.
    pub keyring: Keyring,
    /// The fetched address lists.
    pub lists: Lists,
}
