//! The part of a signature that is in the request head.

use http::HeaderValue;

use crate::denial::{Denial, Refusal};
use crate::signature::content::ContentScheme;
use crate::signature::keys::{AuthenticationTag, SignatureAlgorithm};
use crate::signature::proofs::{VerifiedJwt, VerifiedMessageSignature};
use crate::signature::request_parts::{HeaderSlice, SignaturePlace};

/// Maximum number of signatures in one message. A provider sends two signatures while it changes its key. The limit
/// bounds the work that an attacker can cause.
const SIGNATURES_MAX: usize = 16;

/// The result of verifying the head of a request: its proof, timestamp and event id.
#[derive(Clone, Debug)]
pub struct PresentedSignature {
    pub(super) proof: PresentedProof,
    pub(super) timestamp: Option<HeaderSlice>,
    pub(super) id: Option<HeaderValue>,
}

/// The proof in the head of a request.
#[derive(Clone, Debug)]
pub(super) enum PresentedProof {
    /// The head contains no proof that still has to be verified: the proof is in the body, is already verified, or does
    /// not exist.
    None,
    /// A verified HTTP message signature.
    MessageSignature(Box<VerifiedMessageSignature>),
    /// Public-key signatures.
    Signatures(Vec<Box<[u8]>>),
    /// A verified JWT.
    Jwt(Box<VerifiedJwt>),
    /// MACs.
    Macs(Vec<AuthenticationTag>),
}

impl PresentedSignature {
    /// Returns the event id, if the head has it.
    pub fn event_id(&self) -> Option<&HeaderValue> {
        self.id.as_ref()
    }

    /// Reports whether the head contains a signature or a JWT. Such a request is never an unsigned handshake. A shared
    /// secret is not a signature.
    pub fn is_in_head(&self) -> bool {
        match &self.proof {
            PresentedProof::None => false,
            // The list is empty if the scheme has its signatures in the body.
            PresentedProof::Macs(tags) => !tags.is_empty(),
            PresentedProof::Signatures(signatures) => !signatures.is_empty(),
            PresentedProof::Jwt(_) | PresentedProof::MessageSignature(_) => true,
        }
    }

    /// Returns the timestamp and event id of a message that is about to be signed.
    pub(super) fn unsigned(timestamp: Option<HeaderSlice>, id: Option<HeaderValue>) -> Self {
        Self { proof: PresentedProof::None, timestamp, id }
    }
}

impl PresentedProof {
    /// Returns a proof without signatures.
    pub(super) fn empty(algorithm: SignatureAlgorithm) -> Self {
        match algorithm {
            SignatureAlgorithm::Mac(_) => Self::Macs(Vec::new()),
            SignatureAlgorithm::Public(_) => Self::Signatures(Vec::new()),
        }
    }

    /// Adds the signature that `text` contains. Returns false if the text is not a signature of this scheme.
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

    /// Returns the number of signatures.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Macs(tags) => tags.len(),
            Self::Signatures(signatures) => signatures.len(),
            Self::None | Self::MessageSignature(_) | Self::Jwt(_) => 1,
        }
    }

    /// Checks that there is at least one signature, and not too many. `place` names the place of the signatures for the
    /// error. `fault` returns the reason why this place has no signature.
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
