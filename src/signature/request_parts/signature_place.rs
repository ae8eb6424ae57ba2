//! The location of a signature in a request.

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;

use super::body_member::BodyPart;
use super::header::optional_header;
use super::header_format::{HeaderFormat, HeaderSlice};
use super::query_parameter::required_parameter;
use crate::body::form::PlusSign;
use crate::denial::{Denial, Refusal};
use crate::json::Pointer;
use crate::request::RequestHead;

/// The location of a signature, a JWT or a shared secret in a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SignaturePlace {
    /// The signature is the value at this JSON pointer in the JSON body.
    Body(Pointer),
    /// The signature is in the form field of this name in the body.
    Form(Box<str>),
    /// The signature is in one or more headers. Callgate reads the signatures in every header that the request has.
    Headers {
        /// The names of the headers that may contain signatures.
        names: Vec<HeaderName>,
        /// The format of the values of these headers.
        format: HeaderFormat,
    },
    /// The signature is in the query parameter of this name. A `+` in its value is not decoded as a space, because
    /// signatures and secrets contain no spaces.
    Query(Box<str>),
}

/// Formats the location of the signature as a noun phrase, such as `the header x-signature`.
impl fmt::Display for SignaturePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(pointer) => write!(f, "{} of the body", pointer.as_str()),
            Self::Form(name) => write!(f, "the form field {name}"),
            Self::Query(name) => write!(f, "the query parameter {name}"),
            Self::Headers { names, .. } => {
                let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
                write!(f, "the header {}", names.join(" or "))
            }
        }
    }
}

impl SignaturePlace {
    /// Calls `signature` with every signature in the headers or in the query. Does nothing if the signature is in the
    /// body. Returns the timestamp in the signature header, or `None` if there is no timestamp.
    ///
    /// # Errors
    /// Returns `signature_missing` if the request has none of the headers, or does not have the query parameter.
    pub(in crate::signature) fn read<'a>(
        &self,
        head: &RequestHead<'a>,
        mut signature: impl FnMut(Cow<'a, str>),
    ) -> Result<Option<HeaderSlice>, Refusal> {
        let (names, format) = match self {
            Self::Headers { names, format } => (names, format),
            Self::Query(name) => {
                signature(required_parameter(head, name, PlusSign::Literal)?);
                return Ok(None);
            }
            Self::Body(_) | Self::Form(_) => return Ok(None),
        };
        let (mut timestamp, mut found) = (None, false);
        for name in names {
            let Some(value) = optional_header(head, name)? else { continue };
            found = true;
            timestamp = format.read(value, |text| signature(Cow::Borrowed(text)))?.or(timestamp);
        }
        if found {
            return Ok(timestamp);
        }
        let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
        let detail = format!("the request has no {} header", names.join(" or "));
        Err(Refusal::new(Denial::SignatureMissing, detail))
    }

    /// Returns the only signature in the headers or in the query.
    ///
    /// # Errors
    /// Returns the errors of [`Self::read`], and `signature_malformed` if there is not exactly one signature.
    pub(in crate::signature) fn single<'a>(&self, head: &RequestHead<'a>) -> Result<Cow<'a, str>, Refusal> {
        let mut texts = Vec::new();
        self.read(head, |text| texts.push(text))?;
        let count = texts.len();
        match texts.pop() {
            Some(text) if count == 1 && !text.is_empty() => Ok(text),
            _ => {
                let detail = match count {
                    0 => format!("{self} {}", self.format_fault(head, true)),
                    1 => format!("{self} is empty"),
                    count => format!("{self} has {count} values, expected one"),
                };
                Err(Refusal::new(Denial::SignatureMalformed, detail))
            }
        }
    }

    /// Returns the part of the body that contains the signature, or `None` if the signature is not in the body.
    pub(in crate::signature) fn body_part(&self) -> Option<BodyPart<'_>> {
        match self {
            Self::Body(pointer) => Some(BodyPart::Member(pointer)),
            Self::Form(name) => Some(BodyPart::Field(name)),
            Self::Headers { .. } | Self::Query(_) => None,
        }
    }

    /// Returns the name of the query parameter that contains the signature, or `None` if the signature is not in the
    /// query.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::Query(name) => Some(name),
            Self::Body(_) | Self::Form(_) | Self::Headers { .. } => None,
        }
    }

    /// Returns the reason why the headers contain no signature, as a predicate such as `does not begin with ...`. If
    /// `is_secret` is true, the headers contain a secret, and the predicate repeats no part of the headers.
    pub(in crate::signature) fn format_fault(&self, head: &RequestHead<'_>, is_secret: bool) -> String {
        let Self::Headers { names, format } = self else { return "is empty".to_owned() };
        let value = names.iter().find_map(|name| head.headers.get(name)?.to_str().ok());
        format.fault(value.unwrap_or_default(), is_secret)
    }

    /// Returns the name of the first header that may contain the signature, or `None` if the signature is not in a
    /// header.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Headers { names, .. } => names.first(),
            Self::Body(_) | Self::Form(_) | Self::Query(_) => None,
        }
    }

    /// Returns the names of all headers that may contain a signature. The list is empty if the signature is not in a
    /// header.
    pub fn headers(&self) -> &[HeaderName] {
        match self {
            Self::Headers { names, .. } => names,
            Self::Body(_) | Self::Form(_) | Self::Query(_) => &[],
        }
    }

    /// Returns the text that Callgate writes to this location. In a header, the text is the header format with this
    /// timestamp and this signature. In other locations, the text is the signature alone.
    pub(in crate::signature) fn write(&self, timestamp: &str, signature: &str) -> String {
        match self {
            Self::Headers { format, .. } => format.write(timestamp, signature),
            Self::Body(_) | Self::Form(_) | Self::Query(_) => signature.to_owned(),
        }
    }
}
