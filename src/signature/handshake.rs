//! Handshakes: how a provider makes sure that an address wants its messages, before it sends any. Each is answered only
//! when the request is what the provider's would be, and the answer is never HTML.

use std::borrow::Cow;

use data_encoding::{BASE64, HEXLOWER};
use http::{HeaderName, HeaderValue, Method};

use super::mac::Keyed;
use super::{CertificateRule, Signed, Verifier};
use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find_one, quoted};
use crate::query::{Parameter, form_parameter};
use crate::request::RequestHead;
use crate::secret::Secret;

/// Longest text that is echoed, in bytes.
const ECHO_BYTES_MAX: usize = 2048;
/// Longest text that is signed for a caller, in bytes: what is longer is no challenge.
const CHALLENGE_BYTES_MAX: usize = 256;

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

/// The answer to one handshake.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Which handshake it is.
    pub name: Box<str>,
    /// The status.
    pub status: u16,
    /// The headers; never a token of ours.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The media type; `None`: without a body.
    pub media_type: Option<&'static str>,
    /// The body.
    pub body: String,
    /// The secret that was handed over.
    pub learned: Option<Secret>,
    /// What is to be fetched.
    pub fetch: Option<String>,
}

impl Verifier {
    /// Whether the provider has handshakes.
    pub fn shakes(&self) -> bool {
        !self.scheme.handshakes.is_empty()
    }

    /// Whether a head could be that of a handshake with its method.
    pub fn could_shake(&self, head: &RequestHead<'_>) -> bool {
        self.candidates(head).next().is_some()
    }

    /// Whether a head could be that of a handshake that is not signed.
    pub fn could_shake_unsigned(&self, head: &RequestHead<'_>) -> bool {
        self.candidates(head).any(|handshake| !handshake.signed)
    }

    fn candidates<'v>(&'v self, head: &'v RequestHead<'_>) -> impl Iterator<Item = &'v Handshake> {
        self.scheme.handshakes.iter().filter(move |handshake| {
            handshake.method.as_str() == head.method && handshake.when.fits_head(head)
        })
    }

    /// The answer to a request, if it is a handshake: one that is signed when `verified`, another one otherwise.
    /// `pending` says whether a secret is expected to be handed over.
    ///
    /// # Errors
    /// `handshake_refused` when it is one but does not prove itself.
    pub fn shake(
        &self,
        signed: &Signed<'_>,
        body: &[u8],
        verified: bool,
        pending: bool,
    ) -> Option<Result<Reply, Refusal>> {
        let fits = |handshake: &&Handshake| {
            handshake.signed == verified
                && (handshake.learn.is_none() || pending)
                && handshake.when.fits_body(&signed.head, body)
        };
        let handshake = self.candidates(&signed.head).find(fits)?;
        Some(self.answer(handshake, signed, body))
    }

    fn answer(&self, handshake: &Handshake, signed: &Signed<'_>, body: &[u8]) -> Result<Reply, Refusal> {
        let request = Request { head: &signed.head, body, key: self.macs.first().map(|(keyed, _)| keyed) };
        let refused = |detail: &'static str| Refusal::new(Denial::HandshakeRefused, detail);
        if let Some(at) = &handshake.token {
            let given = request.text(at)?;
            let right = match &self.verify_token {
                Some(token) => token.matches(given.as_bytes()),
                None => self.secrets.first().is_some_and(|secret| secret.matches(given.as_bytes())),
            };
            if !right {
                return Err(refused("the handshake does not name the agreed token"));
            }
        }
        if let Some(at) = &handshake.of {
            let given = request.text(at)?;
            if !self.origins.iter().any(|ours| **ours == *given) {
                return Err(refused("the handshake is about nothing that is in `subscriptions`"));
            }
        }
        let learned = match &handshake.learn {
            None => None,
            Some(at) => {
                let secret = request.text(at)?;
                if secret.len() < 16 {
                    return Err(refused("the secret handed over is shorter than 16 bytes"));
                }
                Some(Secret::new(secret.as_bytes().to_vec()))
            }
        };
        let fetch = match &handshake.fetch {
            None => None,
            Some(rule) => Some(rule.confirmation(&signed.head, body)?),
        };
        let mut headers = Vec::new();
        for (name, template) in &handshake.headers {
            let value = HeaderValue::from_str(&request.fill(template)?);
            headers.push((name.clone(), value.map_err(|_| refused("a header cannot hold the echo"))?));
        }
        let (media_type, body) = match &handshake.answer {
            Answer::Empty => (None, String::new()),
            Answer::Text(template) => (Some("text/plain; charset=utf-8"), request.fill(template)?),
            Answer::Json(members) => (Some("application/json"), request.object(members)?),
        };
        let (name, status) = (handshake.name.clone(), handshake.status);
        Ok(Reply { name, status, headers, media_type, body, learned, fetch })
    }
}

impl Handshake {
    /// Whether it has a text of the caller's choice signed, without being signed itself.
    pub(super) fn signs_for_anybody(&self) -> bool {
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

impl When {
    fn fits_head(&self, head: &RequestHead<'_>) -> bool {
        let request = Request { head, body: b"", key: None };
        self.head.iter().all(|(at, wanted)| {
            request.text(at).is_ok_and(|text| wanted.as_deref().is_none_or(|wanted| *text == *wanted))
        })
    }

    /// Whether the body fits, of a head that does.
    fn fits_body(&self, head: &RequestHead<'_>, body: &[u8]) -> bool {
        let member = |(pointer, wanted): &(Pointer, Option<Box<str>>)| match find_one(body, pointer) {
            found @ Found::One(_) => match wanted {
                None => true,
                Some(wanted) => found.word().is_some_and(|word| word == *wanted),
            },
            Found::Missing | Found::Doubled => false,
        };
        let fields = if head.is_form() { std::str::from_utf8(body).unwrap_or_default() } else { "" };
        let field = |(name, value): &(Box<str>, Box<str>)| matches!(form_parameter(fields, name), Parameter::One(found) if *found == **value);
        self.body.iter().all(member) && self.form.iter().all(field)
    }
}

/// A request that is answered.
struct Request<'r> {
    head: &'r RequestHead<'r>,
    body: &'r [u8],
    key: Option<&'r Keyed>,
}

impl Request<'_> {
    /// A text of the request: it must be there, once, and short.
    fn text(&self, at: &HandshakeToken) -> Result<Cow<'_, str>, Refusal> {
        let missing = || Refusal::new(Denial::HandshakeRefused, "the handshake lacks what it must hold");
        let text = match at {
            HandshakeToken::Body(pointer) => {
                find_one(self.body, pointer).word().map(|word| word.into_string().into())
            }
            HandshakeToken::Header(name) => match self.head.single(name) {
                crate::request::Single::One(value) => value.to_str().ok().map(Cow::Borrowed),
                _ => None,
            },
            HandshakeToken::Query(name) => {
                match form_parameter(self.head.raw_query().unwrap_or_default(), name) {
                    Parameter::One(value) => Some(value),
                    Parameter::Missing | Parameter::Several => None,
                }
            }
        };
        text.filter(|text| !text.is_empty() && text.len() <= ECHO_BYTES_MAX).ok_or_else(missing)
    }

    /// The HMAC of a text. Only of what looks like a challenge: a signature for a text of the caller's choice must
    /// not be one of a message.
    fn hmac(&self, at: &HandshakeToken) -> Result<Vec<u8>, Refusal> {
        let refused = |detail: &'static str| Refusal::new(Denial::HandshakeRefused, detail);
        let text = self.text(at)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~+/=".contains(&b);
        if text.len() > CHALLENGE_BYTES_MAX || !text.bytes().all(plain) {
            return Err(refused("the challenge has characters that challenges do not have"));
        }
        let key = self.key.ok_or_else(|| refused("there is no secret to answer with"))?;
        let mut mac = key.start();
        mac.update(text.as_bytes());
        Ok(mac.finish().as_bytes().to_vec())
    }

    fn fill(&self, template: &Template) -> Result<String, Refusal> {
        let mut out = String::new();
        for piece in &template.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Echo(at) => out.push_str(&self.text(at)?),
                Piece::HmacBase64(at) => out.push_str(&BASE64.encode(&self.hmac(at)?)),
                Piece::HmacHex(at) => out.push_str(&HEXLOWER.encode(&self.hmac(at)?)),
            }
        }
        Ok(out)
    }

    fn object(&self, members: &[(Box<str>, Value)]) -> Result<String, Refusal> {
        let mut out = String::from("{");
        for (i, (name, value)) in members.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push_str(&quoted(name));
            out.push(':');
            match value {
                Value::Raw(raw) => out.push_str(raw),
                Value::Text(template) => out.push_str(&quoted(&self.fill(template)?)),
            }
        }
        out.push('}');
        Ok(out)
    }
}
