//! Checks which parts of a request the signature of a user's scheme covers, and that a sender can compute the
//! signature.

use crate::config::yaml::{Cursor, Fields};
use crate::signature::{ExpectedClaim, JwtScheme, Proof, PublicKeySource, Scheme};

/// Reports an error if the signature does not cover the body, unless the user accepts this with `unsigned_body:
/// accept`. If the signature covers the body, this setting is an error. Also reports an error if a JWT scheme accepts
/// every token of an issuer, or if the scheme `none` has no handshakes.
pub(super) fn covered(at: &Cursor<'_>, scheme: &Scheme, accepted: bool) {
    let covers = scheme.covers().body;
    if covers && accepted {
        let _: Option<()> = at.error("the signature covers the body", "remove `unsigned_body`");
    }
    let hint = "or add `unsigned_body: accept` if the provider does not sign the body";
    if matches!(scheme.proof, Proof::None) && scheme.handshakes.is_empty() {
        let hint = "remove `signature`, or add the `handshakes` that the provider sends";
        let _: Option<()> = at.error("the scheme `none` has only handshakes", hint);
    }
    let _: Option<()> = match &scheme.proof {
        _ if covers || accepted => None,
        Proof::Content(_) => {
            at.error("`content` must contain {body}, or the signature does not cover the body", hint)
        }
        Proof::MessageSignature(_) => {
            at.error("`components` must contain content-digest, which covers the body", hint)
        }
        Proof::Jwt(_) => at.error("`body_hash` must name the claim that covers the body", hint),
        _ => None,
    };
    if let (Proof::Jwt(jwt), Some(PublicKeySource::Url(_))) = (&scheme.proof, &scheme.keys)
        && !jwt.claims.iter().any(|(name, _)| matches!(&**name, "aud" | "sub"))
    {
        let _: Option<()> = at.error(
            "everybody with a token of this issuer has access",
            "add the `audience` or `subject` that the token must have",
        );
    }
}

/// Reports an error if nothing in the signed content marks the end of a part. An attacker could then move bytes from
/// this part to the next part, and the signature would stay valid.
pub(super) fn unambiguous(fields: &mut Fields<'_>, scheme: &Scheme) {
    let Proof::Content(content) = &scheme.proof else { return };
    let time = content.timestamp.as_ref().map(|rule| &rule.source);
    if let (Some((first, second)), Some(at)) =
        (content.content.unclear_boundary(time), fields.optional("content"))
    {
        let message = format!(
            "nothing marks the end of {first}, so anybody could move bytes between {first} and {second} without a change of the signature"
        );
        let hint = "put text or {timestamp} between the two if the provider signs it; otherwise sign only one of the two";
        let _: Option<()> = at.error(message, hint);
    }
}

/// Reports an error if the signature of a user's scheme would cover itself. No sender could compute such a signature.
pub(super) fn verifiable(at: &Cursor<'_>, scheme: &Scheme) {
    match &scheme.proof {
        Proof::Content(content) if content.covers_itself() => {
            let hint = "sign other parts, or read the signature from another place";
            let _: Option<()> = at.error("the signature would cover itself", hint);
        }
        Proof::Jwt(jwt @ JwtScheme { body_hash: Some(_), .. }) if jwt.is_in_body() => {
            let hint = "remove `body_hash`; a token that is the whole body needs none";
            let _: Option<()> =
                at.error("the body contains the token, so the token cannot contain its hash", hint);
        }
        Proof::Jwt(jwt)
            if jwt.place.parameter().is_some()
                && jwt.claims.iter().any(|(_, expected)| *expected == ExpectedClaim::Url) =>
        {
            let hint = "write the text that the claim has";
            let _: Option<()> = at.error("the URL contains the token, so no claim can be the URL", hint);
        }
        _ => {}
    }
}
