//! What the head of one request shows of a signature.

use http::HeaderValue;

use crate::denial::{Denial, Refusal};
use crate::signature::keys::AuthenticationTag;
use crate::signature::proofs::{VerifiedJwt, VerifiedMessageSignature};
use crate::signature::request_parts::HeaderSlice;

/// Most signatures looked at in one message: rotation needs two, an attacker would like thousands.
const SIGNATURES_MAX: usize = 16;

/// What the head of one request shows, read once.
#[derive(Clone, Debug)]
pub struct PresentedSignature {
    pub(super) proof: PresentedProof,
    pub(super) timestamp: Option<HeaderSlice>,
    pub(super) id: Option<HeaderValue>,
}

/// The proof, as far as the head shows it.
#[derive(Clone, Debug)]
pub(super) enum PresentedProof {
    /// It is in the body, or has been looked at.
    None,
    MessageSignature(Box<VerifiedMessageSignature>),
    Signatures(Vec<Box<[u8]>>),
    Jwt(Box<VerifiedJwt>),
    Macs(Vec<AuthenticationTag>),
}

impl PresentedSignature {
    /// The id of the event, where the head says it.
    pub fn event_id(&self) -> Option<&HeaderValue> {
        self.id.as_ref()
    }

    /// Whether the head shows the proof, so that the message is no unsigned handshake.
    pub fn is_in_head(&self) -> bool {
        !matches!(self.proof, PresentedProof::None)
    }

    /// What a message shows that is about to be signed.
    pub(super) fn unsigned(timestamp: Option<HeaderSlice>, id: Option<HeaderValue>) -> Self {
        Self { proof: PresentedProof::None, timestamp, id }
    }
}

impl PresentedProof {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Macs(tags) => tags.len(),
            Self::Signatures(signatures) => signatures.len(),
            Self::None | Self::MessageSignature(_) | Self::Jwt(_) => 1,
        }
    }

    pub(super) fn check_count(&self, place: &str) -> Result<(), Refusal> {
        match self.len() {
            1..=SIGNATURES_MAX => Ok(()),
            count => {
                let detail = format!("{place} holds {count} readable signatures");
                Err(Refusal::new(Denial::SignatureMalformed, detail))
            }
        }
    }
}
