//! Checks of the handshakes in a signature scheme that a user describes.

use crate::config::yaml::Fields;
use crate::signature::{BodyFormat, Handshake, Proof, Scheme};

/// Reports an error for each missing setting that a handshake needs. Also reports an error if the reply to an unsigned
/// handshake could be a valid signature of a message.
pub(super) fn complete(fields: &Fields<'_>, scheme: &Scheme) {
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
    // A caller could send the signed content of a message as the challenge of an unsigned handshake. The reply would
    // then contain a valid signature of this message. If the signature covers the JSON body, this attack is impossible,
    // because JSON begins with a brace or a bracket and a challenge contains neither.
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

/// Reports an error for each handshake that no request can match. Such a handshake and its scheme read values from
/// bodies of different formats, such as JSON and a form.
pub(super) fn answerable(fields: &mut Fields<'_>, scheme: &Scheme) {
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
