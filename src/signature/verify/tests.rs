//! Tests that a message keeps its authentication tag if a new key is added before the old key. Also tests which URLs
//! Callgate fetches as certificates.

use super::verifier::Verifier;
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::content::{ContentScheme, ContentTemplate};
use crate::signature::context::SignatureContext;
use crate::signature::identity_part::{DuplicateRule, IdentityPart};
use crate::signature::keys::{
    CertificateRule, CertificateSource, Encoding, KeySet, MacAlgorithm, SignatureAlgorithm, VerifierKeys,
};
use crate::signature::request_parts::{HeaderFormat, SignaturePlace};
use crate::signature::scheme::{Proof, Scheme};

#[test]
fn a_new_key_in_front_of_the_old_one_leaves_the_old_ones_mark() {
    let scheme = || Scheme {
        duplicates: DuplicateRule::Identity,
        identity: vec![IdentityPart::Signature],
        proof: Proof::Content(ContentScheme {
            algorithm: SignatureAlgorithm::Mac(MacAlgorithm::HmacSha256),
            content: ContentTemplate::parse("{body}").unwrap(),
            encoding: Encoding::Hex,
            place: SignaturePlace::Headers {
                names: vec![http::HeaderName::from_static("x-sig")],
                format: HeaderFormat::parse("{signature}", None).unwrap(),
            },
            timestamp: None,
        }),
        ..Scheme::unsigned()
    };
    let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
    let before = Verifier::new(scheme(), VerifierKeys::Shared, &[secret("old")]).unwrap();
    let after = Verifier::new(scheme(), VerifierKeys::Shared, &[secret("new"), secret("old")]).unwrap();
    let mut headers = http::HeaderMap::new();
    let peer = std::net::IpAddr::from([127, 0, 0, 1]);
    let at = crate::time::Timestamp::from_unix_secs(0);
    let context = SignatureContext::new(RequestHead::new("POST", "/", &headers, peer), "", at);
    let signature = before.sign(&context, b"{}", "").unwrap().headers;
    headers.extend(signature);
    let head = RequestHead::new("POST", "/", &headers, peer);
    let marks = |verifier: &Verifier| {
        let context = SignatureContext::new(head, "", at);
        verifier.verify_body(&verifier.verify_head(&context).unwrap(), &context, b"{}").unwrap()
    };
    let (old, both) = (marks(&before), marks(&after));
    assert_eq!((old.len(), both.len()), (1, 2));
    assert!(both[1].matches(&old[0]));
}

#[test]
fn only_messages_that_name_their_certificate_make_callgate_fetch_it() {
    let rule = || CertificateRule {
        source: CertificateSource::Header(http::HeaderName::from_static("x-cert")),
        hosts: vec!["example.com".into()],
        path: "/certs/".into(),
    };
    let set = || KeySet::parse(b"whpk_PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM=").unwrap();
    for (keys, fetches) in [
        (VerifierKeys::Named(rule(), None), true),
        (VerifierKeys::Named(rule(), Some(set())), false),
        (VerifierKeys::Public(set()), false),
        (VerifierKeys::Shared, false),
    ] {
        let verifier = Verifier::new(Scheme { proof: Proof::Sns, ..Scheme::unsigned() }, keys, &[]).unwrap();
        assert_eq!((verifier.fetches(), verifier.names_certificates()), (fetches, fetches));
        assert_eq!(verifier.may_name("https://example.com/certs/a"), fetches);
        assert!(!verifier.may_name("https://example.org/certs/a"));
    }
}
