//! Where a signature travels: in a header or one of several, or within the body.

use http::{HeaderName, HeaderValue};

use super::format::{Format, Slice};
use crate::denial::{Denial, Refusal};
use crate::json::Pointer;
use crate::request::{RequestHead, Single};

/// Longest header that takes part in a signature, in bytes.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// Where a signature travels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A member of the JSON body.
    Body(Pointer),
    /// A header and its alternatives; signatures are gathered from all that are there.
    Headers {
        /// Their names.
        names: Vec<HeaderName>,
        /// How the signature is written in them.
        format: Format,
    },
}

impl Place {
    /// Hands every signature that the headers hold to `signature`, and returns the timestamp among them.
    ///
    /// # Errors
    /// `signature_missing` when none of the headers is there.
    pub(super) fn read<'a>(
        &self,
        head: &RequestHead<'a>,
        mut signature: impl FnMut(&'a str),
    ) -> Result<Option<Slice>, Refusal> {
        let Self::Headers { names, format } = self else { return Ok(None) };
        let (mut timestamp, mut found) = (None, false);
        for name in names {
            let Some(value) = optional(head, name)? else { continue };
            found = true;
            timestamp = format.read(value, &mut signature)?.or(timestamp);
        }
        if found {
            return Ok(timestamp);
        }
        Err(Refusal::new(Denial::SignatureMissing, format!("no {} header", self.name())))
    }

    /// The one text that the header holds.
    pub(super) fn one<'a>(&self, head: &RequestHead<'a>) -> Result<&'a str, Refusal> {
        let mut texts = Vec::new();
        self.read(head, |text| texts.push(text))?;
        match texts.as_slice() {
            [text] if !text.is_empty() => Ok(text),
            _ => {
                let detail = format!("{} is not in the provider's form", self.name());
                Err(Refusal::new(Denial::SignatureMalformed, detail))
            }
        }
    }

    /// The first header; empty where it is none.
    pub(super) fn name(&self) -> &str {
        self.header().map_or("", HeaderName::as_str)
    }

    /// The first header.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Headers { names, .. } => names.first(),
            Self::Body(_) => None,
        }
    }

    /// Every header in which a signature may travel.
    pub fn headers(&self) -> &[HeaderName] {
        match self {
            Self::Headers { names, .. } => names,
            Self::Body(_) => &[],
        }
    }

    /// What a header with this timestamp and signature holds.
    pub(super) fn write(&self, timestamp: &str, signature: &str) -> String {
        match self {
            Self::Headers { format, .. } => format.write(timestamp, signature),
            Self::Body(_) => signature.to_owned(),
        }
    }
}

/// A header that takes part in a signature, where it is there.
pub(super) fn optional<'a>(
    head: &RequestHead<'a>,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Refusal> {
    match head.single(name) {
        Single::Missing => Ok(None),
        Single::One(value) if value.len() <= HEADER_BYTES_MAX => Ok(Some(value)),
        Single::One(_) => {
            Err(Refusal::new(Denial::SignatureMalformed, format!("{name} is longer than 8 KiB")))
        }
        Single::Several => {
            Err(Refusal::new(Denial::HeaderDuplicated, format!("{name} occurs more than once")))
        }
    }
}

/// A header that takes part in a signature.
pub(super) fn required<'a>(head: &RequestHead<'a>, name: &HeaderName) -> Result<&'a HeaderValue, Refusal> {
    optional(head, name)?.ok_or_else(|| Refusal::new(Denial::SignatureMissing, format!("no {name} header")))
}
