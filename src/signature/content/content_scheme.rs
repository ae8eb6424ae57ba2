//! Signature schemes in which a template describes the signed content.

use super::content_template::ContentTemplate;
use crate::signature::keys::{Encoding, SignatureAlgorithm};
use crate::signature::request_parts::{SignaturePlace, TimestampRule};

/// A signature scheme in which a template describes the signed content, such as `{timestamp}.{body}`.
#[derive(Clone, Debug)]
pub struct ContentScheme {
    /// The algorithm with which the provider signs.
    pub algorithm: SignatureAlgorithm,
    /// The template of the signed content.
    pub content: ContentTemplate,
    /// The encoding of the signature in the request, such as hexadecimal.
    pub encoding: Encoding,
    /// The location of the signature in the request.
    pub place: SignaturePlace,
    /// How Callgate reads and checks the timestamp. `None` if the provider sends no timestamp.
    pub timestamp: Option<TimestampRule>,
}

impl ContentScheme {
    /// Returns the reason why a text cannot be a signature of this scheme, as a predicate such as `is not base64`.
    pub(in crate::signature) fn fault(&self, text: &str) -> String {
        let algorithm = match self.algorithm {
            SignatureAlgorithm::Mac(algorithm) => Some(algorithm),
            SignatureAlgorithm::Public(_) => None,
        };
        self.encoding.fault(text, algorithm)
    }
}
