//! A header in which the provider states the MAC algorithm of its signature. The header is not signed, so it never
//! selects the algorithm. It must agree with the algorithm that the operator configured.

use http::{HeaderName, HeaderValue};

use super::keys::MacAlgorithm;
use super::request_parts::optional_header;
use crate::denial::{Denial, Refusal};
use crate::request::RequestHead;

/// A header in which the provider states the MAC algorithm. An example of its value is `key=k1,algorithm=HMAC_SHA256`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatedAlgorithm {
    /// The name of the header that states the algorithm.
    pub header: HeaderName,
    /// The name of the header item that contains the algorithm, such as `algorithm`.
    pub item: Box<str>,
    /// The MAC algorithms, each with the provider's name for it.
    pub names: Vec<(MacAlgorithm, Box<str>)>,
    /// The MAC algorithm of messages that do not have the header.
    pub without_header: MacAlgorithm,
}

impl StatedAlgorithm {
    /// Checks that the message does not state another MAC algorithm than `expected`.
    ///
    /// # Errors
    /// Returns `header_duplicated` if the header occurs more than once, `signature_malformed` if the header does not
    /// contain exactly one known algorithm, and `signature_mismatch` if the algorithm differs from `expected`.
    pub(in crate::signature) fn check(
        &self,
        head: &RequestHead<'_>,
        expected: MacAlgorithm,
    ) -> Result<(), Refusal> {
        let stated = match optional_header(head, &self.header)? {
            None => self.without_header,
            Some(value) => self.read(value).ok_or_else(|| {
                let detail = format!("the header {} has no known algorithm", self.header);
                Refusal::new(Denial::SignatureMalformed, detail)
            })?,
        };
        if stated == expected {
            return Ok(());
        }
        let detail = format!(
            "the message is signed with {}, but `algorithm` of the provider is {}",
            stated.name(),
            expected.name()
        );
        Err(Refusal::new(Denial::SignatureMismatch, detail))
    }

    fn read(&self, value: &HeaderValue) -> Option<MacAlgorithm> {
        let items = value.to_str().ok()?.split(',').map(str::trim);
        let mut found =
            items.filter_map(|item| item.split_once('=').filter(|(name, _)| *name == &*self.item));
        let ((_, stated), None) = (found.next()?, found.next()) else { return None };
        self.names.iter().find(|(_, name)| **name == *stated).map(|(algorithm, _)| *algorithm)
    }

    /// Returns the name and value of the header that states this algorithm. Returns `None` if the provider has no name
    /// for the algorithm, or if the provider omits the header for this algorithm.
    pub(in crate::signature) fn write(&self, algorithm: MacAlgorithm) -> Option<(HeaderName, HeaderValue)> {
        let (_, name) = self.names.iter().find(|(known, _)| *known == algorithm)?;
        let value = HeaderValue::from_str(&format!("{}={name}", self.item)).ok()?;
        (algorithm != self.without_header).then(|| (self.header.clone(), value))
    }
}
