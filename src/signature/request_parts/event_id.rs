//! The location of the event id in a request.

use std::fmt;

use http::HeaderName;

use crate::json::Pointer;

/// The location of a provider's event id in a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventIdSource {
    /// The event id is the value at this JSON pointer in the JSON body.
    Body(Pointer),
    /// The event id is in the form field of this name in the body.
    Form(Box<str>),
    /// The event id is in the header of this name.
    Header(HeaderName),
    /// The event id is in the query parameter of this name.
    Query(Box<str>),
}

impl EventIdSource {
    /// Returns the name of the header that contains the event id, or `None` if the id is not in a header.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::Body(_) | Self::Form(_) | Self::Query(_) => None,
        }
    }

    /// Reports whether the event id is in the head of a request: in a header or in the query.
    pub fn is_in_head(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Query(_))
    }
}

/// Formats the location of the event id as a noun phrase, such as `header x-id`.
impl fmt::Display for EventIdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(pointer) => write!(f, "{} of the body", pointer.as_str()),
            Self::Form(name) => write!(f, "form field {name}"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Query(name) => write!(f, "query parameter {name}"),
        }
    }
}
