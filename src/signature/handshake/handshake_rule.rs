//! The rules that describe handshakes and the replies to them. Callgate answers a request as a handshake only if the
//! request meets the condition of a rule. The media type of a reply is never HTML, so that a browser does not run
//! scripts in a value that the reply repeats.

use http::{HeaderName, Method};

use crate::json::Pointer;
use crate::signature::keys::CertificateRule;

/// The part of a request that contains a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HandshakeValueSource {
    /// A member of the JSON body.
    Body(Pointer),
    /// A header.
    Header(HeaderName),
    /// A query parameter. It is percent-decoded once.
    Query(Box<str>),
}

/// The condition that a request must meet to be a handshake. If an expected value is `None`, every value is accepted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HandshakeCondition {
    /// The values that the head must have.
    pub head: Vec<(HandshakeValueSource, Option<Box<str>>)>,
    /// The members that the JSON body must have.
    pub body: Vec<(Pointer, Option<Box<str>>)>,
    /// The fields that the form must have.
    pub form: Vec<(Box<str>, Option<Box<str>>)>,
}

/// A template that is filled with values of the request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplyTemplate(pub Vec<ReplyTemplatePart>);

/// One part of a reply template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyTemplatePart {
    /// A value of the request.
    Echo(HandshakeValueSource),
    /// The MAC of a value of the request, computed with the provider's first secret, in base64.
    HmacBase64(HandshakeValueSource),
    /// The MAC of a value of the request, computed with the provider's first secret, in hexadecimal.
    HmacHex(HandshakeValueSource),
    /// Fixed text.
    Literal(Box<str>),
}

/// The value of a member of a JSON reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyValue {
    /// Fixed JSON.
    Raw(Box<str>),
    /// A JSON string, which the template produces.
    Text(ReplyTemplate),
}

/// The body of a reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyBody {
    /// No body.
    Empty,
    /// A JSON object.
    Json(Vec<(Box<str>, ReplyValue)>),
    /// Plain text.
    Text(ReplyTemplate),
}

/// The rule for one handshake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Handshake {
    /// The name of the handshake. It is also a metric label.
    pub name: Box<str>,
    /// The method of the request.
    pub method: Method,
    /// True if the provider signs the handshake in the same way as a message.
    pub signed: bool,
    /// The condition that a request must meet to be this handshake.
    pub condition: HandshakeCondition,
    /// The part of the request that must contain the verify token.
    pub token: Option<HandshakeValueSource>,
    /// The part of the request that must contain one of the configured `subscriptions`.
    pub subscription: Option<HandshakeValueSource>,
    /// The part of the request that contains the secret for all later messages.
    pub secret: Option<HandshakeValueSource>,
    /// The URLs that Callgate may fetch to confirm a subscription. `None` if the handshake needs no confirmation.
    pub confirmation: Option<CertificateRule>,
    /// The status of the reply.
    pub status: u16,
    /// The headers of the reply.
    pub headers: Vec<(HeaderName, ReplyTemplate)>,
    /// The body of the reply.
    pub body: ReplyBody,
}

impl Handshake {
    /// Reports whether the reply to an unsigned request contains the MAC of a text that the caller chose.
    pub fn signs_unauthenticated_text(&self) -> bool {
        let signs = |template: &ReplyTemplate| {
            template.0.iter().any(|piece| {
                matches!(piece, ReplyTemplatePart::HmacBase64(_) | ReplyTemplatePart::HmacHex(_))
            })
        };
        let body = match &self.body {
            ReplyBody::Empty => false,
            ReplyBody::Text(template) => signs(template),
            ReplyBody::Json(members) => members
                .iter()
                .any(|(_, value)| matches!(value, ReplyValue::Text(template) if signs(template))),
        };
        !self.signed && (body || self.headers.iter().any(|(_, template)| signs(template)))
    }
}
