//! The locations in a request at which Callgate can insert values.

use std::fmt;

use http::HeaderName;

use super::shape::Shape;
use crate::denial::{Denial, Refusal};
use crate::framing::is_same_header;
use crate::json::{Absent, Found, InsertFault, Pointer, find_one, find_strict, resolve_appends};
use crate::query::{Parameter, parameter, parameter_strict};
use crate::request::RequestHead;

/// A location in a request at which Callgate can insert a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InsertionPlace {
    /// A location in a JSON body.
    Body(Pointer),
    /// A field of a form body, by its name.
    Form(Box<str>),
    /// A header, by its name.
    Header(HeaderName),
    /// A query parameter, by its name.
    Query(Box<str>),
}

/// A value that Callgate inserts into a request, and its location.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Insertion {
    /// The location of the value in the request.
    pub place: InsertionPlace,
    /// The template of the value, which can contain parts of the callback.
    pub shape: Shape,
}

/// Whether the agent's request already has a value at the location of an insertion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Occupancy {
    /// Different programs can read different values at this location. For example, the request has several values
    /// there, or a value under another spelling of the name.
    Ambiguous,
    /// The request has no value at this location. `null` and an empty text count as no value.
    Free,
    /// The request has exactly one value at this location.
    Taken,
}

impl InsertionPlace {
    /// Returns whether the request already has a value at this location. A value under another spelling of the name
    /// counts as well. Otherwise a provider that ignores the case of names could read the agent's callback URL instead
    /// of the inserted URL.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if the location is in a JSON body and the body is not JSON.
    pub(super) fn occupancy(&self, head: &RequestHead<'_>, body: &[u8]) -> Result<Occupancy, Refusal> {
        Ok(match self {
            Self::Body(pointer) => {
                let pointer = &*resolve_appends(body, pointer).map_err(|fault| refusal(fault, pointer))?;
                match find_strict(body, pointer) {
                    Err(_) => return Err(refusal(InsertFault::NotJson, pointer)),
                    Ok(Found::One(value)) if Absent::NullOrEmpty.includes(value.get()) => Occupancy::Free,
                    Ok(Found::One(_)) => Occupancy::Taken,
                    Ok(Found::Missing) if matches!(find_one(body, pointer), Found::Missing) => {
                        Occupancy::Free
                    }
                    Ok(Found::Missing | Found::Doubled) => Occupancy::Ambiguous,
                }
            }
            Self::Form(name) => parameter_strict(std::str::from_utf8(body).unwrap_or_default(), name).into(),
            Self::Header(name) => {
                let spelled =
                    head.headers.iter().filter(|(other, _)| is_same_header(other.as_str(), name.as_str()));
                match (spelled.count(), head.headers.get(name)) {
                    (0, _) => Occupancy::Free,
                    (1, Some(value)) if value.is_empty() => Occupancy::Free,
                    (1, Some(_)) => Occupancy::Taken,
                    _ => Occupancy::Ambiguous,
                }
            }
            Self::Query(name) => parameter_strict(head.raw_query().unwrap_or_default(), name).into(),
        })
    }

    /// Reports whether the request already has a value at this location. An empty text counts as a value, and `null`
    /// does not.
    pub(super) fn is_taken(&self, head: &RequestHead<'_>, body: &[u8]) -> bool {
        match self {
            Self::Body(pointer) => {
                let Ok(pointer) = resolve_appends(body, pointer) else { return false };
                match find_one(body, &pointer) {
                    Found::Missing => false,
                    Found::Doubled => true,
                    Found::One(value) => !Absent::Null.includes(value.get()),
                }
            }
            Self::Form(name) => {
                let fields = std::str::from_utf8(body).unwrap_or_default();
                parameter(fields, name) != Parameter::Missing
            }
            Self::Header(name) => head.headers.contains_key(name),
            Self::Query(name) => {
                let query = head.raw_query().unwrap_or_default();
                parameter(query, name) != Parameter::Missing
            }
        }
    }
}

impl From<Parameter<'_>> for Occupancy {
    fn from(found: Parameter<'_>) -> Self {
        match found {
            Parameter::Missing => Self::Free,
            Parameter::One(value) if value.is_empty() => Self::Free,
            Parameter::One(_) => Self::Taken,
            Parameter::Several => Self::Ambiguous,
        }
    }
}

impl fmt::Display for InsertionPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(pointer) => write!(f, "{} of the body", pointer.as_str()),
            Self::Form(name) => write!(f, "the form's field {name}"),
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Query(name) => write!(f, "the query parameter {name}"),
        }
    }
}

/// Returns the refusal for a request if a value cannot be inserted into its JSON body.
pub(super) fn refusal(fault: InsertFault, pointer: &Pointer) -> Refusal {
    let at = pointer.as_str();
    match fault {
        InsertFault::NotJson => {
            Refusal::new(Denial::RequestNotJson, "the body of the request is not valid JSON")
        }
        InsertFault::Present => {
            Refusal::new(Denial::CallbackPresent, format!("the request already has a value at {at}"))
        }
        InsertFault::Doubled => {
            Refusal::new(Denial::InjectionImpossible, format!("a member on the path {at} occurs twice"))
        }
        InsertFault::NoMembers => Refusal::new(
            Denial::InjectionImpossible,
            format!(
                "a value on the path {at} is not an object or a list, or the list has no such element; look at the value \
                 that the request has there"
            ),
        ),
    }
}
