//! Removes secrets from the body of a captured request.

use http::header::CONTENT_ENCODING;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::known::{
    IN_BODY, IN_TARGET, Known, Request, SECRET_MEMBERS, SECRET_NAMES, SECRET_NUMBERS, is_secret_name,
};
use crate::json::{Pointer, Scalar, quoted, scalars};
use crate::signature::{JwtPlace, Proof, Scheme, SharedSecretPlace, SignaturePlace};

/// Returns `body`, the body of a captured request, with all secrets replaced. If the body must be left out, returns the
/// reason as an error.
pub(super) fn redacted_body(
    request: &Request<'_>,
    known: &Known,
    body: &[u8],
) -> Result<String, &'static str> {
    let head = request.head;
    if head.headers.contains_key(CONTENT_ENCODING) {
        return Err("left out: it is compressed");
    }
    let text = std::str::from_utf8(body).map_err(|_| "left out: it is not text")?;
    let scheme = request.route.and_then(|(route, _)| route.verifier()).map(|verifier| verifier.scheme());
    let place = scheme.map_or(BodyPlace::None, BodyPlace::of);
    if matches!(place, BodyPlace::Whole) {
        return Err("left out: it is a token");
    }
    if let Some(redacted) = redacted_json(text, &place, known) {
        return Ok(redacted);
    }
    // In JSON that is not valid, Callgate cannot find secrets by the names of JSON keys. Therefore the body is left
    // out.
    if begins_like_json(text) {
        return Err("left out: it begins like JSON, but is not valid JSON");
    }
    if head.is_form() {
        if !text.contains('=') || text.contains("\r\n") {
            return Err("left out: it is a form with several parts");
        }
        return Ok(text
            .split('&')
            .map(|pair| redacted_pair(pair, &place, known))
            .collect::<Vec<_>>()
            .join("&"));
    }
    match place {
        BodyPlace::None if text.trim().is_empty() => Ok(text.to_owned()),
        BodyPlace::None => Err("left out: it is neither JSON nor a form"),
        _ => Err("left out: the signature is in it, and it is not JSON"),
    }
}

/// Reports whether a text begins like a JSON object or list.
fn begins_like_json(text: &str) -> bool {
    text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').starts_with(['{', '['])
}

/// Replaces the secrets in `pair`, a `name=value` pair of a form. The value of the pair can be JSON.
fn redacted_pair(pair: &str, place: &BodyPlace<'_>, known: &Known) -> String {
    let Some((name, value)) = pair.split_once('=') else { return known.remove_from(pair, IN_TARGET) };
    let is_place = matches!(place, BodyPlace::Field(field) if **field == *name);
    if is_place || is_secret_name(name, &SECRET_NAMES) {
        return format!("{name}={IN_TARGET}");
    }
    let spaced = value.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy();
    if begins_like_json(&decoded) {
        match redacted_json(&decoded, &BodyPlace::None, known) {
            Some(redacted) if redacted == decoded => {}
            Some(redacted) => {
                let encoded = utf8_percent_encode(&redacted, NON_ALPHANUMERIC);
                return format!("{name}={encoded}");
            }
            None => return format!("{name}={IN_TARGET}"),
        }
    }
    known.remove_from(pair, IN_TARGET)
}

/// Replaces the secrets in a JSON text. All other bytes of the text stay the same. Returns `None` if the text is not
/// JSON.
fn redacted_json(text: &str, place: &BodyPlace<'_>, known: &Known) -> Option<String> {
    let mut found = Vec::new();
    scalars(text, &mut |scalar| {
        if place.contains(scalar) || is_secret(scalar) {
            found.push(scalar.text().unwrap_or_else(|| scalar.raw.trim_matches('"').to_owned()));
        }
    })?;
    let known = known.with(found);
    let (mut out, mut end) = (String::with_capacity(text.len()), 0);
    scalars(text, &mut |scalar| {
        let is_removed = place.contains(scalar) || is_secret(scalar);
        let replacement = if is_removed { Some(quoted(IN_BODY)) } else { redacted_scalar(scalar, &known) };
        if let Some(replacement) = replacement {
            out.push_str(text.get(end..scalar.range.start).unwrap_or_default());
            out.push_str(&replacement);
            end = scalar.range.end;
        }
    })?;
    out.push_str(text.get(end..)?);
    Some(known.remove_from(&out, IN_BODY))
}

/// Reports whether a JSON string or number is a secret because of the names of the JSON keys that lead to it. In
/// `{"password": {"value": ["x"]}}`, the string `"x"` is a secret.
fn is_secret(scalar: &Scalar<'_, '_>) -> bool {
    let is_named = |names: &dyn Fn(&str) -> bool| scalar.path.iter().any(|name| names(name));
    match scalar.raw.as_bytes().first() {
        Some(b'"') => is_named(&|name| is_secret_name(name, &SECRET_MEMBERS)),
        // A number is a secret only if the whole name of a JSON key is in `SECRET_NUMBERS`. The number of the key
        // `total_tokens` is no secret, although the name contains `token`.
        Some(b'-' | b'0'..=b'9') => {
            is_named(&|name| SECRET_NUMBERS.iter().any(|secret| secret.eq_ignore_ascii_case(name)))
        }
        _ => false,
    }
}

/// Searches a JSON string or number for secrets. Returns a JSON string in which the secrets are replaced. Decodes
/// escapes such as `\u0061` before the search, and also searches a JSON text inside the string. Returns `None` if the
/// value contains no secret.
fn redacted_scalar(scalar: &Scalar<'_, '_>, known: &Known) -> Option<String> {
    let Some(text) = scalar.text() else {
        return (known.remove_from(scalar.raw, IN_BODY) != scalar.raw).then(|| quoted(IN_BODY));
    };
    // If the string contains a JSON text, this text is parsed as well. JSON texts in the strings of this text are not
    // parsed.
    let redacted = match begins_like_json(&text) {
        true => redacted_json_in_string(&text, known),
        false => None,
    };
    let redacted = redacted.unwrap_or_else(|| known.remove_from(&text, IN_BODY));
    (redacted != text).then(|| quoted(&redacted))
}

/// Replaces the secrets in `text`, a JSON text inside a string of another JSON text. Returns `None` if `text` is not
/// JSON.
fn redacted_json_in_string(text: &str, known: &Known) -> Option<String> {
    let (mut out, mut end) = (String::with_capacity(text.len()), 0);
    scalars(text, &mut |scalar| {
        if is_secret(scalar) {
            out.push_str(text.get(end..scalar.range.start).unwrap_or_default());
            out.push_str(&quoted(IN_BODY));
            end = scalar.range.end;
        }
    })?;
    out.push_str(text.get(end..)?);
    Some(known.remove_from(&out, IN_BODY))
}

/// The location of the provider's proof (a signature, a token or a secret) in the body of a request. `None` means that
/// the provider sends no proof in the body.
enum BodyPlace<'s> {
    None,
    Member(&'s Pointer),
    Each(&'s Pointer, &'s Pointer),
    /// The JSON key `Signature` of a message of Amazon SNS.
    Sns,
    Field(&'s str),
    Whole,
}

impl<'s> BodyPlace<'s> {
    fn of(scheme: &'s Scheme) -> Self {
        let at = |place: &'s SignaturePlace| match place {
            SignaturePlace::Body(pointer) => Self::Member(pointer),
            SignaturePlace::Form(name) => Self::Field(name),
            SignaturePlace::Headers { .. } | SignaturePlace::Query(_) => Self::None,
        };
        match &scheme.proof {
            Proof::Content(content) => at(&content.place),
            Proof::Jwt(jwt) => match &jwt.place {
                JwtPlace::At(place) => at(place),
                JwtPlace::WholeBody => Self::Whole,
            },
            Proof::SharedSecret(SharedSecretPlace::At(place)) => at(place),
            Proof::SharedSecret(SharedSecretPlace::Each { list, member }) => Self::Each(list, member),
            Proof::Sns => Self::Sns,
            Proof::SharedSecret(SharedSecretPlace::Basic) | Proof::MessageSignature(_) | Proof::None => {
                Self::None
            }
        }
    }

    /// Reports whether a JSON value of the body is the provider's proof, or a part of the proof.
    fn contains(&self, scalar: &Scalar<'_, '_>) -> bool {
        match self {
            Self::Member(pointer) => scalar.is_below(pointer),
            Self::Each(list, member) => scalar.is_below_each(list, member),
            Self::Sns => scalar.path.first().is_some_and(|name| name == "Signature"),
            Self::None | Self::Field(_) | Self::Whole => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        redacted_json(text, &BodyPlace::None, &Known(Vec::new())).unwrap()
    }

    #[test]
    fn only_the_bytes_of_secrets_change() {
        let text = "{ \"z\": 1.0,\t\"a\":[{\"access_token\": \"s3cret-value\"}], \"total_tokens\":7, \"n\": 12345678901234567890123,\r\n \"Token\":\"longer-token\",\"text\":\"see longer-token\", \"e\": 1e400 }\n";
        let expected = text.replace("s3cret-value", "[redacted]").replace("longer-token", "[redacted]");
        assert_eq!(redacted(text), expected);
        let without = "{\"b\" : 1 , \"a\":\"\\u0041\", \"b\": 2}";
        assert_eq!(redacted(without), without);
    }

    #[test]
    fn every_scalar_below_the_name_of_a_secret_is_removed() {
        for text in [
            r#"{"tokens":["s3cr3t"]}"#,
            r#"{"password":{"value":"s3cr3t"}}"#,
            r#"{"password":{"value":[{"x":"s3cr3t"}]}}"#,
            r#"{"pass\u0077ord":"s3cr3t"}"#,
            r#"{"a":1,"a":{"secret":"s3cr3t"},"a":2}"#,
            r#"{"log":"{\"password\": \"s3cr3t\"}"}"#,
        ] {
            let redacted = redacted(text);
            assert!(!redacted.contains("s3cr3t") && redacted.contains("[redacted]"), "{redacted}");
            assert!(serde_json::from_str::<serde_json::Value>(&redacted).is_ok(), "{redacted}");
        }
        for (text, expected) in [
            (
                r#"{"password":12345678,"x":12345678,"y":"12345678"}"#,
                r#"{"password":"[redacted]","x":"[redacted]","y":"[redacted]"}"#,
            ),
            (r#"{"PIN":[1234]}"#, r#"{"PIN":["[redacted]"]}"#),
            (
                r#"{"total_tokens":12345678,"usage":{"tokens":7},"has_secret":true,"token":null}"#,
                r#"{"total_tokens":12345678,"usage":{"tokens":7},"has_secret":true,"token":null}"#,
            ),
            (
                r#"{"token":"abc\/defghi","x":"abc\/defghi","y":"abc/defghi"}"#,
                r#"{"token":"[redacted]","x":"[redacted]","y":"[redacted]"}"#,
            ),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }

    #[test]
    fn almost_json_is_recognized() {
        for text in ["{\"access_token\":\"s3cr3t\",}", " [1,", "\u{feff}{", "{}\n{}"] {
            assert!(
                redacted_json(text, &BodyPlace::None, &Known(Vec::new())).is_none() && begins_like_json(text)
            );
        }
        let pair = |pair: &str| redacted_pair(pair, &BodyPlace::None, &Known(Vec::new()));
        assert!(!pair("payload=%7B%22token%22%3A%22s3cr3t%22%7D").contains("s3cr3t"));
        assert_eq!(pair("payload=%7B%22token%22%3A%22s3cr3t%22%2C%7D"), "payload=redacted");
        assert_eq!(pair("payload=%7B%22a%22%3A+1%7D"), "payload=%7B%22a%22%3A+1%7D");
    }
}
