//! The signature, timestamp and event id in the head of a request.

use http::HeaderValue;

use crate::denial::{Denial, Refusal};
use crate::signature::content::ContentScheme;
use crate::signature::keys::{AuthenticationTag, SignatureAlgorithm};
use crate::signature::proofs::{VerifiedJwt, VerifiedMessageSignature};
use crate::signature::request_parts::{HeaderSlice, SignaturePlace};

/// The maximum number of signatures in one message. A provider sends two signatures while it changes its key. The
/// limit bounds the work that an attacker can cause.
const SIGNATURES_MAX: usize = 16;

/// The result of verifying the head of a request: the proof, the timestamp and the event id in the head.
#[derive(Clone, Debug)]
pub struct PresentedSignature {
    pub(super) proof: PresentedProof,
    pub(super) timestamp: Option<HeaderSlice>,
    pub(super) id: Option<HeaderValue>,
}

/// The proof in the head of a request, before the body is verified.
#[derive(Clone, Debug)]
pub(super) enum PresentedProof {
    /// The head contains no proof that still has to be verified: the proof is in the body, is already verified, or
    /// does not exist.
    None,
    /// An HTTP message signature, already verified except for the digest of the body.
    MessageSignature(Box<VerifiedMessageSignature>),
    /// Public-key signatures, which are verified with the body.
    Signatures(Vec<Box<[u8]>>),
    /// A JWT, already verified except for the digest of the body.
    Jwt(Box<VerifiedJwt>),
    /// MACs, which are verified with the body.
    Macs(Vec<AuthenticationTag>),
}

impl PresentedSignature {
    /// Returns the event id in the head of the request, or `None` if the head contains no event id.
    pub fn event_id(&self) -> Option<&HeaderValue> {
        self.id.as_ref()
    }

    /// Reports whether the head contains a signature or a JWT. A request with a signature is never an unsigned
    /// handshake. A shared secret is not a signature.
    pub fn is_in_head(&self) -> bool {
        match &self.proof {
            PresentedProof::None => false,
            // The list is empty if the scheme expects the signatures in the body.
            PresentedProof::Macs(tags) => !tags.is_empty(),
            PresentedProof::Signatures(signatures) => !signatures.is_empty(),
            PresentedProof::Jwt(_) | PresentedProof::MessageSignature(_) => true,
        }
    }

    /// Returns the head values of a message that Callgate is about to sign: the timestamp and the event id, but no
    /// signature.
    pub(super) fn unsigned(timestamp: Option<HeaderSlice>, id: Option<HeaderValue>) -> Self {
        Self { proof: PresentedProof::None, timestamp, id }
    }
}

impl PresentedProof {
    /// Returns an empty list of MACs or of public-key signatures, depending on the algorithm.
    pub(super) fn empty(algorithm: SignatureAlgorithm) -> Self {
        match algorithm {
            SignatureAlgorithm::Mac(_) => Self::Macs(Vec::new()),
            SignatureAlgorithm::Public(_) => Self::Signatures(Vec::new()),
        }
    }

    /// Decodes the signature in `text`, and adds it to the list. Returns false if the text is not a signature of this
    /// scheme.
    pub(super) fn add(&mut self, scheme: &ContentScheme, text: &str) -> bool {
        match (self, scheme.algorithm) {
            (Self::Macs(tags), SignatureAlgorithm::Mac(algorithm)) => {
                scheme.encoding.decode(text, algorithm).map(|tag| tags.push(tag)).is_some()
            }
            (Self::Signatures(signatures), SignatureAlgorithm::Public(_)) => {
                scheme.encoding.decode_any(text).map(|bytes| signatures.push(bytes.into())).is_some()
            }
            _ => false,
        }
    }

    /// Returns the number of signatures in the request.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Macs(tags) => tags.len(),
            Self::Signatures(signatures) => signatures.len(),
            Self::None | Self::MessageSignature(_) | Self::Jwt(_) => 1,
        }
    }

    /// Checks that the number of signatures is from 1 to `SIGNATURES_MAX`. `place` is the location of the signatures
    /// for the error text. If there is no signature, the function `fault` returns the reason for the error text.
    ///
    /// # Errors
    /// Returns `signature_malformed` if the number of signatures is wrong.
    pub(super) fn check_count(
        &self,
        place: &SignaturePlace,
        fault: impl FnOnce() -> String,
    ) -> Result<(), Refusal> {
        let detail = match self.len() {
            1..=SIGNATURES_MAX => return Ok(()),
            0 => format!("{place} {}", fault()),
            count => format!("{place} has {count} signatures, at most {SIGNATURES_MAX} are allowed"),
        };
        Err(Refusal::new(Denial::SignatureMalformed, detail))
    }
}
