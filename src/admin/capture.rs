//! The API `/capture`: stores the next denied requests in memory, so that an operator can download them for
//! `callgate explain`.

use http::HeaderValue;
use http::header::CONTENT_DISPOSITION;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::responses::{answer, problem};
use super::server::{AdminRequest, AdminResponse};
use super::service::Admin;
use crate::denial::Denial;
use crate::observe::capture::{DURATION_DEFAULT, DURATION_MAX, REQUESTS_DEFAULT, REQUESTS_MAX, Wanted};
use crate::time::parse_duration;

/// The JSON body of a request that starts capturing denied requests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    route: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    requests: Option<usize>,
    #[serde(default, rename = "for")]
    duration: Option<String>,
}

impl Admin {
    pub(super) fn capture(&self, request: &AdminRequest, id: &str) -> AdminResponse {
        if let Err(response) = self.may_use_apis(request) {
            return response;
        }
        let changes = matches!(request.method.as_str(), "DELETE" | "POST");
        if changes && !self.listener.load().actions {
            return problem(403, "captures are off, unless `listen.admin.actions` is true");
        }
        self.answer_capture(request, id)
    }

    /// Responds to a request of the API `/capture`. The caller must have checked that the client is allowed to use this
    /// API.
    pub(super) fn answer_capture(&self, request: &AdminRequest, id: &str) -> AdminResponse {
        match (request.method.as_str(), id) {
            ("POST", "") => self.begin_capture(request),
            ("GET" | "HEAD", "") => answer(200, &self.captures.to_json(self.clock.now())),
            ("DELETE", "") => {
                self.captures.end();
                AdminResponse::new(204, "application/json", String::new())
            }
            ("GET" | "HEAD", id) => self.captured_file(id),
            ("DELETE", id) => match self.captures.remove(id.strip_suffix(".http").unwrap_or(id)) {
                true => AdminResponse::new(204, "application/json", String::new()),
                false => problem(404, "no such captured request"),
            },
            (_, "") => {
                AdminResponse { allow: "DELETE, GET, HEAD, POST", ..problem(405, "method not allowed") }
            }
            _ => AdminResponse { allow: "DELETE, GET, HEAD", ..problem(405, "method not allowed") },
        }
    }

    fn begin_capture(&self, request: &AdminRequest) -> AdminResponse {
        let body = match request.json() {
            Ok(body) => body,
            Err((status, detail)) => return problem(status, detail),
        };
        // Parses a map first, because serde would also accept a JSON array for a struct.
        let asked = serde_json::from_slice::<Map<String, Value>>(body);
        let asked = match asked.and_then(|members| Asked::deserialize(Value::Object(members))) {
            Ok(asked) => asked,
            Err(error) => {
                return problem(400, &format!("the body is not a valid request to capture: {error}"));
            }
        };
        match self.wanted(asked) {
            Ok(wanted) => {
                let status = wanted.to_json(0);
                self.captures.begin(wanted);
                answer(201, &status)
            }
            Err(response) => response,
        }
    }

    fn wanted(&self, asked: Asked) -> Result<Wanted, AdminResponse> {
        let policy = self.policy.load();
        if asked.route.as_ref().is_some_and(|route| route != "none" && policy.route(route).is_none()) {
            return Err(problem(404, "no such route"));
        }
        let denial = |code: &String| Denial::ALL.iter().copied().find(|denial| denial.code() == code);
        let reason = match asked.reason.as_ref().map(|code| denial(code).ok_or(code)) {
            None => None,
            Some(Ok(reason)) => Some(reason),
            Some(Err(code)) => return Err(problem(400, &format!("`{code}` is not a reason of a denial"))),
        };
        let requests = asked.requests.unwrap_or(REQUESTS_DEFAULT);
        if !(1..=REQUESTS_MAX).contains(&requests) {
            return Err(problem(400, &format!("requests must be a number from 1 to {REQUESTS_MAX}")));
        }
        let duration = asked.duration.as_deref().map_or(Some(DURATION_DEFAULT), parse_duration);
        let Some(duration) = duration.filter(|duration| !duration.is_zero() && *duration <= DURATION_MAX)
        else {
            return Err(problem(400, "for must be a duration of at most 24h, such as 10m"));
        };
        let until = self.clock.now().plus(duration);
        Ok(Wanted { route: asked.route.map(Into::into), reason, requests, until })
    }

    fn captured_file(&self, id: &str) -> AdminResponse {
        let id = id.strip_suffix(".http").unwrap_or(id);
        let Some(file) = self.captures.file(id) else { return problem(404, "no such captured request") };
        let mut response = AdminResponse::new(200, "text/plain; charset=utf-8", file);
        // The id of a captured request consists of hexadecimal digits, so that the header value is always valid.
        if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"{id}.http\"")) {
            response.headers.push((CONTENT_DISPOSITION, name));
        }
        response
    }
}
