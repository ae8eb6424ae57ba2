//! `callgate check`: its output, its file paths, and the configurations that `callgate init` writes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use callgate::cli::schema;
use serde_json::Value;

use crate::http2::certificate;

const CALLGATE: &str = env!("CARGO_BIN_EXE_callgate");

fn callgate(args: &[&str]) -> Output {
    let mut command = Command::new(CALLGATE);
    command.env_clear().env("CALLGATE_TOKEN_KEY", "0123456789abcdef0123456789abcdef");
    command.env("SECRET", "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=");
    command.args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_first_configuration_is_refused_until_it_is_filled_in_and_fetches_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callgate.yaml");
    let file = path.to_str().unwrap();
    assert!(callgate(&["init", "--provider", "google-pubsub", "-o", file]).status.success());
    let refused = callgate(&["check", "-c", file]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(text(&refused.stderr).contains("the value still contains CHANGE-ME"), "{refused:?}");
    let filled = fs::read_to_string(&path).unwrap().replace("CHANGE-ME", "https://agent.example.com/x");
    fs::write(&path, filled).unwrap();
    let printed = callgate(&["check", "-c", file, "--print"]);
    assert!(printed.status.success(), "{printed:?}");
    assert!(text(&printed.stdout).contains("keys: fetched"), "{printed:?}");
}

/// A configuration with every section, so that the printed policy can be compared with the schema.
const SECTIONS: &str = "
public_url: https://agent.example.com
listen:
  ingress: [ { address: 127.0.0.1:8080, proxy_protocol: { trusted_proxies: [10.0.0.0/8] } } ]
  egress: { address: 127.0.0.1:8081 }
  admin: { address: 127.0.0.1:9901, hosts: [callgate.example.com] }
agent: { address: 127.0.0.1:8000 }
access_log: \"off\"
reload: signal
threads: 3
traces: { endpoint: \"http://127.0.0.1:4318/v1/traces\", sample: 0.25 }
client_address: { edge: cloudflare }
callback_tokens: { keys: [ { id: k1, algorithm: HS256, secret: { env: CALLGATE_TOKEN_KEY } } ] }
assertion: { ttl: 30s, key: { id: a1, algorithm: HS256, secret: { env: SECRET } } }
providers:
  signed: { preset: standard-webhooks, secrets: [ { env: SECRET } ] }
routes:
  - { name: r, path: \"/r/{id}\", provider: signed, token: { kind: callback }, forward: \"/r/{id}\" }
";

/// Keys that the printed policy expresses differently: each route has its `mode` and its `headers`, and an `edge` becomes its header and
/// networks.
const SAID_OTHERWISE: [&str; 3] = ["mode", "headers", "client_address.edge"];

/// Collects the schema keys that are missing in the printed policy, with all nested sections.
fn lacking(root: &Value, schema: &Value, shown: &Value, path: &str, out: &mut Vec<String>) {
    for (key, own) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if SAID_OTHERWISE.contains(&&*path) {
            continue;
        }
        let target =
            own["$ref"].as_str().and_then(|to| root.pointer(to.trim_start_matches('#'))).unwrap_or(own);
        match shown.get(key) {
            None => out.push(path),
            Some(shown) if shown.is_object() => lacking(root, target, shown, &path, out),
            Some(shown) if path == "listen.ingress" => lacking(root, &target["items"], &shown[0], &path, out),
            Some(_) => {}
        }
    }
}

#[test]
fn what_is_printed_has_every_section_defaults_included() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callgate.yaml");
    fs::write(&path, SECTIONS).unwrap();
    let out = callgate(&["check", "-c", path.to_str().unwrap(), "--print", "--json"]);
    let shown: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"));
    let policy = &shown["policy"];
    let root = schema().unwrap();
    let mut missing = Vec::new();
    lacking(&root, &root, policy, "", &mut missing);
    assert!(missing.is_empty(), "`check --print` lacks {missing:#?}");
    let said =
        |pointer: &str| policy.pointer(pointer).unwrap_or_else(|| panic!("{pointer}: {policy:#}")).clone();
    for (pointer, value) in [
        ("/access_log", "off"),
        ("/reload", "signal"),
        ("/traces/service", "callgate"),
        ("/listen/admin/hosts/0", "callgate.example.com"),
        ("/assertion/ttl", "30s"),
        ("/store/kind", "memory"),
        ("/store/remember", "3d"),
        ("/limits/idle_timeout", "1m"),
        ("/providers/signed/preset", "standard-webhooks"),
    ] {
        assert_eq!(said(pointer), value, "{pointer}");
    }
    assert_eq!((said("/threads"), said("/traces/sample")), (3.into(), 0.25.into()));
    assert!(!text(&out.stdout).contains("AQIDBAUG"), "no secret is printed");
}

#[test]
fn rules_and_routes_for_everything_below_a_prefix_are_shown_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rules = "  - { name: b, path: \"/b/{*rest}\", open: true, forward: \"/in/{rest}\" }
egress:
  - { name: e, path: \"/e/{*rest}\", target: \"https://api.example.com/v1/{rest}\", inject: { route: r, params: { id: /id }, url: /url, token: /token } }
";
    let sections = SECTIONS.replace("client_address: { edge: cloudflare }\n", "");
    let file = write("callgate.yaml", &format!("{sections}{rules}"));
    let out = callgate(&["check", "-c", &file, "--print", "--json"]);
    let shown: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"));
    let rule = &shown["policy"]["egress"][0];
    assert_eq!(
        (&rule["path"], &rule["target"]),
        (&"/e/{*rest}".into(), &"https://api.example.com/v1/{rest}".into())
    );
    assert_eq!(rule["inject"]["requests"], "those with a JSON body");
    let routes = shown["policy"]["routes"].as_array().unwrap();
    let route = routes.iter().find(|route| route["name"] == "b").unwrap();
    assert_eq!((&route["path"], &route["forward"]), (&"/b/{*rest}".into(), &"/in/{rest}".into()));
    let request =
        write("request.http", "POST /b/x/y%20z HTTP/1.1\nHost: agent.example.com\nContent-Length: 0\n\n");
    let explained = callgate(&["explain", "-c", &file, "--request", &request]);
    let explained = text(&explained.stdout);
    assert!(explained.contains("b with rest=x/y%20z"), "{explained}");
    assert!(explained.contains("forwarded to /in/x/y%20z"), "{explained}");
    let star = write("star.yaml", &format!("{SECTIONS}{rules}").replace("/e/{*rest}", "/e/*"));
    let refused = callgate(&["check", "-c", &star]);
    assert_eq!(refused.status.code(), Some(64));
    let refused = text(&refused.stderr);
    assert!(refused.contains("`*` is not a wildcard") && refused.contains("/provider/{*rest}"), "{refused}");
}

/// Creates a folder with the files that a pod has in its volumes.
fn pod() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tls", "secrets"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let at = |name: &str| folder.path().join(name);
    certificate(&at("tls"));
    fs::write(at("secrets/token-key"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(at("secrets/ai-analysis"), "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\n").unwrap();
    folder
}

#[test]
fn the_files_of_a_pod_are_looked_up_below_a_folder() {
    let config = "deploy/kustomize/example/overlay/callgate.yaml";
    let pod = pod();
    let root = pod.path().to_str().unwrap();
    let without = callgate(&["check", "-c", config]);
    assert!(text(&without.stderr).contains("cannot read /tls/tls.crt"), "{without:?}");
    let with = callgate(&["check", "-c", config, "--root", root]);
    assert!(with.status.success(), "{with:?}");
    // The printed policy shows the paths inside the pod.
    let printed = callgate(&["check", "-c", config, "--root", root, "--print"]);
    let printed = text(&printed.stdout);
    assert!(printed.contains("certificate: /tls/tls.crt") && !printed.contains(root), "{printed}");
    // The error for a missing file shows the path below the folder.
    let key = pod.path().join("secrets/token-key");
    fs::remove_file(&key).unwrap();
    let lacking = callgate(&["check", "-c", config, "--root", root]);
    assert_eq!(lacking.status.code(), Some(64));
    let said = text(&lacking.stderr);
    assert!(said.contains(&format!("cannot read /secrets/token-key: {}", key.display())), "{said}");
    // No path can leave the folder.
    for outside in [
        "//secrets/token-key",
        "/../../../../../../secrets/token-key",
        "/secrets/../../../secrets/./token-key",
    ] {
        let text = fs::read_to_string(config).unwrap().replace("/secrets/token-key", outside);
        let path = pod.path().join("outside.yaml");
        fs::write(&path, text).unwrap();
        let said = callgate(&["check", "-c", path.to_str().unwrap(), "--root", root]);
        let said = self::text(&said.stderr);
        assert!(said.contains(&format!("{}: No such file", key.display())), "{outside}: {said}");
    }
    // The certificate in the folder is compared with its key.
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let other = self::pod();
    fs::copy(other.path().join("tls/tls.key"), pod.path().join("tls/tls.key")).unwrap();
    let unfit = callgate(&["check", "-c", config, "--root", root]);
    let said = text(&unfit.stderr);
    assert!(said.contains("does not go with") && said.contains("hint: "), "{said}");
    assert!(said.contains("line ") && said.contains(": listen.ingress[0].tls: "), "{said}");
}

#[test]
fn paths_that_are_not_absolute_stay_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key"), "0123456789abcdef0123456789abcdef").unwrap();
    let config = "
listen: { ingress: [ { address: 127.0.0.1:8080 } ] }
agent: { address: 127.0.0.1:8000 }
routes:
  - { name: s, path: /s, token: { kind: static, header: x-key, secrets: [ { file: key } ] }, forward: /s }
";
    fs::write(folder.path().join("callgate.yaml"), config).unwrap();
    let mut command = Command::new(CALLGATE);
    let out = command.args(["check", "-c", "callgate.yaml", "--root", "/nowhere"]).current_dir(folder.path());
    let out = out.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert!(Path::new("/nowhere").metadata().is_err());
}

#[test]
fn what_is_printed_says_which_headers_reach_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callgate.yaml");
    let printed = |file: &str, route: &str| {
        let text = format!(
            "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: 127.0.0.1:1 }}
{file}
routes: [ {{ name: r, path: /r, open: true, forward: /r{route} }} ]
"
        );
        fs::write(&path, text).unwrap();
        let out = callgate(&["check", "-c", path.to_str().unwrap(), "--print", "--json"]);
        let shown: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"));
        shown["policy"]["routes"][0]["headers"].to_string()
    };
    let with = |own: &str| {
        format!(r#"["content-encoding","content-language","content-type","traceparent","{own}"]"#)
    };
    assert_eq!(printed("", ""), r#""all, less those that are always removed""#);
    assert_eq!(printed("headers: { allow: [X-File] }", ""), with("x-file"));
    assert_eq!(printed("headers: { allow: [X-File] }", ", headers: { allow: [X-Route] }"), with("x-route"));
}

#[test]
fn a_byte_order_mark_is_skipped_and_the_fingerprint_of_a_secret_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("\u{feff}{text}")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secret = write("secret", "0123456789abcdef\n");
    let short = write("short", "0123456789abcde");
    let config = write(
        "callgate.yaml",
        &format!(
            "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: 127.0.0.1:8000 }}
providers: {{ p: {{ preset: github, secrets: [ {{ file: {secret} }}, {{ file: {short} }} ] }} }}
routes: [ {{ name: r, path: /r, provider: p, forward: /r }} ]
",
        ),
    );
    let printed = callgate(&["check", "-c", &config, "--print", "--json"]);
    assert!(printed.status.success(), "{printed:?}");
    let policy: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let fingerprints: Vec<_> = policy["policy"]["secrets"].as_array().unwrap().iter().collect();
    assert_eq!(fingerprints[0]["path"], "providers.p.secrets[0]");
    assert_eq!(fingerprints[0]["fingerprint"], "7ee340f3");
    assert_eq!(fingerprints[1]["fingerprint"], "none (short, or a password)");
    assert!(!text(&printed.stdout).contains("0123456789abcde"), "{printed:?}");
}

/// Tests that `check --running` reports the settings for which a reload is rejected, and only those.
#[test]
fn a_change_that_needs_a_restart_is_reported_with_the_running_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.yaml"), folder.path().join("new.yaml"));
    let check = |changed: &str, more: &[&str]| {
        fs::write(&old, SECTIONS).unwrap();
        fs::write(&new, changed).unwrap();
        let files = ["check", "-c", new.to_str().unwrap(), "--running", old.to_str().unwrap()];
        callgate(&[&files, more].concat())
    };
    for (key, from, to) in [
        ("listen.ingress[].address", "127.0.0.1:8080", "127.0.0.1:8090"),
        ("listen.egress.address", "127.0.0.1:8081", "127.0.0.1:8091"),
        ("listen.admin.address", "127.0.0.1:9901", "127.0.0.1:9911"),
        ("access_log", "access_log: \"off\"", "access_log: stdout"),
        ("reload", "reload: signal", "reload: watch"),
        ("threads", "threads: 3", "threads: 2"),
        ("traces", "sample: 0.25", "sample: 0.5"),
        ("shutdown", "threads: 3", "threads: 3\nshutdown: { grace: 5s }"),
        ("store", "threads: 3", "threads: 3\nstore: { kind: memory, interactions_max: 7 }"),
    ] {
        let changed = SECTIONS.replacen(from, to, 1);
        assert_ne!(changed, SECTIONS);
        let out = check(&changed, &[]);
        assert_eq!(out.status.code(), Some(1), "{key}: {out:?}");
        let expected = format!("a reload would be rejected: only a restart can change {key}\n");
        assert!(text(&out.stderr).ends_with(&expected), "{key}: {out:?}");
        let json: Value = serde_json::from_slice(&check(&changed, &["--json"]).stdout).unwrap();
        assert_eq!(json["restart"], serde_json::json!([key]));
    }
    let reloadable = SECTIONS.replacen("ttl: 30s", "ttl: 40s", 1).replacen("8000", "8001", 1);
    let out = check(&reloadable, &[]);
    assert!(out.status.success() && !text(&out.stderr).contains("restart"), "{out:?}");
    // A configuration with mistakes is reported as without the option, and so is a running one that cannot be read.
    assert_eq!(check("listen: {}", &[]).status.code(), Some(64));
    let missing = callgate(&["check", "-c", old.to_str().unwrap(), "--running", "/nonexistent/running.yaml"]);
    assert_eq!(missing.status.code(), Some(64));
    assert!(text(&missing.stderr).contains("/nonexistent/running.yaml"), "{missing:?}");
}

/// YAML reads `{id}` in a mapping of one line as the beginning of another mapping.
#[test]
fn a_path_with_braces_that_is_not_in_quotation_marks_has_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callgate.yaml");
    let file = path.to_str().unwrap();
    let hint = "in quotation marks: path: \"/jobs/{id}\"";
    for (routes, has_hint) in [
        ("routes: [ { name: r, path: /jobs/{id}, forward: /x } ]", true),
        ("routes:\n  - { name: r, path: \"/jobs/{id}\", forward: /in/{id} }", true),
        ("routes:\n  - { name: r, path: \"/jobs/{id}\", forward: /in }, x", false),
        ("routes: [ { name: r ", false),
    ] {
        fs::write(&path, routes).unwrap();
        let checked = callgate(&["check", "-c", file]);
        let error = text(&checked.stderr);
        assert_eq!((checked.status.code(), error.contains(hint)), (Some(64), has_hint), "{routes}: {error}");
    }
}
