//! The part of a signature that is in the request head.

use http::HeaderValue;

use crate::denial::{Denial, Refusal};
use crate::signature::keys::AuthenticationTag;
use crate::signature::proofs::{VerifiedJwt, VerifiedMessageSignature};
use crate::signature::request_parts::HeaderSlice;

/// Maximum number of signatures in one message. A provider sends two while it changes its key. The limit bounds the
/// work that an attacker can cause.
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

    /// Reports whether the head has a proof. A request with a proof is never an unsigned handshake.
    pub fn is_in_head(&self) -> bool {
        !matches!(self.proof, PresentedProof::None)
    }

    /// Returns the timestamp and event id of a message that is about to be signed.
    pub(super) fn unsigned(timestamp: Option<HeaderSlice>, id: Option<HeaderValue>) -> Self {
        Self { proof: PresentedProof::None, timestamp, id }
    }
}

impl PresentedProof {
    /// Returns the number of signatures.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Macs(tags) => tags.len(),
            Self::Signatures(signatures) => signatures.len(),
            Self::None | Self::MessageSignature(_) | Self::Jwt(_) => 1,
        }
    }

    /// Checks that there is at least one signature, and not too many.
    pub(super) fn check_count(&self, place: &str) -> Result<(), Refusal> {
        match self.len() {
            1..=SIGNATURES_MAX => Ok(()),
            count => {
                let detail =
                    format!("{place} has {count} well-formed signatures, expected 1 to {SIGNATURES_MAX}");
                Err(Refusal::new(Denial::SignatureMalformed, detail))
            }
        }
    }
}
