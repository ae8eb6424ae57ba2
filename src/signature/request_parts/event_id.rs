//! The source of a provider's event id.

use http::HeaderName;

use crate::json::Pointer;

/// The part of a request that contains the event id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventIdSource {
    /// A member of the JSON body.
    Body(Pointer),
    /// A header.
    Header(HeaderName),
}

impl EventIdSource {
    /// Returns the name of the header, if a header contains the id.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::Body(_) => None,
        }
    }
}
