//! The parts of a message that tell its event apart from other events.

use http::HeaderName;

use crate::json::Pointer;

/// The rule by which duplicates of a provider's messages are recognized.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DuplicateRule {
    /// Messages with the same [`IdentityPart`]s are the same event.
    #[default]
    Identity,
    /// Messages with the same event id are the same event. If the id is missing or not signed, messages with the same
    /// signature are the same event, too.
    Signature,
    /// Duplicates are not recognized. Every message is delivered.
    Deliver,
}

/// A part of a message that tells events apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IdentityPart {
    /// The whole body.
    Body,
    /// The value of a header.
    Header(HeaderName),
    /// The event id.
    Id,
    /// A member of the body.
    Member(Pointer),
    /// The signature.
    Signature,
}

impl IdentityPart {
    /// Returns the pointer to the member of the body, if the part is a member.
    pub fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Member(pointer) => Some(pointer),
            _ => None,
        }
    }

    /// Returns the part as the configuration names it.
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
