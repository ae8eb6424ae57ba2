//! `assertion`: what signs the proof that the agent gets with each message.

use std::sync::Arc;
use std::time::Duration;

use super::token::{CallbackTokens, algorithm, shared};
use crate::config::yaml::Cursor;
use crate::secret::Secret;
use crate::token::{Algorithm, Asserter, KeyFault, KeyMaterial};

/// The shortest: a connection to the agent, and clocks that differ, take their time.
const TTL_MIN: Duration = Duration::from_secs(5);
/// How long an assertion is good for unless said otherwise.
const TTL_DEFAULT: Duration = Duration::from_secs(60);
/// The longest that can be asked for: whoever sees one can send the very message again until then.
const TTL_MAX: Duration = Duration::from_secs(3600);

/// Reads `assertion`. `public_url` as for [`super::token::callback_tokens`]; `tokens` are the keys that mint, which
/// nobody else may have.
pub(crate) fn assertion(
    at: &Cursor<'_>,
    public_url: Option<Option<&str>>,
    tokens: Option<&CallbackTokens>,
) -> Option<Arc<Asserter>> {
    let mut fields = at.fields()?;
    let audience = fields.optional("audience").map(|at| at.text().map(str::to_owned));
    let ttl = fields.optional("ttl").map_or(Some(TTL_DEFAULT), |at| match at.duration()? {
        ttl if ttl < TTL_MIN || ttl > TTL_MAX => {
            at.error("must be between 5s and 1h", "as long as a message to the agent may be under way")
        }
        ttl => Some(ttl),
    });
    let key = fields.required("key").and_then(|at| assertion_key(&at));
    fields.finish();
    let audience = match (audience, public_url) {
        (Some(stated), _) => stated?,
        (None, Some(url)) => url?.to_owned(),
        (None, None) => {
            let hint = "`audience`: what the agent looks for in `aud`, such as its name; with a `public_url` it is that";
            return at.error("it is not said whom assertions are for", hint);
        }
    };
    let (AssertionKey { at, id, algorithm, shared, material }, ttl) = (key?, ttl?);
    let made = match shared {
        true => KeyMaterial::Shared(&material),
        false => KeyMaterial::PrivatePem(&material),
    };
    match Asserter::new(id, algorithm, made, &audience, ttl) {
        Ok(_) if tokens.is_some_and(|tokens| tokens.are_minted_with(&material)) => at.error(
            "the agent gets this key, and callback tokens are minted with it",
            "a key of its own: openssl rand -base64 32",
        ),
        Ok(asserter) => Some(Arc::new(asserter)),
        Err(fault) => {
            let hint =
                if fault == KeyFault::NotAPrivateKey { "PKCS#8, as `openssl genpkey` writes it" } else { "" };
            at.error(format!("{} key {fault}", algorithm.name()), hint)
        }
    }
}

/// A key as it is configured.
struct AssertionKey<'a> {
    /// Where its material is said.
    at: Cursor<'a>,
    id: &'a str,
    algorithm: Algorithm,
    /// Whether it is one that the agent has, too.
    shared: bool,
    material: Secret,
}

fn assertion_key<'a>(at: &Cursor<'a>) -> Option<AssertionKey<'a>> {
    let mut fields = at.fields()?;
    let id = fields.required("id").and_then(|at| at.name());
    let algorithm = fields.required("algorithm").as_ref().and_then(algorithm);
    let (secret, private) = (fields.optional("secret"), fields.optional("private_key"));
    fields.finish();
    let (at, material, shared) = match (secret, private) {
        (Some(at), None) => (at.clone(), shared(&at)?, true),
        (None, Some(at)) => (at.clone(), at.secret()?, false),
        _ => {
            return at.error(
                "expected exactly one of secret and private_key",
                "HS* take a secret that the agent has, too; the others a PEM private key that it has not",
            );
        }
    };
    Some(AssertionKey { at, id: id?, algorithm: algorithm?, shared, material })
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{MINIMAL, mistake, parse};

    /// The minimal configuration with these fields of an `assertion` makes one mistake.
    #[track_caller]
    fn says(fields: &str, path: &str, words: &str) {
        let agent = "agent:";
        mistake(agent, &format!("assertion: {{ {fields} }}\n{agent}"), path, words);
    }

    #[test]
    fn assertions_that_would_prove_nothing() {
        let key = |material: &str| format!("key: {{ id: a1, {material} }}");
        let at = "assertion.key";
        says("ttl: 60s", "assertion", "`key` is missing");
        says(&key("algorithm: HS256"), at, "exactly one of secret and private_key");
        says(&key("algorithm: HS256, secret: { env: SHORT }"), "assertion.key.secret", "24 are needed");
        says(
            &key("algorithm: HS256, private_key: { env: KEY }"),
            "assertion.key.private_key",
            "not the kind",
        );
        says(&key("algorithm: EdDSA, secret: { env: KEY }"), "assertion.key.secret", "not the kind");
        says(&key("algorithm: none, secret: { env: KEY }"), "assertion.key.algorithm", "not an algorithm");
        for algorithm in ["EdDSA", "ES256", "ES384", "RS256", "PS512"] {
            let material = key(&format!("algorithm: {algorithm}, private_key: {{ env: OTHER_KEY }}"));
            says(&material, "assertion.key.private_key", "no PEM private key");
        }
        // Whoever verifies with a shared key can sign with it: that must not mint.
        says(
            &key("algorithm: HS256, secret: { env: KEY }"),
            "assertion.key.secret",
            "tokens are minted with it",
        );
        let other = key("algorithm: HS256, secret: { env: OTHER_KEY }");
        says(&format!("{other}, ttl: 2h"), "assertion.ttl", "between 5s and 1h");
        says(&format!("{other}, audience: ''"), "assertion.audience", "");
        let route = "forward:";
        mistake(
            route,
            &format!("assertion: true\n    {route}"),
            "routes[0].assertion",
            "no key to sign it with",
        );
        let text = MINIMAL.replacen("agent:", &format!("assertion: {{ {other} }}\nagent:"), 1);
        let asserts = |text: &str| parse(text).unwrap().policy.ingress.routes()[0].asserter.is_some();
        assert!(asserts(&text));
        assert!(!asserts(&text.replacen(route, &format!("assertion: false\n    {route}"), 1)));
    }
}
