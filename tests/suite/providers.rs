//! The known providers: a request that is signed as the provider signs is accepted, a changed request is denied, and
//! the documentation matches the presets.

use callgate::clock::Clock;
use callgate::config::{PRESETS, PresetDefinition};
use callgate::ingress::Decided;
use callgate::policy::Policy;
use callgate::request::RequestHead;
use callgate::signature::{
    EventIdSource, Proof, SharedSecretPlace, SignatureAlgorithm, SignatureContext, SignaturePlace,
    TimestampSource, VerifierKeys,
};
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use callgate::trail::Trail;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::harness::{ANSWER, Agent, Callgate, parse, send_to};
use crate::vectors::{Vector, vectors};

const NOW: i64 = 1_767_225_600;

fn entries() -> impl Iterator<Item = (&'static str, PresetDefinition)> {
    PRESETS.iter().map(|preset| (preset.name, preset.read().unwrap()))
}

/// Reports whether the provider and Callgate share the key.
fn is_shared(entry: &PresetDefinition) -> bool {
    entry.scheme.as_ref().is_some_and(|scheme| match &scheme.proof {
        Proof::Content(content) => matches!(content.algorithm, SignatureAlgorithm::Mac(_)),
        Proof::Jwt(_) => scheme.mac_algorithm().is_some(),
        Proof::SharedSecret(_) => true,
        Proof::MessageSignature(_) | Proof::None | Proof::Sns => false,
    })
}

fn policy(name: &str, entry: &PresetDefinition) -> Policy {
    let form = format!("{:?}", entry.scheme.as_ref().unwrap().secret_format);
    let secret = match form.as_str() {
        "Hex" => "HEX_KEY",
        "IdAndSecret" => "API_KEY_AND_SECRET",
        "Base64 { prefix: \"\" }" => "BASE64_KEY",
        _ if form.contains("v1,whsec_") => "SUPABASE",
        _ => "WHSEC",
    };
    let basic = matches!(entry.scheme.as_ref().unwrap().proof, Proof::SharedSecret(SharedSecretPlace::Basic));
    let secret = if basic { "API_KEY_AND_SECRET" } else { secret };
    parse(&format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: 127.0.0.1:1 }}
providers: {{ p: {{ preset: {name}, secrets: [ {{ env: {secret} }} ] }} }}
routes: [ {{ name: r, path: \"/w/{{id}}\", provider: p, forward: \"/in/{{id}}\" }} ]
"
    ))
    .policy
}

/// A body that contains the members that the schemes require.
const BODY: &str = r#"{"id":"evt_1","taskId":"t_1","signature":{"token":"abc"},"value":[{"a":1},{"a":2}],"notificationItems":[{"NotificationRequestItem":{"pspReference":"79","additionalData":{}}}]}"#;

fn is_accepted(policy: &Policy, headers: &HeaderMap, target: &str, body: &[u8]) -> bool {
    let head = RequestHead::new("POST", target, headers, LOOPBACK);
    let mut trail = Trail::verbose();
    let admitted = policy.ingress.decide_head(&head, Timestamp::from_unix_secs(NOW), &mut trail);
    let decided = admitted.and_then(|admitted| admitted.decide_body(&head, body, &mut trail));
    matches!(decided, Ok(Decided::Callback(_)))
}

#[test]
fn signing_is_the_inverse_of_verifying_wherever_the_key_is_shared() {
    let (mut count, mut bodies) = (0, 0);
    for (name, entry) in entries().filter(|(_, entry)| is_shared(entry)) {
        let policy = policy(name, &entry);
        let verifier = policy.providers[0].verifier.as_ref().unwrap();
        assert!(matches!(verifier.keys(), VerifierKeys::Shared), "{name}");
        let mut headers = HeaderMap::new();
        let form = name == "twilio";
        let (kind, body) = match form {
            true => ("application/x-www-form-urlencoded", "To=%2B1&From=a+b&To=2"),
            false => ("application/json", BODY),
        };
        headers.insert("content-type", HeaderValue::from_static(kind));
        let bare = RequestHead::new("POST", "/w/1?a=b", &headers, LOOPBACK);
        let now = Timestamp::from_unix_secs(NOW);
        let signed = SignatureContext::new(bare, "https://agent.example.com", now);
        let signature = verifier.sign(&signed, body.as_bytes(), "evt_1");
        let signature = signature.unwrap_or_else(|| panic!("{name} cannot be signed"));
        let body = signature.body.into_owned();
        let added: Vec<_> = signature.headers;
        headers.extend(added);
        assert!(is_accepted(&policy, &headers, "/w/1?a=b", &body), "{name}: {headers:?}");
        if entry.scheme.as_ref().unwrap().covers().body {
            for bit in 0..body.len() * 8 {
                let mut changed = body.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let same = form && same_form(&changed, &body);
                assert!(same || !is_accepted(&policy, &headers, "/w/1?a=b", &changed), "{name}: bit {bit}");
            }
            bodies += 1;
        }
        if entry.scheme.as_ref().unwrap().covers().url {
            assert!(!is_accepted(&policy, &headers, "/w/1?a=c", &body), "{name}");
        }
        count += 1;
    }
    assert!(count >= 115 && bodies >= 100, "{count} {bodies}");
}

/// Reports whether two forms are equal under the signature.
fn same_form(a: &[u8], b: &[u8]) -> bool {
    let fields = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().ok().map(String::from)
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let mut pairs: Vec<_> = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(name)?, decode(value)?))
            })
            .collect::<Option<_>>()?;
        pairs.sort();
        pairs.dedup();
        // Twilio signs names and values without separators, so a character may move from a name to its value.
        Some(pairs.into_iter().map(|(name, value)| name + &value).collect::<String>())
    };
    fields(a).is_some() && fields(a) == fields(b)
}

/// Deterministic pseudo-random numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % end.max(1)
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let (at, end) = (self.below(bytes.len()), self.below(bytes.len()));
        match self.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.insert(at, b" \t\n{}[]\",:=;.+-0aAzZ\xff"[self.below(21)]),
            3 if !bytes.is_empty() => bytes.swap(at, end),
            4 => bytes.truncate(at),
            5 if at < end => {
                let part = bytes[at..end].to_vec();
                bytes.extend(part);
            }
            _ => bytes.extend_from_slice(b"\n"),
        }
    }
}

/// Returns the headers that contain the signature or are covered by it.
fn headers_of(entry: &PresetDefinition) -> Vec<HeaderName> {
    let scheme = entry.scheme.as_ref().unwrap();
    let mut names: Vec<HeaderName> = scheme.require.iter().map(|(name, _)| name.clone()).collect();
    match &scheme.proof {
        Proof::Content(content) => {
            if let SignaturePlace::Headers { names: own, .. } = &content.place {
                names.extend(own.iter().cloned());
            }
            if let Some(TimestampSource::Header(name)) = content.timestamp.as_ref().map(|rule| &rule.source) {
                names.push(name.clone());
            }
            if let (true, Some(EventIdSource::Header(name))) = (content.content.uses_id(), &scheme.id) {
                names.push(name.clone());
            }
            names.extend(content.content.headers().cloned());
        }
        Proof::Jwt(jwt) => names.extend(jwt.place.header().cloned()),
        Proof::MessageSignature(_) => {
            names.extend(["signature", "signature-input", "content-digest"].map(HeaderName::from_static));
        }
        Proof::SharedSecret(SharedSecretPlace::At(place)) => names.extend(place.header().cloned()),
        Proof::SharedSecret(_) | Proof::None | Proof::Sns => {}
    }
    names
}

/// Reports whether a changed header has the same meaning. The grammars allow white space and unknown items, and the case
/// of an authentication scheme does not matter.
fn says_the_same(before: &str, after: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let words = text.split([',', ';', ' ', '&', '\t']).filter(|word| !word.is_empty());
        let scheme = |word: &str| ["basic", "bearer"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
        words.map(|word| if scheme(word) { word.to_ascii_lowercase() } else { word.to_owned() }).collect()
    };
    let after = words(after);
    // During a key rotation, a header contains several signatures, and one of them is enough.
    let kept = words(before).iter().filter(|word| after.contains(word)).count();
    kept == words(before).len() || (before.matches("v1").count() > 1 && kept > 0)
}

#[test]
fn a_hundred_thousand_changed_requests_are_refused() {
    let vectors = vectors();
    let good: Vec<&Vector> = vectors.iter().filter(|vector| vector.is_plain_and_valid()).collect();
    assert!(good.len() > 95, "{}", good.len());
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut equal) = (0, 0);
    let worlds: Vec<_> = good
        .iter()
        // This vector is excluded because its second signature is of a signer without a key here.
        .filter(|vector| vector.id != "adcp-pos-003-multiple-signature-labels")
        .filter_map(|vector| {
            let entry = callgate::config::preset(vector.preset())?.1;
            let scheme = entry.scheme.as_ref()?;
            let covers = scheme.covers();
            let names = headers_of(&entry);
            (covers.body || !names.is_empty()).then(|| (*vector, vector.config().unwrap(), covers, names))
        })
        .collect();
    while refused < 100_000 {
        let (vector, config, covers, names) = &worlds[numbers.below(worlds.len())];
        let (mut headers, mut body) = (vector.headers(), vector.body.clone().into_bytes());
        let mut there: Vec<_> = names.iter().filter(|name| headers.contains_key(*name)).collect();
        // If two headers each contain a signature, one of them is enough.
        there.retain(|name| !name.as_str().ends_with("-secondary"));
        if there.is_empty() || (covers.body && numbers.below(2) == 0) {
            if !covers.body {
                continue;
            }
            numbers.change(&mut body);
            let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
            let same = body == vector.body.as_bytes()
                || (vector.provider == "twilio" && same_form(&body, vector.body.as_bytes()))
                || (vector.provider == "browser-use" && json(&body) == json(vector.body.as_bytes()));
            if same {
                equal += 1;
                continue;
            }
        } else {
            let name = there[numbers.below(there.len())];
            let before = headers.get(name).unwrap().to_str().unwrap().to_owned();
            let mut bytes = before.clone().into_bytes();
            numbers.change(&mut bytes);
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
            if value.to_str().is_ok_and(|after| says_the_same(&before, after)) {
                equal += 1;
                continue;
            }
            headers.insert(name.clone(), value);
        }
        let decided = vector.decide(config, &body, &headers);
        assert!(decided.is_err(), "{}: {headers:?} {}", vector.id, String::from_utf8_lossy(&body));
        refused += 1;
    }
    assert!(equal < 60_000, "{equal}");
}

#[test]
fn there_are_presets_enough_and_the_documentation_lists_them() {
    assert!(PRESETS.len() >= 150);
    let documentation = std::fs::read_to_string("docs/providers.md").unwrap();
    let table = callgate::cli::provider_table();
    assert!(
        documentation.contains(&table),
        "docs/providers.md does not hold what `callgate providers --markdown` prints"
    );
}

#[test]
fn a_duplicate_is_acknowledged_as_the_provider_wants_it() {
    let agent = Agent::start(ANSWER);
    let text = format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: \"{}\" }}
providers:
  p: {{ signature: {{ scheme: hmac, algorithm: sha256, header: x-sig, content: \"{{body}}\", encoding: hex, duplicates: signature, acknowledge: 204, secrets: [ {{ env: HMAC_SECRET }} ] }} }}
routes: [ {{ name: r, path: /hook, provider: p, forward: /in }} ]
",
        agent.address
    );
    let callgate = Callgate::start(&text, Clock::System);
    // HMAC-SHA256 of `{}` with the key `hush`.
    let signature = {
        use hmac::{Hmac, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"hush").unwrap();
        mac.update(b"{}");
        data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
    };
    let send = || send_to(callgate.ingress, "POST", "/hook", &[("x-sig", signature.as_str())], b"{}");
    assert_eq!(send().status, 200);
    let again = send();
    assert_eq!((again.status, again.text().as_str()), (204, ""));
    assert_eq!(agent.received().len(), 1);
}

/// Collects the header names in a preset: the values of the keys `header` and `headers`, the names before a value that
/// is required there, and `{header:NAME}` in texts.
fn header_names(value: &serde_json::Value, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            for (key, value) in members {
                if ["header", "headers", "require"].contains(&key.as_str()) {
                    out.extend(value.as_str().map(str::to_owned));
                    out.extend(
                        value
                            .as_array()
                            .into_iter()
                            .flatten()
                            .filter_map(|one| one.as_str())
                            .map(str::to_owned),
                    );
                    out.extend(value.as_object().into_iter().flat_map(|all| all.keys().cloned()));
                }
                header_names(value, out);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| header_names(item, out)),
        serde_json::Value::String(text) => {
            let named = text.split("{header:").skip(1).filter_map(|rest| rest.split('}').next());
            out.extend(named.map(str::to_owned));
        }
        _ => {}
    }
}

/// The agent receives every header that a provider signs, or in which it names the event, its time or its kind.
#[test]
fn no_header_of_a_preset_is_removed() {
    let mut names = Vec::new();
    for file in std::fs::read_dir("src/config/provider/presets").unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        header_names(&serde_yaml::from_str(&text).unwrap(), &mut names);
    }
    names.extend(
        entries()
            .filter(|(_, entry)| entry.scheme.is_some())
            .flat_map(|(_, entry)| headers_of(&entry))
            .map(|name| name.to_string()),
    );
    let messages = std::fs::read_to_string("tests/vectors/providers.json").unwrap();
    header_names(&serde_json::from_str(&messages).unwrap(), &mut names);
    names.extend(["traceparent", "tracestate", "baggage"].map(str::to_owned));
    names.sort();
    names.dedup();
    assert!(names.len() > 100, "only {names:?}");
    // A placeholder is no header name.
    let names: Vec<HeaderName> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let removed = names.iter().filter(|name| callgate::ingress::is_always_removed(name));
    let removed: Vec<_> = removed.filter(|name| !callgate::request::HOP_BY_HOP.contains(name)).collect();
    assert!(removed.is_empty(), "{removed:?}");
}
