//! Where a signature travels: in a header or one of several, or within the body.

use http::HeaderName;

use super::header::optional_header;
use super::header_format::{HeaderFormat, HeaderSlice};
use crate::denial::{Denial, Refusal};
use crate::json::Pointer;
use crate::request::RequestHead;

/// Where a signature travels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SignaturePlace {
    /// A member of the JSON body.
    Body(Pointer),
    /// A header and its alternatives; signatures are gathered from all that are there.
    Headers {
        /// Their names.
        names: Vec<HeaderName>,
        /// How the signature is written in them.
        format: HeaderFormat,
    },
}

impl SignaturePlace {
    /// Hands every signature that the headers hold to `signature`, and returns the timestamp among them.
    ///
    /// # Errors
    /// `signature_missing` when none of the headers is there.
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
        Err(Refusal::new(Denial::SignatureMissing, format!("no {} header", self.name())))
    }

    /// The one text that the header holds.
    pub(in crate::signature) fn single<'a>(&self, head: &RequestHead<'a>) -> Result<&'a str, Refusal> {
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
    pub(in crate::signature) fn name(&self) -> &str {
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
    pub(in crate::signature) fn write(&self, timestamp: &str, signature: &str) -> String {
        match self {
            Self::Headers { format, .. } => format.write(timestamp, signature),
            Self::Body(_) => signature.to_owned(),
        }
    }
}
