//! The proof that is a signature over a content: what the head shows of it, and what the body says.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::presented::{Presented, Shown};
use super::verifier::Verifier;
use crate::denial::{Denial, Refusal};
use crate::json::Pointer;
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::content::{ContentScheme, Part, Values, made, other_port};
use crate::signature::context::Signed;
use crate::signature::keys::{Cipher, Keyed, Keys, Tag};
use crate::signature::request_parts::{Place, Slice, TimestampSource, members, required};

/// What a scheme has in the body.
pub(super) struct Within<'b> {
    shown: Option<Shown>,
    timestamp: Cow<'b, [u8]>,
    members: Vec<Cow<'b, str>>,
    made: String,
}

impl<'b> Within<'b> {
    /// For signing: nothing is read but the members of the content.
    pub(super) fn signing(
        scheme: &ContentScheme,
        head: &RequestHead<'_>,
        timestamp: &[u8],
        body: &'b [u8],
    ) -> Result<Self, Refusal> {
        let pointers: Vec<&Pointer> = scheme.content.members().collect();
        let members = members(body, &pointers)?;
        let made = made(&scheme.content, head, body)?;
        Ok(Self { shown: None, timestamp: Cow::Owned(timestamp.to_vec()), members, made })
    }
}

impl Verifier {
    pub(super) fn present_content(
        &self,
        scheme: &ContentScheme,
        signed: &Signed<'_>,
    ) -> Result<(Shown, Option<Slice>), Refusal> {
        let head = &signed.head;
        let (shown, mut timestamp) = match scheme.cipher {
            Cipher::Mac(algorithm) => {
                let mut tags = Vec::new();
                let timestamp =
                    scheme.place.read(head, |text| tags.extend(scheme.encoding.decode(text, algorithm)))?;
                (Shown::Tags(tags), timestamp)
            }
            Cipher::Public(_) => {
                let mut signatures = Vec::new();
                let timestamp = scheme.place.read(head, |text| {
                    signatures.extend(scheme.encoding.decode_any(text).map(Vec::into_boxed_slice));
                })?;
                (Shown::Signatures(signatures), timestamp)
            }
        };
        if matches!(scheme.place, Place::Headers { .. }) {
            shown.check_count(scheme.place.name())?;
        }
        if let Some(rule) = &scheme.timestamp {
            let text = match &rule.source {
                TimestampSource::SignatureHeader => Some(timestamp.take().ok_or_else(|| {
                    let detail = format!("{} holds no timestamp", scheme.place.name());
                    Refusal::new(Denial::SignatureMalformed, detail)
                })?),
                TimestampSource::Header(name) => Some(Slice::whole(required(head, name)?)),
                TimestampSource::Body(_) => None,
            };
            if let Some(text) = &text {
                rule.check(text.as_str(), signed.now)?;
            }
            timestamp = text;
        }
        // A signed header that came twice would be verified once and delivered twice.
        for name in scheme.content.headers() {
            required(head, name)?;
        }
        Ok((shown, timestamp))
    }

    pub(super) fn verify_content(
        &self,
        scheme: &ContentScheme,
        presented: &Presented,
        signed: &Signed<'_>,
        body: &[u8],
    ) -> Result<Vec<Tag>, Refusal> {
        let within = self.read_body(scheme, presented, signed, body)?;
        let shown = within.shown.as_ref().unwrap_or(&presented.shown);
        let matched = match (scheme.cipher, shown) {
            (Cipher::Mac(_), Shown::Tags(shown)) => {
                // Which secret matches is no secret; how far a comparison got would be.
                let mut tags = Vec::with_capacity(self.macs.len());
                let derived: Vec<_>;
                let macs = match &self.keys {
                    Keys::Derived => {
                        derived = signed.derived.iter().filter_map(|secret| self.ready(secret)).collect();
                        &derived
                    }
                    Keys::Learned(id) => {
                        let secret = signed.keyring.secret(*id).ok_or_else(|| {
                            let detail = "the provider has not handed over its secret so far";
                            Refusal::new(Denial::KeysUnavailable, detail)
                        })?;
                        derived = self.ready(secret).into_iter().collect();
                        &derived
                    }
                    _ => &self.macs,
                };
                let mut matched = false;
                for key in macs {
                    let tag = self.tag(scheme, key, presented, signed, body, &within)?;
                    tags.push(tag);
                    matched = shown.iter().any(|signature| tag.matches(signature));
                    if !matched && scheme.content.parts().contains(&Part::Form) {
                        let other = other_port(signed.public_url);
                        let signed = Signed { public_url: &other, ..*signed };
                        let tag = self.tag(scheme, key, presented, &signed, body, &within)?;
                        matched = shown.iter().any(|signature| tag.matches(signature));
                        tags.push(tag);
                    }
                    if matched {
                        break;
                    }
                }
                matched.then_some(tags)
            }
            (Cipher::Public(algorithm), Shown::Signatures(shown)) => {
                let keys = self.public_keys(signed, body)?;
                // The place of the secret is taken by what stands in `secrets` beside the keys: an id of a webhook.
                let contents = self.contents(scheme, presented, signed, body, &within)?;
                contents.iter().find_map(|content| {
                    let mut valid = keys.usable(signed.now);
                    let made = |key| shown.iter().any(|one| algorithm.verifies(key, content, one));
                    valid.any(made).then(|| {
                        keys.prove();
                        vec![Tag::new(&Sha256::digest(content))]
                    })
                })
            }
            _ => None,
        };
        matched.ok_or_else(|| {
            let detail = format!("none of {} signatures matches over {} body bytes", shown.len(), body.len());
            Refusal::new(Denial::SignatureMismatch, detail)
        })
    }

    /// A secret made ready for this scheme.
    pub(super) fn ready(&self, secret: &Secret) -> Option<(Keyed, Secret)> {
        let keyed = Keyed::new(self.scheme.mac()?, &self.scheme.key_form, secret).ok()?;
        Some((keyed, secret.clone()))
    }

    /// Reads from the body what a scheme has there: members of the content, timestamp, signature.
    fn read_body<'b>(
        &self,
        scheme: &ContentScheme,
        presented: &'b Presented,
        signed: &Signed<'_>,
        body: &'b [u8],
    ) -> Result<Within<'b>, Refusal> {
        let mut pointers: Vec<&Pointer> = scheme.content.members().collect();
        let members_count = pointers.len();
        let rule = scheme.timestamp.as_ref();
        let timestamp_at = rule.and_then(|rule| match &rule.source {
            TimestampSource::Body(pointer) => Some(pointer),
            _ => None,
        });
        pointers.extend(timestamp_at);
        if let Place::Body(pointer) = &scheme.place {
            pointers.push(pointer);
        }
        let mut found = members(body, &pointers)?;
        let shown = match &scheme.place {
            Place::Headers { .. } => None,
            Place::Body(_) => {
                let text = found.pop().unwrap_or_default();
                let shown = match scheme.cipher {
                    Cipher::Mac(algorithm) => {
                        Shown::Tags(scheme.encoding.decode(&text, algorithm).into_iter().collect())
                    }
                    Cipher::Public(_) => {
                        let bytes = scheme.encoding.decode_any(&text).map(Vec::into_boxed_slice);
                        Shown::Signatures(bytes.into_iter().collect())
                    }
                };
                if text.is_empty() {
                    return Err(Refusal::new(Denial::SignatureMissing, "the body holds no signature"));
                }
                shown.check_count("the body")?;
                Some(shown)
            }
        };
        let timestamp = match (rule, timestamp_at) {
            (Some(rule), Some(_)) => {
                let text = found.pop().unwrap_or_default();
                rule.check(&text, signed.now)?;
                Cow::Owned(text.into_owned().into_bytes())
            }
            _ => Cow::Borrowed(presented.timestamp.as_ref().map_or(b"".as_slice(), Slice::as_bytes)),
        };
        found.truncate(members_count);
        let made = made(&scheme.content, &signed.head, body)?;
        Ok(Within { shown, timestamp, members: found, made })
    }

    /// The MAC of a message under one secret.
    pub(super) fn tag(
        &self,
        scheme: &ContentScheme,
        (keyed, secret): &(Keyed, Secret),
        presented: &Presented,
        signed: &Signed<'_>,
        body: &[u8],
        within: &Within<'_>,
    ) -> Result<Tag, Refusal> {
        let mut mac = keyed.start();
        let values = Values {
            signed,
            body,
            timestamp: &within.timestamp,
            id: presented.id.as_ref(),
            secret: secret.expose(),
            members: &within.members,
            made: &within.made,
        };
        scheme.content.write(&values, &mut |bytes| mac.update(bytes))?;
        Ok(mac.finish())
    }

    /// The signed content, once for each of `secrets`, or once where there are none.
    fn contents(
        &self,
        scheme: &ContentScheme,
        presented: &Presented,
        signed: &Signed<'_>,
        body: &[u8],
        within: &Within<'_>,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let uses_secret = scheme.content.parts().contains(&Part::Secret);
        let secrets: Vec<&[u8]> = match uses_secret {
            true => self.secrets.iter().map(Secret::expose).collect(),
            false => vec![b""],
        };
        let content = |secret: &[u8]| {
            let values = Values {
                signed,
                body,
                timestamp: &within.timestamp,
                id: presented.id.as_ref(),
                secret,
                members: &within.members,
                made: &within.made,
            };
            let mut bytes = Vec::with_capacity(body.len() + 64);
            scheme.content.write(&values, &mut |part| bytes.extend_from_slice(part)).map(|()| bytes)
        };
        secrets.into_iter().map(content).collect()
    }
}
