//! Reads the configuration section `assertion`: the key and the lifetime of the signed assertions that the agent
//! receives with each request.

use std::sync::Arc;
use std::time::Duration;

use super::token::{CallbackTokens, algorithm, shared};
use crate::config::yaml::Cursor;
use crate::secret::Secret;
use crate::token::{Algorithm, Asserter, KeyFault, KeyMaterial};

/// The minimum lifetime of an assertion. An assertion must still be valid when the agent checks it, even if connecting
/// to the agent takes a few seconds and the clocks of Callgate and the agent differ slightly.
const TTL_MIN: Duration = Duration::from_secs(5);
/// The default lifetime of an assertion.
const TTL_DEFAULT: Duration = Duration::from_secs(60);
/// The maximum lifetime of an assertion. Until an assertion expires, anybody who has seen the request with this
/// assertion can send the same request again.
const TTL_MAX: Duration = Duration::from_secs(3600);

/// Reads the configuration section `assertion`. `public_url` is `None` if this setting is missing, and `Some(None)` if
/// it has a mistake. `tokens` are the settings of callback tokens. The key of the assertions must not be a key of
/// callback tokens.
pub(crate) fn assertion(
    at: &Cursor<'_>,
    public_url: Option<Option<&str>>,
    tokens: Option<&CallbackTokens>,
) -> Option<Arc<Asserter>> {
    let mut fields = at.fields()?;
    let audience = fields.optional("audience").map(|at| at.text().map(str::to_owned));
    let ttl = fields.optional("ttl").map_or(Some(TTL_DEFAULT), |at| match at.duration()? {
        ttl if ttl < TTL_MIN || ttl > TTL_MAX => {
            at.error("must be between 5s and 1h", "the time that a request may take to the agent")
        }
        ttl => Some(ttl),
    });
    let key = fields.required("key").and_then(|at| assertion_key(&at));
    fields.finish();
    let audience = match (audience, public_url) {
        (Some(stated), _) => stated?,
        (None, Some(url)) => url?.to_owned(),
        (None, None) => {
            let hint = "add `audience`, the value of `aud` that the agent expects, or `public_url`, which is the default";
            return at.error("the assertions have no audience", hint);
        }
    };
    let (AssertionKey { at, id, algorithm, shared, material }, ttl) = (key?, ttl?);
    let made = match shared {
        true => KeyMaterial::Shared(&material),
        false => KeyMaterial::PrivatePem(&material),
    };
    match Asserter::new(id, algorithm, made, &audience, ttl) {
        Ok(_) if tokens.is_some_and(|tokens| tokens.are_minted_with(&material)) => at.error(
            "the agent has this key, and callback tokens are minted with it",
            "use another key: openssl rand -base64 32",
        ),
        Ok(asserter) => Some(Arc::new(asserter)),
        Err(fault) => {
            let hint =
                if fault == KeyFault::NotAPrivateKey { "PKCS#8, as `openssl genpkey` writes it" } else { "" };
            at.error(format!("{} key {fault}", algorithm.name()), hint)
        }
    }
}

/// The configured key that signs assertions.
struct AssertionKey<'a> {
    /// The position of the key material in the configuration.
    at: Cursor<'a>,
    id: &'a str,
    algorithm: Algorithm,
    /// True if the key is symmetric. The agent then verifies assertions with the same key.
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
                "HS algorithms need a secret that the agent has, too; all others need a PEM private key",
            );
        }
    };
    Some(AssertionKey { at, id: id?, algorithm: algorithm?, shared, material })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::tests::{MINIMAL, mistake, parse};

    /// Asserts that the minimal configuration with `fields` in the section `assertion` has exactly one mistake. The
    /// mistake must have the path `path`, and its message must contain `words`.
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
        // The agent has the symmetric key of the assertions, because it verifies assertions. If callback tokens used
        // the same key, the agent could create callback tokens.
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
            "no key to sign the assertion",
        );
        let text = MINIMAL.replacen("agent:", &format!("assertion: {{ {other} }}\nagent:"), 1);
        let asserts = |text: &str| parse(text).unwrap().policy.ingress.routes()[0].asserter.is_some();
        assert!(asserts(&text));
        assert!(!asserts(&text.replacen(route, &format!("assertion: false\n    {route}"), 1)));
        for (fields, ttl, audience) in [
            ("", Duration::from_secs(60), "https://agent.example.com"),
            (", ttl: 5s, audience: agent", Duration::from_secs(5), "agent"),
            (", ttl: 1h", Duration::from_secs(3600), "https://agent.example.com"),
        ] {
            let config = parse(&text.replacen(&other, &format!("{other}{fields}"), 1)).unwrap();
            let asserter = config.policy.ingress.routes()[0].asserter.as_ref().unwrap();
            assert_eq!((asserter.ttl(), asserter.audience()), (ttl, audience), "{fields}");
            assert_eq!(asserter.algorithm().name(), "HS256");
        }
    }
}
