//! How a provider signs, as data.

use http::{HeaderName, HeaderValue};

use super::content::{ContentScheme, Part};
use super::handshake::Handshake;
use super::keys::{Algorithm, Cipher, KeyForm, KeysAt};
use super::proofs::{Expected, JwtScheme, MessageScheme, TokenPlace, jwt_mac};
use super::request_parts::{IdSource, TimestampRule};
use crate::json::Pointer;

/// How a provider proves that a message is its own.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A signature over a content.
    Content(ContentScheme),
    /// A JWT in a header.
    Jwt(JwtScheme),
    /// An HTTP message signature.
    Message(MessageScheme),
    /// Nothing: the provider only makes sure of the address.
    Nothing,
    /// Amazon SNS.
    Sns,
    /// A token that both sides know.
    Token(TokenPlace),
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
    pub id: Option<IdSource>,
    /// How the secret's text becomes a key.
    pub key_form: KeyForm,
    /// Where public keys come from when they are not configured.
    pub keys: Option<KeysAt>,
    /// Whether the signature tells one message from another, where there is no id.
    pub marks: bool,
    /// How a message is proved.
    pub proof: Proof,
    /// Headers that must say just this.
    pub require: Vec<(HeaderName, HeaderValue)>,
}

impl Scheme {
    /// No scheme: for providers that only make sure of an address.
    pub fn nothing() -> Self {
        Self {
            acknowledge: 200,
            absent: Vec::new(),
            handshakes: Vec::new(),
            id: None,
            key_form: KeyForm::Utf8,
            keys: None,
            marks: false,
            proof: Proof::Nothing,
            require: Vec::new(),
        }
    }

    /// The MAC, for schemes that have one.
    pub fn mac(&self) -> Option<Algorithm> {
        match &self.proof {
            Proof::Content(ContentScheme { cipher: Cipher::Mac(algorithm), .. }) => Some(*algorithm),
            Proof::Jwt(jwt) => jwt.algorithms.first().and_then(|name| jwt_mac(name)),
            Proof::Message(message) => match message.algorithms.first() {
                Some(Cipher::Mac(algorithm)) => Some(*algorithm),
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
            Proof::Content(scheme) => scheme.content.parts().contains(&Part::Url),
            Proof::Jwt(jwt) => jwt.claims.iter().any(|(_, expected)| *expected == Expected::Url),
            Proof::Message(_) => true,
            Proof::Nothing | Proof::Sns | Proof::Token(_) => false,
        }
    }

    /// Whether messages are proved at all.
    pub fn proves(&self) -> bool {
        !matches!(self.proof, Proof::Nothing)
    }

    /// Whether verifying takes public keys.
    pub fn is_public(&self) -> bool {
        match &self.proof {
            Proof::Content(scheme) => matches!(scheme.cipher, Cipher::Public(_)),
            Proof::Jwt(_) | Proof::Message(_) => self.mac().is_none(),
            Proof::Sns => true,
            Proof::Nothing | Proof::Token(_) => false,
        }
    }

    /// Whether a header is under the signature.
    pub fn signs_header(&self, name: &HeaderName) -> bool {
        match &self.proof {
            Proof::Content(scheme) => scheme.content.headers().any(|header| header == name),
            Proof::Message(scheme) => scheme.components.iter().any(|component| **component == *name.as_str()),
            Proof::Jwt(_) | Proof::Nothing | Proof::Sns | Proof::Token(_) => false,
        }
    }
}
