//! Logs what was done through the admin listener: who did what, when, and with which result.

use serde_json::{Map, Value};

use super::server::{AdminRequest, AdminResponse};
use super::service::Admin;

/// Maximum length of a logged value that a caller can choose, in characters.
const VALUE_CHARS_MAX: usize = 100;

/// An action of a caller of the admin listener.
pub(super) struct Action<'a> {
    /// The name of the action, such as `mint` or `revoke`.
    pub(super) name: &'static str,
    /// Where the request came from: `api`, or `page` for the admin page.
    pub(super) via: &'static str,
    /// The outcome of a successful action, such as `ok`.
    pub(super) success: &'static str,
    /// What the action is about: names and values, such as the route and the interaction.
    pub(super) about: Vec<(&'a str, Option<String>)>,
}

impl Admin {
    /// Writes one line with a JSON object to the event log. The line contains no token and no secret. Requests without
    /// access are not logged here, so that a stranger cannot fill the log.
    pub(super) fn log_action(&self, request: &AdminRequest, response: &AdminResponse, action: Action<'_>) {
        let credential = match self.listener.load().token {
            Some(_) => "listen.admin.token",
            None => "none, same host",
        };
        let mut line: Map<String, Value> = [
            ("time", self.clock.now().to_string()),
            ("action", action.name.to_owned()),
            ("outcome", if response.status < 300 { action.success } else { "failed" }.to_owned()),
            ("client", request.peer.to_canonical().to_string()),
            ("credential", credential.to_owned()),
            ("via", action.via.to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
        line.insert("status".to_owned(), response.status.into());
        for (name, value) in action.about {
            if let Some(value) = value {
                line.insert(name.to_owned(), shortened(&value).into());
            }
        }
        log::info!("admin {}", Value::Object(line));
    }
}

/// Returns the beginning of a value, without characters that are not printable ASCII.
fn shortened(value: &str) -> String {
    value.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(VALUE_CHARS_MAX).collect()
}

/// Returns a text member of a JSON object.
pub(super) fn member(json: &[u8], name: &str) -> Option<String> {
    let value: Value = serde_json::from_slice(json).ok()?;
    value.get(name)?.as_str().map(str::to_owned)
}
