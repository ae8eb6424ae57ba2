//! Handshakes: how a provider makes sure that an address wants its messages, before it sends any. Each is answered only
//! when the request is what the provider's would be, and the answer is never HTML.

use http::{HeaderName, Method};

use crate::json::Pointer;
use crate::signature::keys::CertificateRule;

/// Where a text of a request stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HandshakeToken {
    /// A member of the JSON body.
    Body(Pointer),
    /// A header.
    Header(HeaderName),
    /// A parameter of the query, decoded once.
    Query(Box<str>),
}

/// What a request must hold to be a handshake: each place, and what it must say; `None`: anything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct When {
    /// What the head must hold.
    pub head: Vec<(HandshakeToken, Option<Box<str>>)>,
    /// What the body must hold.
    pub body: Vec<(Pointer, Option<Box<str>>)>,
    /// What the body must hold if it is a form: name and value.
    pub form: Vec<(Box<str>, Box<str>)>,
}

/// A text made of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template(pub Vec<Piece>);

/// One piece of such a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// A text of the request.
    Echo(HandshakeToken),
    /// Its HMAC-SHA256 under the first secret, base64.
    HmacBase64(HandshakeToken),
    /// The same, hexadecimal.
    HmacHex(HandshakeToken),
    /// This very text.
    Literal(Box<str>),
}

/// The value of a member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// JSON as it stands.
    Raw(Box<str>),
    /// A text.
    Text(Template),
}

/// What is answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Nothing.
    Empty,
    /// A JSON object.
    Json(Vec<(Box<str>, Value)>),
    /// Plain text.
    Text(Template),
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
    pub when: When,
    /// A text that must be the token agreed on with the provider.
    pub token: Option<HandshakeToken>,
    /// A text that must be one of the configured `subscriptions`.
    pub of: Option<HandshakeToken>,
    /// Where it hands over the secret that messages are signed with from then on.
    pub learn: Option<HandshakeToken>,
    /// An address that is to be fetched to agree, and where it may be.
    pub fetch: Option<CertificateRule>,
    /// The status of the answer.
    pub status: u16,
    /// Headers of the answer.
    pub headers: Vec<(HeaderName, Template)>,
    /// The body of the answer.
    pub answer: Answer,
}

impl Handshake {
    /// Whether it has a text of the caller's choice signed, without being signed itself.
    pub(in crate::signature) fn signs_for_anybody(&self) -> bool {
        let signs = |template: &Template| {
            template.0.iter().any(|piece| matches!(piece, Piece::HmacBase64(_) | Piece::HmacHex(_)))
        };
        let body = match &self.answer {
            Answer::Empty => false,
            Answer::Text(template) => signs(template),
            Answer::Json(members) => {
                members.iter().any(|(_, value)| matches!(value, Value::Text(template) if signs(template)))
            }
        };
        !self.signed && (body || self.headers.iter().any(|(_, template)| signs(template)))
    }
}
