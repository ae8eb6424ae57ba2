//! A signature over a content, as data.

use super::template::Content;
use crate::signature::keys::{Cipher, Encoding};
use crate::signature::request_parts::{Place, TimestampRule};

/// A signature over a content made by a template.
#[derive(Clone, Debug)]
pub struct ContentScheme {
    /// The algorithm.
    pub cipher: Cipher,
    /// The bytes under the signature.
    pub content: Content,
    /// How the signature is written.
    pub encoding: Encoding,
    /// Where the signature travels, and in which grammar.
    pub place: Place,
    /// The timestamp, where the provider sends one.
    pub timestamp: Option<TimestampRule>,
}
