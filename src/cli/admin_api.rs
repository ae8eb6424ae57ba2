//! Requests to the admin listener of a running Callgate.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use super::admin_client::{Request, send};
use super::common::{EXIT_DATA, EXIT_UNAVAILABLE, printable};
use super::read::ConfigArg;
use crate::config::AdminListener;
use crate::secret::Secret;
use crate::source::reachable;

/// The timeout for the connection to the admin listener, and for each read and write. The response to a revocation can
/// take some seconds if Callgate has several replicas.
const PATIENCE: Duration = Duration::from_secs(30);

/// The host and port of an admin listener, such as `127.0.0.1:9901`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct AdminAddress(String);

impl AdminAddress {
    /// Parses the address or the URL of an admin listener, such as `127.0.0.1:9901` or `http://127.0.0.1:9901`.
    ///
    /// # Errors
    /// Returns an explanation if the text is neither an address nor a URL.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected the address of an admin listener, such as 127.0.0.1:9901, or its URL";
        match text.strip_prefix("http://") {
            Some(rest) => Self::of_authority(rest.strip_suffix('/').unwrap_or(rest)),
            None => Self::of_authority(text),
        }
        .ok_or_else(|| expected.to_owned())
    }

    /// Parses the URL of an admin listener, such as `http://127.0.0.1:9901`. Returns `None` if the URL has a path.
    pub(super) fn of_url(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        Self::of_authority(rest.strip_suffix('/').unwrap_or(rest))
    }

    fn of_authority(text: &str) -> Option<Self> {
        let is_port = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (host, port) = text.rsplit_once(':')?;
        let is_whole = !host.is_empty()
            && is_port(port)
            && !text.contains(['/', '?', '#', '@'])
            && !text.contains(char::is_whitespace);
        is_whole.then(|| Self(text.to_owned()))
    }

    /// Sends a request to the admin listener. If its host name has several addresses, tries one after the other until
    /// one responds. Returns the HTTP status and the body.
    ///
    /// # Errors
    /// Returns an explanation if the host name has no address, or if no address returns a valid response.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<(u16, String), String> {
        let addresses = self.0.to_socket_addrs().map_err(|error| error.to_string())?;
        let mut answer = Err("the name has no address".to_owned());
        for address in addresses {
            answer = send(reachable(address), &Request { host: Some(&self.0), ..*request });
            if answer.is_ok() {
                break;
            }
        }
        answer
    }
}

impl From<SocketAddr> for AdminAddress {
    fn from(address: SocketAddr) -> Self {
        Self(reachable(address).to_string())
    }
}

impl std::fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client of the admin listener of a running Callgate.
pub(super) struct AdminApi {
    pub(super) address: AdminAddress,
    token: Option<Secret>,
}

impl AdminApi {
    /// Creates a client for the admin listener in a configuration. If the configuration has mistakes or no admin
    /// listener, prints an error and returns the exit code.
    pub(super) fn of(config: &ConfigArg) -> Result<Self, u8> {
        let Some(admin) = config.load()?.startup.admin else {
            eprintln!("error: the configuration has no `listen.admin`");
            return Err(EXIT_UNAVAILABLE);
        };
        Ok(Self::new(admin, None))
    }

    /// Creates a client for an admin listener. The client connects to `address`. If `address` is `None`, the client
    /// connects to the address in the configuration.
    pub(super) fn new(listener: AdminListener, address: Option<AdminAddress>) -> Self {
        Self { address: address.unwrap_or_else(|| listener.address.into()), token: listener.token }
    }

    /// Sends a request to the admin listener. Returns the HTTP status and the JSON body. The body is null if it is not
    /// JSON. If there is no response, prints an error and returns the exit code.
    pub(super) fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value), u8> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let token = self.token.as_ref().map(Secret::expose);
        let request = Request { token, body: &body, patience: PATIENCE, ..Request::to(method, path) };
        let (status, text) = self.address.send(&request).map_err(|error| {
            eprintln!("error: no answer from {}{path}: {error}", self.address);
            EXIT_UNAVAILABLE
        })?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    /// Sends a request to the admin listener and returns the JSON body. If the HTTP status is not 2xx or there is no
    /// response, prints an error and returns the exit code.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, u8> {
        let (status, answer) = self.send(method, path, body)?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        eprintln!("error: {} (HTTP {status} from {}{path})", detail(&answer), self.address);
        Err(if status < 500 && status != 401 && status != 403 { EXIT_DATA } else { EXIT_UNAVAILABLE })
    }
}

/// Returns the explanation in a response of the admin listener (key `detail`). Characters that a terminal could
/// interpret are replaced. If the response has no explanation, returns `no reason given`.
pub(super) fn detail(answer: &Value) -> String {
    let detail = answer.get("detail").and_then(Value::as_str).unwrap_or("no reason given");
    printable(detail)
}

/// Percent-encodes a value for a path or a query.
pub(super) fn encoded(value: &str) -> String {
    let encoded = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
    encoded.to_string().replace("%5F", "_").replace("%2D", "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_or_the_url_of_an_admin_listener() {
        for (text, expected) in [
            ("http://127.0.0.1:9901", "127.0.0.1:9901"),
            ("http://[::1]:9901/", "[::1]:9901"),
            ("http://callgate-admin:9901", "callgate-admin:9901"),
        ] {
            assert_eq!(AdminAddress::of_url(text).unwrap().to_string(), expected);
            assert_eq!(AdminAddress::parse(text).unwrap().to_string(), expected);
            assert_eq!(AdminAddress::parse(expected).unwrap().to_string(), expected);
            assert!(AdminAddress::of_url(expected).is_none());
        }
        for text in
            ["https://h:1", "http://h", "http://:1", "http://h:x", "http://h:1/x", "http://a@h:1", "h", ":1"]
        {
            assert!(AdminAddress::of_url(text).is_none() && AdminAddress::parse(text).is_err(), "{text}");
        }
    }
}
