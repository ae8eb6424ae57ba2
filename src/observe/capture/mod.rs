//! Keeps the next rejected requests in memory when an operator asks for it, so that `callgate explain` can repeat the
//! decision. Tokens, secrets and signatures are never kept: the verdicts of their checks take their place.
//!
//! A capture ends by itself, after a number of requests, after a time, or when the memory for it is used up.

mod body;
mod known;
mod redact;
mod text;
mod verdicts;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::denial::Denial;
use crate::time::Timestamp;

pub use known::Request;
pub use redact::redacted_request;
pub use verdicts::{BODY_HEADER, CHECKS_HEADER, FACTS_HEADER, Verdicts};

/// Maximum number of requests of one capture.
pub const REQUESTS_MAX: usize = 100;
/// Number of requests of a capture if the operator gives none.
pub const REQUESTS_DEFAULT: usize = 10;
/// Maximum duration of a capture.
pub const DURATION_MAX: Duration = Duration::from_secs(86_400);
/// Duration of a capture if the operator gives none.
pub const DURATION_DEFAULT: Duration = Duration::from_secs(600);
/// Maximum size of a body that is kept, in bytes.
pub const BODY_BYTES_MAX: u64 = 64 << 10;
/// Maximum number of bodies that are read at the same time only because of a capture. Their callers are not
/// authenticated, and must not take the memory for bodies away from others.
const READS_MAX: usize = 8;
/// Maximum size of all kept requests, in bytes.
const BYTES_MAX: usize = 4 << 20;

/// The requests that an operator wants to see.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The name of the route, or `none` for requests to no route. `None` means every route.
    pub route: Option<Box<str>>,
    /// The reason. `None` means every reason.
    pub reason: Option<Denial>,
    /// The number of requests.
    pub requests: usize,
    /// The time at which the capture ends.
    pub until: Timestamp,
}

/// A kept request.
#[derive(Clone, Debug)]
pub struct CapturedRequest {
    /// Time at which the request arrived.
    pub time: Timestamp,
    /// The request id, which names the file.
    pub request_id: Box<str>,
    /// The name of the route, or `none`.
    pub route: Box<str>,
    /// The name of the provider, or `none`.
    pub provider: Box<str>,
    /// `deny`, `fail` or `observe`.
    pub verdict: &'static str,
    /// The code of the denial.
    pub reason: &'static str,
    /// The method, and the path without secrets.
    pub line: Box<str>,
    /// The client address.
    pub client: Option<IpAddr>,
    /// The source address of the connection.
    pub peer: IpAddr,
    /// The redacted request in the format of `.http` files.
    pub file: Box<str>,
}

/// The capture and its requests.
#[derive(Debug, Default)]
pub struct Captures {
    /// Whether a capture may be active. Requests read only this value while there is no capture.
    is_on: AtomicBool,
    /// The number of bodies that are being read only because of the capture.
    reads: AtomicUsize,
    state: Mutex<State>,
}

/// The right to read a body only because of a capture. It ends when this value is dropped.
#[derive(Debug)]
pub struct Reading<'c>(&'c Captures);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.reads.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct State {
    wanted: Option<Wanted>,
    kept: Vec<Arc<CapturedRequest>>,
    bytes: usize,
}

impl State {
    /// Returns the active capture. Ends it if its time is over.
    fn active(&mut self, now: Timestamp) -> Option<&Wanted> {
        let is_full =
            |wanted: &Wanted, state: &Self| state.kept.len() >= wanted.requests || state.bytes >= BYTES_MAX;
        if self.wanted.as_ref().is_some_and(|wanted| now >= wanted.until || is_full(wanted, self)) {
            self.wanted = None;
        }
        self.wanted.as_ref()
    }
}

impl Captures {
    /// Begins a capture. Ends the previous one and removes its requests.
    pub fn begin(&self, wanted: Wanted) {
        let mut state = self.state.lock();
        *state = State { wanted: Some(wanted), ..State::default() };
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// Ends the capture and removes its requests.
    pub fn end(&self) {
        let mut state = self.state.lock();
        self.is_on.store(false, Ordering::Relaxed);
        *state = State::default();
    }

    /// Reports whether a capture may be active.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Reports whether the capture wants a request of this route that was denied for one of these reasons.
    pub fn wants(&self, route: &str, reasons: &[Denial], now: Timestamp) -> bool {
        if !self.is_on() || reasons.is_empty() {
            return false;
        }
        let mut state = self.state.lock();
        match state.active(now) {
            Some(wanted) => {
                wanted.route.as_ref().is_none_or(|name| **name == *route)
                    && wanted.reason.is_none_or(|reason| reasons.contains(&reason))
            }
            None => {
                self.is_on.store(false, Ordering::Relaxed);
                false
            }
        }
    }

    /// Allows to read a body only because of a capture. Returns `None` if too many bodies are being read.
    pub fn begin_reading(&self) -> Option<Reading<'_>> {
        let more = |reads: usize| (reads < READS_MAX).then_some(reads + 1);
        let began = self.reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        began.then(|| Reading(self))
    }

    /// Keeps a request, unless the capture has ended meanwhile.
    pub fn keep(&self, request: CapturedRequest, now: Timestamp) {
        let mut state = self.state.lock();
        if state.active(now).is_none() {
            return;
        }
        state.bytes += request.bytes();
        state.kept.push(Arc::new(request));
        if state.active(now).is_none() {
            self.is_on.store(false, Ordering::Relaxed);
        }
    }

    /// Returns the redacted request with this id in the format of `.http` files.
    pub fn file(&self, request_id: &str) -> Option<String> {
        let state = self.state.lock();
        let found = state.kept.iter().find(|request| *request.request_id == *request_id);
        found.map(|request| request.file.to_string())
    }

    /// Removes a request. Returns false if it does not exist. The capture continues.
    pub fn remove(&self, request_id: &str) -> bool {
        let mut state = self.state.lock();
        let Some(at) = state.kept.iter().position(|request| *request.request_id == *request_id) else {
            return false;
        };
        let removed = state.kept.remove(at);
        state.bytes = state.bytes.saturating_sub(removed.bytes());
        // A removed request does not make room for another one.
        if let Some(wanted) = &mut state.wanted {
            wanted.requests = wanted.requests.saturating_sub(1);
        }
        true
    }

    /// Returns the active capture and the kept requests as JSON, oldest request first.
    pub fn to_json(&self, now: Timestamp) -> Value {
        let mut state = self.state.lock();
        let active = state.active(now).cloned();
        let active = active.map(|wanted| wanted.to_json(state.kept.len()));
        let requests = state.kept.iter().map(|request| request.to_json());
        json!({ "active": active, "requests": requests.collect::<Vec<_>>() })
    }
}

impl Wanted {
    /// Returns the capture as JSON. `kept` is the number of requests that it has kept.
    pub fn to_json(&self, kept: usize) -> Value {
        json!({
            "route": self.route,
            "reason": self.reason.map(|reason| reason.code()),
            "requests": self.requests,
            "captured": kept,
            "until": self.until.to_string(),
        })
    }
}

impl CapturedRequest {
    /// Returns the memory that the request takes, in bytes.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.file.len()
    }

    fn to_json(&self) -> Value {
        json!({
            "id": self.request_id,
            "time": self.time.to_string(),
            "route": self.route,
            "provider": self.provider,
            "verdict": self.verdict,
            "reason": self.reason,
            "request": self.line,
            "client": self.client.map(|client| client.to_string()),
            "peer": self.peer.to_canonical().to_string(),
            "bytes": self.file.len(),
            "file": format!("/capture/{}.http", self.request_id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_secs(seconds)
    }

    fn wanted(requests: usize) -> Wanted {
        Wanted { route: Some("r".into()), reason: Some(Denial::TokenMissing), requests, until: at(100) }
    }

    fn request(id: &str, bytes: usize) -> CapturedRequest {
        CapturedRequest {
            time: at(1),
            request_id: id.into(),
            route: "r".into(),
            provider: "none".into(),
            verdict: "deny",
            reason: "token_missing",
            line: "POST /".into(),
            client: None,
            peer: IpAddr::from([127, 0, 0, 1]),
            file: "x".repeat(bytes).into(),
        }
    }

    #[test]
    fn a_capture_takes_what_it_wants_and_ends_by_itself() {
        let captures = Captures::default();
        let missing = [Denial::TokenMissing];
        assert!(!captures.wants("r", &missing, at(1)));
        captures.begin(wanted(2));
        assert!(captures.wants("r", &[Denial::BodyTooLarge, Denial::TokenMissing], at(1)));
        assert!(!captures.wants("other", &missing, at(1)));
        assert!(!captures.wants("r", &[Denial::TokenExpired], at(1)));
        assert!(!captures.wants("r", &[], at(1)));
        captures.keep(request("a", 1), at(2));
        assert!(captures.is_on());
        captures.keep(request("b", 1), at(2));
        assert!(!captures.is_on() && !captures.wants("r", &missing, at(2)));
        captures.keep(request("c", 1), at(2));
        assert_eq!(captures.to_json(at(2))["requests"].as_array().unwrap().len(), 2);
        assert_eq!((captures.file("a").as_deref(), captures.file("c")), (Some("x"), None));
        assert!(captures.remove("a") && !captures.remove("a"));
        assert_eq!(captures.to_json(at(2))["requests"].as_array().unwrap().len(), 1);
        captures.begin(wanted(2));
        assert_eq!(captures.file("b"), None);
        assert!(!captures.wants("r", &missing, at(100)) && !captures.is_on());
    }

    #[test]
    fn few_bodies_are_read_at_the_same_time() {
        let captures = Captures::default();
        let mut reading: Vec<_> = (0..READS_MAX).map(|_| captures.begin_reading().unwrap()).collect();
        assert!(captures.begin_reading().is_none());
        reading.pop();
        assert!(captures.begin_reading().is_some());
    }

    #[test]
    fn the_memory_of_a_capture_is_limited() {
        let captures = Captures::default();
        captures.begin(wanted(REQUESTS_MAX));
        for i in 0..REQUESTS_MAX {
            captures.keep(request(&i.to_string(), 1 << 20), at(2));
        }
        let kept = captures.to_json(at(2))["requests"].as_array().unwrap().len();
        assert!(kept <= 4 && !captures.is_on(), "{kept}");
    }
}
