//! Logs what was done through the admin listener: who did what, when, and with which result.

use serde_json::{Map, Value};

use super::server::{AdminRequest, AdminResponse};
use super::service::Admin;

/// Maximum length of a logged value that a caller can choose, in characters.
const VALUE_CHARS_MAX: usize = 100;
/// The beginning of the paths that only the admin page uses.
const PAGE: &str = "/ui/api/";

/// The kind of action that a request asks for.
#[derive(Debug)]
struct Action<'r> {
    name: &'static str,
    /// What the path names: the name of the member of the line, and its value.
    named: Option<(&'static str, &'r str)>,
    /// The members of the body that the line contains. None of them is a secret.
    members: &'static [&'static str],
}

impl<'r> Action<'r> {
    /// Returns what a request asks for, or `None` if it only reads. Every other request is an action, also one that this
    /// function does not know.
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

    /// Reports whether a response means that nothing was tried: the caller has no access, or there is no such action.
    fn was_not_tried(&self, status: u16) -> bool {
        matches!(status, 401 | 403 | 405) || (self.name == "other" && status == 404)
    }
}

impl Admin {
    /// Writes one line with a JSON object to the event log, unless the request only reads. The line contains no token and
    /// no secret. Requests without access are not logged here, so that a stranger cannot fill the log.
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

/// Copies members of a JSON object that are a text or a number.
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

/// Returns the beginning of a value, without characters that are not printable ASCII.
fn shortened(value: &str) -> String {
    value.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(VALUE_CHARS_MAX).collect()
}
