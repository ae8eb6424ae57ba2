//! The scheme of a provider that signs a content which is built from a template.

use super::content_template::ContentTemplate;
use crate::signature::keys::{Encoding, SignatureAlgorithm};
use crate::signature::request_parts::{SignaturePlace, TimestampRule};

/// A signature over the content that a template describes.
#[derive(Clone, Debug)]
pub struct ContentScheme {
    /// The algorithm of the signature.
    pub algorithm: SignatureAlgorithm,
    /// The template of the signed content.
    pub content: ContentTemplate,
    /// The encoding of the signature.
    pub encoding: Encoding,
    /// The place of the signature in the request.
    pub place: SignaturePlace,
    /// The timestamp, if the provider sends one.
    pub timestamp: Option<TimestampRule>,
}

impl ContentScheme {
    /// Returns the reason why a text is not a signature of this scheme, as a predicate such as `is not base64`.
    pub(in crate::signature) fn fault(&self, text: &str) -> String {
        let algorithm = match self.algorithm {
            SignatureAlgorithm::Mac(algorithm) => Some(algorithm),
            SignatureAlgorithm::Public(_) => None,
        };
        self.encoding.fault(text, algorithm)
    }
}
