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
    /// Checks the shared secret in the head of a request. Returns the position of the secret in `secrets`, beginning
    /// with 1, or `None` if the provider sends the secret in the body.
    ///
    /// # Errors
    /// Returns `signature_missing`, `signature_malformed`, `signature_mismatch` or `header_duplicated`.
    pub(in crate::signature) fn check_head(
        &self,
        head: &RequestHead<'_>,
        secrets: &[Secret],
    ) -> Result<Option<usize>, Refusal> {
        match self {
            Self::At(place @ (SignaturePlace::Headers { .. } | SignaturePlace::Query(_))) => {
                let given = place.single(head)?;
                let given = given.as_bytes();
                match place.header() == Some(&AUTHORIZATION) {
                    true => matched(secrets, |secret| secret.matches_authorization(given)).map(Some),
                    false => equal(given, secrets).map(Some),
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
                let given = BASE64.decode(text.trim_start().as_bytes()).map_err(|_| malformed())?;
                equal(&given, secrets).map(Some)
            }
            Self::At(SignaturePlace::Body(_) | SignaturePlace::Form(_)) | Self::Each { .. } => Ok(None),
        }
    }

    /// Checks the shared secret in the body of a request. Returns the position of the secret in `secrets`, beginning
    /// with 1, or `None` if the provider sends the secret in the head.
    ///
    /// # Errors
    /// Returns `signature_missing`, `signature_malformed` or `signature_mismatch`.
    pub(in crate::signature) fn check_body(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
        secrets: &[Secret],
    ) -> Result<Option<usize>, Refusal> {
        let malformed = |detail: &'static str| Refusal::new(Denial::SignatureMalformed, detail);
        match self {
            Self::At(place) => {
                let Some(part) = place.body_part() else { return Ok(None) };
                let texts = body_parts(head, body, &[part])?;
                match texts.first().filter(|text| !text.is_empty()) {
                    Some(text) => equal(text.as_bytes(), secrets).map(Some),
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
                let mut position = None;
                for element in &elements {
                    let text = body_member(element.get().as_bytes(), member)?.ok_or_else(|| {
                        Refusal::new(Denial::SignatureMissing, "an element of the array has no token")
                    })?;
                    position = position.max(Some(equal(text.as_bytes(), secrets)?));
                }
                Ok(position)
            }
            Self::Basic => Ok(None),
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

/// Checks that `candidate` is one of the secrets. Returns its position, beginning with 1.
///
/// # Errors
/// Returns `signature_mismatch` if no secret matches.
fn equal(candidate: &[u8], secrets: &[Secret]) -> Result<usize, Refusal> {
    matched(secrets, |secret| secret.matches(candidate))
}

/// Returns the position of the first secret for which `matches` returns true, beginning with 1. Every secret is compared,
/// so that the response time does not reveal which secret matched.
///
/// # Errors
/// Returns `signature_mismatch` if no secret matches.
fn matched(secrets: &[Secret], matches: impl Fn(&Secret) -> bool) -> Result<usize, Refusal> {
    let positions =
        secrets.iter().zip(1..).filter(|(secret, _)| matches(secret)).map(|(_, position)| position);
    positions.min().ok_or_else(|| {
        let detail = match secrets.len() {
            1 => "the token is not the provider's secret".to_owned(),
            count => format!("the token is none of the provider's {count} secrets"),
        };
        Refusal::new(Denial::SignatureMismatch, detail)
    })
}
