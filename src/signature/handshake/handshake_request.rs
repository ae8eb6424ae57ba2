//! Compares a request with the condition of a handshake, and fills reply templates with values of the request.

use std::borrow::Cow;

use data_encoding::{BASE64, HEXLOWER};

use super::handshake_rule::{
    HandshakeCondition, HandshakeValueSource, ReplyTemplate, ReplyTemplatePart, ReplyValue,
};
use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find_one, quoted};
use crate::query::{Parameter, form_parameter};
use crate::request::{RequestHead, Single};
use crate::signature::keys::MacKey;

/// The maximum length of a request value that a handshake reply repeats, in bytes.
const ECHO_BYTES_MAX: usize = 2048;
/// The maximum length of a challenge, in bytes, if the reply contains a MAC of the challenge.
const CHALLENGE_BYTES_MAX: usize = 256;

impl HandshakeCondition {
    /// Reports whether the head of a request meets this condition of a handshake.
    pub(in crate::signature) fn fits_head(&self, head: &RequestHead<'_>) -> bool {
        let request = HandshakeRequest { head, body: b"", key: None };
        let may_have_fields = self.form.is_empty() || head.is_form();
        may_have_fields
            && self.head.iter().all(|(at, wanted)| {
                request.text(at).is_ok_and(|text| wanted.as_deref().is_none_or(|wanted| *text == *wanted))
            })
    }

    /// Reports whether the body of a request meets this condition of a handshake. The caller must check the head
    /// separately.
    pub(in crate::signature) fn fits_body(&self, head: &RequestHead<'_>, body: &[u8]) -> bool {
        let member = |(pointer, wanted): &(Pointer, Option<Box<str>>)| match find_one(body, pointer) {
            found @ Found::One(_) => match wanted {
                None => true,
                Some(wanted) => found.word().is_some_and(|word| word == *wanted),
            },
            Found::Missing | Found::Doubled => false,
        };
        let fields = if head.is_form() { std::str::from_utf8(body).unwrap_or_default() } else { "" };
        let field = |(name, wanted): &(Box<str>, Option<Box<str>>)| match form_parameter(fields, name) {
            Parameter::One(found) => wanted.as_deref().is_none_or(|wanted| *found == *wanted),
            _ => false,
        };
        self.body.iter().all(member) && self.form.iter().all(field)
    }
}

/// A request that may be a handshake, and the MAC key that signs challenges.
pub(in crate::signature) struct HandshakeRequest<'r> {
    pub(in crate::signature) head: &'r RequestHead<'r>,
    pub(in crate::signature) body: &'r [u8],
    pub(in crate::signature) key: Option<&'r MacKey>,
}

impl HandshakeRequest<'_> {
    /// Returns the value at the location `at` of the request.
    ///
    /// # Errors
    /// Returns `handshake_refused` if the value is missing, empty or too long, or occurs more than once.
    pub(in crate::signature) fn text(&self, at: &HandshakeValueSource) -> Result<Cow<'_, str>, Refusal> {
        let missing = || {
            Refusal::new(
                Denial::HandshakeRefused,
                "a value of the handshake is missing, empty or too long, or occurs more than once",
            )
        };
        let text = match at {
            HandshakeValueSource::Body(pointer) => {
                find_one(self.body, pointer).word().map(|word| word.into_string().into())
            }
            HandshakeValueSource::Header(name) => match self.head.single(name) {
                Single::One(value) => value.to_str().ok().map(Cow::Borrowed),
                _ => None,
            },
            HandshakeValueSource::Query(name) => {
                match form_parameter(self.head.raw_query().unwrap_or_default(), name) {
                    Parameter::One(value) => Some(value),
                    Parameter::Missing | Parameter::Several => None,
                }
            }
        };
        text.filter(|text| !text.is_empty() && text.len() <= ECHO_BYTES_MAX).ok_or_else(missing)
    }

    /// Returns the MAC of a value of the request. The value must look like a challenge. Otherwise a caller could send
    /// the text of a message as the challenge, and would receive a valid signature of this message.
    ///
    /// # Errors
    /// Returns `handshake_refused` if the value does not look like a challenge, or if there is no key.
    fn hmac(&self, at: &HandshakeValueSource) -> Result<Vec<u8>, Refusal> {
        let refused = |detail: &'static str| Refusal::new(Denial::HandshakeRefused, detail);
        let text = self.text(at)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~+/=".contains(&b);
        if text.len() > CHALLENGE_BYTES_MAX || !text.bytes().all(plain) {
            return Err(refused("the challenge is too long, or has a character that challenges do not have"));
        }
        let key = self.key.ok_or_else(|| refused("there is no secret that could sign the challenge"))?;
        let mut mac = key.start();
        mac.update(text.as_bytes());
        Ok(mac.finish().as_bytes().to_vec())
    }

    /// Returns the text of a reply template, filled with values of this request.
    ///
    /// # Errors
    /// Returns `handshake_refused` if a value is missing, malformed, or occurs more than once.
    pub(in crate::signature) fn fill(&self, template: &ReplyTemplate) -> Result<String, Refusal> {
        let mut out = String::new();
        for piece in &template.0 {
            match piece {
                ReplyTemplatePart::Literal(text) => out.push_str(text),
                ReplyTemplatePart::Echo(at) => out.push_str(&self.text(at)?),
                ReplyTemplatePart::HmacBase64(at) => out.push_str(&BASE64.encode(&self.hmac(at)?)),
                ReplyTemplatePart::HmacHex(at) => out.push_str(&HEXLOWER.encode(&self.hmac(at)?)),
            }
        }
        Ok(out)
    }

    /// Returns a JSON object with the names in `members`. Each value is constant or comes from this request.
    ///
    /// # Errors
    /// Returns `handshake_refused` if a value is missing, malformed, or occurs more than once.
    pub(in crate::signature) fn object(&self, members: &[(Box<str>, ReplyValue)]) -> Result<String, Refusal> {
        let mut out = String::from("{");
        for (i, (name, value)) in members.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push_str(&quoted(name));
            out.push(':');
            match value {
                ReplyValue::Raw(raw) => out.push_str(raw),
                ReplyValue::Text(template) => out.push_str(&quoted(&self.fill(template)?)),
            }
        }
        out.push('}');
        Ok(out)
    }
}
