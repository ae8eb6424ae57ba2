//! What the body of a callback reports: status, progress, a question; read by the route's JSON pointers. The
//! body itself is passed on as it came.

use std::time::Duration;

use http::HeaderName;

use super::state::Event;
use crate::json::{Found, Pointer, find};
use crate::query::{Parameter, form_parameter};
use crate::request::{RequestHead, Single};

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

/// Where a callback says something of the interaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StatusAt {
    /// In a member of the JSON body.
    Body(Pointer),
    /// In a field of a form.
    Form(Box<str>),
    /// In a header.
    Header(HeaderName),
}

/// How a route follows its interactions: where status and progress stand in a callback's body, which values
/// end it, and how long it may take.
#[derive(Clone, Debug, Default)]
pub struct Follow {
    /// Where the status stands: the first of these that is there.
    pub status: Vec<StatusAt>,
    /// Where the progress stands, a number.
    pub progress: Option<Pointer>,
    /// Where the provider's id of the work stands: the first of these that is there. It must be the one that the
    /// provider gave in its answer to the request.
    pub id: Vec<StatusAt>,
    /// The values of the status with which the provider asks something.
    pub asking: Vec<Box<str>>,
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
    /// What the provider calls the work, where it says so.
    pub id: Option<Box<str>>,
    /// The status is one with which the provider asks something.
    pub asks: bool,
    /// The action endpoint, where the callback asks a question and it was found usable.
    pub question: Option<Box<str>>,
    /// There was something to read, and the body could not be read as JSON.
    pub unreadable: bool,
}

impl Follow {
    /// Reads a callback. A body that is no JSON is unreadable; one with two members of one name on the way reports nothing.
    pub fn report(&self, head: &RequestHead<'_>, body: &[u8]) -> Report {
        let places = self.status.iter().chain(&self.id).filter_map(StatusAt::pointer);
        let pointers: Vec<_> = places.chain(&self.progress).collect();
        let (mut unreadable, mut found) = (false, Vec::new());
        if !pointers.is_empty() {
            match find(body, &pointers) {
                Ok(all) => found = all,
                Err(_) => unreadable = true,
            }
        }
        let mut found = found.into_iter();
        let mut first = |places: &[StatusAt]| {
            let mut first = None;
            for place in places {
                let text = match place {
                    StatusAt::Body(_) => found.next().and_then(Found::word),
                    StatusAt::Form(name) => form(body, name),
                    StatusAt::Header(name) => header(head, name),
                };
                first = first.or(text);
            }
            first
        };
        let status = first(&self.status).filter(|status| status.len() <= STATUS_BYTES_MAX);
        // An id that is too long to be one is another one.
        let id = first(&self.id);
        let progress = self.progress.as_ref().and_then(|_| found.next()).and_then(number);
        let is = |words: &[Box<str>]| status.as_ref().is_some_and(|status| words.contains(status));
        let end = match (is(&self.done), is(&self.failed)) {
            (true, _) => Some(Event::Completed),
            (false, true) => Some(Event::Failed),
            (false, false) => None,
        };
        let asks = is(&self.asking);
        // A header may have said all there is to say.
        let unreadable = unreadable && status.is_none();
        Report { status, progress, end, id, asks, unreadable, ..Report::default() }
    }
}

impl StatusAt {
    fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Body(pointer) => Some(pointer),
            Self::Form(_) | Self::Header(_) => None,
        }
    }
}

/// In words, for people.
impl std::fmt::Display for StatusAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Body(pointer) => f.write_str(pointer.as_str()),
            Self::Form(name) => write!(f, "the form's field {name}"),
            Self::Header(name) => write!(f, "the header {name}"),
        }
    }
}

fn form(body: &[u8], name: &str) -> Option<Box<str>> {
    match form_parameter(std::str::from_utf8(body).ok()?, name) {
        Parameter::One(value) => Some(value.into_owned().into()),
        Parameter::Missing | Parameter::Several => None,
    }
}

fn header(head: &RequestHead<'_>, name: &HeaderName) -> Option<Box<str>> {
    match head.single(name) {
        Single::One(value) => value.to_str().ok().map(Into::into),
        Single::Missing | Single::Several => None,
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
            (None, None) if self.asks => Event::Asked,
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

    fn read(follow: &Follow, body: &str) -> Report {
        let headers = http::HeaderMap::new();
        let peer = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        follow.report(&RequestHead::new("POST", "/", &headers, peer), body.as_bytes())
    }

    fn follow() -> Follow {
        Follow {
            status: vec![StatusAt::Body(Pointer::parse("/status").unwrap())],
            progress: Pointer::parse("/p/percent"),
            done: vec!["completed".into(), "true".into()],
            failed: vec!["failed".into()],
            ..Follow::default()
        }
    }

    #[test]
    fn a_body_reports_what_the_pointers_point_at() {
        let report = |body: &str| read(&follow(), body);
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
            assert_eq!(read(&follow(), body), Report::default(), "{body}");
        }
        for body in ["", "x", "{\"status\":", "{\"status\":NaN}"] {
            assert!(read(&follow(), body).unreadable, "{body}");
        }
        assert_eq!(read(&follow(), r#"{"p": {"percent": "NaN"}}"#).progress, None);
        assert_eq!(read(&Follow::default(), r#"{"status": "completed"}"#), Report::default());
    }
}
