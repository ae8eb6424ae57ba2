//! Logs each change that a client makes through the admin listener: the time, the client, the action and its outcome.

use serde_json::{Map, Value};

use super::server::{AdminRequest, AdminResponse};
use super::service::Admin;

/// The maximum length in characters of a caller-supplied value in the event log.
const VALUE_CHARS_MAX: usize = 100;
/// The common prefix of the paths of the admin page's own API.
const PAGE: &str = "/ui/api/";

/// A change that a request to the admin listener asks for.
#[derive(Debug)]
struct Action<'r> {
    name: &'static str,
    /// A JSON key for the event log, and the value from the request path that is logged under this key, such as an
    /// interaction id. `None` if nothing from the path is logged.
    named: Option<(&'static str, &'r str)>,
    /// The keys in the JSON request body that are copied into the event log with their values. None of these values is
    /// a secret.
    members: &'static [&'static str],
}

impl<'r> Action<'r> {
    /// Returns the action that a request asks for. Returns `None` if the method is GET, HEAD or OPTIONS, because these
    /// methods change nothing. Returns the action `other` if the method and path belong to no known action.
    fn of(request: &'r AdminRequest) -> Option<Self> {
        let method = request.method.as_str();
        if matches!(method, "GET" | "HEAD" | "OPTIONS") {
            return None;
        }
        let path = request.path.as_str();
        let path = path.strip_prefix(PAGE).or_else(|| path.strip_prefix('/')).unwrap_or(path);
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let place = (segments.next(), segments.next(), segments.next(), segments.next());
        let (name, named, members): (_, _, &[_]) = match (method, place) {
            ("POST", (Some("callbacks"), None, ..)) => ("mint", None, &["route"]),
            ("DELETE", (Some("callbacks" | "interactions"), Some(id), ..)) => {
                ("revoke", Some(("interaction", id)), &[])
            }
            ("POST", (Some("capture"), None, ..)) => {
                ("capture_start", None, &["route", "reason", "requests", "for"])
            }
            ("DELETE", (Some("capture"), None, ..)) => ("capture_stop", None, &[]),
            ("DELETE", (Some("capture"), Some(id), ..)) => ("capture_drop", Some(("request", id)), &[]),
            ("POST", (Some("inbox"), Some("replay"), None, _)) => {
                ("inbox_replay", None, &["route", "state", "since", "rate"])
            }
            ("POST", (Some("inbox"), Some(id), Some("replay"), None)) => {
                ("inbox_replay", Some(("message", id)), &[])
            }
            ("DELETE", (Some("inbox"), Some(id), None, _)) => ("inbox_drop", Some(("message", id)), &[]),
            _ => ("other", Some(("path", path)), &[]),
        };
        Some(Self { name, named, members })
    }

    /// Reports whether the response status shows that Callgate did not attempt the action, because the caller has no
    /// access or the action does not exist.
    fn was_not_tried(&self, status: u16) -> bool {
        matches!(status, 401 | 403 | 405) || (self.name == "other" && status == 404)
    }
}

impl Admin {
    /// Writes one line about a change to the event log: a JSON object with the client, the action and the outcome. The
    /// line contains no token and no secret. Requests that only read are not logged. Requests of callers without access
    /// are not logged either, because a stranger could otherwise fill the log.
    pub(super) fn log_action(&self, request: &AdminRequest, response: &AdminResponse) {
        let Some(action) = Action::of(request).filter(|action| !action.was_not_tried(response.status)) else {
            return;
        };
        let credential = match self.listener.load().token {
            Some(_) => "listen.admin.token",
            None => "none, same host",
        };
        let via = if request.path.starts_with(PAGE) { "page" } else { "api" };
        let mut line: Map<String, Value> = [
            ("time", self.clock.now().to_string()),
            ("action", action.name.to_owned()),
            ("outcome", if response.status < 300 { response.outcome } else { "failed" }.to_owned()),
            ("client", request.peer.to_canonical().to_string()),
            ("credential", credential.to_owned()),
            ("via", via.to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
        line.insert("status".to_owned(), response.status.into());
        if let Some((name, value)) = action.named {
            line.insert(name.to_owned(), shortened(value).into());
        }
        copy_members(&mut line, request.body.as_deref().unwrap_or_default(), action.members);
        copy_members(&mut line, response.body.as_bytes(), &["interaction", "replayed"]);
        log::info!("admin {}", Value::Object(line));
    }
}

/// Copies the string and number values with these keys from a JSON object into the log line.
fn copy_members(line: &mut Map<String, Value>, json: &[u8], names: &[&str]) {
    if names.is_empty() || json.is_empty() {
        return;
    }
    let Ok(Value::Object(object)) = serde_json::from_slice(json) else { return };
    for name in names {
        let value = match object.get(*name) {
            Some(Value::String(text)) => shortened(text).into(),
            Some(Value::Number(number)) => Value::Number(number.clone()),
            _ => continue,
        };
        line.insert((*name).to_owned(), value);
    }
}

/// Returns the first [`VALUE_CHARS_MAX`] printable ASCII characters of a value. Skips all other characters.
fn shortened(value: &str) -> String {
    value.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(VALUE_CHARS_MAX).collect()
}
