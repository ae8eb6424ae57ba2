//! The first step of verification, which needs only the request head.

use std::borrow::Cow;

use http::HeaderValue;

use super::presented::{PresentedProof, PresentedSignature};
use super::verifier::Verifier;
use crate::body::form::PlusSign;
use crate::denial::{Denial, Refusal};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::context::SignatureContext;
use crate::signature::keys::{KeySet, VerifierKeys};
use crate::signature::proofs::{JwtKeys, JwtScheme, MessageKeys, SharedSecretPlace, VerifiedJwt};
use crate::signature::request_parts::{
    EventIdSource, SignaturePlace, optional_header, optional_parameter, required_header, required_parameter,
};
use crate::signature::scheme::Proof;

impl Verifier {
    /// Verifies the head of a request: reads the signature, timestamp and event id, and checks the timestamp. JWTs,
    /// HTTP message signatures and shared secrets in the head are verified completely, except for the digest of the
    /// body.
    ///
    /// # Errors
    /// Returns `signature_missing`, `signature_malformed`, `signature_too_old`, `signature_too_new` or
    /// `header_duplicated`. JWTs, HTTP message signatures and shared secrets can also cause `signature_mismatch`,
    /// `signature_claim`, `signature_key_unknown` and `keys_unavailable`.
    pub fn verify_head(&self, context: &SignatureContext<'_>) -> Result<PresentedSignature, Refusal> {
        let head = &context.head;
        for (name, value) in &self.scheme.require {
            if required_header(head, name)? != value {
                let detail = format!("the header {name} does not have the value that the provider sends");
                return Err(Refusal::new(Denial::SignatureMalformed, detail));
            }
        }
        if let (Some(stated), Some(algorithm)) = (&self.scheme.stated_algorithm, self.scheme.mac_algorithm())
        {
            stated.check(head, algorithm)?;
        }
        let mut timestamp = None;
        let mut token_id = None;
        let proof = match &self.scheme.proof {
            Proof::Content(scheme) => {
                let proof;
                (proof, timestamp) = self.verify_content_head(scheme, context)?;
                proof
            }
            Proof::Jwt(jwt) => {
                // The token is read before the keys, so that a missing token is reported even if the keys have not been
                // fetched yet.
                match jwt.head_token(head)? {
                    None => PresentedProof::None,
                    Some(token) => {
                        let token = self.verify_jwt(jwt, &token, context)?;
                        token_id = token.id.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
                        PresentedProof::Jwt(token.into())
                    }
                }
            }
            Proof::MessageSignature(scheme) => {
                let set;
                let keys = match &self.keys {
                    VerifierKeys::Shared => MessageKeys::Shared(&self.mac_keys),
                    _ => {
                        set = self.public_keys(context, b"")?;
                        MessageKeys::Public(&set)
                    }
                };
                PresentedProof::MessageSignature(scheme.verify_head(context, &keys, context.now)?.into())
            }
            Proof::None | Proof::Sns => PresentedProof::None,
            Proof::SharedSecret(place) => {
                place.check_head(head, &self.secrets)?;
                PresentedProof::None
            }
        };
        let id = match self.scheme.id.as_ref().filter(|source| source.is_in_head()) {
            Some(source) => self.head_id(source, head)?,
            None => token_id,
        };
        self.check_event_id(id.as_ref())?;
        Ok(PresentedSignature { proof, timestamp, id })
    }

    /// Verifies a JWT with the keys of the provider.
    ///
    /// # Errors
    /// Returns `keys_unavailable` if the public keys have not been fetched, and otherwise the errors of the JWT
    /// scheme, such as `signature_mismatch`.
    pub(super) fn verify_jwt(
        &self,
        jwt: &JwtScheme,
        token: &str,
        context: &SignatureContext<'_>,
    ) -> Result<VerifiedJwt, Refusal> {
        let name = |secret: &Secret| self.key_id(secret);
        let set;
        let keys = match &self.keys {
            VerifierKeys::Shared | VerifierKeys::Derived | VerifierKeys::Learned(_) => {
                JwtKeys::Shared(&self.mac_keys, &name)
            }
            _ => {
                set = self.public_keys(context, b"")?;
                JwtKeys::Public(&set)
            }
        };
        jwt.verify(token, context, &keys, context.now)
    }

    /// Returns a description of the checks of [`Self::verify_head`], such as `the JWT is valid`. If the checks succeed,
    /// Callgate adds the description to the trail, which lists the checks of a request. Returns `None` if the scheme
    /// has no signature, no secret and no timestamp in the head.
    pub fn head_checks(&self) -> Option<&'static str> {
        match &self.scheme.proof {
            Proof::Content(scheme) => {
                let source = scheme.timestamp.as_ref().map(|rule| &rule.source);
                let has_time = source.is_some_and(|source| source.body_part().is_none());
                match (scheme.place.body_part().is_none(), has_time) {
                    (true, true) => {
                        Some("the signature is well-formed, and its timestamp is within the tolerance")
                    }
                    (true, false) => Some("the signature is well-formed"),
                    (false, true) => {
                        Some("the timestamp is within the tolerance; the signature is in the body")
                    }
                    (false, false) => None,
                }
            }
            Proof::Jwt(jwt) => jwt.is_in_head().then_some("the JWT is valid"),
            Proof::MessageSignature(_) => Some("the message signature is valid"),
            Proof::SharedSecret(SharedSecretPlace::Basic) => Some("the user name and password are valid"),
            Proof::SharedSecret(SharedSecretPlace::At(SignaturePlace::Headers { .. })) => {
                Some("the secret in the header is valid")
            }
            Proof::SharedSecret(SharedSecretPlace::At(SignaturePlace::Query(_))) => {
                Some("the secret in the query is valid")
            }
            Proof::SharedSecret(_) | Proof::None | Proof::Sns => None,
        }
    }

    /// Checks the event id of a message. The id must not contain the byte that follows the id in the signed content.
    /// Otherwise the same signed bytes could be split into another id and another timestamp.
    ///
    /// # Errors
    /// Returns `signature_malformed` if the id is empty, too long, or has a character that ids must not have.
    pub(super) fn check_event_id(&self, id: Option<&HeaderValue>) -> Result<(), Refusal> {
        let Some(id) = id else { return Ok(()) };
        let visible = !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic);
        let after = match &self.scheme.proof {
            Proof::Content(scheme) => scheme.content.byte_after_id(),
            _ => None,
        };
        let splits = after.is_some_and(|byte| id.as_bytes().contains(&byte));
        if visible && !splits && id.len() <= 256 {
            return Ok(());
        }
        Err(Refusal::new(
            Denial::SignatureMalformed,
            "the event id is empty or too long, or has a character that ids must not have",
        ))
    }

    /// Returns the event id in a header or in the query, or `None` if there is none. The id is required if the template
    /// of the signed content contains it.
    ///
    /// # Errors
    /// Returns `signature_missing`, `signature_malformed` or `header_duplicated`.
    fn head_id(
        &self,
        source: &EventIdSource,
        head: &RequestHead<'_>,
    ) -> Result<Option<HeaderValue>, Refusal> {
        let is_required = matches!(&self.scheme.proof, Proof::Content(scheme) if scheme.content.uses_id());
        match source {
            EventIdSource::Header(name) if is_required => Ok(Some(required_header(head, name)?.clone())),
            EventIdSource::Header(name) => Ok(optional_header(head, name)?.cloned()),
            EventIdSource::Query(name) => {
                let value = match is_required {
                    true => Some(required_parameter(head, name, PlusSign::Ambiguous)?),
                    false => optional_parameter(head, name, PlusSign::Ambiguous)?,
                };
                let malformed = |_| {
                    Refusal::new(
                        Denial::SignatureMalformed,
                        format!("the query parameter {name} is not visible ASCII"),
                    )
                };
                value.map(|value| HeaderValue::from_str(&value).map_err(malformed)).transpose()
            }
            EventIdSource::Body(_) | EventIdSource::Form(_) => Ok(None),
        }
    }

    fn key_id(&self, secret: &Secret) -> Option<Box<str>> {
        std::str::from_utf8(self.scheme.secret_format.id(secret)?).ok().map(Into::into)
    }

    /// Returns the public keys with which a message is verified.
    ///
    /// # Errors
    /// Returns `keys_unavailable` if the keys have not been fetched. If the message names a certificate, returns
    /// `signature_missing` or `signature_malformed` if its URL cannot be read from the message, and
    /// `signature_key_unknown` if the URL is not allowed.
    pub(super) fn public_keys<'k>(
        &'k self,
        context: &'k SignatureContext<'_>,
        body: &[u8],
    ) -> Result<Cow<'k, KeySet>, Refusal> {
        let unavailable =
            || Refusal::new(Denial::KeysUnavailable, "the provider's keys have not been fetched yet");
        match &self.keys {
            VerifierKeys::Public(set) => Ok(Cow::Borrowed(set)),
            VerifierKeys::Fetched(id) => {
                context.keyring.set(*id).map(|set| Cow::Borrowed(&**set)).ok_or_else(unavailable)
            }
            VerifierKeys::Named(rule, given) => {
                let url = rule.url(&context.head, body)?;
                let given = given.as_ref();
                let set = given.or_else(|| context.keyring.certificate(&url).map(|set| &**set));
                set.map(Cow::Borrowed).ok_or_else(unavailable)
            }
            VerifierKeys::Shared | VerifierKeys::Derived | VerifierKeys::Learned(_) => Err(unavailable()),
        }
    }
}
