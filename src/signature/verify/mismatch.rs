//! Describes why a signature is not valid. The description lists likely causes, and the size and the digest of the
//! bytes that should have been signed.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use http::header::CONTENT_ENCODING;
use sha2::{Digest, Sha256};

use super::presented::PresentedSignature;
use super::verifier::Verifier;
use crate::denial::{Denial, Refusal};
use crate::signature::content::ContentPart;
use crate::signature::context::SignatureContext;
use crate::signature::keys::{MacAlgorithm, SignatureAlgorithm, VerifierKeys};
use crate::signature::scheme::Proof;

impl Verifier {
    /// Returns the denial of a message whose `count` signatures are all invalid. The text of the denial lists the
    /// likely causes for this request, and never contains the signature that would be valid.
    pub(super) fn mismatch(&self, count: usize, context: &SignatureContext<'_>, body: &[u8]) -> Refusal {
        let signatures = match count {
            1 => "the signature is not valid".to_owned(),
            count => format!("none of the {count} signatures is valid"),
        };
        let key = match self.scheme.uses_public_keys() {
            true => "a wrong key",
            false => "a wrong secret",
        };
        let mut detail = format!(
            "{signatures} for the body of {} bytes {}; likely causes: {key}, a proxy that changed the request",
            body.len(),
            self.tried(context)
        );
        if body.is_empty() && self.scheme.covers().body {
            detail.push_str(", a body that was lost on the way");
        }
        if let Some(coding) = context.head.headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok())
        {
            let coding: String = coding.chars().take(20).collect();
            let _ = write!(
                detail,
                ", `content-encoding: {coding}` (was the body signed before it was encoded? see `decode`)"
            );
        }
        if self.scheme.uses_url() {
            let _ = write!(
                detail,
                ", a signed URL that does not begin with `public_url` ({})",
                context.public_url
            );
        }
        Refusal::new(Denial::SignatureMismatch, detail)
    }

    /// Returns a description of the keys that were tried, such as `under any of the 2 secrets`.
    fn tried(&self, context: &SignatureContext<'_>) -> String {
        let secrets = match &self.keys {
            VerifierKeys::Derived => context.derived.len(),
            VerifierKeys::Learned(_) => 1,
            VerifierKeys::Shared => self.mac_keys.len(),
            VerifierKeys::Public(_) | VerifierKeys::Fetched(_) | VerifierKeys::Named(..) => {
                return "under the provider's public keys".to_owned();
            }
        };
        match secrets {
            1 => "under the one secret".to_owned(),
            count => format!("under any of the {count} secrets"),
        }
    }

    /// Returns a description of the signed bytes for the command `explain`. If the URL is signed, the description
    /// contains the URL. If the scheme signs a content template without the secret, the description contains the
    /// SHA-256 digest of the signed bytes. Returns `None` if there is nothing to describe.
    pub fn describe_signed(
        &self,
        presented: &PresentedSignature,
        context: &SignatureContext<'_>,
        body: &[u8],
    ) -> Option<String> {
        let url =
            self.scheme.uses_url().then(|| format!("URL {}{}", context.public_url, context.head.target));
        let digest = match &self.scheme.proof {
            Proof::Content(scheme)
                if !scheme.content.parts().contains(&ContentPart::Secret)
                    && scheme.algorithm != SignatureAlgorithm::Mac(MacAlgorithm::PlainSha256) =>
            {
                let parts = self.read_body(scheme, presented, context, body).ok()?;
                let contents = self.signed_contents(scheme, presented, context, body, &parts).ok()?;
                let content = contents.first()?;
                let digest = HEXLOWER.encode(&Sha256::digest(content));
                Some(format!("signed are {} bytes with the SHA-256 digest {digest}", content.len()))
            }
            _ => None,
        };
        let described: Vec<_> = url.into_iter().chain(digest).collect();
        (!described.is_empty()).then(|| described.join("; "))
    }
}
