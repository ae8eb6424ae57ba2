//! What the head of one request shows of a signature.

use http::HeaderValue;

use crate::denial::{Denial, Refusal};
use crate::signature::keys::Tag;
use crate::signature::proofs::{Sealed, Statement};
use crate::signature::request_parts::Slice;

/// Most signatures looked at in one message: rotation needs two, an attacker would like thousands.
const SIGNATURES_MAX: usize = 16;

/// What the head of one request shows, read once.
#[derive(Clone, Debug)]
pub struct Presented {
    pub(super) shown: Shown,
    pub(super) timestamp: Option<Slice>,
    pub(super) id: Option<HeaderValue>,
}

/// The proof, as far as the head shows it.
#[derive(Clone, Debug)]
pub(super) enum Shown {
    /// It is in the body, or has been looked at.
    Nothing,
    Sealed(Box<Sealed>),
    Signatures(Vec<Box<[u8]>>),
    Statement(Box<Statement>),
    Tags(Vec<Tag>),
}

impl Presented {
    /// The id of the event, where the head says it.
    pub fn event_id(&self) -> Option<&HeaderValue> {
        self.id.as_ref()
    }

    /// Whether the head shows the proof, so that the message is no unsigned handshake.
    pub fn is_in_the_head(&self) -> bool {
        !matches!(self.shown, Shown::Nothing)
    }

    /// What a message shows that is about to be signed.
    pub(super) fn unsigned(timestamp: Option<Slice>, id: Option<HeaderValue>) -> Self {
        Self { shown: Shown::Nothing, timestamp, id }
    }
}

impl Shown {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Tags(tags) => tags.len(),
            Self::Signatures(signatures) => signatures.len(),
            Self::Nothing | Self::Sealed(_) | Self::Statement(_) => 1,
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
