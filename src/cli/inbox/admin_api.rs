//! Requests to the admin listener of a running Callgate, which the configuration names.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::cli::admin_client::{Request, send};
use crate::cli::common::{EXIT_DATA, EXIT_UNAVAILABLE};
use crate::cli::read::ConfigArg;
use crate::secret::Secret;
use crate::source::reachable;

/// Timeout for each answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The admin listener of a running Callgate.
pub(super) struct AdminApi {
    address: SocketAddr,
    token: Option<Secret>,
}

impl AdminApi {
    pub(super) fn of(config: &ConfigArg) -> Result<Self, u8> {
        let Some(admin) = config.load()?.startup.admin else {
            eprintln!("error: the configuration has no `listen.admin`");
            return Err(EXIT_UNAVAILABLE);
        };
        Ok(Self { address: reachable(admin.address), token: admin.token })
    }

    /// Sends a request. Prints why if it was not successful, and returns the exit code.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, u8> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let token = self.token.as_ref().map(Secret::expose);
        let request = Request { token, body: &body, patience: PATIENCE, ..Request::to(method, path) };
        let (status, text) = send(self.address, &request).map_err(|error| {
            eprintln!("error: no answer from {}{path}: {error}", self.address);
            EXIT_UNAVAILABLE
        })?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let detail = answer.get("detail").and_then(Value::as_str).unwrap_or_default();
        let detail: String = detail.chars().filter(|c| !c.is_control()).collect();
        eprintln!("error: {detail} (HTTP {status} from {}{path})", self.address);
        Err(if status < 500 && status != 401 && status != 403 { EXIT_DATA } else { EXIT_UNAVAILABLE })
    }
}

/// Encodes a value for a path or a query.
pub(super) fn encoded(value: &str) -> String {
    let encoded = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
    encoded.to_string().replace("%5F", "_").replace("%2D", "-")
}
