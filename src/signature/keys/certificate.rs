//! Certificates whose URLs are in the messages, for example in messages of SNS and PayPal. The signature scheme lists
//! the hosts and the paths that these URLs may have.

use http::HeaderName;

use crate::denial::{Denial, Refusal};
use crate::json::Pointer;
use crate::request::RequestHead;
use crate::signature::request_parts::{BodyPart, body_parts, required_header};

/// The maximum length of a certificate URL, in bytes.
const URL_BYTES_MAX: usize = 256;

/// The maximum length of the query of a subscription confirmation URL, in bytes.
const CONFIRMATION_BYTES_MAX: usize = 2048;

/// The location of the certificate URL in a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CertificateSource {
    /// The certificate URL is the value at this JSON pointer in the JSON body.
    Body(Pointer),
    /// The certificate URL is the value of the header with this name.
    Header(HeaderName),
}

/// The rule for the certificate URLs that messages may name. The URL scheme must be `https`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateRule {
    /// The location of the certificate URL in a message.
    pub source: CertificateSource,
    /// The allowed hosts of the URL. The label `*` in a host matches a cloud region, such as `us-east-1`.
    pub hosts: Vec<Box<str>>,
    /// The text with which the path of the certificate URL must begin.
    pub path: Box<str>,
}

impl CertificateRule {
    /// Returns the certificate URL that a message names.
    ///
    /// # Errors
    /// Returns `signature_missing` or `signature_malformed` if the URL cannot be read from the message, and
    /// `signature_key_unknown` if the URL is not allowed.
    pub(in crate::signature) fn url(&self, head: &RequestHead<'_>, body: &[u8]) -> Result<String, Refusal> {
        let url = self.text(head, body)?;
        if self.allows(&url) {
            return Ok(url);
        }
        let detail = "the certificate URL in the message is not one of the provider's";
        Err(Refusal::new(Denial::SignatureKeyUnknown, detail))
    }

    fn text(&self, head: &RequestHead<'_>, body: &[u8]) -> Result<String, Refusal> {
        Ok(match &self.source {
            CertificateSource::Header(name) => {
                required_header(head, name)?.to_str().unwrap_or_default().to_owned()
            }
            CertificateSource::Body(pointer) => {
                let found = body_parts(head, body, &[BodyPart::Member(pointer)])?;
                found.first().map(ToString::to_string).unwrap_or_default()
            }
        })
    }

    /// Returns the URL with which Callgate confirms a subscription. Unlike a certificate URL, this URL may have a
    /// query.
    ///
    /// # Errors
    /// Returns `signature_missing` or `signature_malformed` if the URL cannot be read from the message, and
    /// `handshake_refused` if the URL is not allowed.
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
        let detail = "the confirmation URL in the message is not one of the provider's";
        Err(Refusal::new(Denial::HandshakeRefused, detail))
    }

    /// Reports whether a URL has an allowed host and path. A path with an empty segment or a segment that begins with a
    /// dot is not allowed. Otherwise one certificate would have many URLs, such as `/certs/a` and `/certs//a`.
    pub(in crate::signature) fn allows(&self, url: &str) -> bool {
        let Some(rest) = url.strip_prefix("https://").filter(|_| url.len() <= URL_BYTES_MAX) else {
            return false;
        };
        let (host, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or_default();
        let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b));
        let complete = path.len() >= self.path.len() && path.starts_with(&*self.path);
        let canonical = !path.contains("..") && !path.contains("//") && !path.contains("/.");
        plain && complete && canonical && self.hosts.iter().any(|pattern| is_host(pattern, host))
    }
}

fn is_host(pattern: &str, host: &str) -> bool {
    let mut labels = host.split('.');
    let fits = |label: &str, wanted: &str| if wanted == "*" { is_region(label) } else { label == wanted };
    pattern.split('.').all(|wanted| labels.next().is_some_and(|label| fits(label, wanted)))
        && labels.next().is_none()
}

/// Reports whether a host label is a cloud region, such as `us-gov-west-1`. The name of a storage bucket, which anybody
/// can choose, must not be accepted as a region.
fn is_region(label: &str) -> bool {
    let mut words = label.split('-');
    let letters = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let number = words
        .next_back()
        .is_some_and(|word| matches!(word.len(), 1..=2) && word.bytes().all(|b| b.is_ascii_digit()));
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
        for good in [
            "https://sns.us-east-1.amazonaws.com/certs/a.pem",
            "https://sns.us-gov-west-12.amazonaws.com/certs/a.pem",
            "https://api.paypal.com/certs/CERT-1",
        ] {
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
            "https://sns.us-east.amazonaws.com/certs/a",
            "https://sns.us-east-.amazonaws.com/certs/a",
            "https://sns.us-east-x.amazonaws.com/certs/a",
            "https://sns.us-east-123.amazonaws.com/certs/a",
            "https://sns.us--1.amazonaws.com/certs/a",
            "https://sns.us-e4st-1.amazonaws.com/certs/a",
            "https://sns.us-1.amazonaws.com/certs/a",
            "https://sns.bucket-east-1.amazonaws.com/certs/a",
            "https://sns.s3-us-west-2.amazonaws.com/certs/a",
            "https://sns.s3-accelerate.amazonaws.com/certs/a",
            "https://evilsns.us-east-1.amazonaws.com/certs/a",
        ] {
            assert!(!rule.allows(bad), "{bad}");
        }
    }

    #[test]
    fn the_query_of_a_confirmation_has_plain_characters_only() {
        let rule = CertificateRule {
            source: CertificateSource::Header(HeaderName::from_static("x-url")),
            hosts: vec!["sns.*.amazonaws.com".into()],
            path: "/".into(),
        };
        let confirmation = |url: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("x-url", http::HeaderValue::from_bytes(url.as_bytes()).unwrap());
            let head = RequestHead::new("POST", "/", &headers, std::net::IpAddr::from([127, 0, 0, 1]));
            rule.confirmation(&head, b"").map_err(|refusal| refusal.denial)
        };
        let host = "https://sns.eu-west-1.amazonaws.com";
        let long = |bytes: usize| format!("{host}/?{}", "a".repeat(bytes));
        for good in [
            format!("{host}/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:eu-west-1:1:t&Token=2a-_.~%20"),
            format!("{host}/"),
            long(CONFIRMATION_BYTES_MAX),
        ] {
            assert_eq!(confirmation(&good).as_deref(), Ok(&*good));
        }
        for bad in [
            "?a b", "?a\"b", "?a#b", "?a/b", "?a?b", "?a@b", "?a\\b", "?a'b", "?a;b", "?a+b", "?a\tb", "#a",
            "x?a b",
        ] {
            assert_eq!(confirmation(&format!("{host}/{bad}")), Err(Denial::HandshakeRefused), "{bad}");
        }
        for bad in [
            long(CONFIRMATION_BYTES_MAX + 1),
            "https://sns.eu-west-1.amazonaws.com.evil.example/?a=b".to_owned(),
            "http://sns.eu-west-1.amazonaws.com/?a=b".to_owned(),
            "https://evil.example/?https://sns.eu-west-1.amazonaws.com/".to_owned(),
        ] {
            assert_eq!(confirmation(&bad), Err(Denial::HandshakeRefused), "{bad}");
        }
    }
}
