//! Tests of mistakes in the settings of a preset, and in signature schemes that users describe.

use crate::config::tests::mistake;

const OWN: &str = "signature: { scheme: github, secrets: [ { env: SECRET } ] }";

fn provider(to: &str, at: &str, words: &str) {
    mistake(OWN, to, &format!("providers.p{at}"), words);
}

#[test]
fn presets_that_are_told_what_they_do_not_ask() {
    let secrets = "secrets: [ { env: SECRET } ]";
    provider("preset: githup, secrets: [ { env: SECRET } ]", ".preset", "did you mean `github`?");
    provider("preset: github", "", "`secrets` is missing");
    provider(
        &format!("preset: github, {secrets}, verify_token: {{ env: OTHER }}"),
        ".verify_token",
        "contains a token",
    );
    provider(
        &format!("preset: github, {secrets}, subscriptions: [a]"),
        ".subscriptions",
        "confirms a subscription",
    );
    provider(
        &format!("preset: github, {secrets}, certificates: {{ env: OTHER }}"),
        ".certificates",
        "names a certificate",
    );
    provider(&format!("preset: github, {secrets}, header: x-a"), ".header", "has a fixed header");
    provider(&format!("preset: github, {secrets}, tolerance: 5m"), ".tolerance", "no timestamp");
    provider(&format!("preset: github, {secrets}, expect: {{ email: a }}"), ".expect", "sends no claims");
    provider(
        &format!("preset: github, {secrets}, keys: {{ url: https://a/ }}"),
        ".keys",
        "publishes no keys",
    );
    provider(
        &format!("preset: github, {secrets}, well_known: publish"),
        ".well_known",
        "does not read such a document",
    );
    provider(
        &format!("preset: github, {secrets}, registration: {{ file: /x }}"),
        ".registration",
        "sends no secret",
    );
    provider(&format!("preset: runpod, {secrets}"), ".secrets", "does not sign");
    provider("preset: google-pubsub", "", "`expect` must contain audience");
    provider("preset: google-pubsub, expect: { audience: a }", ".expect", "`expect` must contain email");
    provider("preset: telnyx, secrets: [ { env: SECRET } ]", ".secrets[0]", "holds no public key");
    provider("preset: adyen, secrets: [ { env: SECRET } ]", ".secrets[0]", "is not hexadecimal");
    provider("preset: adyen, secrets: derived", ".secrets", "does not accept a derived secret");
    provider("preset: telnyx, secrets: derived", ".secrets", "does not accept a derived secret");
}

#[test]
fn registrations_that_anybody_could_make() {
    mistake(
        "p: { allow: [203.0.113.0/24], signature: { scheme: github, secrets: [ { env: SECRET } ] } }",
        "p: { preset: asana, registration: { file: relative } }",
        "providers.p.registration.file",
        "is not absolute",
    );
    mistake(
        "    token: { kind: callback }\n",
        "    token: { kind: callback }\n    body_max: 1KiB\n    query: none\n",
        "routes[0].query",
        "is not one of the accepted values",
    );
}

#[test]
fn lists_and_fetching_that_could_not_work() {
    let list = |to: &str, at: &str, words: &str| {
        mistake("allow: [203.0.113.0/24]", to, &format!("providers.p.allow{at}"), words);
    };
    list("allow: published", "", "`published` needs a `preset`");
    list("allow: [ { url: http://example.com/list } ]", "[0].url", "is not a URL to fetch from");
    list("allow: [ { url: file:relative } ]", "[0].url", "is not a URL to fetch from");
    list(
        "allow: [ { url: https://a/list, pointers: [/a], where: { x: y } } ]",
        "[0]",
        "no pointer contains [*]",
    );
    list("allow: [ { url: https://a/list, pointers: [a] } ]", "[0]", "is not a JSON pointer");
    let fetch = |text: &str, at: &str, words: &str| {
        let to = format!("agent: {{ address: 127.0.0.1:8000 }}\nfetch: {{ {text} }}");
        mistake("agent: { address: 127.0.0.1:8000 }", &to, &format!("fetch{at}"), words);
    };
    fetch("every: 2h, stale_ok: 1h", "", "shorter than `every`");
    fetch("cache: relative", ".cache", "is not absolute");
    fetch("evry: 1h", ".evry", "did you mean `every`?");
    mistake(
        "agent: { address: 127.0.0.1:8000 }",
        "agent: { address: 127.0.0.1:8000 }\nclient_address: { edge: cloudflair }",
        "client_address.edge",
        "did you mean `cloudflare`?",
    );
}

#[test]
fn schemes_that_would_let_anybody_in() {
    let own = |fields: &str, at: &str, words: &str| {
        provider(&format!("signature: {{ {fields}, secrets: [ {{ env: SECRET }} ] }}"), at, words);
    };
    let at = ".signature";
    own(
        "scheme: hmac, algorithm: plain-sha256, header: x-s, content: \"{body}\", encoding: hex",
        at,
        "anybody can make a plain hash",
    );
    own("scheme: hmac, algorithm: sha256, header: x-s, content: x, encoding: hex", at, "must contain {body}");
    own("scheme: jwt, header: x-s, algorithm: HS256", at, "the claim that covers the body");
    own(
        "scheme: jwt, header: x-s, algorithm: [HS256, ES256], unsigned_body: accept",
        at,
        "cannot be combined",
    );
    own(
        "scheme: jwt, header: x-s, algorithm: HS256, unsigned_body: accept, id: { claim: jti, header: x }",
        ".signature.id",
        "exactly one of header, body, form, query and claim",
    );
    own("scheme: token, header: x-s, header_is_yours: true", ".signature.header_is_yours", "unknown key");
    provider(
        "signature: { scheme: message-signatures, algorithm: ed25519, components: [\"@method\"], keys: { url: https://a/k } }",
        at,
        "must contain content-digest",
    );
    provider(
        "signature: { scheme: jwt, header: x-s, algorithm: RS256, body_hash: { claim: h, encoding: hex }, keys: { url: https://a/k } }",
        at,
        "a token of this issuer",
    );
    provider(
        "signature: { scheme: jwt, header: x-s, algorithm: RS256, unsigned_body: accept, audience: a, keys: { certificate: { header: x, hosts: [a], path: / } } }",
        ".signature.keys.certificate",
        "unknown key",
    );
}
