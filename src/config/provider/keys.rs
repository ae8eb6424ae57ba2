//! Reads the keys of a signature scheme: secrets, public keys, fetched keys, and the tokens of handshakes.

use crate::config::secrets::other_value;
use crate::config::yaml::{Cursor, Fields};
use crate::policy::{Feed, FeedKind};
use crate::secret::Secret;
use crate::signature::{KeySet, Proof, PublicKeySource, Scheme, Verifier, VerifierKeys};

/// Reads the keys of a signature scheme, and returns the verifier that checks messages with these keys.
pub(super) fn keyed(fields: &mut Fields<'_>, scheme: Scheme, has_public_url: bool) -> Option<Verifier> {
    let at = fields.at().clone();
    if scheme.uses_url() && !has_public_url {
        let _: Option<()> =
            at.error("the signature covers {url}, so the configuration must contain `public_url`", "");
    }
    let shakes = &scheme.handshakes;
    let verify_token = fields.optional("verify_token").map(|at| match at.secret() {
        Some(_) if shakes.iter().all(|shake| shake.token.is_none()) => {
            at.error("no handshake of this provider contains a token", "remove `verify_token`")
        }
        read => read,
    });
    let subscriptions = fields.optional("subscriptions").map_or(Some(Vec::new()), |at| match at.texts() {
        Some(_) if shakes.iter().all(|shake| shake.subscription.is_none()) => {
            at.error("no handshake of this provider confirms a subscription", "remove `subscriptions`")
        }
        read => read,
    });
    let registration = fields.optional("registration").map(|at| registration(&at, &scheme));
    let derived = fields.optional("secrets").filter(|at| at.is_word("derived"));
    let certificates = fields.optional("certificates").map(|at| match &scheme.keys {
        Some(PublicKeySource::Certificate(_)) => certificates(&at),
        _ => at.error("no message of this provider names a certificate", "remove `certificates`"),
    });
    let secrets_at = match (&registration, &derived, secrets_needed(&scheme)) {
        (None, None, true) => Some(fields.required("secrets")?),
        (None, None, false) => fields.optional("secrets"),
        _ => None,
    };
    if let (Some(at), false) = (&secrets_at, scheme.has_proof()) {
        return at.error("this provider does not sign, so it has no secret", "remove `secrets`");
    }
    let secrets = secrets_at.as_ref().map_or(Some(Vec::new()), |at| at.secrets());
    if let (Some(at), Some(secrets), Some(_)) = (&secrets_at, &secrets, scheme.mac_algorithm()) {
        warn_of_other_values(at, secrets);
    }
    let keys = match (registration, derived) {
        (Some(read), None) => read?,
        (None, Some(at)) => derived_keys(&at, &scheme)?,
        (Some(_), Some(at)) => {
            return at
                .error("`registration` and `secrets: derived` exclude each other", "keep one of the two");
        }
        (None, None) => keys_of(&at, &scheme, secrets.as_deref(), secrets_at.as_ref(), certificates)?,
    };
    let secrets = match &keys {
        VerifierKeys::Public(_) => Vec::new(),
        _ => secrets?,
    };
    let verify_token = verify_token.map_or(Some(None), |read| read.map(Some))?;
    match Verifier::new(scheme, keys, &secrets) {
        Ok(verifier) => Some(verifier.with_handshakes(verify_token, subscriptions?)),
        Err((index, fault)) => {
            let at = secrets_at.as_ref().unwrap_or(&at);
            at.list()?.get(index).unwrap_or(at).error(format!("the secret {fault}"), "")
        }
    }
}

/// Warns about secrets that are probably not signing secrets, such as API keys.
fn warn_of_other_values(at: &Cursor<'_>, secrets: &[Secret]) {
    for (i, secret) in secrets.iter().enumerate() {
        if let Some((prefix, kind)) = other_value(secret) {
            let list = at.list().unwrap_or_default();
            list.get(i).unwrap_or(at).warn(&format!("the secret begins with `{prefix}`, like {kind}"));
        }
    }
}

fn derived_keys(at: &Cursor<'_>, scheme: &Scheme) -> Option<VerifierKeys> {
    if derives(scheme) {
        return Some(VerifierKeys::Derived);
    }
    at.error(
        "this scheme does not accept a derived secret",
        "use `derived` with a MAC over a content whose key is text, or `whsec_` and base64",
    )
}

/// Reports whether a signature scheme accepts the secrets that Callgate derives for interactions. These secrets consist
/// of `whsec_` and base64.
fn derives(scheme: &Scheme) -> bool {
    let sample = Secret::new(b"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_vec());
    matches!(scheme.proof, Proof::Content(_))
        && scheme.mac_algorithm().is_some()
        && Verifier::new(scheme.clone(), VerifierKeys::Shared, &[sample]).is_ok()
}

/// Reports whether a provider with this signature scheme must have the setting `secrets`.
fn secrets_needed(scheme: &Scheme) -> bool {
    match &scheme.keys {
        None if !scheme.has_proof() => false,
        Some(PublicKeySource::Url(_)) => false,
        // If the keys are certificates, `secrets` contains no keys, but other required values, such as a topic or the
        // id of a webhook.
        Some(PublicKeySource::Certificate(_)) => true,
        None => true,
    }
}

fn keys_of(
    at: &Cursor<'_>,
    scheme: &Scheme,
    secrets: Option<&[Secret]>,
    secrets_at: Option<&Cursor<'_>>,
    certificates: Option<Option<KeySet>>,
) -> Option<VerifierKeys> {
    if !scheme.uses_public_keys() {
        return Some(VerifierKeys::Shared);
    }
    match &scheme.keys {
        Some(PublicKeySource::Certificate(rule)) => {
            Some(VerifierKeys::Named(rule.clone(), certificates.map_or(Some(None), |read| read.map(Some))?))
        }
        Some(PublicKeySource::Url(url)) if secrets?.is_empty() => {
            Some(VerifierKeys::Fetched(at.feed(Feed { url: url.clone(), kind: FeedKind::Keys })))
        }
        _ => {
            let at = secrets_at.unwrap_or(at);
            let read = |(i, secret): (usize, &Secret)| match KeySet::parse(secret.expose()) {
                Ok(set) => Some(set),
                Err(fault) => {
                    let list = at.list()?;
                    list.get(i).unwrap_or(at).error(format!("the secret {fault}"), "")
                }
            };
            let sets: Vec<_> = secrets?.iter().enumerate().map(read).collect();
            let sets = sets.into_iter().collect::<Option<Vec<_>>>()?;
            Some(VerifierKeys::Public(KeySet::merged(sets)))
        }
    }
}

/// Reads `certificates: {env: NAME}` or `certificates: {file: …}`. Callgate uses these certificates instead of the
/// certificates that the provider publishes.
fn certificates(at: &Cursor<'_>) -> Option<KeySet> {
    let secret = at.secret()?;
    match KeySet::parse(secret.expose()) {
        Ok(set) => Some(set),
        Err(fault) => at.error(format!("the file {fault}"), ""),
    }
}

/// Reads `registration: {file: …}` of a provider that sends its secret in a handshake. Callgate stores the secret in
/// this file.
fn registration(at: &Cursor<'_>, scheme: &Scheme) -> Option<VerifierKeys> {
    let mut fields = at.fields()?;
    let path = fields.required("file").and_then(|at| match at.text()? {
        path if path.starts_with('/') => Some(path),
        path => at.error(format!("`{path}` is not absolute"), "such as /var/lib/callgate/asana"),
    });
    fields.finish();
    if scheme.handshakes.iter().all(|handshake| handshake.secret.is_none()) {
        return at.error("this provider sends no secret in a handshake", "remove `registration`");
    }
    let url = format!("file:{}", path?).into();
    Some(VerifierKeys::Learned(at.feed(Feed { url, kind: FeedKind::Secret })))
}
