//! Handshakes: how a provider makes sure that an address wants its messages, before it sends any. Each is answered only
//! when the request is what the provider's would be, and the answer is never HTML.

use http::{HeaderName, Method};

use crate::json::Pointer;
use crate::signature::keys::CertificateRule;

/// Where a text of a request stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HandshakeValueSource {
    /// A member of the JSON body.
    Body(Pointer),
    /// A header.
    Header(HeaderName),
    /// A parameter of the query, decoded once.
    Query(Box<str>),
}

/// What a request must hold to be a handshake: each place, and what it must say; `None`: anything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HandshakeCondition {
    /// What the head must hold.
    pub head: Vec<(HandshakeValueSource, Option<Box<str>>)>,
    /// What the body must hold.
    pub body: Vec<(Pointer, Option<Box<str>>)>,
    /// What the body must hold if it is a form: name and value.
    pub form: Vec<(Box<str>, Box<str>)>,
}

/// A text made of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplyTemplate(pub Vec<ReplyTemplatePart>);

/// One piece of such a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyTemplatePart {
    /// A text of the request.
    Echo(HandshakeValueSource),
    /// Its HMAC-SHA256 under the first secret, base64.
    HmacBase64(HandshakeValueSource),
    /// The same, hexadecimal.
    HmacHex(HandshakeValueSource),
    /// This very text.
    Literal(Box<str>),
}

/// The value of a member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyValue {
    /// JSON as it stands.
    Raw(Box<str>),
    /// A text.
    Text(ReplyTemplate),
}

/// What is answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyBody {
    /// Nothing.
    Empty,
    /// A JSON object.
    Json(Vec<(Box<str>, ReplyValue)>),
    /// Plain text.
    Text(ReplyTemplate),
}

/// A handshake, as data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Handshake {
    /// Its name: metric label.
    pub name: Box<str>,
    /// The method it comes with.
    pub method: Method,
    /// Whether it is signed like any message of the provider.
    pub signed: bool,
    /// What makes a request this handshake.
    pub condition: HandshakeCondition,
    /// A text that must be the token agreed on with the provider.
    pub token: Option<HandshakeValueSource>,
    /// A text that must be one of the configured `subscriptions`.
    pub subscription: Option<HandshakeValueSource>,
    /// Where it hands over the secret that messages are signed with from then on.
    pub secret: Option<HandshakeValueSource>,
    /// An address that is to be fetched to agree, and where it may be.
    pub confirmation: Option<CertificateRule>,
    /// The status of the answer.
    pub status: u16,
    /// Headers of the answer.
    pub headers: Vec<(HeaderName, ReplyTemplate)>,
    /// The body of the answer.
    pub body: ReplyBody,
}

impl Handshake {
    /// Whether it has a text of the caller's choice signed, without being signed itself.
    pub(in crate::signature) fn signs_unauthenticated_text(&self) -> bool {
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
