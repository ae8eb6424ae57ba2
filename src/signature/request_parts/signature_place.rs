//! The place of a signature in a request.

use std::fmt;

use http::HeaderName;

use super::header::optional_header;
use super::header_format::{HeaderFormat, HeaderSlice};
use crate::denial::{Denial, Refusal};
use crate::json::Pointer;
use crate::request::RequestHead;

/// The place of a signature in a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SignaturePlace {
    /// A member of the JSON body.
    Body(Pointer),
    /// One or more headers. Callgate reads the signatures of every header that the request has.
    Headers {
        /// The names of the headers.
        names: Vec<HeaderName>,
        /// The format of the header values.
        format: HeaderFormat,
    },
}

/// Formats the place as a noun phrase.
impl fmt::Display for SignaturePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(pointer) => write!(f, "{} of the body", pointer.as_str()),
            Self::Headers { names, .. } => {
                let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
                write!(f, "the header {}", names.join(" or "))
            }
        }
    }
}

impl SignaturePlace {
    /// Calls `signature` with every signature in the headers. Returns the timestamp, if the format has one.
    ///
    /// # Errors
    /// `signature_missing` if the request has none of the headers.
    pub(in crate::signature) fn read<'a>(
        &self,
        head: &RequestHead<'a>,
        mut signature: impl FnMut(&'a str),
    ) -> Result<Option<HeaderSlice>, Refusal> {
        let Self::Headers { names, format } = self else { return Ok(None) };
        let (mut timestamp, mut found) = (None, false);
        for name in names {
            let Some(value) = optional_header(head, name)? else { continue };
            found = true;
            timestamp = format.read(value, &mut signature)?.or(timestamp);
        }
        if found {
            return Ok(timestamp);
        }
        let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
        let detail = format!("the request has no {} header", names.join(" or "));
        Err(Refusal::new(Denial::SignatureMissing, detail))
    }

    /// Returns the only signature in the headers.
    ///
    /// # Errors
    /// The errors of [`Self::read`], and `signature_malformed` if there is not exactly one signature.
    pub(in crate::signature) fn single<'a>(&self, head: &RequestHead<'a>) -> Result<&'a str, Refusal> {
        let mut texts = Vec::new();
        self.read(head, |text| texts.push(text))?;
        match texts.as_slice() {
            [text] if !text.is_empty() => Ok(text),
            _ => {
                let detail = match texts.len() {
                    0 => format!("{self} {}", self.format_fault(head, true)),
                    1 => format!("{self} is empty"),
                    count => format!("{self} has {count} values, expected one"),
                };
                Err(Refusal::new(Denial::SignatureMalformed, detail))
            }
        }
    }

    /// Returns the reason why the headers contain no signature, as a predicate such as `does not begin with ...`.
    /// `is_secret` is true if the headers contain a secret. The predicate then contains no part of the headers.
    pub(in crate::signature) fn format_fault(&self, head: &RequestHead<'_>, is_secret: bool) -> String {
        let Self::Headers { names, format } = self else { return "has no signature".to_owned() };
        let value = names.iter().find_map(|name| head.headers.get(name)?.to_str().ok());
        format.fault(value.unwrap_or_default(), is_secret)
    }

    /// Returns the name of the first header, if the signature is in a header.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Headers { names, .. } => names.first(),
            Self::Body(_) => None,
        }
    }

    /// Returns the name of every header that may contain a signature.
    pub fn headers(&self) -> &[HeaderName] {
        match self {
            Self::Headers { names, .. } => names,
            Self::Body(_) => &[],
        }
    }

    /// Returns the header value for a timestamp and a signature.
    pub(in crate::signature) fn write(&self, timestamp: &str, signature: &str) -> String {
        match self {
            Self::Headers { format, .. } => format.write(timestamp, signature),
            Self::Body(_) => signature.to_owned(),
        }
    }
}
