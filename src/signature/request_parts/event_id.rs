//! The source of a provider's event id.

use std::fmt;

use http::HeaderName;

use crate::json::Pointer;

/// The part of a request that contains the event id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventIdSource {
    /// A member of the JSON body.
    Body(Pointer),
    /// A field of the form in the body.
    Form(Box<str>),
    /// A header.
    Header(HeaderName),
    /// A query parameter.
    Query(Box<str>),
}

impl EventIdSource {
    /// Returns the name of the header, if a header contains the id.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::Body(_) | Self::Form(_) | Self::Query(_) => None,
        }
    }

    /// Reports whether the head of a request contains the id.
    pub fn is_in_head(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Query(_))
    }
}

/// Formats the source as a noun phrase.
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
