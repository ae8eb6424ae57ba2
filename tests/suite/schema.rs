//! The schema for editors and the configuration parser accept the same keys, and every configuration in the repository
//! matches the schema.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use callgate::cli::{first_configuration, reference, schema, understands};
use callgate::config::{
    CHANGE_ME, Config, ConfigError, PRESETS, PresetDefinition, Surroundings, accepted_keys,
    preset as preset_of,
};
use callgate::signature::{PublicKeySource, VerifierKeys};
use serde_json::Value;

use crate::harness::env;

/// Returns every configuration in the repository, and [`WHOLE`].
fn configurations() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for folder in ["config", "tests/demo", "tests/decisions"] {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_none_or(|end| end != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&entry).unwrap();
            let inner = serde_yaml::from_str::<Value>(&text).unwrap();
            let text = inner["config"].as_str().map_or(text, |text| text.replace("AGENT", "127.0.0.1:1"));
            all.push((entry.display().to_string(), text));
        }
    }
    all.push(("whole".to_owned(), WHOLE.to_owned()));
    all
}

/// Settings that no configuration in the repository uses, because they need files or cannot be combined with others.
const WHOLE: &str = "
public_url: https://agent.example.com
listen:
  ingress:
    - address: 127.0.0.1:0
      tls: { certificate: /a, key: /b, certificates: [ { certificate: /a, key: /b } ], client_certificates: { authorities: /a } }
      proxy_protocol: { trusted_proxies: [10.0.0.0/8] }
      health: /healthz
  egress: { address: 127.0.0.1:0, tls: { certificate: /a, key: /b }, proxy: { bundle: /b, others: tunnel, tunnel: [a.example], ports: [443], allow_private: [10.0.0.0/8], ca: { certificate: /a, key: /b }, password: { env: TOKEN_KEY } } }
  admin: { address: 127.0.0.1:0, token: { env: TOKEN_KEY } }
agent: { address: 127.0.0.1:1, timeouts: {}, tls: {}, wake: { url: \"https://example.com/wake\", headers: { authorization: { env: STATIC } } } }
inbox: { seal: { env: TOKEN_KEY }, backoff: {}, keep: {} }
store: { kind: memory }
shutdown: {}
traces: { endpoint: \"http://127.0.0.1:4318/v1/traces\" }
limits: {}
fetch: {}
client_address: { edge: cloudflare }
outbound_proxy: { url: \"http://127.0.0.1:3128\", no_proxy: [example.com], credentials: { env: API_KEY_AND_SECRET } }
callback_tokens: { keys: [ { id: k, algorithm: HS256, secret: { env: TOKEN_KEY } } ] }
assertion: { key: { id: a, algorithm: HS256, secret: { env: FOREIGN_KEY } } }
providers:
  p: { preset: github, secrets: [ { env: HMAC_SECRET } ], allow: [ { url: \"https://example.com/list\" } ] }
  q: { preset: asana, registration: { file: /c }, allow: [10.0.0.1] }
  m: { preset: meta, secrets: [ { env: HMAC_SECRET } ], verify_token: { env: STATIC } }
routes:
  - { name: c, path: /c, provider: p, client_certificate: { names: [a] }, forward: /c }
  - name: r
    path: \"/r/{id}\"
    provider: p
    token: { kind: callback, from: [ { header: x-token } ] }
    forward: \"/r/{id}\"
    interaction: { status: { header: x-status } }
    actions: { pointer: /a, hosts: [example.com], timeouts: {} }
  - { name: j, path: /j, token: { kind: jwt, keys: [ { algorithm: HS256, secret: { env: JWT_KEY } } ] }, forward: /j }
  - { name: s, path: /s, token: { kind: static, header: x-key, secrets: [ { env: STATIC } ] }, forward: /s }
egress:
  - { name: e, path: /e, target: \"https://example.com/e\", inject: { route: r, url: /url, params: { id: /id } }, timeouts: {}, proxied: true, unmatched: refuse }
";

/// Collects the schemas of a value: references are followed, and alternatives are added side by side.
fn resolve<'s>(root: &'s Value, schema: &'s Value, out: &mut Vec<&'s Value>) {
    if let Some(reference) = schema["$ref"].as_str() {
        resolve(root, root.pointer(reference.trim_start_matches('#')).unwrap(), out);
    }
    for alternatives in ["anyOf", "oneOf"] {
        schema[alternatives].as_array().into_iter().flatten().for_each(|one| resolve(root, one, out));
    }
    if schema.get("properties").is_some()
        || schema.get("items").is_some()
        || schema.get("additionalProperties").is_some()
    {
        out.push(schema);
    }
}

/// Returns the schemas at the end of a path of keys.
fn walk<'s>(root: &'s Value, way: &[String]) -> Vec<&'s Value> {
    let mut at = Vec::new();
    resolve(root, root, &mut at);
    for step in way {
        let mut next = Vec::new();
        for schema in at {
            let inner = match step.as_str() {
                "[]" => schema.get("items"),
                key => schema["properties"]
                    .get(key)
                    .or_else(|| schema.get("additionalProperties").filter(|v| v.is_object())),
            };
            if let Some(inner) = inner {
                resolve(root, inner, &mut next);
            }
        }
        at = next;
    }
    at
}

/// Reports whether a mapping is not described in the schema. docs/providers.md and docs/egress.md describe these
/// mappings.
fn is_left_open(way: &[String]) -> bool {
    let inner =
        ["signature", "sign", "expect", "require", "keys", "params", "response", "url", "token", "tolerance"];
    let top = way.first().map(String::as_str);
    match top {
        Some("providers") => way.len() > 2 && inner.contains(&way[2].as_str()),
        Some("egress") => way.len() > 2 && (inner.contains(&way[2].as_str()) || way.len() > 3),
        Some("routes") => way.iter().any(|step| step == "sign"),
        _ => false,
    }
}

#[test]
fn the_schema_and_the_compiler_know_the_same_keys() {
    let root = schema().unwrap();
    let mut known: BTreeMap<*const Value, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut asked_all: BTreeMap<*const Value, BTreeSet<String>> = BTreeMap::new();
    let mut missing = BTreeSet::new();
    for (name, text) in configurations() {
        let surroundings = Surroundings { env: &env, file: &|_| Ok(b"a file, any file at all".to_vec()) };
        for (way, asked) in accepted_keys(&text, &surroundings) {
            if is_left_open(&way) {
                continue;
            }
            let schemas = walk(&root, &way);
            let with: Vec<_> = schemas.iter().filter(|schema| schema.get("properties").is_some()).collect();
            for key in &asked {
                if !with.iter().any(|schema| schema["properties"].get(key).is_some()) {
                    missing.insert(format!("{name}: {}: {key}", way.join(".")));
                }
            }
            for schema in with {
                let at: *const Value = *schema;
                let keys = schema["properties"].as_object().unwrap().keys().cloned().collect();
                known.entry(at).or_insert((way.join("."), keys));
                asked_all.entry(at).or_default().extend(asked.iter().map(|key| (*key).to_owned()));
            }
        }
    }
    assert!(missing.is_empty(), "the schema lacks {missing:#?}");
    assert!(known.len() > 20, "only {} mappings were seen", known.len());
    for (at, (way, keys)) in known {
        let never: Vec<_> = keys.difference(&asked_all[&at]).collect();
        assert!(never.is_empty(), "{way}: the schema has what nobody asks for: {never:?}");
    }
}

/// Parses a first configuration after its placeholders were filled in.
fn filled_in(text: &str) -> Result<Config, Vec<ConfigError>> {
    let secrets = [
        "a secret of thirty-two bytes, or more",
        "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
        "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
        "PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM=",
        "user:and a long password",
        JWKS,
    ];
    let text = text.replace(CHANGE_ME, "changed");
    let compile = |secret: &str| {
        let env =
            |name: &str| Some(if name == "CALLGATE_TOKEN_KEY" { secrets[0] } else { secret }.to_owned());
        Config::parse(&text, &Surroundings { env: &env, file: &|path| fs::read(path) })
    };
    let mut all = secrets.map(compile).into_iter();
    let first = all.next().unwrap();
    all.fold(first, |before, next| if before.is_ok() { before } else { next })
}

const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","alg":"ES256","x":"jBLSfGDkO-rjWoKjB9EE5H_aiqnSTWUqcljqlFtM0zA","y":"uNpP4Kk8K_vP85ojcaUJCWi7Uvy1GH03JPDlf9f4oIo"}]}"#;

fn first(name: &str, entry: &PresetDefinition) -> Option<String> {
    first_configuration(&[(name, entry.clone())])
}

#[test]
fn a_first_configuration_can_be_made_for_every_provider() {
    let mut fetched = Vec::new();
    let mut without = Vec::new();
    for preset in PRESETS {
        let (_, entry) = preset_of(preset.name).unwrap();
        let Some(text) = first(preset.name, &entry) else {
            without.push(preset.name);
            continue;
        };
        assert!(text.contains(&format!("preset: {}", preset.name)), "{text}");
        let config = filled_in(&text).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"));
        let published =
            entry.scheme.as_ref().is_some_and(|s| matches!(s.keys, Some(PublicKeySource::Url(_))));
        let verifier = config.policy.providers[0].verifier.as_ref();
        let fetches = verifier.is_some_and(|verifier| matches!(verifier.keys(), VerifierKeys::Fetched(_)));
        assert_eq!(fetches, published, "{text}");
        if fetches {
            assert!(!text.contains("secrets:"), "{text}");
            fetched.push(preset.name);
        }
    }
    assert!(without.is_empty(), "{without:?}");
    for name in ["azure-event-grid-entra", "fal", "google-pubsub"] {
        assert!(fetched.contains(&name), "{fetched:?}");
    }
}

/// If each request gets a URL of its own, the file says how to mint it, and the egress rule in the comments is valid.
#[test]
fn a_first_configuration_says_how_addresses_are_made() {
    let mut count = 0;
    for preset in PRESETS {
        let (_, entry) = preset_of(preset.name).unwrap();
        let text = first(preset.name, &entry).unwrap();
        let many = text.contains("{id}");
        let rule = if entry.callback.is_some() { "\negress:\n" } else { "\n# egress:\n" };
        assert_eq!(many, text.contains(rule), "{text}");
        assert!(text.contains("admin on 0.0.0.0:9901"), "{text}");
        if !many {
            continue;
        }
        count += 1;
        let mint = format!("callgate mint -c FILE --route {} --param id=ID", preset.name);
        // A derived secret can be sent only by an egress rule, so `mint` is not mentioned.
        assert_eq!(text.contains(&mint), !text.contains("secrets: derived"), "{text}");
        assert!(!text.contains("the webhook URL for"), "{text}");
        let words: Vec<_> = mint.split(' ').collect();
        assert!(understands(&words).is_ok(), "{mint}");
        let uncommented = |line: &str| match line.strip_prefix("# ") {
            Some(rest) if rest == "egress:" || rest.starts_with("  ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        };
        let whole: String = text.lines().map(uncommented).collect();
        let whole = whole.replace("  # egress: {", "  egress: {");
        let config = filled_in(&whole).unwrap_or_else(|errors| panic!("{whole}\n{errors:#?}"));
        assert_eq!(config.policy.egress.rules().len(), 1);
    }
    assert!(count > 20, "{count}");
}

/// Without final states, each interaction of the route would end as `expired`.
#[test]
fn a_first_configuration_ends_interactions_as_the_provider_does() {
    let mut count = 0;
    for preset in PRESETS {
        let (_, entry) = preset_of(preset.name).unwrap();
        let text = first(preset.name, &entry).unwrap();
        let ends = entry
            .callback
            .as_ref()
            .filter(|callback| !callback.done.is_empty() || !callback.failed.is_empty());
        let line = format!("\n    interaction: {{ preset: {} }}", preset.name);
        assert_eq!(text.contains(&line), ends.is_some(), "{text}");
        let config = filled_in(&text).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"));
        let Some(ends) = ends else { continue };
        assert_eq!(config.warnings.iter().find(|warning| warning.contains("interaction")), None, "{text}");
        let follow = &config.policy.ingress.routes()[0].follow;
        assert_eq!((&follow.done, &follow.failed), (&ends.done, &ends.failed), "{text}");
        assert!(!follow.status.is_empty(), "{text}");
        count += 1;
    }
    assert!(count > 10, "{count}");
}

#[test]
fn what_was_to_be_changed_is_refused_until_it_is() {
    let (_, entry) = preset_of("google-pubsub").unwrap();
    let text = first("google-pubsub", &entry).unwrap();
    let surroundings = Surroundings { env: &|_| Some("a".repeat(32)), file: &|path| fs::read(path) };
    let errors = Config::parse(&text, &surroundings).unwrap_err();
    assert!(!errors.is_empty());
    for error in errors {
        assert!(error.path.starts_with("providers.google-pubsub.expect."), "{error}");
        assert!(error.position.is_some() && error.message.contains(CHANGE_ME), "{error}");
    }
}

#[test]
fn every_configuration_of_the_repository_compiles() {
    let mut count = 0;
    for entry in fs::read_dir("config").unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&entry).unwrap();
        // The certificate of this example exists only in a pod.
        let text: String = text.lines().filter(|l| !l.contains("tls:")).map(|l| format!("{l}\n")).collect();
        // One environment contains the variables of all configurations.
        let secret = |name: &str| match name {
            "CALLGATE_TOKEN_KEY" => Some("the key of callback tokens".to_owned()),
            "AI_ANALYSIS_SECRET" | "REPLICATE_SECRET" | "STANDARD_WEBHOOKS_SECRET" | "STRIPE_SECRET" => {
                Some("whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=".to_owned())
            }
            "BOOKING_SECRET" | "GITHUB_SECRET" | "SLACK_SECRET" | "TWILIO_SECRET" => {
                Some("a secret of thirty-two bytes, all".to_owned())
            }
            _ => None,
        };
        let surroundings = Surroundings { env: &secret, file: &|path| fs::read(path) };
        let compiled = Config::parse(&text, &surroundings);
        let errors = compiled.err().unwrap_or_default();
        assert!(errors.is_empty(), "{}: {errors:#?}", entry.display());
        count += 1;
    }
    assert!(count >= 9, "{count}");
}

#[test]
fn the_reference_is_made_from_the_schema() {
    let text = fs::read_to_string("docs/reference.md").unwrap();
    let reference = reference();
    assert!(text.ends_with(&reference), "docs/reference.md: callgate schema --markdown");
    let (mut rows, mut bare) = (0, Vec::new());
    for row in reference.lines().skip(2) {
        let cells: Vec<_> = row.replace("\\|", "/").split('|').map(|cell| cell.trim().to_owned()).collect();
        let [_, key, said, _, _] = &cells[..] else { panic!("{row}") };
        let (words, one_of) = said.split_once("one of `").unwrap_or((said, ""));
        if words.is_empty() {
            bare.push(key.clone());
        }
        let mut known: Vec<_> = one_of.split(", ").map(|word| word.trim_matches('`')).collect();
        let count = known.len();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), count, "{row}");
        rows += 1;
    }
    assert!(rows > 150, "{rows}");
    assert!(bare.is_empty(), "src/config/schema.yaml has no description of {bare:#?}");
}

/// The commands in the documents are valid, without their shell redirections.
#[test]
fn commands_in_documents_are_commands() {
    let mut files: Vec<_> = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.extend(["README.md", "CONTRIBUTING.md"].map(Into::into));
    let mut count = 0;
    for path in files.iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(path).unwrap();
        for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("$ callgate ")) {
            let line = line.split(['>', '|', '#', '&']).next().unwrap().trim();
            let words: Vec<_> = line.split_whitespace().filter(|word| *word != "\\").collect();
            let understood = understands(&[&["callgate"], &words[..]].concat());
            assert!(understood.is_ok(), "{}: {line}: {understood:?}", path.display());
            count += 1;
        }
    }
    assert!(count >= 6, "{count}");
}
