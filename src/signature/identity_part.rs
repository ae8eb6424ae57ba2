//! The parts of a message by which Callgate recognizes messages of the same event.

use http::HeaderName;

use crate::json::Pointer;

/// The rule by which Callgate recognizes duplicates among the messages of a provider.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DuplicateRule {
    /// Messages with the same values of all [`IdentityPart`]s belong to the same event.
    #[default]
    Identity,
    /// Messages with the same event id belong to the same event. If the event id is missing or not signed, messages
    /// with the same signature also belong to the same event.
    Signature,
    /// Callgate does not recognize duplicates, and delivers every message.
    Deliver,
}

/// A part of a message by which Callgate recognizes messages of the same event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IdentityPart {
    /// The part is the whole body of the message.
    Body,
    /// The part is the value of the header with this name.
    Header(HeaderName),
    /// The part is the event id of the message.
    Id,
    /// The part is the value at this JSON pointer in the body.
    Member(Pointer),
    /// The part is the signature of the message.
    Signature,
}

impl IdentityPart {
    /// Returns the JSON pointer of the part, or `None` if the part is not a JSON value of the body.
    pub fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Member(pointer) => Some(pointer),
            _ => None,
        }
    }

    /// Returns a description of the part for people, such as `signature`, or the name of the header.
    pub fn describe(&self) -> String {
        match self {
            Self::Body => "body".to_owned(),
            Self::Header(name) => name.to_string(),
            Self::Id => "id".to_owned(),
            Self::Member(pointer) => pointer.as_str().to_owned(),
            Self::Signature => "signature".to_owned(),
        }
    }
}
