//! The configurations of `callgate init`, run as they are: the agent's request goes through the egress rule, and the
//! provider's callback arrives.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use callgate::cli::first_configuration;
use callgate::config::{CHANGE_ME, CallbackConvention, Config, PRESETS, Surroundings, preset};
use callgate::egress::CallbackRequest;
use serde_json::{Value, json};

use crate::conventions::{Given, World, conventions};
use crate::environment::env;

/// Providers whose callbacks are signed with a private key, which this test does not have.
const PRIVATE_KEYS: [&str; 3] = ["adcp-mcp", "fal", "rfc9421-adcp-webhook"];

/// Returns a configuration of `callgate init` with the addresses of a test.
fn in_test(text: &str, provider: SocketAddr, agent: SocketAddr, folder: &Path) -> String {
    let ledger = folder.join("ledger.redb");
    let text = text
        .replace("address: 0.0.0.0:8080", "address: 127.0.0.1:0")
        .replace("address: 127.0.0.1:8081", "address: 127.0.0.1:0")
        .replace("address: 127.0.0.1:9901", "address: 127.0.0.1:0")
        .replace("address: 127.0.0.1:8000", &format!("address: \"{agent}\""))
        .replace("env: CALLGATE_TOKEN_KEY", "env: TOKEN_KEY")
        .replace("path: callgate-ledger.redb", &format!("path: {}", ledger.display()))
        // The keys of fal are fetched from the internet.
        .replace("preset: fal\n", "preset: fal\n    secrets: [ { env: ED25519_PUBLIC } ]\n");
    let target = |line: &str| match line.trim_start().strip_prefix("target: https://") {
        Some(rest) => {
            let path = rest.split_once(' ').map_or(rest, |(url, _)| url).split_once('/');
            format!("    target: http://{provider}/{}\n", path.map_or("", |(_, path)| path))
        }
        None => format!("{line}\n"),
    };
    let text: String = text.lines().map(target).collect();
    let text = text.replace(CHANGE_ME, "changed");
    // The environment of the tests has a secret in the format of each provider under another name.
    let names = ["STATIC", "WHSEC", "HEX_KEY", "ED25519_PUBLIC", "API_KEY_AND_SECRET", "JWKS"];
    let with = |secret: &str| {
        let lines = text.lines().map(|line| match line.split_once("secrets: [ { env: ") {
            Some((before, rest)) => {
                let (_, after) = rest.split_once(' ').unwrap();
                format!("{before}secrets: [ {{ env: {secret} {after}\n")
            }
            None => format!("{line}\n"),
        });
        lines.collect::<String>()
    };
    let surroundings = Surroundings { env: &env, file: &|path| std::fs::read(path) };
    let compiles = |text: &String| Config::parse(text, &surroundings).is_ok();
    names.into_iter().map(with).find(compiles).unwrap_or(text)
}

/// Starts the first configuration for a provider. The agent sends a request of this kind.
fn world(name: &'static str, callback: CallbackConvention, request: CallbackRequest) -> World {
    let (_, entry) = preset(name).unwrap();
    let text = first_configuration(&[(name, entry)]).unwrap();
    let path = match text.contains(&format!("path: /{name}/{{*rest}}")) {
        true => format!("/{name}/v1{}", request.condition.paths.first().map_or("/x", |end| end)),
        false => format!("/{name}"),
    };
    let route = format!("/webhooks/{name}/");
    World::start((name, callback), request, (&path, &route), |provider, agent, folder| {
        in_test(&text, provider, agent, folder)
    })
}

#[test]
fn callbacks_of_every_provider_arrive() {
    let (_, alias) = preset("a2a").unwrap();
    let all = conventions().into_iter().chain([("a2a", alias.callback.unwrap())]);
    let mut count = 0;
    for (name, callback) in all {
        for request in callback.requests.clone() {
            let world = world(name, callback.clone(), request);
            let given = world.ask();
            let word = callback.done.first().or(callback.failed.first()).map_or("whatever", |word| word);
            let answer = world.call_back(&given, world.message(Some(word), "work-1"));
            // The log line of the agent's own request may arrive after the line of the callback.
            let is_callback = |line: &Value| line.get("egress").is_none();
            let line = || world.callgate.logged(2).into_iter().find(is_callback).unwrap();
            if PRIVATE_KEYS.contains(&name) {
                // The token was accepted, and only the signature is missing.
                assert_eq!(
                    (answer.status, line()["reason"].as_str()),
                    (401, Some("signature_missing")),
                    "{name}"
                );
                continue;
            }
            assert_eq!(answer.status, 200, "{name}: {} {}", answer.text(), line());
            assert_eq!(world.agent.received().len(), 1, "{name}");
            let ends = [(callback.done.is_empty(), "done"), (callback.failed.is_empty(), "failed")];
            let state = ends.iter().find(|(is_empty, _)| !is_empty).map_or("progressing", |(_, state)| state);
            assert_eq!(world.state(), state, "{name}");
            let without = Given { url: given.url.split('?').next().unwrap().to_owned(), token: None };
            assert_eq!(world.call_back(&without, world.message(None, "work-1")).status, 401, "{name}");
            count += 1;
        }
    }
    assert!(count >= 26, "{count}");
}

/// A client of A2A also lists tasks and cancels them. These requests have no place for a callback.
#[test]
fn only_requests_that_start_work_get_a_callback() {
    let callback = preset("a2a").unwrap().1.callback.unwrap();
    let request = callback.requests[0].clone();
    let world = world("a2a", callback, request);
    for (path, body) in [
        ("/a2a/", json!({ "jsonrpc": "2.0", "method": "GetTask", "params": { "id": "t" } })),
        ("/a2a/tasks/t:cancel", json!({})),
        ("/a2a/", json!([])),
    ] {
        let body = body.to_string();
        assert_eq!(world.callgate.agent_sends(path, &body).status, 200, "{path}");
        let sent = world.provider.received().pop().unwrap();
        assert_eq!(String::from_utf8(sent.body).unwrap(), body, "{path}");
    }
    assert_eq!(world.callgate.admin_get("/callbacks").json()["interactions"], json!([]));
    world.ask();
}

#[test]
fn several_providers_share_one_configuration() {
    let known = ["github", "replicate", "twitch", "a2a"].map(|name| (name, preset(name).unwrap().1));
    let text = first_configuration(&known).unwrap();
    let secret = |name: &str| match name {
        "REPLICATE_SECRET" => env("WHSEC"),
        _ => env("TOKEN_KEY"),
    };
    let surroundings = Surroundings { env: &secret, file: &|path| std::fs::read(path) };
    let config = Config::parse(&text.replace(CHANGE_ME, "changed"), &surroundings).unwrap();
    assert_eq!(config.policy.providers.len(), 4);
    assert_eq!(config.policy.ingress.routes().len(), 4);
    let rules: Vec<_> = config.policy.egress.rules().iter().map(|rule| &*rule.name).collect();
    assert_eq!(rules.len(), 2, "{rules:?}");
    assert!(rules.contains(&"replicate") && rules.contains(&"a2a"), "{rules:?}");
    assert!(text.contains("target: https://api.replicate.com/{rest}"), "{text}");
}

/// A key that nothing uses is not asked for.
#[test]
fn a_configuration_without_callback_tokens_needs_no_key() {
    let text = |name: &str| first_configuration(&[(name, preset(name).unwrap().1)]).unwrap();
    for (name, variables) in [
        ("github", &["GITHUB_SECRET"] as &[_]),
        ("a2a", &["CALLGATE_TOKEN_KEY"]),
        ("replicate", &["CALLGATE_TOKEN_KEY", "REPLICATE_SECRET"]),
    ] {
        let text = text(name);
        let mut asked: Vec<_> =
            text.split("env: ").skip(1).map(|rest| rest.split([' ', '}']).next().unwrap()).collect();
        asked.sort_unstable();
        assert_eq!(asked, variables, "{text}");
        assert!(text.contains("\nstore: { kind: file, path: "), "{text}");
    }
}

/// Returns the text of `callgate init` for these providers.
fn first(names: &[&'static str]) -> String {
    let known: Vec<_> = names.iter().map(|name| (*name, preset(name).unwrap().1)).collect();
    first_configuration(&known).unwrap()
}

#[test]
fn a_configuration_for_all_providers_compiles() {
    let all: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
    let possible = |name: &&&'static str| first_configuration(&[(name, preset(name).unwrap().1)]).is_some();
    let all: Vec<_> = all.iter().filter(possible).copied().collect();
    assert!(all.len() > 100, "{}", all.len());
    let text = first(&all);
    assert_eq!(text.matches("    preset: ").count(), all.len());
}

/// An alias and the name of a preset are the same provider.
#[test]
fn a_provider_is_not_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callgate.yaml");
    for names in [["a2a", "a2a-token"], ["a2a-token", "a2a"], ["github", "github"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
        command.arg("init").arg("-o").arg(&file);
        for name in names {
            command.args(["--provider", name]);
        }
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("is given twice"), "{names:?}: {error}");
        assert!(!file.exists(), "{names:?}");
    }
}

/// A rule in comments says which characters to remove, and where. After that, the configuration compiles.
#[test]
fn a_rule_in_comments_can_be_activated() {
    let grid = "azure-event-grid";
    for names in [&[grid][..], &[grid, "github"], &[grid, "replicate"], &["replicate", grid]] {
        let text = first(names);
        let hint = text.lines().find(|line| line.contains("remove `# `")).unwrap();
        let is_listening = text.contains("\n  egress: {");
        assert_eq!(hint.contains("at `listen`"), !is_listening, "{text}");
        let mut in_rule = false;
        let active = |line: &str| {
            in_rule |= line.contains("remove `# `");
            let is_rule = in_rule && (line.starts_with("#   - ") || line.starts_with("#     "));
            match line.strip_prefix("# ").filter(|rest| is_rule || *rest == "egress:") {
                Some(rest) => format!("{rest}\n"),
                None => format!("{}\n", line.replace("  # egress: {", "  egress: {")),
            }
        };
        let text: String = text.lines().map(active).collect();
        let surroundings = Surroundings { env: &|_| env("WHSEC"), file: &|path| std::fs::read(path) };
        let config = Config::parse(&text.replace(CHANGE_ME, "changed"), &surroundings);
        let errors = config.as_ref().err().map(|errors| format!("{errors:?}")).unwrap_or_default();
        let count = names.iter().filter(|name| **name != "github").count();
        assert!(
            config.is_ok_and(|config| config.policy.egress.rules().len() == count),
            "{names:?} {errors}\n{text}"
        );
    }
}

/// A rule for the whole API also passes on uploads.
#[test]
fn a_rule_for_a_whole_api_passes_on_large_bodies() {
    for name in ["replicate", "deepgram", "a2a"] {
        let text = first(&[name]);
        let at = text.find("/{*rest}").unwrap();
        let rule = text[at..].split("    inject: ").next().unwrap();
        assert!(rule.contains("    body_max: 64MiB  # "), "{text}");
    }
}
