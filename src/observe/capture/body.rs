//! Removes secrets from the body of a captured request.

use http::header::CONTENT_ENCODING;
use serde_json::Value;

use super::known::{
    IN_BODY, IN_TARGET, Known, Request, SECRET_MEMBERS, SECRET_NAMES, VALUE_BYTES_MIN, is_secret_name,
};
use crate::signature::{JwtPlace, Proof, Scheme, SharedSecretPlace, SignaturePlace};

/// Returns the body without secrets, or the reason why it is left out.
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
    if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        let mut found = Vec::new();
        place.remove_from(&mut value, &mut found);
        remove_members(&mut value, &mut found);
        if found.is_empty() {
            return Ok(known.remove_from(text, IN_BODY));
        }
        found.retain(|secret| secret.len() >= VALUE_BYTES_MIN);
        found.extend(known.0.iter().cloned());
        return Ok(Known(found).remove_from(&value.to_string(), IN_BODY));
    }
    if head.is_form() {
        if !text.contains('=') || text.contains("\r\n") {
            return Err("left out: it is a form with several parts");
        }
        let is_field = |name: &str| matches!(place, BodyPlace::Field(field) if *field == *name);
        let pair = |pair: &str| match pair.split_once('=') {
            Some((name, _)) if is_field(name) || is_secret_name(name, &SECRET_NAMES) => {
                format!("{name}={IN_TARGET}")
            }
            _ => known.remove_from(pair, IN_TARGET),
        };
        return Ok(text.split('&').map(pair).collect::<Vec<_>>().join("&"));
    }
    match place {
        BodyPlace::None => Ok(known.remove_from(text, IN_BODY)),
        _ => Err("left out: the signature is in it, and it is not JSON"),
    }
}

/// The place of the provider's proof, if it is in the body.
enum BodyPlace<'s> {
    None,
    Member(&'s str),
    Each(&'s str, &'s str),
    Field(&'s str),
    Whole,
}

impl<'s> BodyPlace<'s> {
    fn of(scheme: &'s Scheme) -> Self {
        let at = |place: &'s SignaturePlace| match place {
            SignaturePlace::Body(pointer) => Self::Member(pointer.as_str()),
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
            Proof::SharedSecret(SharedSecretPlace::Each { list, member }) => {
                Self::Each(list.as_str(), member.as_str())
            }
            Proof::Sns => Self::Member("/Signature"),
            Proof::SharedSecret(SharedSecretPlace::Basic) | Proof::MessageSignature(_) | Proof::None => {
                Self::None
            }
        }
    }

    /// Replaces the proof, and adds it to `found`.
    fn remove_from(&self, value: &mut Value, found: &mut Vec<String>) {
        match self {
            Self::Member(pointer) => value.pointer_mut(pointer).into_iter().for_each(|at| remove(at, found)),
            Self::Each(list, member) => {
                let elements = value.pointer_mut(list).and_then(Value::as_array_mut);
                for element in elements.into_iter().flatten() {
                    element.pointer_mut(member).into_iter().for_each(|at| remove(at, found));
                }
            }
            Self::None | Self::Field(_) | Self::Whole => {}
        }
    }
}

/// Replaces the values of members whose names are those of secrets, and adds them to `found`.
fn remove_members(value: &mut Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if value.is_string() && is_secret_name(name, &SECRET_MEMBERS) {
                    remove(value, found);
                } else {
                    remove_members(value, found);
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| remove_members(element, found)),
        _ => {}
    }
}

fn remove(value: &mut Value, found: &mut Vec<String>) {
    if let Some(text) = value.as_str().filter(|text| *text != IN_BODY) {
        found.push(text.to_owned());
    }
    *value = Value::from(IN_BODY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_body_are_removed_wherever_their_value_occurs() {
        let mut value: Value = serde_json::from_str(
            r#"{"a":[{"access_token":"s3cret-value"}],"total_tokens":7,"Token":"longer-token","text":"see longer-token"}"#,
        )
        .unwrap();
        let mut found = Vec::new();
        remove_members(&mut value, &mut found);
        let text = Known(found).remove_from(&value.to_string(), IN_BODY);
        assert!(!text.contains("s3cret") && !text.contains("longer-token"), "{text}");
        assert!(text.contains("\"total_tokens\":7"), "{text}");
    }
}
