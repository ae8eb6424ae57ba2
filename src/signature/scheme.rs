//! The signature scheme of a provider: how the provider signs its messages.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use super::content::{ContentPart, ContentScheme};
use super::handshake::Handshake;
use super::identity_part::{DuplicateRule, IdentityPart};
use super::keys::{MacAlgorithm, PublicKeySource, SecretFormat, SignatureAlgorithm};
use super::proofs::{ExpectedClaim, JwtScheme, MessageSignatureScheme, SharedSecretPlace, SnsMessage};
use super::request_parts::{EventIdSource, HeaderFormat, SignaturePlace, TimestampRule};
use super::stated_algorithm::StatedAlgorithm;
use crate::json::Pointer;

/// The kind of proof that the provider sent a message.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A signature over the content that a template describes, such as `{timestamp}.{body}`.
    Content(ContentScheme),
    /// A JWT that the provider sends as a signature, in the head or in the body of the request.
    Jwt(JwtScheme),
    /// An HTTP message signature (RFC 9421).
    MessageSignature(MessageSignatureScheme),
    /// No proof. The provider does not sign its messages, but it may send handshakes.
    None,
    /// The signature of an Amazon SNS message.
    Sns,
    /// A shared secret that the request contains.
    SharedSecret(SharedSecretPlace),
}

/// The header that contains the credentials of basic authentication.
static BASIC: [HeaderName; 1] = [AUTHORIZATION];

/// The signature scheme of a provider: how the provider signs its messages.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// The HTTP status for a message that Callgate accepts but does not deliver, such as a duplicate. `None` if the
    /// provider requires no particular status.
    pub acknowledge: Option<u16>,
    /// The JSON pointers to values that the body must not have, because the signature does not cover them.
    pub absent: Vec<Pointer>,
    /// The handshakes that the provider may send.
    pub handshakes: Vec<Handshake>,
    /// The location of the event id in the request. If it is `None`, a claim of the JWT may contain the event id.
    pub id: Option<EventIdSource>,
    /// The format of the provider's shared secrets.
    pub secret_format: SecretFormat,
    /// The source from which Callgate gets public keys if the operator does not configure keys. `None` if there is no
    /// such source.
    pub keys: Option<PublicKeySource>,
    /// The rule by which Callgate recognizes duplicates.
    pub duplicates: DuplicateRule,
    /// The parts by which Callgate recognizes messages of the same event, for [`DuplicateRule::Identity`]. If the list
    /// is empty, Callgate does not recognize duplicates, and delivers every message.
    pub identity: Vec<IdentityPart>,
    /// The kind of proof that the provider sent a message.
    pub proof: Proof,
    /// The headers that every message must have, each with its required value.
    pub require: Vec<(HeaderName, HeaderValue)>,
    /// The header in which the provider states the MAC algorithm. `None` if the provider states no algorithm.
    pub stated_algorithm: Option<StatedAlgorithm>,
}

impl Scheme {
    /// Returns a signature scheme without a proof, for providers that do not sign.
    pub fn unsigned() -> Self {
        Self {
            acknowledge: None,
            absent: Vec::new(),
            handshakes: Vec::new(),
            id: None,
            secret_format: SecretFormat::Utf8,
            keys: None,
            duplicates: DuplicateRule::Identity,
            identity: Vec::new(),
            proof: Proof::None,
            require: Vec::new(),
            stated_algorithm: None,
        }
    }

    /// Returns the MAC algorithm of the scheme, or `None` if the scheme uses no MAC.
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

    /// Replaces the MAC algorithm of the scheme. `old` and `new` are the names of the old and the new algorithm. If the
    /// signature header has the old name as a prefix, such as `sha256=`, the prefix gets the new name. Does nothing if
    /// the scheme is not a MAC over a content template.
    pub fn set_mac_algorithm(&mut self, algorithm: MacAlgorithm, (old, new): (&str, &str)) {
        let Proof::Content(scheme) = &mut self.proof else { return };
        scheme.algorithm = SignatureAlgorithm::Mac(algorithm);
        if let SignaturePlace::Headers { format, .. } = &mut scheme.place
            && let Some(rest) = format.as_str().strip_prefix(old).filter(|rest| rest.starts_with('='))
            && let Ok(renamed) = HeaderFormat::parse(&format!("{new}{rest}"), None)
        {
            *format = renamed;
        }
    }

    /// Returns the timestamp rule of the scheme, or `None` if the scheme has no configurable timestamp.
    pub fn timestamp_mut(&mut self) -> Option<&mut TimestampRule> {
        match &mut self.proof {
            Proof::Content(scheme) => scheme.timestamp.as_mut(),
            _ => None,
        }
    }

    /// Returns the longest time for which the same message may be accepted again after its arrival. This time is the
    /// accepted age plus the time by which the timestamp may be ahead of Callgate's clock. Returns `None` if the
    /// scheme does not limit this time.
    pub fn replay_window(&self) -> Option<Duration> {
        match &self.proof {
            Proof::Content(scheme) => {
                scheme.timestamp.as_ref().map(|rule| rule.past.saturating_add(rule.future))
            }
            Proof::Jwt(scheme) => scheme.replay_window(),
            Proof::MessageSignature(scheme) => Some(scheme.replay_window()),
            Proof::Sns => Some(SnsMessage::REPLAY_WINDOW),
            Proof::None | Proof::SharedSecret(_) => None,
        }
    }

    /// Reports whether the signature can cover the URL that the provider called. This is always true for HTTP message
    /// signatures, because the sender selects the components that the signature covers.
    pub fn uses_url(&self) -> bool {
        match &self.proof {
            Proof::Content(scheme) => scheme.content.parts().contains(&ContentPart::Url),
            Proof::Jwt(jwt) => jwt.claims.iter().any(|(_, expected)| *expected == ExpectedClaim::Url),
            Proof::MessageSignature(_) => true,
            Proof::None | Proof::Sns | Proof::SharedSecret(_) => false,
        }
    }

    /// Reports whether messages contain a proof that the provider sent them.
    pub fn has_proof(&self) -> bool {
        !matches!(self.proof, Proof::None)
    }

    /// Returns the headers that contain the proof: the signature, the JWT or the shared secret. The list is empty if
    /// the proof is in the body. The list is also empty for HTTP message signatures.
    pub fn proof_headers(&self) -> &[HeaderName] {
        match &self.proof {
            Proof::Content(scheme) => scheme.place.headers(),
            Proof::Jwt(jwt) => jwt.place.headers(),
            Proof::SharedSecret(SharedSecretPlace::At(place)) => place.headers(),
            Proof::SharedSecret(SharedSecretPlace::Basic) => &BASIC,
            Proof::SharedSecret(SharedSecretPlace::Each { .. })
            | Proof::MessageSignature(_)
            | Proof::None
            | Proof::Sns => &[],
        }
    }

    /// Returns the name of the header that contains the event id, or `None` if the id is not in a header.
    pub fn id_header(&self) -> Option<&HeaderName> {
        match &self.id {
            Some(EventIdSource::Header(name)) => Some(name),
            _ => None,
        }
    }

    /// Returns the kind of proof as a noun phrase for error texts, such as `a signature`.
    pub fn proof_name(&self) -> &'static str {
        match &self.proof {
            Proof::Content(_) | Proof::MessageSignature(_) | Proof::Sns => "a signature",
            Proof::Jwt(_) => "a JWT of the provider",
            Proof::None => "nothing",
            Proof::SharedSecret(_) => "a secret of the provider",
        }
    }

    /// Reports whether Callgate verifies messages of this scheme with public keys.
    pub fn uses_public_keys(&self) -> bool {
        match &self.proof {
            Proof::Content(scheme) => matches!(scheme.algorithm, SignatureAlgorithm::Public(_)),
            Proof::Jwt(_) | Proof::MessageSignature(_) => self.mac_algorithm().is_none(),
            Proof::Sns => true,
            Proof::None | Proof::SharedSecret(_) => false,
        }
    }

    /// Reports whether the signature covers the header `name`.
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::signature::JwtPlace;
    use crate::signature::content::ContentTemplate;
    use crate::signature::keys::{Encoding, PublicKeyAlgorithm};
    use crate::signature::request_parts::{HeaderFormat, SignaturePlace};

    fn place() -> SignaturePlace {
        SignaturePlace::Headers {
            names: vec![HeaderName::from_static("x-sig")],
            format: HeaderFormat::parse("{signature}", None).unwrap(),
        }
    }

    /// Returns a proof that is a MAC. The template `content` describes the signed content.
    pub(in crate::signature) fn signature_over(content: &str) -> Proof {
        Proof::Content(ContentScheme {
            algorithm: SignatureAlgorithm::Mac(MacAlgorithm::HmacSha256),
            content: ContentTemplate::parse(content).unwrap(),
            encoding: Encoding::Hex,
            place: place(),
            timestamp: None,
        })
    }

    fn with_public_key(proof: Proof) -> Proof {
        let algorithm = SignatureAlgorithm::Public(PublicKeyAlgorithm::Ed25519);
        match proof {
            Proof::Content(scheme) => Proof::Content(ContentScheme { algorithm, ..scheme }),
            Proof::MessageSignature(scheme) => {
                Proof::MessageSignature(MessageSignatureScheme { algorithms: vec![algorithm], ..scheme })
            }
            other => other,
        }
    }

    fn jwt(algorithm: &str, expected: ExpectedClaim) -> Proof {
        Proof::Jwt(JwtScheme {
            place: JwtPlace::At(place()),
            algorithms: vec![algorithm.into()],
            claims: vec![("iss".into(), expected)],
            body_hash: None,
            max_age: None,
            expires: true,
            leeway: Duration::from_secs(60),
            id: None,
        })
    }

    fn message_signature(components: &[&str]) -> Proof {
        Proof::MessageSignature(MessageSignatureScheme {
            algorithms: vec![SignatureAlgorithm::Mac(MacAlgorithm::HmacSha256)],
            components: components.iter().map(|name| (*name).into()).collect(),
            ..MessageSignatureScheme::default()
        })
    }

    /// The properties of a proof that the test checks, such as whether the signature covers the header `x-a`.
    #[derive(Debug, Eq, PartialEq)]
    struct Properties {
        has_proof: bool,
        uses_public_keys: bool,
        uses_url: bool,
        signs_x_a: bool,
    }

    #[test]
    fn each_proof_has_its_properties() {
        let none = Properties { has_proof: true, uses_public_keys: false, uses_url: false, signs_x_a: false };
        let key_id = || ExpectedClaim::KeyId;
        for (proof, expected) in [
            (Proof::None, Properties { has_proof: false, ..none }),
            (Proof::SharedSecret(SharedSecretPlace::Basic), Properties { ..none }),
            (Proof::Sns, Properties { uses_public_keys: true, ..none }),
            (signature_over("{body}"), Properties { ..none }),
            (signature_over("{url}{body}"), Properties { uses_url: true, ..none }),
            (signature_over("{header:x-a}{body}"), Properties { signs_x_a: true, ..none }),
            (signature_over("{header:x-b}{body}"), Properties { ..none }),
            (with_public_key(signature_over("{body}")), Properties { uses_public_keys: true, ..none }),
            (jwt("HS256", key_id()), Properties { ..none }),
            (jwt("HS256", ExpectedClaim::Url), Properties { uses_url: true, ..none }),
            (jwt("ES256", key_id()), Properties { uses_public_keys: true, ..none }),
            (message_signature(&["@path"]), Properties { uses_url: true, ..none }),
            (message_signature(&["x-b", "x-a"]), Properties { uses_url: true, signs_x_a: true, ..none }),
            (
                with_public_key(message_signature(&["x-a"])),
                Properties { uses_public_keys: true, uses_url: true, signs_x_a: true, ..none },
            ),
        ] {
            let scheme = Scheme { proof, ..Scheme::unsigned() };
            let found = Properties {
                has_proof: scheme.has_proof(),
                uses_public_keys: scheme.uses_public_keys(),
                uses_url: scheme.uses_url(),
                signs_x_a: scheme.signs_header(&HeaderName::from_static("x-a")),
            };
            assert_eq!(found, expected, "{:?}", scheme.proof);
        }
    }
}
