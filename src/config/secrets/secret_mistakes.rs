//! Recognizes values that are probably not the secret that the operator meant. The warnings do not repeat secret parts
//! of these values.

use crate::secret::Secret;

/// Prefixes of values that are not signing secrets, such as `sk_live_`. The first text of each pair is the prefix. The
/// second text completes the warning: it names the kind of value, and what the operator can do.
const OTHER_VALUES: [(&str, &str); 24] = [
    ("sk_live_", STRIPE_KEY),
    ("sk_test_", STRIPE_KEY),
    ("rk_live_", STRIPE_KEY),
    ("rk_test_", STRIPE_KEY),
    ("pk_live_", STRIPE_KEY),
    ("pk_test_", STRIPE_KEY),
    ("xoxb-", SLACK_TOKEN),
    ("xoxp-", SLACK_TOKEN),
    ("xapp-", SLACK_TOKEN),
    ("ghp_", GITHUB_TOKEN),
    ("gho_", GITHUB_TOKEN),
    ("ghs_", GITHUB_TOKEN),
    ("ghu_", GITHUB_TOKEN),
    ("github_pat_", GITHUB_TOKEN),
    ("glpat-", "a GitLab access token; write the secret token of the webhook"),
    ("we_", ID),
    ("wh_", ID),
    ("ep_", ID),
    ("http://", URL),
    ("https://", URL),
    ("-----BEGIN ", "PEM, but this scheme needs a shared secret"),
    ("Bearer ", "the value of a header; write the secret without the authentication scheme"),
    ("{\"keys\"", "a JWKS, but this scheme needs a shared secret"),
    ("{\"kty\"", "a JWK, but this scheme needs a shared secret"),
];
const STRIPE_KEY: &str = "an API key; Stripe signs with the signing secret of the endpoint, which begins with \
                          `whsec_`. Ignore this if the provider signs with its API key, as Paystack does";
const SLACK_TOKEN: &str = "a Slack token; write the signing secret of the app";
const GITHUB_TOKEN: &str = "a GitHub access token; write the secret of the webhook";
const ID: &str = "the id of a webhook; write its signing secret";
const URL: &str = "a URL; write the signing secret";

/// Returns a warning if the secret begins or ends with characters that probably do not belong to it.
pub(super) fn surrounding_text(secret: &Secret) -> Option<&'static str> {
    let text = secret.expose();
    if text.starts_with(b"\xef\xbb\xbf") {
        return Some("the secret begins with a byte order mark; save it without one");
    }
    // White space around PEM and JSON has no meaning, so it causes no warning.
    let trimmed = text.trim_ascii();
    if trimmed.starts_with(b"-----BEGIN ") || trimmed.starts_with(b"{") {
        return None;
    }
    if trimmed.len() != text.len() {
        return Some(
            "the secret begins or ends with white space, which is part of it; remove the white space",
        );
    }
    let quoted = |mark: u8| text.len() > 1 && text.first() == Some(&mark) && text.last() == Some(&mark);
    (quoted(b'"') || quoted(b'\''))
        .then_some("the secret is in quotation marks, which are part of it; remove the quotation marks")
}

/// Returns the element of [`OTHER_VALUES`] whose prefix is the beginning of the secret, or `None` if no prefix fits. A
/// secret with one of these prefixes is probably not the signing secret of a provider.
pub(in crate::config) fn other_value(secret: &Secret) -> Option<(&'static str, &'static str)> {
    OTHER_VALUES.iter().find(|(prefix, _)| secret.expose().starts_with(prefix.as_bytes())).copied()
}
