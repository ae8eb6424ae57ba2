//! Signature headers of every provider that signs with a shared secret: whatever stands in them, what verifies under
//! one secret does not under another, nor with another body.

use std::borrow::Cow;
use std::sync::LazyLock;

use callgate::config::{Config, PRESETS, Surroundings};
use callgate::policy::Policy;
use callgate::request::RequestHead;
use callgate::signature::{ContentPart, Proof, SignatureContext, Verifier};
use callgate::source::LOOPBACK;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{NOW, first_line};

const URL: &str = "https://agent.example.com";

/// Secrets in the forms that providers have them in, two of each form.
const SECRETS: [[&str; 2]; 5] = [
    [
        "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
        "whsec_ISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0A=",
    ],
    ["one secret of thirty-two bytes!!", "another secret, equally long!!!!"],
    [
        "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
        "00782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
    ],
    ["AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=", "ISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0A="],
    ["APIkey:a secret of thirty-two bytes, more", "APIkey:another of thirty-two bytes, more."],
];

/// A provider, under one secret and under another.
struct Pair {
    name: &'static str,
    policies: [Policy; 2],
}

impl Pair {
    fn verifier(&self, which: usize) -> &Verifier {
        self.policies[which].providers[0].verifier.as_ref().expect("a verifier")
    }
}

fn policy(preset: &str, secret: &str) -> Option<Policy> {
    let text = format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: 127.0.0.1:1 }}
providers: {{ p: {{ preset: {preset}, secrets: [ {{ env: SECRET }} ] }} }}
routes: [ {{ name: r, path: /r, provider: p, forward: /in }} ]
"
    );
    let env = |_: &str| Some(secret.to_owned());
    let file = |_: &str| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    let surroundings = Surroundings { env: &env, file: &file };
    let policy = Config::parse(&text, &surroundings).ok()?.policy;
    let signs = policy.providers[0].verifier.as_ref().is_some_and(|verifier| {
        let proof = &verifier.scheme().proof;
        verifier.secrets_count() == 1
            && matches!(proof, Proof::Content(_) | Proof::Jwt(_) | Proof::MessageSignature(_))
    });
    signs.then_some(policy)
}

/// The providers, each with the first form of secret that it takes.
static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let pairs = PRESETS.iter().filter_map(|preset| {
        let both = |[a, b]: &[&str; 2]| Some([policy(preset.name, a)?, policy(preset.name, b)?]);
        Some(Pair { name: preset.name, policies: SECRETS.iter().find_map(both)? })
    });
    let pairs: Vec<_> = pairs.collect();
    assert!(pairs.len() > 40, "only {} providers", pairs.len());
    pairs
});

/// A line with the provider's name, a line with the target, lines of headers, an empty line and the body. The line
/// `$signed` stands for the headers that the provider would send.
pub fn run(data: &[u8]) -> bool {
    let Some((name, rest)) = first_line(data) else { return false };
    let Some(Message { target, before, after, signed, body }) = message(rest) else { return false };
    let byname = PAIRS.iter().find(|pair| pair.name == name);
    let pair = byname.unwrap_or_else(|| &PAIRS[name.len() % PAIRS.len()]);
    let mut headers = before;
    let mut body = Cow::Borrowed(body);
    if signed {
        let bare = RequestHead::new("POST", target, &headers, LOOPBACK);
        let signature = pair.verifier(0).sign(&SignatureContext::new(bare, URL, NOW), &body, "evt_1");
        let Some(made) = signature.map(|signature| (signature.headers, signature.body.to_vec())) else {
            return false;
        };
        body = Cow::Owned(made.1);
        for (name, value) in made.0 {
            headers.append(name, value);
        }
    }
    headers.extend(after);
    let head = RequestHead::new("POST", target, &headers, LOOPBACK);
    let signed = SignatureContext::new(head, URL, NOW);
    let verifies = |which: usize, body: &[u8]| {
        let verifier = pair.verifier(which);
        verifier
            .verify_head(&signed)
            .and_then(|presented| verifier.verify_body(&presented, &signed, body))
            .is_ok()
    };
    if !verifies(0, &body) {
        return false;
    }
    assert!(!verifies(1, &body), "{}: verifies under any secret", pair.name);
    // Not every provider signs the body, but those that do sign all of it.
    if covers_body(pair.verifier(0)) {
        let longer = [&*body, b"x"].concat();
        assert!(!verifies(0, &longer), "{}: verifies another body", pair.name);
        let mut changed = body.into_owned();
        if let Some(byte) = changed.last_mut() {
            *byte ^= 1;
            assert!(!verifies(0, &changed), "{}: verifies a changed body", pair.name);
        }
    }
    true
}

fn covers_body(verifier: &Verifier) -> bool {
    matches!(&verifier.scheme().proof, Proof::Content(scheme) if scheme.content.parts().contains(&ContentPart::Body))
}

struct Message<'d> {
    target: &'d str,
    before: HeaderMap,
    signed: bool,
    after: HeaderMap,
    body: &'d [u8],
}

fn message(rest: &[u8]) -> Option<Message<'_>> {
    let (target, mut rest) = first_line(rest)?;
    let (mut before, mut after, mut signed) = (HeaderMap::new(), HeaderMap::new(), false);
    loop {
        let (line, behind) = first_line(rest)?;
        rest = behind;
        match line {
            "" => {
                return target.starts_with('/').then_some(Message {
                    target,
                    before,
                    signed,
                    after,
                    body: rest,
                });
            }
            "$signed" => signed = true,
            line => {
                let (name, value) = line.split_once(": ")?;
                let headers = if signed { &mut after } else { &mut before };
                headers.append(
                    HeaderName::from_bytes(name.as_bytes()).ok()?,
                    HeaderValue::from_str(value).ok()?,
                );
            }
        }
    }
}
