//! Verifying against signing.

use super::verifier::Verifier;
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::content::{Content, ContentScheme};
use crate::signature::context::Signed;
use crate::signature::keys::{Algorithm, Cipher, Encoding, Keys};
use crate::signature::request_parts::{Format, Place};
use crate::signature::scheme::{Proof, Scheme};

#[test]
fn a_new_key_in_front_of_the_old_one_leaves_the_old_ones_mark() {
    let scheme = || Scheme {
        marks: true,
        proof: Proof::Content(ContentScheme {
            cipher: Cipher::Mac(Algorithm::HmacSha256),
            content: Content::parse("{body}").unwrap(),
            encoding: Encoding::Hex,
            place: Place::Headers {
                names: vec![http::HeaderName::from_static("x-sig")],
                format: Format::parse("{signature}", None).unwrap(),
            },
            timestamp: None,
        }),
        ..Scheme::nothing()
    };
    let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
    let before = Verifier::new(scheme(), Keys::Shared, &[secret("old")]).unwrap();
    let after = Verifier::new(scheme(), Keys::Shared, &[secret("new"), secret("old")]).unwrap();
    let mut headers = http::HeaderMap::new();
    let peer = std::net::IpAddr::from([127, 0, 0, 1]);
    let at = crate::time::Timestamp::from_unix_secs(0);
    let signed = Signed::alone(RequestHead::new("POST", "/", &headers, peer), "", at);
    let signature = before.sign(&signed, b"{}", "").unwrap().headers;
    headers.extend(signature);
    let head = RequestHead::new("POST", "/", &headers, peer);
    let marks = |verifier: &Verifier| {
        let signed = Signed::alone(head, "", at);
        verifier.verify(&verifier.present(&signed).unwrap(), &signed, b"{}").unwrap()
    };
    let (old, both) = (marks(&before), marks(&after));
    assert_eq!((old.len(), both.len()), (1, 2));
    assert!(both[1].matches(&old[0]));
}
