//! Where a provider's id of an event is.

use http::HeaderName;

use crate::json::Pointer;

/// Where the id of an event is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventIdSource {
    /// At a JSON pointer into the body, which is signed.
    Body(Pointer),
    /// A header.
    Header(HeaderName),
}

impl EventIdSource {
    /// The header, if that is where it is.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::Body(_) => None,
        }
    }
}
