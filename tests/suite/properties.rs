//! Property tests of paths, signatures and configurations with generated input.

use callgate::config::{Config, Surroundings};
use callgate::ingress::Decided;
use callgate::path::{CanonicalPath, Template};
use callgate::request::RequestHead;
use callgate::signature::SignatureContext;
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use callgate::trail::Trail;
use http::HeaderMap;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use crate::harness::env;

const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

/// Generates paths from parts that attackers use.
fn nasty() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        proptest::sample::select(vec![
            "/",
            "a",
            ".",
            "..",
            "%2e",
            "%2F",
            "%5c",
            "%00",
            "%25",
            ";",
            "\\",
            "//",
            "?",
            "#",
            "%c0%ae",
            "é",
            "~",
            "%7E",
            "%",
            "%4",
            " ",
            "{",
            "}",
            "&",
            "=",
            "callback_token",
            "\u{0}",
            "eyJ",
        ]),
        0..12,
    )
    .prop_map(|parts| parts.concat())
}

fn config(text: &str) -> Config {
    Config::parse(text, &Surroundings { env: &env, file: &|path| std::fs::read(path) })
        .expect("a configuration")
}

/// Returns a policy with one route whose provider signs with `preset`.
fn signing(preset: &str) -> Config {
    config(&format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: 127.0.0.1:1 }}
providers: {{ p: {{ preset: {preset}, secrets: [ {{ env: WHSEC }} ] }} }}
routes: [ {{ name: r, path: \"/w/{{id}}\", provider: p, forward: \"/in/{{id}}\" }} ]
"
    ))
}

proptest! {
    #[test]
    fn a_canonical_path_is_its_own_canonical_form(path in nasty()) {
        if let Ok(canonical) = CanonicalPath::parse(&path) {
            let text = canonical.as_str();
            let again = CanonicalPath::parse(text).unwrap();
            prop_assert_eq!(again.as_str(), text);
            prop_assert!(!text.contains("//") && !text.contains("/../") && !text.contains(';') && !text.contains('\\'));
        }
    }

    #[test]
    fn what_fills_a_template_is_captured_from_it(a in "[A-Za-z0-9._~-]{1,40}", b in "[A-Za-z0-9._~-]{1,40}") {
        let template = Template::parse("/x/{a}/{b}/y").unwrap();
        let filled = template.fill(|name| Some(if name == "a" { &a } else { &b }));
        let dotted = [&a, &b].iter().any(|value| [".", ".."].contains(&value.as_str()));
        prop_assert_eq!(filled.is_none(), dotted);
        if let Some(path) = filled {
            let path = CanonicalPath::parse(&path).unwrap();
            let captures = template.capture(&path);
            prop_assert_eq!(captures.value("a"), Some(a.as_str()));
            prop_assert_eq!(captures.value("b"), Some(b.as_str()));
        }
    }

    #[test]
    fn no_target_makes_the_core_panic_or_escapes_the_route(target in nasty(), method in "[A-Z]{0,8}") {
        let config = config(
            "listen: { ingress: [ { address: 127.0.0.1:0 } ] }\nagent: { address: 127.0.0.1:1 }\n\
             routes: [ { name: r, path: \"/{id}\", open: true, forward: \"/in/{id}/end\" } ]\n",
        );
        let headers = HeaderMap::new();
        let head = RequestHead::new(&method, &target, &headers, LOOPBACK);
        let mut trail = Trail::verbose();
        let admitted = config.policy.ingress.decide_head(&head, NOW, &mut trail);
        let decided = admitted.and_then(|admitted| admitted.decide_body(&head, b"", &mut trail));
        if let Ok(Decided::Callback(verified)) = decided {
            let path = verified.target().split('?').next().unwrap();
            prop_assert!(path.starts_with("/in/") && path.ends_with("/end") && path.matches('/').count() == 3, "{path}");
        }
    }

    #[test]
    fn what_a_preset_signs_it_verifies_and_nothing_else(body in any::<Vec<u8>>(), flip in any::<usize>()) {
        for preset in ["github", "slack", "standard-webhooks", "stripe"] {
            let policy = signing(preset).policy;
            let verifier = policy.providers[0].verifier.as_ref().unwrap();
            let mut headers = HeaderMap::new();
            let bare = RequestHead::new("POST", "/w/1", &headers, LOOPBACK);
            let signed = verifier.sign(&SignatureContext::new(bare, "", NOW), &body, "evt_1").unwrap().headers;
            headers.extend(signed);
            let head = RequestHead::new("POST", "/w/1", &headers, LOOPBACK);
            let decide = |body: &[u8]| {
                let mut trail = Trail::verbose();
                let admitted = policy.ingress.decide_head(&head, NOW, &mut trail).expect("admitted");
                admitted.decide_body(&head, body, &mut trail).is_ok()
            };
            prop_assert!(decide(&body), "{}", preset);
            let mut changed = body.clone();
            match flip.checked_rem(changed.len() * 8) {
                Some(bit) => changed[bit / 8] ^= 1 << (bit % 8),
                None => changed.push(0),
            }
            prop_assert!(!decide(&changed), "{}", preset);
        }
    }

    #[test]
    fn no_configuration_makes_the_reader_panic(at in any::<usize>(), junk in "[\\[\\]{}:,\"'&*!?\\-\n a-z0-9]{0,6}") {
        let text = std::fs::read_to_string("config/callgate.yaml").unwrap();
        let at = (0..=at % text.len()).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let changed = format!("{}{junk}{}", &text[..at], &text[at..]);
        let _ = Config::parse(&changed, &Surroundings { env: &env, file: &|path| std::fs::read(path) });
    }
}
