//! Certificates whose address stands in the message they are needed for (SNS, PayPal). The message only chooses among
//! what the scheme allows: https, a listed host, a listed path.

use http::HeaderName;

use crate::denial::{Denial, Refusal};
use crate::json::Pointer;
use crate::request::RequestHead;
use crate::signature::request_parts::{body_members, required_header};

/// Longest address of a certificate, in bytes.
const URL_BYTES_MAX: usize = 256;

/// Longest query of an address that confirms a subscription, in bytes.
const CONFIRMATION_BYTES_MAX: usize = 2048;

/// Where the address of the certificate stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CertificateSource {
    /// In a member of the body.
    Body(Pointer),
    /// In a header.
    Header(HeaderName),
}

/// Which certificates a message may name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateRule {
    /// Where the address stands.
    pub source: CertificateSource,
    /// The hosts it may be at; a `*` stands for a region, such as `us-east-1`.
    pub hosts: Vec<Box<str>>,
    /// What its path begins with.
    pub path: Box<str>,
}

impl CertificateRule {
    /// The address that a message names, if it may.
    ///
    /// # Errors
    /// `signature_missing`, `signature_key_unknown`.
    pub(in crate::signature) fn url(&self, head: &RequestHead<'_>, body: &[u8]) -> Result<String, Refusal> {
        let url = self.text(head, body)?;
        if self.allows(&url) {
            return Ok(url);
        }
        let detail = "the message names a certificate that is not at one of the provider's addresses";
        Err(Refusal::new(Denial::SignatureKeyUnknown, detail))
    }

    fn text(&self, head: &RequestHead<'_>, body: &[u8]) -> Result<String, Refusal> {
        Ok(match &self.source {
            CertificateSource::Header(name) => {
                required_header(head, name)?.to_str().unwrap_or_default().to_owned()
            }
            CertificateSource::Body(pointer) => {
                body_members(body, &[pointer])?.first().map(ToString::to_string).unwrap_or_default()
            }
        })
    }

    /// The address that is to be fetched to agree to a subscription: as [`Self::url`], with a query.
    pub(in crate::signature) fn confirmation(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
    ) -> Result<String, Refusal> {
        let url = self.text(head, body)?;
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let plain = query.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~=&:%".contains(&b));
        if self.allows(path) && plain && query.len() <= CONFIRMATION_BYTES_MAX {
            return Ok(url);
        }
        let detail = "the message asks to confirm at an address that is not the provider's";
        Err(Refusal::new(Denial::HandshakeRefused, detail))
    }

    /// Whether an address is at a listed host and a listed path, in the one spelling that there is of it: a segment
    /// that is empty or begins with a dot could make many names of one certificate.
    pub(in crate::signature) fn allows(&self, url: &str) -> bool {
        let Some(rest) = url.strip_prefix("https://").filter(|_| url.len() <= URL_BYTES_MAX) else {
            return false;
        };
        let (host, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or_default();
        let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b));
        let whole = path.len() >= self.path.len() && path.starts_with(&*self.path);
        let single = !path.contains("..") && !path.contains("//") && !path.contains("/.");
        plain && whole && single && self.hosts.iter().any(|pattern| is_host(pattern, host))
    }
}

fn is_host(pattern: &str, host: &str) -> bool {
    let mut labels = host.split('.');
    let fits = |label: &str, wanted: &str| if wanted == "*" { is_region(label) } else { label == wanted };
    pattern.split('.').all(|wanted| labels.next().is_some_and(|label| fits(label, wanted)))
        && labels.next().is_none()
}

/// A region of a cloud, such as `us-gov-west-1`: letters, letters, a number. A bucket's host is none.
fn is_region(label: &str) -> bool {
    let mut words = label.split('-');
    let letters = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let number =
        words.next_back().is_some_and(|word| word.len() <= 2 && word.bytes().all(|b| b.is_ascii_digit()));
    let words: Vec<_> = words.collect();
    let first = words.first().is_some_and(|word| word.len() == 2);
    number && first && words.len() >= 2 && words.into_iter().all(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_providers_own_addresses_are_allowed() {
        let rule = CertificateRule {
            source: CertificateSource::Header(HeaderName::from_static("x-cert")),
            hosts: vec!["sns.*.amazonaws.com".into(), "api.paypal.com".into()],
            path: "/certs/".into(),
        };
        for good in ["https://sns.us-east-1.amazonaws.com/certs/a.pem", "https://api.paypal.com/certs/CERT-1"]
        {
            assert!(rule.allows(good), "{good}");
        }
        for bad in [
            "",
            "http://api.paypal.com/certs/a",
            "https://api.paypal.com/other/a",
            "https://api.paypal.com/certs/../a",
            "https://api.paypal.com/certs//a",
            "https://api.paypal.com/certs/./a",
            "https://api.paypal.com/certs/a?x",
            "https://api.paypal.com:443/certs/a",
            "https://api.paypal.com@evil.test/certs/a",
            "https://api.paypal.com.evil.test/certs/a",
            "https://sns.us-east-1.amazonaws.com.evil.test/certs/a",
            "https://sns.a.b.amazonaws.com/certs/a",
            "https://sns.x.amazonaws.com/certs/a",
            "https://sns.s3-us-west-2.amazonaws.com/certs/a",
            "https://sns.s3-accelerate.amazonaws.com/certs/a",
            "https://evilsns.us-east-1.amazonaws.com/certs/a",
        ] {
            assert!(!rule.allows(bad), "{bad}");
        }
    }
}
