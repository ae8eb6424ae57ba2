//! Reads the values that a callback reports: the status, the progress, and the provider's task id. Callgate
//! delivers the body of the callback unchanged.

use std::time::Duration;

use http::HeaderName;

use super::stale_progress::Stale;
use super::state::Event;
use crate::json::{Found, Pointer, find};
use crate::query::{Parameter, form_parameter};
use crate::request::{RequestHead, Single};

/// The maximum length of a status, in bytes. A longer status is ignored.
const STATUS_BYTES_MAX: usize = 128;

/// The location in a callback from which a value is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StatusAt {
    /// A value in the JSON body, addressed by a JSON pointer.
    Body(Pointer),
    /// A field of a form body, by its name.
    Form(Box<str>),
    /// A header, by its name.
    Header(HeaderName),
}

/// The rules of a route for reading the state of an interaction from its callbacks: the locations of status and
/// progress, the status values that end an interaction, and the deadlines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Follow {
    /// The locations in a callback that can contain the status. The first location that has a value counts.
    pub status: Vec<StatusAt>,
    /// The location of the progress in the JSON body of a callback. The progress is a number.
    pub progress: Option<Pointer>,
    /// The locations in a callback that can contain the provider's task id. The first location that has a string or
    /// a number counts. This id must equal the id that the provider returned in its response to the agent's request.
    pub id: Vec<StatusAt>,
    /// The status values that mean that the provider asks a question.
    pub asking: Vec<Box<str>>,
    /// The status values that mean that the work has succeeded.
    pub done: Vec<Box<str>>,
    /// The status values that mean that the work has failed.
    pub failed: Vec<Box<str>>,
    /// The maximum time from the agent's request to the final callback.
    pub deadline: Option<Duration>,
    /// The maximum time between two callbacks.
    pub stalled_after: Option<Duration>,
    /// What Callgate does with a callback if no interaction has the provider's task id in the callback. `None` if the
    /// callbacks of the route have tokens, so that this id is not needed to find the interaction.
    pub matching: Option<UnmatchedCallback>,
    /// What Callgate does with stale progress (see [`Stale`]). If this is `None`, a callback with lower progress is
    /// delivered, and every callback after the final callback is denied.
    pub stale: Option<Stale>,
}

/// What Callgate does with a callback if no interaction has the provider's task id in the callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UnmatchedCallback {
    /// The callback is delivered without an interaction.
    Deliver,
    /// The callback is denied.
    Refuse,
}

/// The values that a callback reports: status, progress, id of the work, and question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The status, if the callback has one.
    pub status: Option<Box<str>>,
    /// The progress, if the callback has one.
    pub progress: Option<f64>,
    /// [`Event::Completed`] or [`Event::Failed`], if the status is final.
    pub end: Option<Event>,
    /// The provider's task id, if the callback has one.
    pub id: Option<Box<str>>,
    /// Whether the status is one of [`Follow::asking`], which means that the provider asks a question.
    pub asks: bool,
    /// The provider's question, by its action endpoint: the URL to which the answer is sent. `None` if the callback has
    /// no such URL, or if the route does not allow the URL.
    pub question: Option<Box<str>>,
    /// Whether a value must be read from the JSON body, and the body is not valid JSON. False if the status was found
    /// outside the body, for example in a header.
    pub unreadable: bool,
}

impl Follow {
    /// Reads the reported values from a callback. Sets `unreadable` if the body is not JSON. Ignores a value that
    /// occurs twice in the body.
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
        let mut first = |places: &[StatusAt], is_id: bool| {
            let mut first = None;
            for place in places {
                let text = match place {
                    StatusAt::Body(_) if is_id => found.next().and_then(Found::id),
                    StatusAt::Body(_) => found.next().and_then(Found::word),
                    StatusAt::Form(name) => form(body, name),
                    StatusAt::Header(name) => header(head, name),
                };
                first = first.or(text);
            }
            first
        };
        let status = first(&self.status, false).filter(|status| status.len() <= STATUS_BYTES_MAX);
        // The length of the provider's task id is not limited. If a long id were ignored, Callgate would not recognize
        // a callback that belongs to another interaction.
        let id = first(&self.id, true);
        let progress = self.progress.as_ref().and_then(|_| found.next()).and_then(number);
        let is = |words: &[Box<str>]| status.as_ref().is_some_and(|status| words.contains(status));
        let end = match (is(&self.done), is(&self.failed)) {
            (true, _) => Some(Event::Completed),
            (false, true) => Some(Event::Failed),
            (false, false) => None,
        };
        let asks = is(&self.asking);
        // A callback whose status was found outside the body, for example in a header, is not treated as unreadable.
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

/// Formats the location for error messages.
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
    /// Reports whether the callback reports progress: it has a status or a progress, and the status is not final.
    pub fn is_progress(&self) -> bool {
        self.end.is_none() && (self.status.is_some() || self.progress.is_some())
    }

    /// Returns the event that this callback causes in the state machine of the interaction.
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
    let number: f64 = found.word()?.parse().ok()?;
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
    fn an_id_is_a_text_or_a_number_as_in_the_response_of_the_provider() {
        let pointers = ["/task", "/id"].map(|text| Pointer::parse(text).unwrap());
        let id = pointers.iter().cloned().map(StatusAt::Body).collect();
        let follow = Follow { id, ..Follow::default() };
        for (body, id) in [
            (r#"{"task":"t-1","id":"t-2"}"#, Some("t-1")),
            (r#"{"id":17}"#, Some("17")),
            (r#"{"task":true,"id":"t-2"}"#, Some("t-2")),
            (r#"{"task":{"id":1},"id":"true"}"#, Some("true")),
            (r#"{"task":null,"id":false}"#, None),
        ] {
            assert_eq!(read(&follow, body).id.as_deref(), id, "{body}");
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
