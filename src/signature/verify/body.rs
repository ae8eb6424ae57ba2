//! The second half of verifying: what the body says.

use super::presented::{PresentedProof, PresentedSignature};
use super::verifier::Verifier;
use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find};
use crate::signature::context::SignatureContext;
use crate::signature::handshake::Handshake;
use crate::signature::keys::AuthenticationTag;
use crate::signature::proofs::SnsMessage;
use crate::signature::scheme::Proof;

impl Verifier {
    /// The second half: the raw bytes, under any of the keys, against any of the signatures.
    ///
    /// Returns what tells one message from another: for MACs the ones under the keys that were tried, the one that
    /// matched last, so that a caller who takes one of two signatures away, or a new key in front of the old one,
    /// leaves one of them as it was; for other signatures a hash of what is signed.
    ///
    /// # Errors
    /// `signature_mismatch` and its like.
    pub fn verify_body(
        &self,
        presented: &PresentedSignature,
        context: &SignatureContext<'_>,
        body: &[u8],
    ) -> Result<Vec<AuthenticationTag>, Refusal> {
        self.check_absent(body)?;
        self.check_body_start(body)?;
        match (&self.scheme.proof, &presented.proof) {
            (Proof::Content(scheme), _) => self.verify_content_body(scheme, presented, context, body),
            (Proof::Jwt(_), PresentedProof::Jwt(jwt)) => jwt.verify_body(body),
            (Proof::MessageSignature(_), PresentedProof::MessageSignature(signature)) => {
                signature.verify_body(body)
            }
            // Of another topic, nothing is fetched.
            (Proof::Sns, _) => SnsMessage::parse(context, &self.secrets, body)?
                .verify(&*self.public_keys(context, body)?, context.now),
            (Proof::None, _) => Ok(Vec::new()),
            (Proof::SharedSecret(place), _) => {
                place.check_body(body, &self.secrets)?;
                Ok(Vec::new())
            }
            _ => Err(Refusal::new(Denial::SignatureMissing, "the head shows no proof")),
        }
    }

    /// A body that could be something else to the signature, the end of a URL or a challenge that anybody may have
    /// signed, must begin as neither does.
    fn check_body_start(&self, body: &[u8]) -> Result<(), Refusal> {
        let joined =
            matches!(&self.scheme.proof, Proof::Content(scheme) if scheme.content.joins_url_and_body());
        let ambiguous = joined || self.scheme.handshakes.iter().any(Handshake::signs_unauthenticated_text);
        if !ambiguous || body.is_empty() && joined || body.starts_with(b"{") || body.starts_with(b"[") {
            return Ok(());
        }
        let detail = "the body does not begin as JSON does, and could be something else to the signature";
        Err(Refusal::new(Denial::SignatureMalformed, detail))
    }

    fn check_absent(&self, body: &[u8]) -> Result<(), Refusal> {
        if self.scheme.absent.is_empty() {
            return Ok(());
        }
        let pointers: Vec<&Pointer> = self.scheme.absent.iter().collect();
        let found = find(body, &pointers)
            .map_err(|_| Refusal::new(Denial::SignatureMalformed, "the body is not JSON"))?;
        match found.iter().zip(&pointers).find(|(found, _)| !matches!(found, Found::Missing)) {
            None => Ok(()),
            Some((_, pointer)) => {
                let detail = format!("{} is there, which the signature does not cover", pointer.as_str());
                Err(Refusal::new(Denial::SignatureMalformed, detail))
            }
        }
    }
}
