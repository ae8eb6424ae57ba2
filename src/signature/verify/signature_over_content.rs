//! Verifies the signatures of schemes with a content template. The first step reads the head of the request, and the
//! second step reads the body.

use std::borrow::Cow;

use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::presented::{PresentedProof, PresentedSignature};
use super::verifier::Verifier;
use crate::body::form::PlusSign;
use crate::denial::{Denial, Refusal};
use crate::query::without_parameter;
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::content::{ContentPart, ContentScheme, ContentValues, normalized_body};
use crate::signature::context::SignatureContext;
use crate::signature::keys::{AuthenticationTag, SignatureAlgorithm};
use crate::signature::request_parts::{
    HeaderSlice, TimestampSource, body_parts, required_header, required_parameter,
};

/// The values that Callgate reads with the body of a request: the parts of the signed content, and the signature and
/// the timestamp if they are in the body.
pub(super) struct SignedBodyParts<'b> {
    proof: Option<PresentedProof>,
    pub(super) timestamp: Cow<'b, [u8]>,
    /// The JSON values and form fields of the body, in the order of their placeholders in the template.
    pub(super) values: Vec<Cow<'b, str>>,
    pub(super) normalized_body: String,
    /// The path and query of the request, without the query parameter that contains the signature.
    pub(super) target: Cow<'b, str>,
}

impl<'b> SignedBodyParts<'b> {
    /// Returns the parts of the signed content for a request that Callgate is about to sign. The body of the request
    /// need not contain the signature and the timestamp yet.
    pub(super) fn signing(
        scheme: &ContentScheme,
        head: &RequestHead<'b>,
        timestamp: &[u8],
        body: &'b [u8],
    ) -> Result<Self, Refusal> {
        let parts: Vec<_> = scheme.content.body_parts().collect();
        let values = body_parts(head, body, &parts)?;
        let normalized_body = normalized_body(&scheme.content, head, body)?;
        let timestamp = Cow::Owned(timestamp.to_vec());
        Ok(Self { proof: None, timestamp, values, normalized_body, target: signed_target(scheme, head) })
    }
}

/// Returns the path and query of the request, without the query parameter that contains the signature. A signature
/// cannot cover itself.
fn signed_target<'a>(scheme: &ContentScheme, head: &RequestHead<'a>) -> Cow<'a, str> {
    let (Some(name), Some(query)) = (scheme.place.parameter(), head.raw_query()) else {
        return Cow::Borrowed(head.target);
    };
    match without_parameter(query, name) {
        Some(Cow::Borrowed(_)) => Cow::Borrowed(head.target),
        Some(rest) => Cow::Owned(format!("{}?{rest}", head.raw_path())),
        None => Cow::Borrowed(head.raw_path()),
    }
}

/// Returns the timestamp in the query parameter `name`.
///
/// # Errors
/// Returns `signature_missing` if the parameter is missing, and `signature_malformed` if its value is ambiguous or not
/// visible ASCII.
fn parameter_slice(head: &RequestHead<'_>, name: &str) -> Result<HeaderSlice, Refusal> {
    let text = required_parameter(head, name, PlusSign::Ambiguous)?;
    let value = HeaderValue::from_str(&text).map_err(|_| {
        let detail = format!("the query parameter {name} is not visible ASCII");
        Refusal::new(Denial::SignatureMalformed, detail)
    })?;
    Ok(HeaderSlice::whole(&value))
}

impl Verifier {
    /// Reads the signatures and the timestamp in the head of a request, and checks the timestamp.
    ///
    /// # Errors
    /// Returns `signature_missing`, `signature_malformed`, `signature_too_old`, `signature_too_new` or
    /// `header_duplicated`.
    pub(super) fn verify_content_head(
        &self,
        scheme: &ContentScheme,
        context: &SignatureContext<'_>,
    ) -> Result<(PresentedProof, Option<HeaderSlice>), Refusal> {
        let head = &context.head;
        let mut proof = PresentedProof::empty(scheme.algorithm);
        let mut unreadable = None;
        let mut timestamp = scheme.place.read(head, |text| {
            if !proof.add(scheme, &text) {
                unreadable.get_or_insert(text);
            }
        })?;
        if scheme.place.body_part().is_none() {
            proof.check_count(&scheme.place, || match &unreadable {
                Some(text) => format!("has a signature that {}", scheme.fault(text)),
                None => scheme.place.format_fault(head, false),
            })?;
        }
        if let Some(rule) = &scheme.timestamp {
            let text = match &rule.source {
                TimestampSource::SignatureHeader => Some(timestamp.take().ok_or_else(|| {
                    let detail = format!("{} has no timestamp", scheme.place);
                    Refusal::new(Denial::SignatureMalformed, detail)
                })?),
                TimestampSource::Header(name) => Some(HeaderSlice::whole(required_header(head, name)?)),
                TimestampSource::Query(name) => Some(parameter_slice(head, name)?),
                TimestampSource::Body(_) | TimestampSource::Form(_) => None,
            };
            if let Some(text) = &text {
                rule.check(text.as_str(), context.now)?;
            }
            timestamp = text;
        }
        // A signed header must occur only once. Otherwise Callgate would verify one value and deliver both values.
        for name in scheme.content.headers() {
            required_header(head, name)?;
        }
        for name in scheme.content.parameters() {
            required_parameter(head, name, PlusSign::Ambiguous)?;
        }
        Ok((proof, timestamp))
    }

    /// Verifies the signatures over the signed content of a request. Returns the authentication tags of the message.
    pub(super) fn verify_content_body(
        &self,
        scheme: &ContentScheme,
        presented: &PresentedSignature,
        context: &SignatureContext<'_>,
        body: &[u8],
    ) -> Result<Vec<AuthenticationTag>, Refusal> {
        let parts = self.read_body(scheme, presented, context, body)?;
        let proof = parts.proof.as_ref().unwrap_or(&presented.proof);
        let matched = match (scheme.algorithm, proof) {
            (SignatureAlgorithm::Mac(_), PresentedProof::Macs(presented_macs)) => {
                self.find_mac(scheme, presented_macs, presented, context, body, &parts)?
            }
            (SignatureAlgorithm::Public(algorithm), PresentedProof::Signatures(signatures)) => {
                let keys = self.public_keys(context, body)?;
                // If the scheme uses public keys, `secrets` contains the ids of webhooks instead of keys. The
                // placeholder `{secret}` stands for the id of a webhook.
                let contents = self.signed_contents(scheme, presented, context, body, &parts)?;
                contents.iter().find_map(|content| {
                    let mut valid = keys.usable(context.now);
                    let made = |key| signatures.iter().any(|one| algorithm.verifies(key, content, one));
                    valid.any(made).then(|| {
                        keys.prove();
                        vec![AuthenticationTag::new(&Sha256::digest(content))]
                    })
                })
            }
            _ => None,
        };
        matched.ok_or_else(|| self.mismatch(proof.len(), context, body))
    }

    /// Reads the parts of the body that the scheme needs: the signed values, the timestamp and the signature. Checks
    /// the timestamp.
    pub(super) fn read_body<'b>(
        &self,
        scheme: &ContentScheme,
        presented: &'b PresentedSignature,
        context: &SignatureContext<'b>,
        body: &'b [u8],
    ) -> Result<SignedBodyParts<'b>, Refusal> {
        let mut parts: Vec<_> = scheme.content.body_parts().collect();
        let signed_count = parts.len();
        let rule = scheme.timestamp.as_ref();
        let timestamp_at = rule.and_then(|rule| rule.source.body_part());
        parts.extend(timestamp_at);
        let signature_at = scheme.place.body_part();
        parts.extend(signature_at);
        let mut found = body_parts(&context.head, body, &parts)?;
        let proof = match signature_at {
            None => None,
            Some(_) => {
                let text = found.pop().unwrap_or_default();
                if text.is_empty() {
                    let detail = format!("the request has no signature in {}", scheme.place);
                    return Err(Refusal::new(Denial::SignatureMissing, detail));
                }
                let mut proof = PresentedProof::empty(scheme.algorithm);
                proof.add(scheme, &text);
                proof.check_count(&scheme.place, || scheme.fault(&text))?;
                Some(proof)
            }
        };
        let timestamp = match (rule, timestamp_at) {
            (Some(rule), Some(_)) => {
                let text = found.pop().unwrap_or_default();
                rule.check(&text, context.now)?;
                Cow::Owned(text.into_owned().into_bytes())
            }
            _ => Cow::Borrowed(presented.timestamp.as_ref().map_or(b"".as_slice(), HeaderSlice::as_bytes)),
        };
        found.truncate(signed_count);
        let normalized_body = normalized_body(&scheme.content, &context.head, body)?;
        let target = signed_target(scheme, &context.head);
        Ok(SignedBodyParts { proof, timestamp, values: found, normalized_body, target })
    }

    /// Returns the possible signed contents of the message. If the template contains `{secret}`, the list has one
    /// content for each secret. Otherwise, the list has exactly one content.
    pub(super) fn signed_contents(
        &self,
        scheme: &ContentScheme,
        presented: &PresentedSignature,
        context: &SignatureContext<'_>,
        body: &[u8],
        parts: &SignedBodyParts<'_>,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let uses_secret = scheme.content.parts().contains(&ContentPart::Secret);
        let secrets: Vec<&[u8]> = match uses_secret {
            true => self.secrets.iter().map(Secret::expose).collect(),
            false => vec![b""],
        };
        let content = |secret: &[u8]| {
            let values = ContentValues {
                context,
                body,
                timestamp: &parts.timestamp,
                id: presented.id.as_ref(),
                secret,
                body_parts: &parts.values,
                target: &parts.target,
                normalized_body: &parts.normalized_body,
            };
            let mut bytes = Vec::with_capacity(body.len() + 64);
            scheme.content.write(&values, &mut |part| bytes.extend_from_slice(part)).map(|()| bytes)
        };
        secrets.into_iter().map(content).collect()
    }
}
