//! Signs requests with shared secrets in the same way as a provider. Verification accepts these requests.

use std::borrow::Cow;

use data_encoding::BASE64;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use super::presented::PresentedSignature;
use super::signature_over_content::SignedBodyParts;
use super::verifier::Verifier;
use crate::body::form::with_field;
use crate::json::{Pointer, find_one, quoted, set};
use crate::query::{with_parameter, without_parameter};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::content::ContentScheme;
use crate::signature::context::SignatureContext;
use crate::signature::keys::VerifierKeys;
use crate::signature::proofs::{JwtPlace, SharedSecretPlace};
use crate::signature::request_parts::{
    BodyPart, EventIdSource, HeaderSlice, SignaturePlace, TimestampSource, body_parts,
};
use crate::signature::scheme::Proof;

/// The headers, the body and the target of a request that Callgate has signed as a provider does.
#[derive(Debug)]
pub struct SignedRequest<'b> {
    /// The headers to set in the request. They replace headers of the same name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body of the signed request. It differs from the original body if the scheme has the signature or the
    /// timestamp in the body.
    pub body: Cow<'b, [u8]>,
    /// The new path and query of the request, if the scheme has the signature, the timestamp or the event id in the
    /// query. `None` if the target stays unchanged.
    pub target: Option<String>,
}

impl Verifier {
    /// Signs a request with the first secret, as the provider would do at the time `context.now`. Returns `None` if
    /// the scheme uses public keys, if the scheme cannot sign this request, or if `id` is not a valid event id.
    pub fn sign<'b>(
        &self,
        context: &SignatureContext<'_>,
        body: &'b [u8],
        id: &str,
    ) -> Option<SignedRequest<'b>> {
        let mut signature =
            SignedRequest { headers: self.scheme.require.clone(), body: body.into(), target: None };
        let stated = self.scheme.stated_algorithm.as_ref().zip(self.scheme.mac_algorithm());
        signature.headers.extend(stated.and_then(|(stated, algorithm)| stated.write(algorithm)));
        match &self.scheme.proof {
            Proof::Content(scheme) => self.sign_content(scheme, context, id, &mut signature)?,
            Proof::Jwt(jwt) => {
                let (keyed, secret) = self.mac_keys.first()?;
                let name = self.scheme.secret_format.id(secret).and_then(|id| std::str::from_utf8(id).ok());
                let token = jwt.sign(context, body, (keyed, name), id)?;
                match &jwt.place {
                    JwtPlace::WholeBody => signature.body = token.into_bytes().into(),
                    JwtPlace::At(place) => signature.put_at(context, place, &token)?,
                }
            }
            Proof::SharedSecret(place) => self.sign_token(place, context, &mut signature)?,
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
                TimestampSource::Query(name) => signature.put_parameter(context, name, &text),
                // If the body already contains a valid timestamp, this timestamp stays unchanged.
                TimestampSource::Body(_) | TimestampSource::Form(_) => {
                    let part = rule.source.body_part()?;
                    let there = body_parts(&context.head, &signature.body, &[part]).ok()?;
                    if there.first().is_none_or(|text| rule.check(text, context.now).is_err()) {
                        let number = text.bytes().all(|b| b.is_ascii_digit());
                        signature.put(context, part, &text, number)?;
                    }
                }
                TimestampSource::SignatureHeader => {}
            }
            timestamp = Some(HeaderSlice::whole(&value));
        }
        let id = self.put_id(id, context, signature)?;
        let text = timestamp.as_ref().map_or("", HeaderSlice::as_str).to_owned();
        let presented = PresentedSignature::unsigned(timestamp, id);
        let text = match scheme.timestamp.as_ref().and_then(|rule| rule.source.body_part()) {
            Some(part) => body_parts(&context.head, &signature.body, &[part]).ok()?.first()?.to_string(),
            None => text,
        };
        let target = signature.target.clone();
        let target = target.as_deref().unwrap_or(context.head.target);
        let context = &SignatureContext { head: RequestHead { target, ..context.head }, ..*context };
        let parts = SignedBodyParts::signing(scheme, &context.head, text.as_bytes(), &signature.body).ok()?;
        let own = context.derived.first().and_then(|secret| self.mac_key(secret));
        let key = match &self.keys {
            VerifierKeys::Derived => own.as_ref()?,
            _ => self.mac_keys.first()?,
        };
        let tag = self.mac(scheme, key, &presented, context, &signature.body, &parts).ok()?;
        let encoded = scheme.encoding.encode(tag.as_bytes());
        match &scheme.place {
            SignaturePlace::Headers { names, .. } => {
                let value = HeaderValue::from_str(&scheme.place.write(&text, &encoded)).ok()?;
                signature.headers.push((names.first()?.clone(), value));
                Some(())
            }
            place => {
                drop(parts);
                signature.put_at(context, place, &encoded)
            }
        }
    }

    /// Adds the event id to the signed request if the scheme expects the id in the head, and returns the id. Returns
    /// `Some(None)` if the scheme expects no id in the head, and `None` if the id is not valid.
    fn put_id(
        &self,
        id: &str,
        context: &SignatureContext<'_>,
        signature: &mut SignedRequest<'_>,
    ) -> Option<Option<HeaderValue>> {
        let Some(source) = self.scheme.id.as_ref().filter(|source| source.is_in_head()) else {
            return Some(None);
        };
        let value = HeaderValue::from_str(id).ok()?;
        self.check_event_id(Some(&value)).ok()?;
        match source {
            EventIdSource::Header(name) => signature.headers.push((name.clone(), value.clone())),
            EventIdSource::Query(name) => signature.put_parameter(context, name, id),
            EventIdSource::Body(_) | EventIdSource::Form(_) => {}
        }
        Some(Some(value))
    }

    fn sign_token(
        &self,
        place: &SharedSecretPlace,
        context: &SignatureContext<'_>,
        signature: &mut SignedRequest<'_>,
    ) -> Option<()> {
        let secret = self.secrets.first().map(Secret::expose)?;
        let text = std::str::from_utf8(secret).ok()?;
        match place {
            SharedSecretPlace::Basic => {
                let value = format!("Basic {}", BASE64.encode(secret));
                signature.headers.push((AUTHORIZATION, HeaderValue::from_str(&value).ok()?));
            }
            SharedSecretPlace::At(place) => signature.put_at(context, place, text)?,
            SharedSecretPlace::Each { list, member } => {
                let found = find_one(&signature.body, list).raw()?;
                let count = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(found).ok()?.len();
                for i in 0..count {
                    let pointer = Pointer::parse(&format!("{}/{i}{}", list.as_str(), member.as_str()))?;
                    signature.put(context, BodyPart::Member(&pointer), text, false)?;
                }
            }
        }
        Some(())
    }
}

impl SignedRequest<'_> {
    /// Writes a signature, a JWT or a secret to its location in the request. Returns `None` if this is not possible,
    /// for example because the location is in a JSON body and the body is not JSON.
    fn put_at(&mut self, context: &SignatureContext<'_>, place: &SignaturePlace, text: &str) -> Option<()> {
        match place {
            SignaturePlace::Body(_) | SignaturePlace::Form(_) => {
                self.put(context, place.body_part()?, text, false)?;
            }
            SignaturePlace::Headers { names, .. } => {
                let value = HeaderValue::from_str(&place.write("", text)).ok()?;
                self.headers.push((names.first()?.clone(), value));
            }
            SignaturePlace::Query(name) => self.put_parameter(context, name, text),
        }
        Some(())
    }

    /// Sets a JSON value or a form field in the body of the request. If `is_number` is true, a JSON value becomes a
    /// number instead of a string. Returns `None` if the body is not JSON or not a form, as `part` requires.
    fn put(
        &mut self,
        context: &SignatureContext<'_>,
        part: BodyPart<'_>,
        value: &str,
        is_number: bool,
    ) -> Option<()> {
        self.body = Cow::Owned(match part {
            BodyPart::Field(name) => with_field(&context.head, &self.body, name, value)?,
            BodyPart::Member(pointer) => {
                let json = if is_number { value.to_owned() } else { quoted(value) };
                set(std::str::from_utf8(&self.body).ok()?, pointer, &json).ok()?.into_bytes()
            }
        });
        Some(())
    }

    /// Sets a parameter in the query of the request.
    fn put_parameter(&mut self, context: &SignatureContext<'_>, name: &str, value: &str) {
        let target = self.target.as_deref().unwrap_or(context.head.target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let kept = without_parameter(query, name).map(|rest| format!("?{rest}")).unwrap_or_default();
        self.target = Some(with_parameter(&format!("{path}{kept}"), name, value));
    }
}
