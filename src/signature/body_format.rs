//! The formats of request bodies from which a signature scheme or a handshake reads values.

use std::fmt;

use super::content::{ContentPart, ContentScheme};
use super::handshake::{
    Handshake, HandshakeValueSource, ReplyBody, ReplyTemplate, ReplyTemplatePart, ReplyValue,
};
use super::keys::{CertificateRule, CertificateSource};
use super::proofs::{JwtPlace, JwtScheme, SharedSecretPlace};
use super::request_parts::{BodyPart, SignaturePlace};
use super::scheme::{Proof, Scheme};

/// The format that a request body must have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyFormat {
    /// The body is a form (`application/x-www-form-urlencoded`).
    Form,
    /// The body is JSON.
    Json,
    /// The whole body is a JWT.
    Token,
}

/// Formats the body format as a noun phrase, such as `a form`.
impl fmt::Display for BodyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "a form",
            Self::Json => "JSON",
            Self::Token => "a token",
        })
    }
}

impl From<BodyPart<'_>> for BodyFormat {
    fn from(part: BodyPart<'_>) -> Self {
        match part {
            BodyPart::Field(_) => Self::Form,
            BodyPart::Member(_) => Self::Json,
        }
    }
}

impl Scheme {
    /// Returns the formats that a request body must have so that Callgate can read the signature from the body.
    /// `verified` is true if Callgate verifies the request. In this case, the result also contains the body formats of
    /// shared secrets and of signed values.
    pub fn body_formats(&self, verified: bool) -> impl Iterator<Item = BodyFormat> {
        let place = match &self.proof {
            Proof::Content(scheme) => scheme.place.body_part(),
            Proof::Jwt(scheme) => match &scheme.place {
                JwtPlace::At(place) => place.body_part(),
                JwtPlace::WholeBody => None,
            },
            Proof::SharedSecret(SharedSecretPlace::At(place)) if verified => place.body_part(),
            _ => None,
        };
        let token = matches!(&self.proof, Proof::Jwt(scheme) if scheme.place == JwtPlace::WholeBody);
        let content = match &self.proof {
            Proof::Content(scheme) if verified => Some(scheme),
            _ => None,
        };
        let signed = content.into_iter().flat_map(ContentScheme::body_formats);
        place.map(BodyFormat::from).into_iter().chain(token.then_some(BodyFormat::Token)).chain(signed)
    }
}

impl JwtScheme {
    /// Reports whether the JWT is in the body, either as a part of the body or as the whole body.
    pub fn is_in_body(&self) -> bool {
        !self.is_in_head()
    }
}

impl ContentScheme {
    /// Returns the formats that a body must have so that Callgate can read the signed parts and the timestamp from the
    /// body.
    fn body_formats(&self) -> impl Iterator<Item = BodyFormat> {
        let time = self.timestamp.as_ref().and_then(|rule| rule.source.body_part());
        let canonical = self.content.parts().contains(&ContentPart::CanonicalJson);
        let parts = self.content.body_parts().chain(time).map(BodyFormat::from);
        parts.chain(canonical.then_some(BodyFormat::Json))
    }

    /// Reports whether the signed content contains the signature itself. No sender could compute such a signature.
    pub fn covers_itself(&self) -> bool {
        let is_signature = |part: &ContentPart| match (part, &self.place) {
            (ContentPart::Member(pointer), SignaturePlace::Body(place)) => pointer == place,
            (ContentPart::Field(name), SignaturePlace::Form(place)) => name == place,
            (ContentPart::Header(name), SignaturePlace::Headers { names, .. }) => names.contains(name),
            (ContentPart::Query(name), SignaturePlace::Query(place)) => name == place,
            (
                ContentPart::Body | ContentPart::BodySha256 | ContentPart::CanonicalJson | ContentPart::Crc32,
                SignaturePlace::Body(_) | SignaturePlace::Form(_),
            ) => true,
            (ContentPart::Form, SignaturePlace::Form(_)) => true,
            _ => false,
        };
        self.content.parts().iter().any(is_signature)
    }
}

impl Handshake {
    /// Returns the formats that a body must have so that Callgate can read the values of this handshake from the body.
    pub fn body_formats(&self) -> impl Iterator<Item = BodyFormat> {
        let form = (!self.condition.form.is_empty()).then_some(BodyFormat::Form);
        let places = [&self.token, &self.subscription, &self.secret];
        let fetched =
            matches!(&self.confirmation, Some(CertificateRule { source: CertificateSource::Body(_), .. }));
        let json = fetched
            || !self.condition.body.is_empty()
            || places.into_iter().flatten().any(HandshakeValueSource::is_in_body)
            || self.templates().flat_map(|template| &template.0).any(ReplyTemplatePart::is_in_body);
        form.into_iter().chain(json.then_some(BodyFormat::Json))
    }

    /// Returns the text templates in the reply to the handshake, for the body and the headers.
    fn templates(&self) -> impl Iterator<Item = &ReplyTemplate> {
        let (text, members) = match &self.body {
            ReplyBody::Empty => (None, None),
            ReplyBody::Text(template) => (Some(template), None),
            ReplyBody::Json(members) => (None, Some(members)),
        };
        let members = members.into_iter().flatten().filter_map(|(_, value)| match value {
            ReplyValue::Raw(_) => None,
            ReplyValue::Text(template) => Some(template),
        });
        text.into_iter().chain(members).chain(self.headers.iter().map(|(_, template)| template))
    }
}

impl HandshakeValueSource {
    fn is_in_body(&self) -> bool {
        matches!(self, Self::Body(_))
    }
}

impl ReplyTemplatePart {
    fn is_in_body(&self) -> bool {
        match self {
            Self::Echo(at) | Self::HmacBase64(at) | Self::HmacHex(at) => at.is_in_body(),
            Self::Literal(_) => false,
        }
    }
}
