//! A signature over a content, as data.

use super::template::ContentTemplate;
use crate::signature::keys::{Encoding, SignatureAlgorithm};
use crate::signature::request_parts::{SignaturePlace, TimestampRule};

/// A signature over a content made by a template.
#[derive(Clone, Debug)]
pub struct ContentScheme {
    /// The algorithm.
    pub algorithm: SignatureAlgorithm,
    /// The bytes under the signature.
    pub content: ContentTemplate,
    /// How the signature is written.
    pub encoding: Encoding,
    /// Where the signature travels, and in which grammar.
    pub place: SignaturePlace,
    /// The timestamp, where the provider sends one.
    pub timestamp: Option<TimestampRule>,
}
