//! Where in a request a callback's address and token go, and where the values of its captures come from.

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;

use super::rule::Inject;
use crate::denial::{Denial, Refusal};
use crate::json::{Found, InsertFault, Pointer, find_one, insert};
use crate::path::{Captures, Parameter, parameter};
use crate::request::RequestHead;

/// A place in a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A member of the JSON body.
    Body(Pointer),
    /// A header.
    Header(HeaderName),
    /// A parameter of the query.
    Query(Box<str>),
}

/// Where a value comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A member of the JSON body: a string, or a number as it stands.
    Body(Pointer),
    /// A header.
    Header(HeaderName),
    /// Nowhere: a new id.
    New,
    /// A capture of the rule's own path.
    Path(Box<str>),
    /// A parameter of the query.
    Query(Box<str>),
}

impl Place {
    /// Whether the request has something there already.
    pub(super) fn is_taken(&self, head: &RequestHead<'_>, body: &[u8]) -> bool {
        match self {
            Self::Body(pointer) => !matches!(find_one(body, pointer), Found::Missing),
            Self::Header(name) => head.headers.contains_key(name),
            Self::Query(name) => {
                let query = head.raw_query().unwrap_or_default();
                parameter(query, name) != Parameter::Missing
            }
        }
    }
}

impl Source {
    /// The value in a request.
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

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(pointer) => write!(f, "{} of the body", pointer.as_str()),
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Query(name) => write!(f, "the query parameter {name}"),
        }
    }
}

impl fmt::Display for Source {
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

/// The body as the text of a JSON document.
pub(super) fn parse(body: &[u8]) -> Result<&str, Refusal> {
    let not_json = |detail| Refusal::new(Denial::RequestNotJson, detail);
    let text = std::str::from_utf8(body).map_err(|_| not_json("the body is not UTF-8"))?;
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(not_json("the body is not JSON")),
    }
}

/// The body with address and token where the rule puts them into it.
pub(super) fn body<'b>(
    inject: &Inject,
    body: &'b [u8],
    url: &str,
    token: &str,
) -> Result<Cow<'b, [u8]>, Refusal> {
    let mut text: Option<String> = None;
    for (place, value) in [(Some(&inject.url), url), (inject.token.as_ref(), token)] {
        let Some(Place::Body(pointer)) = place else { continue };
        let document = match &text {
            Some(text) => text.as_str(),
            None => parse(body)?,
        };
        text = Some(insert(document, pointer, value).map_err(|fault| refusal(fault, pointer))?);
    }
    Ok(text.map_or(Cow::Borrowed(body), |text| Cow::Owned(text.into_bytes())))
}

fn refusal(fault: InsertFault, pointer: &Pointer) -> Refusal {
    let at = pointer.as_str();
    match fault {
        InsertFault::NotJson => Refusal::new(Denial::RequestNotJson, "the body is not JSON"),
        InsertFault::Present => Refusal::new(Denial::CallbackPresent, format!("there is something at {at}")),
        InsertFault::Doubled => {
            Refusal::new(Denial::InjectionImpossible, format!("there are two members on the way to {at}"))
        }
        InsertFault::NoMembers => {
            Refusal::new(Denial::InjectionImpossible, format!("something on the way to {at} has no members"))
        }
    }
}
