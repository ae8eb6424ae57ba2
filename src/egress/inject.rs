//! Inserts the callback URL and the callback token into a request, and reads the values of the callback's path captures
//! from the request.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::callback_request::{BodyKind, CallbackRequest, has_member};
use super::place::{Insertion, InsertionPlace, refusal};
use super::shape::Callback;
use crate::denial::{Denial, Refusal};
use crate::json::{Absent, Pointer, find_one, insert, resolve_appends};
use crate::path::{Captures, is_capturable, is_remainder};
use crate::query::{Parameter, pair, parameter, without_parameter};
use crate::request::RequestHead;

/// The settings of the callback that an egress rule inserts into a request.
#[derive(Clone, Debug)]
pub struct Inject {
    /// The name of the route that receives the callback.
    pub route: Arc<str>,
    /// The name of the remainder capture (`{*name}`) in the path of this route, if the path has one.
    pub remainder: Option<Box<str>>,
    /// The path captures of this route, each with the source of its value in the agent's request.
    pub params: Vec<(Box<str>, ValueSource)>,
    /// The kinds of requests that get the callback, each with the locations of the callback. The first kind that
    /// matches a request applies.
    pub requests: Vec<CallbackRequest>,
    /// The locations of values in the JSON body, each with the accepted values. A request gets the callback only if it
    /// has an accepted value at each location. Other requests are sent unchanged. An empty list accepts every request.
    pub when: Vec<(Pointer, Vec<Box<str>>)>,
    /// Whether a request that already has a value at the location of the callback is sent unchanged. If false, this
    /// request is denied.
    pub keep: bool,
    /// The lifetime of the callback token. If it is `None`, the default in the section `callback_tokens` applies.
    pub ttl: Option<Duration>,
    /// The number of callbacks that the token allows. `None` means any number.
    pub uses: Option<u32>,
}

/// The source from which a path capture of the route gets its value: the agent's request, or a new id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ValueSource {
    /// A string, a number or a boolean in the JSON body.
    Body(Pointer),
    /// A header, by its name.
    Header(HeaderName),
    /// A new id, which Callgate generates for this request.
    New,
    /// A path capture of the egress rule, by its name.
    Path(Box<str>),
    /// A query parameter, by its name.
    Query(Box<str>),
}

impl Inject {
    /// Returns the kind of body that a request must have to get the callback. The kind depends on the locations of the
    /// inserted values, and on the values that Callgate reads from the body.
    pub fn body_kind(&self) -> BodyKind {
        let in_form = |one: &Insertion| matches!(one.place, InsertionPlace::Form(_));
        let in_json = |one: &Insertion| matches!(one.place, InsertionPlace::Body(_));
        let reads_json = self.params.iter().any(|(_, source)| matches!(source, ValueSource::Body(_)));
        let reads_json = reads_json || !self.when.is_empty();
        let reads_json = reads_json || self.requests.iter().any(|request| request.condition.member.is_some());
        if self.insertions().any(in_form) {
            BodyKind::Form
        } else if reads_json || self.insertions().any(in_json) {
            BodyKind::Json
        } else {
            BodyKind::Any
        }
    }

    /// Reports whether a request with this head can meet the condition `when`.
    pub(super) fn may_apply(&self, head: &RequestHead<'_>) -> bool {
        self.when.is_empty() || (head.has_body() && head.is_json())
    }

    /// Reports whether the body of a request meets the condition `when`.
    pub(super) fn applies(&self, body: &[u8]) -> bool {
        self.when.iter().all(|(pointer, accepted)| has_member(body, pointer, accepted))
    }

    /// Reports whether `value` is valid for the path capture `name` of the route.
    pub(super) fn accepts(&self, name: &str, value: &str) -> bool {
        match &self.remainder {
            Some(remainder) if **remainder == *name => is_remainder(value),
            _ => is_capturable(name, value),
        }
    }

    /// Returns the inserted values of all kinds of requests, each with its location.
    pub fn insertions(&self) -> impl Iterator<Item = &Insertion> {
        self.requests.iter().flat_map(|request| &request.insertions)
    }

    /// Reports whether Callgate must read the provider's task id from the response to a request.
    pub fn reads_response(&self) -> bool {
        self.requests.iter().any(|request| !request.response.is_empty())
    }
}

impl ValueSource {
    /// Reads the value from a request. Returns `None` if the request does not have the value, or has it more than once.
    /// Also returns `None` for [`ValueSource::New`], because this value is not in the request.
    pub(super) fn read(&self, head: &RequestHead<'_>, body: &[u8], captures: &Captures) -> Option<String> {
        match self {
            Self::Body(pointer) => find_one(body, pointer).word().map(Into::into),
            Self::Header(name) => {
                let mut values = head.headers.get_all(name).iter();
                let value = values.next()?.to_str().ok()?.to_owned();
                values.next().is_none().then_some(value)
            }
            Self::New => None,
            Self::Path(name) => captures.value(name).map(str::to_owned),
            Self::Query(name) => match parameter(head.raw_query()?, name) {
                Parameter::One(value) => Some(value.into_owned()),
                Parameter::Missing | Parameter::Several => None,
            },
        }
    }
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(pointer) => write!(f, "{} of the body", pointer.as_str()),
            Self::Header(name) => write!(f, "the header {name}"),
            Self::New => write!(f, "a new id"),
            Self::Path(name) => write!(f, "the capture {name}"),
            Self::Query(name) => write!(f, "the query parameter {name}"),
        }
    }
}

/// Returns the body as text, or a [`Refusal`] if the body is not valid JSON in UTF-8.
pub(super) fn parse(body: &[u8]) -> Result<&str, Refusal> {
    let not_json = |detail| Refusal::new(Denial::RequestNotJson, detail);
    let text =
        simdutf8::basic::from_utf8(body).map_err(|_| not_json("the body of the request is not UTF-8"))?;
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(not_json("the body of the request is not valid JSON")),
    }
}

/// Returns the body of the request with all values inserted.
pub(super) fn body<'b>(
    request: &CallbackRequest,
    head: &RequestHead<'_>,
    body: &'b [u8],
    callback: &Callback<'_>,
) -> Result<Cow<'b, [u8]>, Refusal> {
    let mut text: Option<String> = None;
    for Insertion { place, shape } in request.wanted(head, body) {
        match place {
            InsertionPlace::Body(pointer) => {
                let document = match &text {
                    Some(text) => text.as_str(),
                    None => parse(body)?,
                };
                let value = shape.json(callback);
                let absent = if shape.is_constant() { Absent::Null } else { Absent::NullOrEmpty };
                // A `-` in a pointer means a new element at the end of an array. It is resolved in the agent's original
                // body, so that all insertions refer to the same new element.
                let inserted =
                    resolve_appends(body, pointer).and_then(|at| insert(document, &at, &value, absent));
                text = Some(inserted.map_err(|fault| refusal(fault, pointer))?);
            }
            InsertionPlace::Form(name) => {
                let fields = match text.take() {
                    Some(text) => text,
                    None => form(head, body)?.to_owned(),
                };
                // An empty form field of the agent counts as missing and is replaced.
                let fields = without_parameter(&fields, name).unwrap_or_default();
                let separator = if fields.is_empty() { "" } else { "&" };
                text = Some(format!("{fields}{separator}{}", pair(name, &shape.plain(callback))));
            }
            InsertionPlace::Header(_) | InsertionPlace::Query(_) => {}
        }
    }
    Ok(text.map_or(Cow::Borrowed(body), |text| Cow::Owned(text.into_bytes())))
}

/// Returns the body as text, or a [`Refusal`] if the request does not have a form body.
fn form<'b>(head: &RequestHead<'_>, body: &'b [u8]) -> Result<&'b str, Refusal> {
    let text = std::str::from_utf8(body).ok();
    match text.filter(|_| head.is_form()) {
        Some(text) => Ok(text),
        None => Err(Refusal::new(Denial::RequestNotForm, "the body of the request is not a form")),
    }
}
