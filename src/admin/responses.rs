//! JSON responses and problem responses (RFC 9457) of the admin listener.

use serde_json::{Value, json};

use super::server::AdminResponse;

/// Returns a JSON response.
pub(super) fn answer(status: u16, value: &Value) -> AdminResponse {
    AdminResponse::new(status, "application/json", format!("{value}\n"))
}

/// Returns a JSON response that describes a problem (RFC 9457).
pub(super) fn problem(status: u16, detail: &str) -> AdminResponse {
    let title = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let body = json!({ "type": "about:blank", "title": title, "status": status, "detail": detail });
    AdminResponse::new(status, "application/problem+json", format!("{body}\n"))
}
