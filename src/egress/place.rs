//! The places in a request at which values can be inserted.

use std::fmt;

use http::HeaderName;

use super::shape::Shape;
use crate::denial::{Denial, Refusal};
use crate::framing::is_same_header;
use crate::json::{Absent, Found, InsertFault, Pointer, find_one, find_strict, resolve_appends};
use crate::query::{Parameter, parameter, parameter_strict};
use crate::request::RequestHead;

/// A place in a request at which a value can be inserted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InsertionPlace {
    /// A member of a JSON body.
    Body(Pointer),
    /// A field of a form body.
    Form(Box<str>),
    /// A header.
    Header(HeaderName),
    /// A query parameter.
    Query(Box<str>),
}

/// A value that is inserted into a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Insertion {
    /// The place of the value in the request.
    pub place: InsertionPlace,
    /// The form of the value.
    pub shape: Shape,
}

/// What a request has at the place of an insertion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Occupancy {
    /// Different programs read different values from this place. For example, the request has more than one value
    /// there, or a value under another spelling of the name.
    Ambiguous,
    /// The request has no value there, or only a value that counts as absent: `null` or an empty text.
    Free,
    /// The request has exactly one value there.
    Taken,
}

impl InsertionPlace {
    /// Returns what the request has at this place. A value under another spelling of the name counts, too. Otherwise a
    /// provider that ignores case could read the agent's callback URL instead of the inserted one.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if the place is in a JSON body and the body is not JSON.
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

    /// Reports whether the request already has a value at this place. `null` does not count as a value.
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

/// Returns the refusal of a request into which a value cannot be inserted.
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
