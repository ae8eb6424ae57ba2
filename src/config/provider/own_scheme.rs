//! Checks of a scheme that a user describes. A mistake in such a scheme must not let anybody in, and must not go
//! unnoticed until the provider sends its first message.

use crate::config::yaml::{Cursor, Fields};
use crate::signature::{BodyFormat, ExpectedClaim, Handshake, JwtScheme, Proof, PublicKeySource, Scheme};

/// Reports an error for each part of a scheme that is not safe, or that cannot work. `accepted` is whether the user
/// accepts a signature that does not cover the body.
pub(super) fn check(at: &Cursor<'_>, fields: &mut Fields<'_>, scheme: &Scheme, accepted: bool) {
    covered(at, scheme, accepted);
    unambiguous(fields, scheme);
    verifiable(at, scheme);
    answerable(fields, scheme);
    complete(fields, scheme);
}

/// Reports an error for each setting that a handshake needs and that is missing.
fn complete(fields: &Fields<'_>, scheme: &Scheme) {
    let any = |needs: fn(&Handshake) -> bool| scheme.handshakes.iter().any(needs);
    let has_secrets = fields.has("secrets");
    let needed = [
        ("a `token`", "verify_token", any(|shake| shake.token.is_some()) && !has_secrets),
        ("`of`", "subscriptions", any(|shake| shake.subscription.is_some())),
        ("`learn`", "registration", any(|shake| shake.secret.is_some())),
    ];
    for (cause, setting, is_needed) in needed {
        if is_needed && !fields.has(setting) {
            let message = format!("a handshake has {cause}, so `{setting}` is missing");
            let _: Option<()> = fields.at().error(message, "without it, Callgate denies this handshake");
        }
    }
    // A challenge has no braces and brackets, and the body begins with one of them. Without the body in the signed
    // content, a caller could send signed content as the challenge, and would receive its signature.
    let signs_body = match &scheme.proof {
        Proof::Content(content) => content.content.contains_json(),
        _ => false,
    };
    if !signs_body && any(Handshake::signs_unauthenticated_text) {
        let hint = "write `signed: true`, or put {body} into `content`";
        let _: Option<()> =
            fields.at().error("the reply to an unsigned handshake could be the signature of a message", hint);
    }
}

/// Reports an error if the scheme does not cover the body, unless the user accepts this with `unsigned_body`.
fn covered(at: &Cursor<'_>, scheme: &Scheme, accepted: bool) {
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

/// Reports an error if the signed content does not show where one of its parts ends.
fn unambiguous(fields: &mut Fields<'_>, scheme: &Scheme) {
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

/// Reports an error if the signature would cover itself. No sender could compute such a signature.
fn verifiable(at: &Cursor<'_>, scheme: &Scheme) {
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

/// Reports an error for each handshake that no request can be, because its body would have to have two formats.
fn answerable(fields: &mut Fields<'_>, scheme: &Scheme) {
    let Some(list) = fields.optional("handshakes").and_then(|at| at.list()) else { return };
    for (at, handshake) in list.iter().zip(&scheme.handshakes) {
        let formats = || handshake.body_formats().chain(scheme.body_formats(handshake.signed));
        let Some(first) = formats().next() else { continue };
        if let Some(other) = formats().find(|format| *format != first) {
            let message =
                format!("no request can be this handshake: its body would have to be {first} and {other}");
            let hint = match handshake.body_formats().any(|format| format == BodyFormat::Json) {
                true => {
                    "the scheme reads a value from a body of another format; remove the values of this handshake that are in a JSON body"
                }
                false => "the scheme reads a value from a body of another format; remove `form` from `when`",
            };
            let _: Option<()> = at.error(message, hint);
        }
    }
}
