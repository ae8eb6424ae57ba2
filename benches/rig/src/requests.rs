//! The requests of the benchmarks: genuine callbacks, and callbacks with one fault.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The key of the callback tokens.
pub const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
/// The secret of the provider.
pub const SECRET: &[u8] = b"provider secret of the benchmark";
/// The path of callbacks, without the id.
pub const PATH: &str = "/webhooks/analysis-status/";
/// The host name in the requests.
pub const HOST: &str = "agent.example.com";

/// The fault of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No fault.
    Good,
    /// The token is signed with another key.
    Token,
    /// The token is bound to another document.
    Foreign,
    /// The token has expired.
    Expired,
    /// The token has the algorithm `none` and no signature.
    Unsigned,
    /// The token is missing.
    Tokenless,
    /// The signature is made with another secret.
    Signature,
    /// The body differs from the signed body.
    Changed,
}

impl Kind {
    /// Returns the kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            ("good", Self::Good),
            ("token", Self::Token),
            ("foreign", Self::Foreign),
            ("expired", Self::Expired),
            ("unsigned", Self::Unsigned),
            ("tokenless", Self::Tokenless),
            ("signature", Self::Signature),
            ("changed", Self::Changed),
        ];
        all.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
    }
}

/// The parts of one request.
pub struct Callback {
    /// The path.
    pub path: String,
    /// The headers except Host and Content-Length.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Callback {
    /// Serializes the request as HTTP/1.1.
    #[must_use]
    pub fn raw(&self) -> Vec<u8> {
        let mut head = format!("POST {} HTTP/1.1\r\nHost: {HOST}\r\n", self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        let mut raw = head.into_bytes();
        raw.extend_from_slice(&self.body);
        raw
    }
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

/// Returns the callback token of a document.
#[must_use]
pub fn token(kind: Kind, route: &str, capture: &str, now: u64) -> String {
    let algorithm = if kind == Kind::Unsigned { "none" } else { "HS256" };
    let header = format!(r#"{{"typ":"callback+jwt","alg":"{algorithm}","kid":"k1"}}"#);
    let capture = if kind == Kind::Foreign { "doc-other" } else { capture };
    let now = if kind == Kind::Expired { now - 9000 } else { now };
    let claims = format!(
        r#"{{"v":1,"iss":"callgate","aud":"https://{HOST}","sub":"int_{capture}","route":"{route}","cap":{{"id":"{capture}"}},"iat":{now},"exp":{}}}"#,
        now + 7200
    );
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(claims.as_bytes())
    );
    let signature = match kind {
        Kind::Unsigned => Vec::new(),
        Kind::Token => mac(b"another key of thirty-two bytes!", signed.as_bytes()),
        _ => mac(KEY, signed.as_bytes()),
    };
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

const FINDING: &str = r#"{"page": 12, "kind": "term", "score": 0.75, "text": "Payment is due within thirty days of the invoice."}"#;

/// What a body looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Short members in a list.
    Findings,
    /// A form.
    Form,
    /// The answer of a language model: one long text.
    Answer,
    /// A push to a repository: many commits.
    Push,
}

impl Shape {
    /// Returns the shape with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            ("findings", Self::Findings),
            ("form", Self::Form),
            ("answer", Self::Answer),
            ("push", Self::Push),
        ];
        all.into_iter().find(|(known, _)| *known == name).map(|(_, shape)| shape)
    }

    /// Returns the media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        if self == Self::Form { "application/x-www-form-urlencoded" } else { "application/json" }
    }
}

const SENTENCE: &str = "The review took longer than expected, because \\\"annex B\\\" was missing; se\u{f1}or Garc\u{ed}a sent it later.\\n";
const COMMIT: &str = r#"{"id": "9f2c61d0b7", "message": "Fix the limit", "timestamp": "2026-01-01T00:00:00Z", "url": "https://example.com/c/9f2c61d0b7", "author": {"name": "A B", "email": "a@example.com"}, "added": [], "removed": ["old.txt"], "modified": ["src/a.rs", "src/b.rs"], "distinct": true}"#;

/// Returns a body of this shape and of about this size.
fn shaped(shape: Shape, capture: &str, event: u64, size: usize) -> Vec<u8> {
    let repeated = |piece: &str, separator: &str| {
        vec![piece; (size / (piece.len() + separator.len())).max(1)].join(separator)
    };
    let status =
        format!(r#""document_id": "{capture}", "status": "processing", "event": {event}, "progress": 1"#);
    match shape {
        Shape::Findings => return body(capture, event, size),
        Shape::Form => {
            let fields = repeated("Parameter=value%20with%20blanks", "&");
            format!("document_id={capture}&status=processing&event={event}&{fields}")
        }
        Shape::Answer => format!(r#"{{{status}, "output": "{}"}}"#, repeated(SENTENCE, "")),
        Shape::Push => format!(r#"{{{status}, "commits": [{}]}}"#, repeated(COMMIT, ", ")),
    }
    .into_bytes()
}

fn body(capture: &str, event: u64, size: usize) -> Vec<u8> {
    let mut body = format!(
        r#"{{"document_id": "{capture}", "status": "processing", "event": {event}, "progress": 1, "findings": ["#
    );
    let mut separator = "";
    while body.len() + FINDING.len() + 32 < size {
        body.push_str(separator);
        body.push_str(FINDING);
        separator = ", ";
    }
    body.push_str(r#"], "note": ""#);
    let rest = size.saturating_sub(body.len() + 2);
    body.extend(std::iter::repeat_n('.', rest));
    body.push_str("\"}");
    body.into_bytes()
}

/// Returns a request with this event number and this document number.
#[must_use]
pub fn callback((kind, shape): (Kind, Shape), event: u64, document: u64, size: usize, now: u64) -> Callback {
    let capture = format!("doc-{document:x}");
    let mut body = shaped(shape, &capture, event, size);
    let secret =
        if kind == Kind::Signature { b"another secret of the benchmark!".as_slice() } else { SECRET };
    let signature = format!("sha256={}", HEXLOWER.encode(&mac(secret, &body)));
    if kind == Kind::Changed {
        let at = body.len() / 2;
        body[at] ^= 1;
    }
    let mut headers = vec![
        ("x-hub-signature-256", signature),
        ("content-type", shape.media_type().to_owned()),
        ("user-agent", "bench/1".to_owned()),
    ];
    if kind != Kind::Tokenless {
        headers.insert(0, ("authorization", format!("Bearer {}", token(kind, "status", &capture, now))));
    }
    Callback { path: format!("{PATH}{capture}"), headers, body }
}
