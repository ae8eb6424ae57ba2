//! Signing as a provider does: the exact inverse of verifying, for every scheme whose key is shared.

use std::borrow::Cow;

use data_encoding::BASE64;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use super::content_proof::Within;
use super::presented::Presented;
use super::verifier::Verifier;
use crate::json::{Pointer, find_one, quoted, set};
use crate::secret::Secret;
use crate::signature::content::ContentScheme;
use crate::signature::context::Signed;
use crate::signature::keys::Keys;
use crate::signature::proofs::TokenPlace;
use crate::signature::request_parts::{IdSource, Place, Slice, TimestampSource, members};
use crate::signature::scheme::Proof;

/// What a provider adds to a request.
#[derive(Debug)]
pub struct Signature<'b> {
    /// Headers, which replace those of the same name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, changed where the scheme has signature or time in it.
    pub body: Cow<'b, [u8]>,
}

impl Verifier {
    /// The request as the provider would send it now, under the first secret. `None` where the key is not ours to
    /// hold, where the request cannot be signed so, or when `id` is none that verifies.
    pub fn sign<'b>(&self, signed: &Signed<'_>, body: &'b [u8], id: &str) -> Option<Signature<'b>> {
        let mut signature = Signature { headers: self.scheme.require.clone(), body: body.into() };
        match &self.scheme.proof {
            Proof::Content(scheme) => self.sign_content(scheme, signed, id, &mut signature)?,
            Proof::Jwt(jwt) => {
                let (keyed, secret) = self.macs.first()?;
                let name = self.scheme.key_form.id(secret).and_then(|id| std::str::from_utf8(id).ok());
                let value = jwt.sign(signed, body, (keyed, name), id)?;
                signature.headers.push((jwt.place.header()?.clone(), HeaderValue::from_str(&value).ok()?));
            }
            Proof::Token(place) => self.sign_token(place, &mut signature)?,
            Proof::Message(_) | Proof::Nothing | Proof::Sns => return None,
        }
        Some(signature)
    }

    fn sign_content(
        &self,
        scheme: &ContentScheme,
        signed: &Signed<'_>,
        id: &str,
        signature: &mut Signature<'_>,
    ) -> Option<()> {
        let mut timestamp = None;
        if let Some(rule) = &scheme.timestamp {
            let text = rule.unit.write(signed.now);
            let value = HeaderValue::from_str(&text).ok()?;
            match &rule.source {
                TimestampSource::Header(name) => signature.headers.push((name.clone(), value.clone())),
                // One that is there and would do stays: the body is the provider's.
                TimestampSource::Body(pointer) => {
                    let there = members(&signature.body, &[pointer]).ok()?;
                    if there.first().is_none_or(|text| rule.check(text, signed.now).is_err()) {
                        let number = text.bytes().all(|b| b.is_ascii_digit());
                        signature.put(pointer, &if number { text } else { quoted(&text) })?;
                    }
                }
                TimestampSource::SignatureHeader => {}
            }
            timestamp = Some(Slice::whole(&value));
        }
        let id = match self.scheme.id.as_ref().and_then(IdSource::header) {
            None => None,
            Some(name) => {
                let id = HeaderValue::from_str(id).ok()?;
                self.check_id(Some(&id)).ok()?;
                signature.headers.push((name.clone(), id.clone()));
                Some(id)
            }
        };
        let text = timestamp.as_ref().map_or("", Slice::as_str).to_owned();
        let presented = Presented::unsigned(timestamp, id);
        let text = match scheme.timestamp.as_ref().map(|rule| &rule.source) {
            Some(TimestampSource::Body(pointer)) => {
                members(&signature.body, &[pointer]).ok()?.first()?.to_string()
            }
            _ => text,
        };
        let within = Within::signing(scheme, &signed.head, text.as_bytes(), &signature.body).ok()?;
        let own = signed.derived.first().and_then(|secret| self.ready(secret));
        let key = match &self.keys {
            Keys::Derived => own.as_ref()?,
            _ => self.macs.first()?,
        };
        let tag = self.tag(scheme, key, &presented, signed, &signature.body, &within).ok()?;
        let encoded = scheme.encoding.encode(tag.as_bytes());
        match &scheme.place {
            Place::Body(pointer) => {
                drop(within);
                signature.put(pointer, &quoted(&encoded))
            }
            Place::Headers { names, .. } => {
                let value = HeaderValue::from_str(&scheme.place.write(&text, &encoded)).ok()?;
                signature.headers.push((names.first()?.clone(), value));
                Some(())
            }
        }
    }

    fn sign_token(&self, place: &TokenPlace, signature: &mut Signature<'_>) -> Option<()> {
        let secret = self.secrets.first().map(Secret::expose)?;
        let text = std::str::from_utf8(secret).ok()?;
        match place {
            TokenPlace::At(place @ Place::Headers { names, .. }) => {
                let value = HeaderValue::from_str(&place.write("", text)).ok()?;
                signature.headers.push((names.first()?.clone(), value));
            }
            TokenPlace::Basic => {
                let value = format!("Basic {}", BASE64.encode(secret));
                signature.headers.push((AUTHORIZATION, HeaderValue::from_str(&value).ok()?));
            }
            TokenPlace::At(Place::Body(pointer)) => signature.put(pointer, &quoted(text))?,
            TokenPlace::Each { list, member } => {
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

impl Signature<'_> {
    /// Puts a value into the body.
    fn put(&mut self, pointer: &Pointer, value: &str) -> Option<()> {
        let text = std::str::from_utf8(&self.body).ok()?;
        self.body = Cow::Owned(set(text, pointer, value).ok()?.into_bytes());
        Some(())
    }
}
