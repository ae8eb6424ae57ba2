//! Records the next rejected requests in memory when an operator asks for it. `callgate explain` can then repeat the
//! decision about such a request. Tokens, secrets and signatures are never recorded. The verdict of each check is
//! recorded instead.
//!
//! The recording ends after a number of requests, after a time, or when the memory for captured requests is used up.

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

/// The maximum number of requests that an operator can ask Callgate to capture.
pub const REQUESTS_MAX: usize = 100;
/// The number of requests to capture if the operator does not choose a number.
pub const REQUESTS_DEFAULT: usize = 10;
/// The maximum time for which rejected requests are captured.
pub const DURATION_MAX: Duration = Duration::from_secs(86_400);
/// The time for which rejected requests are captured if the operator does not choose a time.
pub const DURATION_DEFAULT: Duration = Duration::from_secs(600);
/// The maximum size of the body of a captured request, in bytes. A larger body is left out.
pub const BODY_BYTES_MAX: u64 = 64 << 10;
/// The maximum number of request bodies that are read at the same time only to capture the requests. The callers of
/// these requests are not authenticated, and must not use up the memory for the bodies of other requests.
const READS_MAX: usize = 8;
/// The total size of the captured requests, in bytes, at which capturing ends.
const BYTES_MAX: usize = 4 << 20;

/// Describes which rejected requests are captured, how many, and until when.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The name of the route whose requests are captured. The text `none` selects the requests that match no route. The
    /// value `None` selects all requests.
    pub route: Option<Box<str>>,
    /// The denial reason of the requests to capture. `None` means every reason.
    pub reason: Option<Denial>,
    /// The number of requests to capture.
    pub requests: usize,
    /// The time at which capturing ends.
    pub until: Timestamp,
}

/// A captured request: a rejected request that was recorded without its secrets.
#[derive(Clone, Debug)]
pub struct CapturedRequest {
    /// The time at which the request arrived.
    pub time: Timestamp,
    /// The request id. It is also the name of the `.http` file of the captured request.
    pub request_id: Box<str>,
    /// The name of the route, or `none` if no route has the path of the request.
    pub route: Box<str>,
    /// The name of the provider, or `none` if the route has no provider.
    pub provider: Box<str>,
    /// The verdict about the request: `deny`, `fail` or `observe`.
    pub verdict: &'static str,
    /// The code of the denial of the request.
    pub reason: &'static str,
    /// The method of the request and its path without secrets.
    pub line: Box<str>,
    /// The client address, if it could be determined.
    pub client: Option<IpAddr>,
    /// The source address of the connection.
    pub peer: IpAddr,
    /// The request without its secrets, in the format of `.http` files.
    pub file: Box<str>,
}

/// The captured requests, and the settings of the recording that is active.
#[derive(Debug, Default)]
pub struct Captures {
    /// Whether requests may be captured at present. While the value is false, Callgate does not lock `state` for each
    /// rejected request.
    is_on: AtomicBool,
    /// The number of request bodies that are being read only to capture the requests.
    reads: AtomicUsize,
    state: Mutex<State>,
}

/// A permit to read the body of a request only to capture the request. The number of permits is limited. Dropping the
/// value returns the permit.
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
    /// Returns the settings of the active recording of requests, or `None` if no recording is active. Ends the
    /// recording if its time is over, if it has captured the number of requests that the operator chose, or if its
    /// memory is used up.
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
    /// Begins to capture requests. Ends the previous recording, and removes the requests that it captured.
    pub fn begin(&self, wanted: Wanted) {
        let mut state = self.state.lock();
        *state = State { wanted: Some(wanted), ..State::default() };
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// Ends capturing and removes the captured requests.
    pub fn end(&self) {
        let mut state = self.state.lock();
        self.is_on.store(false, Ordering::Relaxed);
        *state = State::default();
    }

    /// Reports whether requests may be captured at present.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Reports whether a request is to be captured. `route` is the name of its route, and `reasons` are its denial
    /// reasons. `now` reads the clock. It is called only while requests may be captured.
    pub fn wants(&self, route: &str, reasons: &[Denial], now: impl FnOnce() -> Timestamp) -> bool {
        if !self.is_on() || reasons.is_empty() {
            return false;
        }
        let mut state = self.state.lock();
        match state.active(now()) {
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

    /// Returns a permit to read the body of a request only to capture the request. Returns `None` if too many of these
    /// bodies are being read.
    pub fn begin_reading(&self) -> Option<Reading<'_>> {
        let more = |reads: usize| (reads < READS_MAX).then_some(reads + 1);
        let began = self.reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        began.then(|| Reading(self))
    }

    /// Stores a captured request. Does nothing if no recording is active at `now`.
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

    /// Returns the captured request with this id in the format of `.http` files, without its secrets.
    pub fn file(&self, request_id: &str) -> Option<String> {
        let state = self.state.lock();
        let found = state.kept.iter().find(|request| *request.request_id == *request_id);
        found.map(|request| request.file.to_string())
    }

    /// Removes the captured request with this id. Returns false if it does not exist. Capturing continues.
    pub fn remove(&self, request_id: &str) -> bool {
        let mut state = self.state.lock();
        let Some(at) = state.kept.iter().position(|request| *request.request_id == *request_id) else {
            return false;
        };
        let removed = state.kept.remove(at);
        state.bytes = state.bytes.saturating_sub(removed.bytes());
        // The number of requests to capture is reduced, so that no additional request is captured in place of the
        // removed request.
        if let Some(wanted) = &mut state.wanted {
            wanted.requests = wanted.requests.saturating_sub(1);
        }
        true
    }

    /// Returns the active recording and the captured requests as JSON, oldest request first.
    pub fn to_json(&self, now: Timestamp) -> Value {
        let mut state = self.state.lock();
        let active = state.active(now).cloned();
        let active = active.map(|wanted| wanted.to_json(state.kept.len()));
        let requests = state.kept.iter().map(|request| request.to_json());
        json!({ "active": active, "requests": requests.collect::<Vec<_>>() })
    }
}

impl Wanted {
    /// Returns the settings of the recording as JSON. `kept` is the number of requests that were captured so far.
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
    /// Returns the memory that the captured request uses, in bytes.
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
        assert!(!captures.wants("r", &missing, || at(1)));
        captures.begin(wanted(2));
        assert!(captures.wants("r", &[Denial::BodyTooLarge, Denial::TokenMissing], || at(1)));
        assert!(!captures.wants("other", &missing, || at(1)));
        assert!(!captures.wants("r", &[Denial::TokenExpired], || at(1)));
        assert!(!captures.wants("r", &[], || at(1)));
        captures.keep(request("a", 1), at(2));
        assert!(captures.is_on());
        captures.keep(request("b", 1), at(2));
        assert!(!captures.is_on() && !captures.wants("r", &missing, || at(2)));
        captures.keep(request("c", 1), at(2));
        assert_eq!(captures.to_json(at(2))["requests"].as_array().unwrap().len(), 2);
        assert_eq!((captures.file("a").as_deref(), captures.file("c")), (Some("x"), None));
        assert!(captures.remove("a") && !captures.remove("a"));
        assert_eq!(captures.to_json(at(2))["requests"].as_array().unwrap().len(), 1);
        captures.begin(wanted(2));
        assert_eq!(captures.file("b"), None);
        assert!(!captures.wants("r", &missing, || at(100)) && !captures.is_on());
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
