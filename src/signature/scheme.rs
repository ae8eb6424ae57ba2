//! How a provider signs, as data.

use http::{HeaderName, HeaderValue};

use super::content::{ContentPart, ContentScheme};
use super::handshake::Handshake;
use super::keys::{MacAlgorithm, PublicKeySource, SecretFormat, SignatureAlgorithm};
use super::proofs::{ExpectedClaim, JwtScheme, MessageSignatureScheme, SharedSecretPlace};
use super::request_parts::{EventIdSource, TimestampRule};
use crate::json::Pointer;

/// How a provider proves that a message is its own.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A signature over a content.
    Content(ContentScheme),
    /// A JWT in a header.
    Jwt(JwtScheme),
    /// An HTTP message signature.
    MessageSignature(MessageSignatureScheme),
    /// Nothing: the provider only makes sure of the address.
    None,
    /// Amazon SNS.
    Sns,
    /// A token that both sides know.
    SharedSecret(SharedSecretPlace),
}

/// How a provider signs: the whole of it, as data.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// The status with which a message is acknowledged that is not delivered, such as a duplicate.
    pub acknowledge: u16,
    /// Members that must not be there: what is not covered by a signature must not hide behind it.
    pub absent: Vec<Pointer>,
    /// The handshakes of the provider.
    pub handshakes: Vec<Handshake>,
    /// Where the id of the event is, where the provider sends one.
    pub id: Option<EventIdSource>,
    /// How the secret's text becomes a key.
    pub secret_format: SecretFormat,
    /// Where public keys come from when they are not configured.
    pub keys: Option<PublicKeySource>,
    /// Whether the signature tells one message from another, where there is no id.
    pub duplicates_by_signature: bool,
    /// How a message is proved.
    pub proof: Proof,
    /// Headers that must say just this.
    pub require: Vec<(HeaderName, HeaderValue)>,
}

impl Scheme {
    /// No scheme: for providers that only make sure of an address.
    pub fn unsigned() -> Self {
        Self {
            acknowledge: 200,
            absent: Vec::new(),
            handshakes: Vec::new(),
            id: None,
            secret_format: SecretFormat::Utf8,
            keys: None,
            duplicates_by_signature: false,
            proof: Proof::None,
            require: Vec::new(),
        }
    }

    /// The MAC, for schemes that have one.
    pub fn mac_algorithm(&self) -> Option<MacAlgorithm> {
        match &self.proof {
            Proof::Content(ContentScheme { algorithm: SignatureAlgorithm::Mac(algorithm), .. }) => {
                Some(*algorithm)
            }
            Proof::Jwt(jwt) => jwt.algorithms.first().and_then(|name| MacAlgorithm::from_jose(name)),
            Proof::MessageSignature(message) => match message.algorithms.first() {
                Some(SignatureAlgorithm::Mac(algorithm)) => Some(*algorithm),
                _ => None,
            },
            _ => None,
        }
    }

    /// The timestamp, where the provider sends one.
    pub fn timestamp_mut(&mut self) -> Option<&mut TimestampRule> {
        match &mut self.proof {
            Proof::Content(scheme) => scheme.timestamp.as_mut(),
            _ => None,
        }
    }

    /// Whether the public URL is under the signature.
    pub fn uses_url(&self) -> bool {
        match &self.proof {
            Proof::Content(scheme) => scheme.content.parts().contains(&ContentPart::Url),
            Proof::Jwt(jwt) => jwt.claims.iter().any(|(_, expected)| *expected == ExpectedClaim::Url),
            Proof::MessageSignature(_) => true,
            Proof::None | Proof::Sns | Proof::SharedSecret(_) => false,
        }
    }

    /// Whether messages are proved at all.
    pub fn has_proof(&self) -> bool {
        !matches!(self.proof, Proof::None)
    }

    /// Whether verifying takes public keys.
    pub fn uses_public_keys(&self) -> bool {
        match &self.proof {
            Proof::Content(scheme) => matches!(scheme.algorithm, SignatureAlgorithm::Public(_)),
            Proof::Jwt(_) | Proof::MessageSignature(_) => self.mac_algorithm().is_none(),
            Proof::Sns => true,
            Proof::None | Proof::SharedSecret(_) => false,
        }
    }

    /// Whether a header is under the signature.
    pub fn signs_header(&self, name: &HeaderName) -> bool {
        match &self.proof {
            Proof::Content(scheme) => scheme.content.headers().any(|header| header == name),
            Proof::MessageSignature(scheme) => {
                scheme.components.iter().any(|component| **component == *name.as_str())
            }
            Proof::Jwt(_) | Proof::None | Proof::Sns | Proof::SharedSecret(_) => false,
        }
    }
}
