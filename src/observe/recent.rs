//! Stores the most recent ingress requests in memory, for the admin page.
//!
//! For each request, this module stores only data of the access-log entry.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::log_entry::Entry;
use crate::denial::Denial;
use crate::time::Timestamp;
use crate::trail::{Outcome, Steps};

/// The maximum length of one text field of a recent request, in bytes. Longer texts are cut, so that callers cannot
/// fill the memory with long paths.
const TEXT_BYTES_MAX: usize = 400;
/// The number of text fields that are stored for one recent request.
const TEXTS: usize = 9;

/// A ring buffer of the most recent ingress requests, for the admin page.
#[derive(Debug)]
pub struct Recent {
    began: Timestamp,
    max: AtomicUsize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// The number of the newest request in the ring buffer. The first request has number 1.
    last: u64,
    exchanges: VecDeque<Arc<Exchange>>,
}

/// The data of the access-log entry of one ingress request.
#[derive(Debug)]
struct Exchange {
    time: Timestamp,
    verdict: &'static str,
    reason: &'static str,
    observed: Box<[Denial]>,
    status: u16,
    client: Option<IpAddr>,
    peer: IpAddr,
    body_bytes: u64,
    duration_us: u64,
    deliver_us: u64,
    steps: Steps,
    texts: Texts,
}

/// The nine text fields of one recent request, concatenated in one memory allocation.
#[derive(Debug)]
struct Texts {
    text: Box<str>,
    ends: [u16; TEXTS],
}

/// A page of the list of recent requests.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The time at which the numbering of the requests began. If this time is not the same as on the previous page,
    /// Callgate has restarted, and the reader must start again at number 0.
    pub began: Timestamp,
    /// The number of the newest request.
    pub last: u64,
    /// The maximum number of recent requests that are stored.
    pub max: usize,
    /// The recent requests on this page as JSON objects, oldest first.
    pub rows: Vec<Value>,
    /// Whether there are newer requests after this page.
    pub more: bool,
}

impl Recent {
    /// Creates a ring buffer for `max` recent requests. If `max` is 0, no requests are stored.
    pub fn new(max: usize, began: Timestamp) -> Self {
        Self { began, max: AtomicUsize::new(max), ring: Mutex::default() }
    }

    /// Reports whether recent requests are stored.
    pub fn is_on(&self) -> bool {
        self.max.load(Ordering::Relaxed) > 0
    }

    /// Changes the maximum number of recent requests. If more than `max` requests are stored, drops the oldest
    /// requests.
    pub fn resize(&self, max: usize) {
        let mut ring = self.ring.lock();
        self.max.store(max, Ordering::Relaxed);
        let over = ring.exchanges.len().saturating_sub(max);
        ring.exchanges.drain(..over);
        ring.exchanges.shrink_to(max);
    }

    /// Adds one request to the ring buffer, and drops the oldest request if the buffer is full. Memory is allocated
    /// before the lock is acquired, and freed after the lock is released.
    pub fn keep(&self, entry: &Entry<'_>) {
        let exchange = Arc::new(Exchange::of(entry));
        let mut ring = self.ring.lock();
        let max = self.max.load(Ordering::Relaxed);
        if max == 0 {
            return;
        }
        ring.last += 1;
        let gone = if ring.exchanges.len() >= max { ring.exchanges.pop_front() } else { None };
        ring.exchanges.push_back(exchange);
        drop(ring);
        drop(gone);
    }

    /// Returns a page of the recent requests: at most `limit` requests with numbers greater than `after`, oldest first.
    pub fn after(&self, after: u64, limit: usize) -> Rows {
        let ring = self.ring.lock();
        let (last, held) = (ring.last, ring.exchanges.len());
        let first = last + 1 - held as u64;
        let skipped = usize::try_from(after.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        let found: Vec<_> = ring.exchanges.iter().skip(skipped).take(limit).map(Arc::clone).collect();
        drop(ring);
        let more = skipped.saturating_add(found.len()) < held;
        let number = first + skipped as u64;
        let rows = (number..).zip(&found).map(|(number, exchange)| exchange.told(number)).collect();
        Rows { began: self.began, last, max: self.max.load(Ordering::Relaxed), rows, more }
    }
}

impl Exchange {
    fn of(entry: &Entry<'_>) -> Self {
        Self {
            time: entry.time,
            verdict: entry.verdict,
            reason: entry.reason,
            observed: entry.observed.into(),
            status: entry.status,
            client: entry.client,
            peer: entry.peer.to_canonical(),
            body_bytes: entry.body_bytes,
            duration_us: entry.duration_us,
            deliver_us: entry.deliver_us,
            steps: *entry.trail.all(),
            texts: Texts::of([
                entry.request_id,
                entry.route,
                entry.provider,
                entry.method,
                entry.path,
                entry.trail.refusal().unwrap_or_default(),
                entry.interaction.unwrap_or_default(),
                entry.member.unwrap_or_default(),
                entry.from_member.unwrap_or_default(),
            ]),
        }
    }

    fn told(&self, number: u64) -> Value {
        let [request_id, route, provider, method, path, detail, interaction, member, from_member] =
            self.texts.parts();
        let trail: Vec<_> = self
            .steps
            .iter()
            .flatten()
            .map(|step| {
                let denial = match step.outcome {
                    Outcome::Deny(denial) => Some(denial.code()),
                    _ => None,
                };
                json!([step.check.name(), step.outcome.name(), denial, step.nanos])
            })
            .collect();
        json!({
            "n": number,
            "time": self.time.to_string(),
            "request_id": request_id,
            "route": route,
            "provider": provider,
            "verdict": self.verdict,
            "reason": self.reason,
            "observed": self.observed.iter().map(|denial| denial.code()).collect::<Vec<_>>(),
            "status": self.status,
            "method": method,
            "path": path,
            "client": self.client,
            "peer": self.peer,
            "detail": detail,
            "interaction": interaction,
            "member": member,
            "from_member": from_member,
            "body_bytes": self.body_bytes,
            "duration_us": self.duration_us,
            "deliver_us": self.deliver_us,
            "trail": trail,
        })
    }
}

impl Texts {
    fn of(parts: [&str; TEXTS]) -> Self {
        let parts = parts.map(shortened);
        let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        let ends = parts.map(|part| {
            text.push_str(part);
            u16::try_from(text.len()).unwrap_or(u16::MAX)
        });
        Self { text: text.into(), ends }
    }

    fn parts(&self) -> [&str; TEXTS] {
        let mut start = 0;
        self.ends.map(|end| {
            let end = usize::from(end);
            self.text.get(std::mem::replace(&mut start, end)..end).unwrap_or_default()
        })
    }
}

/// Returns the text of a field, cut to [`TEXT_BYTES_MAX`] bytes at a character boundary.
pub(super) fn shortened(text: &str) -> &str {
    let cut = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    cut.and_then(|cut| text.get(..cut)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::{Check, Trail};

    fn keep(recent: &Recent, path: &str) {
        let mut trail = Trail::verbose();
        trail.pass(Check::Path, String::new);
        trail.deny(Check::Route, Denial::RouteUnknown, || "none".to_owned());
        recent.keep(&Entry {
            time: Timestamp::from_unix_secs(1_767_225_600),
            request_id: "r",
            route: "none",
            provider: "none",
            agent: None,
            verdict: "deny",
            reason: "route_unknown",
            observes: false,
            observed: &[],
            status: 404,
            method: "GET",
            path,
            client: None,
            peer: IpAddr::from([1, 2, 3, 4]),
            interaction: None,
            member: None,
            event_id: None,
            secret: None,
            from_member: None,
            body_bytes: 0,
            duration_us: 1,
            deliver_us: 0,
            trail: &trail,
        });
    }

    fn paths(rows: &Rows) -> Vec<&str> {
        rows.rows.iter().map(|row| row["path"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_ring_holds_the_newest_and_numbers_go_on() {
        let recent = Recent::new(3, Timestamp::from_unix_secs(0));
        assert!(recent.after(0, 10).rows.is_empty());
        for path in ["/1", "/2", "/3", "/4", "/5"] {
            keep(&recent, path);
        }
        let all = recent.after(0, 10);
        assert_eq!((paths(&all), all.last, all.more), (vec!["/3", "/4", "/5"], 5, false));
        assert_eq!(all.rows[0]["n"], 3);
        assert_eq!(all.rows[0]["trail"][1], json!(["route", "deny", "route_unknown", null]));
        let some = recent.after(0, 2);
        assert_eq!((paths(&some), some.more), (vec!["/3", "/4"], true));
        assert_eq!(paths(&recent.after(4, 10)), ["/5"]);
        assert!(recent.after(5, 10).rows.is_empty());
        assert!(recent.after(u64::MAX - 1, 10).rows.is_empty());
        recent.resize(1);
        assert_eq!(paths(&recent.after(0, 10)), ["/5"]);
        recent.resize(0);
        keep(&recent, "/6");
        assert!(recent.after(0, 10).rows.is_empty() && !recent.is_on());
        recent.resize(2);
        keep(&recent, "/7");
        assert_eq!(recent.after(0, 10).rows[0]["n"], 6);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let recent = Recent::new(1, Timestamp::from_unix_secs(0));
        keep(&recent, &"é".repeat(1000));
        assert_eq!(paths(&recent.after(0, 1)), ["é".repeat(200)]);
        keep(&recent, &format!("x{}", "é".repeat(1000)));
        let rows = recent.after(0, 1);
        assert_eq!(paths(&rows)[0].len(), 399);
        assert_eq!(rows.rows[0]["interaction"], "");
    }

    #[test]
    fn a_request_stays_small() {
        assert!(size_of::<Exchange>() <= 460, "{}", size_of::<Exchange>());
    }
}
