//! The second step of verification, which needs the request body.

use super::presented::{PresentedProof, PresentedSignature};
use super::verifier::Verifier;
use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find};
use crate::request::RequestHead;
use crate::signature::context::SignatureContext;
use crate::signature::handshake::Handshake;
use crate::signature::keys::AuthenticationTag;
use crate::signature::proofs::SnsMessage;
use crate::signature::scheme::Proof;

impl Verifier {
    /// Verifies the raw body of a message. The message is accepted if one of its signatures is valid under one of the
    /// keys.
    ///
    /// Returns the authentication tags that identify the message. If the message is signed with a MAC, the tags are its
    /// MACs under all keys that were tried, and the last tag is the matching MAC. A repeated message therefore has at
    /// least one tag of the first message, even if a sender removes one of two signatures, or if the operator adds a
    /// new key before the old key. For other signatures, the tag is the digest of the signed content.
    ///
    /// # Errors
    /// Returns `signature_missing`, `signature_malformed`, `signature_mismatch`, `signature_claim`,
    /// `signature_key_unknown`, `signature_too_old`, `signature_too_new` or `keys_unavailable`.
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
            (Proof::Jwt(jwt), PresentedProof::None) => match jwt.body_token(&context.head, body)? {
                Some(token) => self.verify_jwt(jwt, &token, context)?.verify_body(body),
                None => Err(Refusal::new(Denial::SignatureMissing, "the request head has no token")),
            },
            (Proof::MessageSignature(_), PresentedProof::MessageSignature(signature)) => {
                signature.verify_body(body)
            }
            // `parse` checks the topic first, so that Callgate fetches no certificate for a message whose topic is not
            // configured.
            (Proof::Sns, _) => SnsMessage::parse(context, &self.secrets, body)?
                .verify(&*self.public_keys(context, body)?, context.now),
            (Proof::None, _) => Ok(Vec::new()),
            (Proof::SharedSecret(place), _) => {
                place.check_body(&context.head, body, &self.secrets)?;
                Ok(Vec::new())
            }
            _ => Err(Refusal::new(Denial::SignatureMissing, "the request head has no signature")),
        }
    }

    /// Returns the event id in the JWT that the body contains. The JWT must have been verified before. Returns `None`
    /// if there is no JWT or no event id in the body.
    pub fn id_in_body_token(&self, head: &RequestHead<'_>, body: &[u8]) -> Option<Box<str>> {
        let Proof::Jwt(jwt) = &self.scheme.proof else { return None };
        jwt.id_in(&jwt.body_token(head, body).ok()??)
    }

    /// Checks that the body begins like a JSON object or array. This check is necessary only in two cases:
    ///
    /// - The body directly follows the URL, the path or a query parameter in the signed content. An attacker could move
    ///   bytes from the body to the URL. An empty body is accepted in this case.
    /// - Callgate replies to an unsigned handshake with the signature of a challenge. An attacker could choose a
    ///   message as the challenge, and then send the signed challenge as a message.
    ///
    /// # Errors
    /// Returns `signature_malformed` if the body does not begin like JSON in one of these cases.
    fn check_body_start(&self, body: &[u8]) -> Result<(), Refusal> {
        let joined =
            matches!(&self.scheme.proof, Proof::Content(scheme) if scheme.content.joins_url_and_body());
        let ambiguous = joined || self.scheme.handshakes.iter().any(Handshake::signs_unauthenticated_text);
        if !ambiguous || body.is_empty() && joined || body.starts_with(b"{") || body.starts_with(b"[") {
            return Ok(());
        }
        let detail = "the body does not begin like JSON, so that the signed content is ambiguous";
        Err(Refusal::new(Denial::SignatureMalformed, detail))
    }

    /// Checks that the body has none of the values that the scheme forbids in `absent`.
    ///
    /// # Errors
    /// Returns `signature_malformed` if the body has a forbidden value, or is not JSON.
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
                let detail = format!("the body has {}, which the signature does not cover", pointer.as_str());
                Err(Refusal::new(Denial::SignatureMalformed, detail))
            }
        }
    }
}
