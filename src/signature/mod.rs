//! Provider signatures: a scheme is data, and verifying is the same few lines for every scheme.
//!
//! A scheme says how a provider proves that a message is its own ([`Proof`]), and where the id of an event is.
//! Verification has two halves: [`Verifier::present`] needs the head alone and refuses what is missing, unreadable or
//! stale before a byte of body is read; [`Verifier::verify`] takes the raw bytes.

mod canonical;
mod certificate;
mod content;
mod content_proof;
mod covers;
mod fields;
mod form;
mod format;
mod handshake;
mod id;
mod jwt;
mod key;
mod keyring;
mod mac;
mod message;
mod place;
mod public;
mod shared;
mod sign;
mod sns;
mod timestamp;
mod verify;

use http::{HeaderName, HeaderValue};

use crate::feed::FeedId;
use crate::json::Pointer;
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::time::Timestamp;

pub use certificate::{CertificateRule, CertificateSource};
pub use content::{Content, ContentFault, Part};
pub use covers::Covers;
pub use format::{Format, FormatFault};
pub use handshake::{Answer, Handshake, HandshakeToken, Piece, Reply, Template, Value, When};
pub use id::IdSource;
pub use jwt::{Expected, JwtScheme};
pub use key::{KeySet, NoKeys, PublicKey};
pub use keyring::Keyring;
pub use mac::{Algorithm, Encoding, KeyFault, KeyForm, Tag};
pub use message::MessageScheme;
pub use place::Place;
pub use public::PublicAlgorithm;
pub use shared::TokenPlace;
pub use sign::Signature;
pub use timestamp::{TimestampRule, TimestampSource, TimestampUnit};
pub use verify::Presented;

use mac::Keyed;

/// Most signatures looked at in one message: rotation needs two, an attacker would like thousands.
const SIGNATURES_MAX: usize = 16;

/// How the content of a message is signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cipher {
    /// Under a shared secret.
    Mac(Algorithm),
    /// With a private key.
    Public(PublicAlgorithm),
}

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

/// Where public keys are to be had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeysAt {
    /// At an address that the message names.
    Certificate(CertificateRule),
    /// At an address of the provider's, as JWKS.
    Url(Box<str>),
}

/// What is signed besides the body, and what is known of the world.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The head, as received.
    pub head: RequestHead<'a>,
    /// What every external URL begins with: `{url}` is this and the raw target.
    pub public_url: &'a str,
    /// The fetched keys.
    pub keyring: &'a Keyring,
    /// The secrets of this one interaction, for providers that were given one with the request.
    pub derived: &'a [Secret],
    /// The time.
    pub now: Timestamp,
}

impl<'a> Signed<'a> {
    /// A head at a moment, with nothing fetched and no secret of its own.
    pub fn alone(head: RequestHead<'a>, public_url: &'a str, now: Timestamp) -> Self {
        Self { head, public_url, keyring: &keyring::NOTHING, derived: &[], now }
    }
}

/// Where the keys of a verifier are.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Each interaction has a secret of its own, which comes with what is signed.
    Derived,
    /// Public keys, fetched.
    Fetched(FeedId),
    /// The secret that a handshake handed over.
    Learned(FeedId),
    /// Public keys at an address that the message names; `Some`: these are the ones to use.
    Named(CertificateRule, Option<KeySet>),
    /// Public keys.
    Public(KeySet),
    /// Shared secrets.
    Shared,
}

/// A scheme with its keys.
#[derive(Clone)]
pub struct Verifier {
    scheme: Scheme,
    keys: Keys,
    /// Every shared secret, ready for the MAC.
    macs: Vec<(Keyed, Secret)>,
    /// The secrets as they stand: tokens, topics, ids of webhooks.
    secrets: Vec<Secret>,
    /// The token that handshakes prove themselves by.
    verify_token: Option<Secret>,
    /// The origins that may subscribe.
    origins: Vec<Box<str>>,
}

/// Prints the scheme, not the keys.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({} secrets, {:?})", self.secrets.len(), self.scheme)
    }
}

impl Verifier {
    /// Prepares every secret for the scheme; any of them verifies, the first one signs.
    ///
    /// # Errors
    /// [`KeyFault`] and the index of the secret that is not in the scheme's key form.
    pub fn new(scheme: Scheme, keys: Keys, secrets: &[Secret]) -> Result<Self, (usize, KeyFault)> {
        let algorithm = scheme.mac();
        let prepare = |(i, secret): (usize, &Secret)| {
            let algorithm = algorithm?;
            let keyed = Keyed::new(algorithm, &scheme.key_form, secret);
            Some(keyed.map(|keyed| (keyed, secret.clone())).map_err(|fault| (i, fault)))
        };
        let macs = secrets.iter().enumerate().filter_map(prepare).collect::<Result<_, _>>()?;
        let secrets = secrets.to_vec();
        Ok(Self { scheme, keys, macs, secrets, verify_token: None, origins: Vec::new() })
    }

    /// With what handshakes prove themselves by.
    #[must_use]
    pub fn with_handshakes(self, verify_token: Option<Secret>, origins: Vec<Box<str>>) -> Self {
        Self { verify_token, origins, ..self }
    }

    /// The scheme.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Where the keys are.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether messages or handshakes of this provider make us fetch something.
    pub fn fetches(&self) -> bool {
        self.names_certificates() || self.scheme.handshakes.iter().any(|handshake| handshake.fetch.is_some())
    }

    /// Whether its messages name certificates, to be fetched.
    pub fn names_certificates(&self) -> bool {
        matches!(self.keys, Keys::Named(_, None))
    }

    /// Whether a message may name the certificate at this address, to be fetched.
    pub fn may_name(&self, url: &str) -> bool {
        matches!(&self.keys, Keys::Named(rule, None) if rule.allows(url))
    }

    /// How many secrets verify.
    pub fn keys_count(&self) -> usize {
        self.secrets.len()
    }

    /// The certificate that a message needs and that is not there.
    pub fn wanted(&self, signed: &Signed<'_>, body: &[u8]) -> Option<String> {
        let Keys::Named(rule, None) = &self.keys else { return None };
        let url = rule.url(&signed.head, body).ok()?;
        signed.keyring.certificate(&url).is_none().then_some(url)
    }
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
            Proof::Jwt(jwt) => jwt.algorithms.first().and_then(|name| jwt::mac(name)),
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

#[cfg(test)]
mod tests;

#[cfg(test)]
mod public_tests;
