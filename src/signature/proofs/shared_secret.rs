//! Shared secrets that the provider sends with each message, as a token or as basic authentication. A shared secret
//! authenticates the sender, but does not protect the message.

use data_encoding::BASE64;
use http::header::AUTHORIZATION;
use serde_json::value::RawValue;

use crate::denial::{Denial, Refusal};
use crate::json::Pointer;
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::request_parts::{
    SignaturePlace, body_member, body_parts, raw_body_member, required_header,
};

/// The location of a shared secret in a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SharedSecretPlace {
    /// The secret is in a header, a query parameter, a JSON value of the body, or a form field.
    At(SignaturePlace),
    /// The secret is a JSON value in every element of an array in the body.
    Each {
        /// The JSON pointer to the array in the body.
        list: Pointer,
        /// The JSON pointer to the secret in each element of the array.
        member: Pointer,
    },
    /// The secret is the user name and the password of basic authentication (RFC 7617).
    Basic,
}

impl SharedSecretPlace {
    /// Checks the shared secret in the head of a request. Does nothing if the provider sends the secret in the body.
    ///
    /// # Errors
    /// Returns `signature_missing`, `signature_malformed`, `signature_mismatch` or `header_duplicated`.
    pub(in crate::signature) fn check_head(
        &self,
        head: &RequestHead<'_>,
        secrets: &[Secret],
    ) -> Result<(), Refusal> {
        match self {
            Self::At(place @ (SignaturePlace::Headers { .. } | SignaturePlace::Query(_))) => {
                let given = place.single(head)?;
                let given = given.as_bytes();
                match place.header() == Some(&AUTHORIZATION) {
                    true => found(
                        secrets.iter().filter(|secret| secret.matches_authorization(given)).count(),
                        secrets,
                    ),
                    false => equal(given, secrets),
                }
            }
            Self::Basic => {
                let malformed = || {
                    Refusal::new(
                        Denial::SignatureMalformed,
                        "the header authorization is not basic authentication",
                    )
                };
                let value = required_header(head, &AUTHORIZATION)?.to_str().map_err(|_| malformed())?;
                let (scheme, text) = value.split_once(' ').ok_or_else(malformed)?;
                if !scheme.eq_ignore_ascii_case("basic") {
                    return Err(malformed());
                }
                equal(&BASE64.decode(text.trim_start().as_bytes()).map_err(|_| malformed())?, secrets)
            }
            Self::At(SignaturePlace::Body(_) | SignaturePlace::Form(_)) | Self::Each { .. } => Ok(()),
        }
    }

    /// Checks the shared secret in the body of a request. Does nothing if the provider sends the secret in the head.
    ///
    /// # Errors
    /// Returns `signature_missing`, `signature_malformed` or `signature_mismatch`.
    pub(in crate::signature) fn check_body(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
        secrets: &[Secret],
    ) -> Result<(), Refusal> {
        let malformed = |detail: &'static str| Refusal::new(Denial::SignatureMalformed, detail);
        match self {
            Self::At(place) => {
                let Some(part) = place.body_part() else { return Ok(()) };
                let texts = body_parts(head, body, &[part])?;
                match texts.first().filter(|text| !text.is_empty()) {
                    Some(text) => equal(text.as_bytes(), secrets),
                    None => {
                        let detail = format!("the request has no token in {place}");
                        Err(Refusal::new(Denial::SignatureMissing, detail))
                    }
                }
            }
            Self::Each { list, member } => {
                let array = raw_body_member(body, list)?.map_or("null", RawValue::get);
                let elements: Vec<&RawValue> = serde_json::from_str(array)
                    .map_err(|_| malformed("the body does not contain the array with the tokens"))?;
                if elements.is_empty() {
                    return Err(malformed("the array in the body is empty"));
                }
                for element in &elements {
                    let text = body_member(element.get().as_bytes(), member)?.ok_or_else(|| {
                        Refusal::new(Denial::SignatureMissing, "an element of the array has no token")
                    })?;
                    equal(text.as_bytes(), secrets)?;
                }
                Ok(())
            }
            Self::Basic => Ok(()),
        }
    }

    /// Returns the name of the query parameter that contains the secret, or `None` if the secret is not in the query.
    /// This parameter never reaches the agent.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::At(place) => place.parameter(),
            Self::Each { .. } | Self::Basic => None,
        }
    }
}

/// Checks that `candidate` is one of the secrets. Every secret is compared, so that the response time does not reveal
/// which secret matched.
///
/// # Errors
/// Returns `signature_mismatch` if no secret matches.
fn equal(candidate: &[u8], secrets: &[Secret]) -> Result<(), Refusal> {
    found(secrets.iter().filter(|secret| secret.matches(candidate)).count(), secrets)
}

/// Checks that at least one secret matched. `matches` is the number of `secrets` that are equal to the secret in the
/// request.
///
/// # Errors
/// Returns `signature_mismatch` if `matches` is 0.
fn found(matches: usize, secrets: &[Secret]) -> Result<(), Refusal> {
    match (matches, secrets.len()) {
        (0, 1) => Err(Refusal::new(Denial::SignatureMismatch, "the token is not the provider's secret")),
        (0, count) => {
            let detail = format!("the token is none of the provider's {count} secrets");
            Err(Refusal::new(Denial::SignatureMismatch, detail))
        }
        _ => Ok(()),
    }
}
