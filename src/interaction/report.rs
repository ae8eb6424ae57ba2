//! What the body of a callback reports: status, progress, a question; read by the route's JSON pointers. The
//! body itself is passed on as it came.

use std::time::Duration;

use super::state::Event;
use crate::json::{Found, Pointer, find};

/// Longest status that is kept, in bytes; a longer one is as good as none.
const STATUS_BYTES_MAX: usize = 128;

/// What becomes of progress that comes out of order: less than was reported before, or behind a final
/// callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stale {
    /// The agent sees it, also behind a final one.
    Deliver,
    /// It is answered with 200, and the agent does not see it.
    Drop,
}

/// How a route follows its interactions: where status and progress stand in a callback's body, which values
/// end it, and how long it may take.
#[derive(Clone, Debug, Default)]
pub struct Follow {
    /// Where the status stands.
    pub status: Option<Pointer>,
    /// Where the progress stands, a number.
    pub progress: Option<Pointer>,
    /// The values of the status that mean success.
    pub done: Vec<Box<str>>,
    /// The values of the status that mean failure.
    pub failed: Vec<Box<str>>,
    /// From the request to the final callback, at most.
    pub deadline: Option<Duration>,
    /// From one callback to the next, at most.
    pub stalled_after: Option<Duration>,
    /// What becomes of progress out of order; `None`: less progress is delivered, whatever comes behind a
    /// final callback is refused.
    pub stale: Option<Stale>,
}

/// What one callback reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The status, where there is one.
    pub status: Option<Box<str>>,
    /// The progress, where there is one.
    pub progress: Option<f64>,
    /// Success or failure, where the status is one of those words.
    pub end: Option<Event>,
    /// The action endpoint, where the callback asks a question and it was found usable.
    pub question: Option<Box<str>>,
    /// There was something to read, and the body could not be read as JSON.
    pub unreadable: bool,
}

impl Follow {
    /// Reads a body. A body that is no JSON is unreadable; one with two members of one name on the way reports nothing.
    pub fn report(&self, body: &[u8]) -> Report {
        let pointers: Vec<_> = self.status.iter().chain(&self.progress).collect();
        if pointers.is_empty() {
            return Report::default();
        }
        let Ok(found) = find(body, &pointers) else {
            return Report { unreadable: true, ..Report::default() };
        };
        let mut found = found.into_iter();
        let status = self.status.as_ref().and_then(|_| found.next()).and_then(Found::word);
        let status = status.filter(|status| status.len() <= STATUS_BYTES_MAX);
        let progress = self.progress.as_ref().and_then(|_| found.next()).and_then(number);
        let is = |words: &[Box<str>]| status.as_ref().is_some_and(|status| words.contains(status));
        let end = match (is(&self.done), is(&self.failed)) {
            (true, _) => Some(Event::Completed),
            (false, true) => Some(Event::Failed),
            (false, false) => None,
        };
        Report { status, progress, end, ..Report::default() }
    }
}

impl Report {
    /// Whether this is a report of progress: something was read, and it ends nothing.
    pub fn is_progress(&self) -> bool {
        self.end.is_none() && (self.status.is_some() || self.progress.is_some())
    }

    /// The event that this callback is.
    pub fn event(&self) -> Event {
        match (self.end, &self.question) {
            (Some(end), _) => end,
            (None, Some(_)) => Event::Asked,
            (None, None) => Event::Progressed,
        }
    }
}

fn number(found: Found<'_>) -> Option<f64> {
    let number: f64 = match found.raw()? {
        raw if raw.starts_with('"') => found.word()?.parse().ok()?,
        raw => raw.parse().ok()?,
    };
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow() -> Follow {
        Follow {
            status: Pointer::parse("/status"),
            progress: Pointer::parse("/p/percent"),
            done: vec!["completed".into(), "true".into()],
            failed: vec!["failed".into()],
            ..Follow::default()
        }
    }

    #[test]
    fn a_body_reports_what_the_pointers_point_at() {
        let report = |body: &str| follow().report(body.as_bytes());
        let processing = report(r#"{"status": "processing", "p": {"percent": 25}}"#);
        assert_eq!((processing.status.as_deref(), processing.progress), (Some("processing"), Some(25.0)));
        assert_eq!(processing.event(), Event::Progressed);
        assert!(processing.is_progress());
        assert_eq!(report(r#"{"status": "completed"}"#).end, Some(Event::Completed));
        assert_eq!(report(r#"{"status": true}"#).end, Some(Event::Completed));
        assert_eq!(report(r#"{"status": "failed"}"#).end, Some(Event::Failed));
        assert_eq!(report(r#"{"p": {"percent": "99.5"}}"#).progress, Some(99.5));
    }

    #[test]
    fn what_cannot_be_read_reports_nothing() {
        for body in ["[]", r#"{"status": {}}"#, r#"{"status":"completed","status":"x"}"#, "1e999"] {
            assert_eq!(follow().report(body.as_bytes()), Report::default(), "{body}");
        }
        for body in ["", "x", "{\"status\":", "{\"status\":NaN}"] {
            assert!(follow().report(body.as_bytes()).unreadable, "{body}");
        }
        assert_eq!(follow().report(br#"{"p": {"percent": "NaN"}}"#).progress, None);
        assert_eq!(Follow::default().report(br#"{"status": "completed"}"#), Report::default());
    }
}
