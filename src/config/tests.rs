//! Tests of the errors that mistakes in a configuration cause.

use super::test_environment::env;
use super::{Config, ConfigError, Surroundings};

pub(super) const MINIMAL: &str = "\
public_url: https://agent.example.com
listen: { ingress: [ { address: 127.0.0.1:0 } ], admin: { address: 127.0.0.1:0 } }
agent: { address: 127.0.0.1:8000 }
callback_tokens: { keys: [ { id: k1, algorithm: HS256, secret: { env: KEY } } ] }
providers:
  p: { allow: [203.0.113.0/24], signature: { scheme: github, secrets: [ { env: SECRET } ] } }
routes:
  - name: r
    path: /w/{id}
    provider: p
    token: { kind: callback }
    forward: /i/{id}
";

pub(super) fn parse(text: &str) -> Result<Config, Vec<ConfigError>> {
    Config::parse(text, &Surroundings { env: &env, file: &|path| std::fs::read(path) })
}

fn errors(text: &str) -> Vec<ConfigError> {
    parse(text).err().unwrap_or_default()
}

/// Asserts that the minimal configuration has exactly one mistake after `from` is replaced by `to`. The mistake must
/// have the path `path`, and its message must contain `words`.
#[track_caller]
pub(super) fn mistake(from: &str, to: &str, path: &str, words: &str) {
    assert!(MINIMAL.contains(from), "{from}");
    let errors = errors(&MINIMAL.replacen(from, to, 1));
    let [error] = errors.as_slice() else { panic!("{to}: {errors:#?}") };
    assert_eq!(error.path, path, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.position.is_some(), "{error}");
}

#[test]
fn the_minimal_configuration_compiles() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.policy.ingress.routes().len(), 1);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn unknown_misplaced_and_doubled_keys() {
    mistake("agent: {", "agnt: {}\nagent: {", "agnt", "did you mean `agent`?");
    mistake("path: /w/{id}", "paht: x\n    path: /w/{id}", "routes[0].paht", "did you mean `path`?");
    mistake("allow:", "body_max: 1MiB, allow:", "providers.p.body_max", "unknown key");
    mistake("agent: { address", "agent: { address: 127.0.0.1:1, address", "agent.address", "twice");
    mistake("scheme: github,", "scheme: github, heder: x,", "providers.p.signature.heder", "unknown key");
}

#[test]
fn missing_and_wrongly_typed_values() {
    mistake("agent: { address: 127.0.0.1:8000 }", "agent: {}", "agent", "`address` is missing");
    mistake("agent: { address: 127.0.0.1:8000 }", "agent:", "agent", "expected a value");
    mistake("forward: /i/{id}", "forward: [x]", "routes[0].forward", "expected text, found a list");
    mistake("forward: /i/{id}", "forward: /i/{id}\n    body_max: 1 MB", "routes[0].body_max", "not a size");
    mistake("keys:", "ttl: 7200, keys:", "callback_tokens.ttl", "a number and one of");
    mistake("127.0.0.1:0 } ]", "localhost:0 } ]", "listen.ingress[0].address", "not an address");
    mistake("127.0.0.1:8000", "127.0.0.1", "agent.address", "not an address with a port");
    mistake(
        "https://agent.example.com",
        "agent.example.com",
        "public_url",
        "not the beginning of a public URL",
    );
}

#[test]
fn networks_that_are_none() {
    mistake("203.0.113.0/24", "203.0.113.9/24", "providers.p.allow[0]", "did you mean 203.0.113.0/24?");
    mistake("203.0.113.0/24", "\"203.0.113.0/33\"", "providers.p.allow[0]", "not an address or network");
    mistake("203.0.113.0/24", "010.0.0.0/8", "providers.p.allow[0]", "not an address or network");
    mistake("[203.0.113.0/24]", "[]", "providers.p.allow", "the list is empty");
}

#[test]
fn templates_that_are_none() {
    mistake("path: /w/{id}", "path: /w/../{id}", "routes[0].path", "dot segment");
    mistake("path: /w/{id}", "path: /w/x{id}", "routes[0].path", "one whole segment");
    mistake("forward: /i/{id}", "forward: /i/{other}", "routes[0].forward", "no capture other");
    mistake(
        "path: /w/{id}",
        "path: /w/{id}/{callback_token}",
        "routes[0].token",
        "`from` does not list `path`",
    );
    mistake(
        "kind: callback }",
        "kind: callback, from: [path] }",
        "routes[0].token.from",
        "no {callback_token}",
    );
}

#[test]
fn routes_that_cannot_be_told_apart() {
    let second = "  - { name: r2, path: \"/w/{other}\", provider: p, forward: /x }\n";
    let found = errors(&format!("{MINIMAL}{second}"));
    assert!(
        matches!(found.as_slice(), [e] if e.path == "routes[1]" && e.message.contains("same paths and methods as the route r"))
    );
    let second = "  - { name: r, path: \"/v/{other}\", provider: p, forward: /x }\n";
    let found = errors(&format!("{MINIMAL}{second}"));
    assert!(matches!(found.as_slice(), [e] if e.path == "routes[1]" && e.message.contains("used twice")));
}

#[test]
fn secrets_that_are_none() {
    mistake("{ env: KEY }", "{ env: MISSING }", "callback_tokens.keys[0].secret.env", "MISSING is not set");
    mistake("{ env: KEY }", "{ env: SHORT }", "callback_tokens.keys[0].secret", "5 bytes; at least 24");
    mistake("{ env: KEY }", "{ file: /nonexistent }", "callback_tokens.keys[0].secret.file", "cannot read");
    mistake("{ env: KEY }", "verysecrettext", "callback_tokens.keys[0].secret", "never text");
    mistake("{ env: KEY }", "{ env: KEY, file: x }", "callback_tokens.keys[0].secret", "exactly one");
    mistake("{ env: SECRET }", "{ env: EMPTY }", "providers.p.signature.secrets[0].env", "empty");
    mistake(
        "{ env: SECRET }",
        "{ env: SECRET }, { env: SECRET }",
        "providers.p.signature.secrets[1]",
        "same secret",
    );
    assert!(
        !format!("{:?}", errors(&MINIMAL.replace("{ env: KEY }", "verysecrettext"))).contains("verysecret")
    );
}

#[test]
fn routes_that_anyone_could_call() {
    mistake(
        "    provider: p\n    token: { kind: callback }\n",
        "",
        "routes[0]",
        "neither token nor signature",
    );
    mistake("provider: p\n", "provider: p\n    open: true\n", "routes[0]", "but has a token or signature");
    let open = MINIMAL.replace("provider: p\n    token: { kind: callback }", "open: true");
    assert!(parse(&open).unwrap().warnings.iter().any(|warning| warning.starts_with("routes[0]: open")));
}

#[test]
fn schemes_that_do_not_hold_together() {
    let generic = |fields: &str| {
        MINIMAL.replace(
            "scheme: github,",
            &format!("scheme: hmac, algorithm: sha256, header: x-s, encoding: hex, {fields},"),
        )
    };
    let message = |fields: &str| match errors(&generic(fields)).as_slice() {
        [error] => error.to_string(),
        other => panic!("{fields}: {other:#?}"),
    };
    assert!(parse(&generic("content: \"{body}\"")).is_ok());
    assert!(message("content: \"{timestamp}.{body}\"").contains("has no location"));
    assert!(message("content: \"{id}.{body}\"").contains("has no location"));
    assert!(
        message("content: \"{timestamp}\", format: \"t={timestamp},v={signature}\"")
            .contains("must contain {body}")
    );
    assert!(
        message("content: \"{body}\", format: \"t={timestamp},v={signature}\"")
            .contains("does not contain the timestamp")
    );
    assert!(message("content: \"{body}\", tolerance: 5m").contains("has no timestamp"));
    assert!(message("content: \"{body}\", format: \"{sig}\"").contains("{signature}"));
    assert!(message("content: \"{body}\", algorithm: sha256").contains("twice"));
}

#[test]
fn all_mistakes_are_found_at_once_in_the_order_of_the_file() {
    let text = MINIMAL
        .replace("{ env: KEY }", "{ env: SHORT }")
        .replace("203.0.113.0/24", "nonsense")
        .replace("forward: /i/{id}", "forward: /i/{other}\n    bogus: 1");
    let found = errors(&text);
    let paths: Vec<_> = found.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(
        paths,
        ["callback_tokens.keys[0].secret", "providers.p.allow[0]", "routes[0].forward", "routes[0].bogus"]
    );
    assert_eq!(
        found.iter().map(|error| error.position.map(|p| p.line)).collect::<Vec<_>>(),
        [Some(4), Some(6), Some(12), Some(13)]
    );
}

#[test]
fn no_text_makes_it_panic() {
    for text in [
        "",
        "~",
        "[]",
        "{}",
        "x",
        "a: &a [*a]",
        "? {a: b}\n: c",
        "\u{feff}",
        "routes: 1\nlisten: 2",
        "- - - -",
    ] {
        assert!(parse(text).is_err(), "{text:?}");
    }
    for end in 0..MINIMAL.len() {
        let _ = parse(&MINIMAL[..end]);
    }
}

/// The minimal configuration with a ledger, an egress rule, and a route on which the agent can answer questions.
pub(super) const LOOP: &str = "\
public_url: https://agent.example.com
listen: { ingress: [ { address: 127.0.0.1:0 } ], egress: { address: 127.0.0.1:0 }, admin: { address: 127.0.0.1:0 } }
agent: { address: 127.0.0.1:8000 }
store: { kind: memory }
callback_tokens: { ttl: 2h, keys: [ { id: k1, algorithm: HS256, secret: { env: KEY } } ] }
routes:
  - name: r
    path: /w/{id}
    token: { kind: callback }
    forward: /i/{id}
    interaction: { status: /s, progress: /p, done: [ok], failed: [no], deadline: 1h, stalled_after: 5m, notify: \"/late/{id}\" }
    actions: { pointer: /a, hosts: [example.com] }
  - { name: j, path: \"/j/{id}\", token: { kind: static, header: x-t, secrets: [ { env: KEY } ] }, forward: \"/i/{id}\" }
egress:
  - name: e
    path: /e/{x}
    target: https://provider.example.com/e
    inject: { route: r, params: { id: /id }, url: /url, token: /token }
";

#[test]
fn the_loop_compiles() {
    let config = parse(LOOP).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    let rule = config.policy.egress.rules().first().unwrap();
    assert_eq!(rule.target.url.to_string(), "https://provider.example.com/e");
    assert!(config.policy.route("r").unwrap().notify.is_some());
}

#[track_caller]
fn loop_mistake(from: &str, to: &str, path: &str, words: &str) {
    assert!(LOOP.contains(from), "{from}");
    let errors = errors(&LOOP.replacen(from, to, 1));
    let [error] = errors.as_slice() else { panic!("{to}: {errors:#?}") };
    assert_eq!(error.path, path, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn stores_that_are_none() {
    loop_mistake("{ kind: memory }", "{ kind: disk }", "store.kind", "use one of: file, memory");
    loop_mistake("{ kind: memory }", "{ kind: file }", "store", "needs a `path`");
    loop_mistake("{ kind: memory }", "{ kind: memory, path: /x }", "store.path", "has no path");
    loop_mistake("{ kind: memory }", "{ kind: memory, unknown: allow }", "store.unknown", "adopt, refuse");
    loop_mistake(
        "{ kind: memory }",
        "{ kind: memory, interactions_max: 0 }",
        "store.interactions_max",
        "from 1",
    );
    loop_mistake("{ kind: memory }", "{ kind: memory, remember: 0s }", "store.remember", "longer than zero");
    assert_eq!(parse(LOOP).unwrap().startup.store.unknown, super::Unknown::Adopt);
    let file = parse(&LOOP.replace("kind: memory", "kind: file, path: /x")).unwrap();
    assert_eq!(file.startup.store.unknown, super::Unknown::Refuse);
}

#[test]
fn interactions_that_could_not_be_followed() {
    let at = "routes[0].interaction";
    loop_mistake("status: /s, ", "", at, "`done`, `failed` and `asking` are values of the status");
    loop_mistake("done: [ok]", "done: [ok, no]", at, "in two of `done`, `failed` and `asking`");
    loop_mistake(", notify: \"/late/{id}\"", "", at, "has no effect");
    loop_mistake("/late/{id}", "/late/{other}", "routes[0].interaction.notify", "no capture other");
    loop_mistake("status: /s", "status: s", "routes[0].interaction.status", "not a JSON pointer");
    loop_mistake("deadline: 1h", "deadline: soon", "routes[0].interaction.deadline", "not a duration");
    loop_mistake("deadline: 1h", "deadline: 1h, stale: keep", "routes[0].interaction.stale", "deliver, drop");
    let static_token = "forward: \"/i/{id}\" }\negress";
    let with = "forward: \"/i/{id}\", interaction: { status: /s, done: [x] } }\negress";
    loop_mistake(static_token, with, "routes[1].interaction", "only a token of kind callback");
    let warned = parse(&LOOP.replace("deadline: 1h", "deadline: 3h")).unwrap().warnings;
    assert!(warned.iter().any(|warning| warning.contains("the tokens end first")), "{warned:?}");
}

#[test]
fn actions_that_could_not_be_guarded() {
    let at = "routes[0].actions";
    loop_mistake("hosts: [example.com]", "hosts: []", "routes[0].actions.hosts", "empty");
    loop_mistake(
        "hosts: [example.com]",
        "hosts: [\"*.example.com\"]",
        "routes[0].actions.hosts[0]",
        "not a host",
    );
    loop_mistake(", hosts: [example.com]", "", at, "`hosts` is missing");
    loop_mistake(
        "hosts: [example.com]",
        "hosts: [example.com], headers: { host: { env: KEY } }",
        "routes[0].actions.headers.host",
        "can be set",
    );
    loop_mistake(
        "hosts: [example.com]",
        "hosts: [example.com], headers: { x-key: text }",
        "routes[0].actions.headers.x-key",
        "reference",
    );
}

#[test]
fn rules_that_would_send_nothing_right() {
    let at = "egress[0].inject";
    loop_mistake("1:0 }, admin", "1:0, body_memory_max: 1KiB }, admin", "", "the rule e allows");
    loop_mistake(", egress: { address: 127.0.0.1:0 }", "", "egress", "no listener for the requests");
    loop_mistake("https://provider", "ftp://provider", "egress[0].target", "not a valid target");
    loop_mistake("provider.example.com/e", "user@provider.example.com/e", "egress[0].target", "url_userinfo");
    loop_mistake("provider.example.com/e", "provider.example.com/{y}", "egress[0].target", "no capture y");
    loop_mistake("path: /e/{x}", "path: /actions/{x}", "egress[0].path", "reserved for the agent's answers");
    loop_mistake("route: r,", "route: x,", "egress[0].inject.route", "no route x");
    loop_mistake("route: r,", "route: j,", "egress[0].inject.route", "no token of kind callback");
    loop_mistake(", token: /token", "", at, "the request does not contain the token");
    loop_mistake("token: /token", "token: /url", at, "the same location");
    loop_mistake("token: /token", "token: /url/token", at, "the same location");
    loop_mistake("params: { id: /id }", "params: {}", at, "`params` has no id");
    loop_mistake(
        "params: { id: /id }",
        "params: { id: /id, y: /y }",
        "egress[0].inject.params.y",
        "no capture y",
    );
    loop_mistake(
        "{ id: /id }",
        "{ id: { new: uuid, query: x } }",
        "egress[0].inject.params.id",
        "exactly one of",
    );
    loop_mistake("{ id: /id }", "{ id: { path: z } }", "egress[0].inject.params.id.path", "no capture z");
    loop_mistake("url: /url", "url: { cookie: x }", "egress[0].inject.url.cookie", "unknown key");
    loop_mistake(
        "token: /token",
        "token: /token, if_present: drop",
        "egress[0].inject.if_present",
        "keep, refuse",
    );
    loop_mistake("token: /token", "token: /token, uses: 0", "egress[0].inject.uses", "from 1");
    loop_mistake(
        "target: https",
        "response: id\n    target: https",
        "egress[0].response",
        "not a JSON pointer",
    );
}

#[test]
fn questions_that_nobody_could_answer_and_names_that_mean_nothing() {
    let without = LOOP.split("egress:\n").next().unwrap().replace(", egress: { address: 127.0.0.1:0 }", "");
    let errors = errors(&without);
    let [error] = errors.as_slice() else { panic!("{errors:#?}") };
    assert!(error.message.contains("the agent's answers"), "{error}");
    loop_mistake("name: r\n", "name: none\n", "routes[0].name", "not a name");
    loop_mistake("name: e\n", "name: actions\n", "egress[0].name", "not a name");
}

#[test]
fn headers_that_are_not_the_users_to_set() {
    let at = "egress[0].inject.url.header";
    loop_mistake("url: /url", "url: { header: content-length }", at, "can be set");
    loop_mistake("url: /url", "url: { header: callgate-route }", at, "can be set");
    let inject = "inject: { route: r, params: { id: /id }, url: /url, token: /token }";
    let both = inject.replace("url: /url", "url: { header: x-u }") + "\n    headers: { x-u: { env: KEY } }";
    loop_mistake(inject, &both, "egress[0]", "that `headers` sets");
}

#[test]
fn an_admin_token_is_a_secret_of_some_length() {
    loop_mistake(
        "admin: { address: 127.0.0.1:0 }",
        "admin: { address: 127.0.0.1:0, token: { env: SHORT } }",
        "listen.admin.token",
        "shorter than 16",
    );
    loop_mistake(
        "admin: { address: 127.0.0.1:0 }",
        "admin: { address: 127.0.0.1:0, token: text }",
        "listen.admin.token",
        "reference",
    );
}
