//! The rules that describe handshakes and the replies to them. Callgate replies to a request as a handshake only if
//! the request meets the condition of a rule. The media type of a reply is never HTML, so that a browser does not run
//! scripts in a value that the reply repeats.

use http::{HeaderName, Method};

use crate::json::Pointer;
use crate::signature::keys::CertificateRule;

/// The location of a value in a handshake request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HandshakeValueSource {
    /// The value is at this JSON pointer in the JSON body.
    Body(Pointer),
    /// The value is in the header of this name.
    Header(HeaderName),
    /// The value is in the query parameter of this name, and is percent-decoded once.
    Query(Box<str>),
}

/// The condition that a request must meet to be a handshake. If an expected value is `None`, every value is accepted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HandshakeCondition {
    /// The headers and query parameters that the request must have, each with its expected value.
    pub head: Vec<(HandshakeValueSource, Option<Box<str>>)>,
    /// The values that the JSON body must have, each with its JSON pointer and its expected value.
    pub body: Vec<(Pointer, Option<Box<str>>)>,
    /// The fields that the form in the body must have, each with its expected value.
    pub form: Vec<(Box<str>, Option<Box<str>>)>,
}

/// A template for a text in a handshake reply. Values of the request replace its placeholders.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplyTemplate(pub Vec<ReplyTemplatePart>);

/// One part of a template for a handshake reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyTemplatePart {
    /// A value of the request, which the reply repeats.
    Echo(HandshakeValueSource),
    /// The MAC of a value of the request, computed with the provider's first secret, in base64.
    HmacBase64(HandshakeValueSource),
    /// The MAC of a value of the request, computed with the provider's first secret, in hexadecimal.
    HmacHex(HandshakeValueSource),
    /// Fixed text in the reply.
    Literal(Box<str>),
}

/// The value of a key in the JSON body of a handshake reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyValue {
    /// A fixed JSON value.
    Raw(Box<str>),
    /// A JSON string with the text of the filled template.
    Text(ReplyTemplate),
}

/// The body of a handshake reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyBody {
    /// The reply has no body.
    Empty,
    /// The body is a JSON object with these names and values.
    Json(Vec<(Box<str>, ReplyValue)>),
    /// The body is plain text from this template.
    Text(ReplyTemplate),
}

/// The rule for one kind of handshake: the requests to which the rule applies, and the reply to them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Handshake {
    /// The name of the handshake, which is also a metric label.
    pub name: Box<str>,
    /// The method of a handshake request.
    pub method: Method,
    /// True if the provider signs the handshake in the same way as a message.
    pub signed: bool,
    /// The condition that a request must meet to be this handshake.
    pub condition: HandshakeCondition,
    /// The location of the verify token in the request. The token must be the configured `verify_token`, or the first
    /// secret of the provider if there is no `verify_token`. `None` if requests need no verify token.
    pub token: Option<HandshakeValueSource>,
    /// The location of the subscription in the request. Its value must be one of the configured `subscriptions`.
    /// `None` if requests name no subscription.
    pub subscription: Option<HandshakeValueSource>,
    /// The location of the secret in the request. The provider signs all later messages with this secret. `None` if
    /// the handshake contains no secret.
    pub secret: Option<HandshakeValueSource>,
    /// The rule for the URL that Callgate fetches to confirm a subscription. `None` if the handshake needs no
    /// confirmation.
    pub confirmation: Option<CertificateRule>,
    /// The HTTP status of the reply.
    pub status: u16,
    /// The headers of the reply, each with a template for its value.
    pub headers: Vec<(HeaderName, ReplyTemplate)>,
    /// The body of the reply.
    pub body: ReplyBody,
}

impl Handshake {
    /// Reports whether the reply to an unsigned handshake contains the MAC of a text that the caller chose.
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
