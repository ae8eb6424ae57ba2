//! Signs requests with shared secrets, in the same way as a provider. The signed requests pass verification.

use std::borrow::Cow;

use data_encoding::BASE64;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use super::presented::PresentedSignature;
use super::signature_over_content::SignedBodyParts;
use super::verifier::Verifier;
use crate::json::{Pointer, find_one, quoted, set};
use crate::secret::Secret;
use crate::signature::content::ContentScheme;
use crate::signature::context::SignatureContext;
use crate::signature::keys::VerifierKeys;
use crate::signature::proofs::SharedSecretPlace;
use crate::signature::request_parts::{
    EventIdSource, HeaderSlice, SignaturePlace, TimestampSource, body_members,
};
use crate::signature::scheme::Proof;

/// The headers and the body of a signed request.
#[derive(Debug)]
pub struct SignedRequest<'b> {
    /// The headers to set. They replace headers of the same name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body. It differs from the original if the scheme has the signature or the timestamp in the body.
    pub body: Cow<'b, [u8]>,
}

impl Verifier {
    /// Signs a request with the first secret, as the provider would do at the time `context.now`. Returns `None` if the
    /// scheme uses public keys, if the scheme cannot sign this request, or if `id` is not a valid event id.
    pub fn sign<'b>(
        &self,
        context: &SignatureContext<'_>,
        body: &'b [u8],
        id: &str,
    ) -> Option<SignedRequest<'b>> {
        let mut signature = SignedRequest { headers: self.scheme.require.clone(), body: body.into() };
        match &self.scheme.proof {
            Proof::Content(scheme) => self.sign_content(scheme, context, id, &mut signature)?,
            Proof::Jwt(jwt) => {
                let (keyed, secret) = self.mac_keys.first()?;
                let name = self.scheme.secret_format.id(secret).and_then(|id| std::str::from_utf8(id).ok());
                let value = jwt.sign(context, body, (keyed, name), id)?;
                signature.headers.push((jwt.place.header()?.clone(), HeaderValue::from_str(&value).ok()?));
            }
            Proof::SharedSecret(place) => self.sign_token(place, &mut signature)?,
            Proof::MessageSignature(_) | Proof::None | Proof::Sns => return None,
        }
        Some(signature)
    }

    fn sign_content(
        &self,
        scheme: &ContentScheme,
        context: &SignatureContext<'_>,
        id: &str,
        signature: &mut SignedRequest<'_>,
    ) -> Option<()> {
        let mut timestamp = None;
        if let Some(rule) = &scheme.timestamp {
            let text = rule.unit.write(context.now);
            let value = HeaderValue::from_str(&text).ok()?;
            match &rule.source {
                TimestampSource::Header(name) => signature.headers.push((name.clone(), value.clone())),
                // A valid timestamp that the body already contains stays unchanged.
                TimestampSource::Body(pointer) => {
                    let there = body_members(&signature.body, &[pointer]).ok()?;
                    if there.first().is_none_or(|text| rule.check(text, context.now).is_err()) {
                        let number = text.bytes().all(|b| b.is_ascii_digit());
                        signature.put(pointer, &if number { text } else { quoted(&text) })?;
                    }
                }
                TimestampSource::SignatureHeader => {}
            }
            timestamp = Some(HeaderSlice::whole(&value));
        }
        let id = match self.scheme.id.as_ref().and_then(EventIdSource::header) {
            None => None,
            Some(name) => {
                let id = HeaderValue::from_str(id).ok()?;
                self.check_event_id(Some(&id)).ok()?;
                signature.headers.push((name.clone(), id.clone()));
                Some(id)
            }
        };
        let text = timestamp.as_ref().map_or("", HeaderSlice::as_str).to_owned();
        let presented = PresentedSignature::unsigned(timestamp, id);
        let text = match scheme.timestamp.as_ref().map(|rule| &rule.source) {
            Some(TimestampSource::Body(pointer)) => {
                body_members(&signature.body, &[pointer]).ok()?.first()?.to_string()
            }
            _ => text,
        };
        let parts = SignedBodyParts::signing(scheme, &context.head, text.as_bytes(), &signature.body).ok()?;
        let own = context.derived.first().and_then(|secret| self.mac_key(secret));
        let key = match &self.keys {
            VerifierKeys::Derived => own.as_ref()?,
            _ => self.mac_keys.first()?,
        };
        let tag = self.mac(scheme, key, &presented, context, &signature.body, &parts).ok()?;
        let encoded = scheme.encoding.encode(tag.as_bytes());
        match &scheme.place {
            SignaturePlace::Body(pointer) => {
                drop(parts);
                signature.put(pointer, &quoted(&encoded))
            }
            SignaturePlace::Headers { names, .. } => {
                let value = HeaderValue::from_str(&scheme.place.write(&text, &encoded)).ok()?;
                signature.headers.push((names.first()?.clone(), value));
                Some(())
            }
        }
    }

    fn sign_token(&self, place: &SharedSecretPlace, signature: &mut SignedRequest<'_>) -> Option<()> {
        let secret = self.secrets.first().map(Secret::expose)?;
        let text = std::str::from_utf8(secret).ok()?;
        match place {
            SharedSecretPlace::At(place @ SignaturePlace::Headers { names, .. }) => {
                let value = HeaderValue::from_str(&place.write("", text)).ok()?;
                signature.headers.push((names.first()?.clone(), value));
            }
            SharedSecretPlace::Basic => {
                let value = format!("Basic {}", BASE64.encode(secret));
                signature.headers.push((AUTHORIZATION, HeaderValue::from_str(&value).ok()?));
            }
            SharedSecretPlace::At(SignaturePlace::Body(pointer)) => signature.put(pointer, &quoted(text))?,
            SharedSecretPlace::Each { list, member } => {
                let found = find_one(&signature.body, list).raw()?;
                let count = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(found).ok()?.len();
                for i in 0..count {
                    let pointer = Pointer::parse(&format!("{}/{i}{}", list.as_str(), member.as_str()))?;
                    signature.put(&pointer, &quoted(text))?;
                }
            }
        }
        Some(())
    }
}

impl SignedRequest<'_> {
    /// Sets a member of the body.
    fn put(&mut self, pointer: &Pointer, value: &str) -> Option<()> {
        let text = std::str::from_utf8(&self.body).ok()?;
        self.body = Cow::Owned(set(text, pointer, value).ok()?.into_bytes());
        Some(())
    }
}
