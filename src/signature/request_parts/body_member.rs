//! Reads the parts of a body that belong to a signature: values of a JSON body, and fields of a form.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::body::form::{FormError, form_fields};
use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find_strict};
use crate::request::RequestHead;

/// A part of a request body that belongs to a signature, such as a signed value or the signature itself.
#[derive(Clone, Copy, Debug)]
pub(in crate::signature) enum BodyPart<'s> {
    /// The part is the form field of this name.
    Field(&'s str),
    /// The part is the value at this JSON pointer in a JSON body.
    Member(&'s Pointer),
}

/// Returns the text of each part of a body, in the order of `parts`. The text of a missing part is empty.
///
/// # Errors
/// Returns `signature_malformed` if different programs could read different values of a part.
pub(in crate::signature) fn body_parts<'b>(
    head: &RequestHead<'_>,
    body: &'b [u8],
    parts: &[BodyPart<'_>],
) -> Result<Vec<Cow<'b, str>>, Refusal> {
    let (mut pointers, mut names) = (Vec::new(), Vec::new());
    for part in parts {
        match *part {
            BodyPart::Field(name) => names.push(name),
            BodyPart::Member(pointer) => pointers.push(pointer),
        }
    }
    let mut members = body_members(body, &pointers)?.into_iter();
    let mut fields = match names.is_empty() {
        true => Vec::new(),
        false => form_fields(head, body, &names).map_err(|error| malformed_field(&error))?,
    }
    .into_iter();
    let text = |part: &BodyPart<'_>| match part {
        BodyPart::Field(_) => fields.next().flatten(),
        BodyPart::Member(_) => members.next(),
    };
    Ok(parts.iter().map(text).map(Option::unwrap_or_default).collect())
}

/// Converts an error in a form or in a query into the denial `signature_malformed`.
pub(in crate::signature) fn malformed_field(error: &FormError) -> Refusal {
    Refusal::new(Denial::SignatureMalformed, error.to_string())
}

/// Returns the text of the value at each JSON pointer in a JSON body, in the order of `pointers`. The text is empty if
/// the value is missing or null.
///
/// # Errors
/// Returns `signature_malformed` if a JSON key occurs twice, because Callgate and the agent could read different
/// values.
fn body_members<'b>(body: &'b [u8], pointers: &[&Pointer]) -> Result<Vec<Cow<'b, str>>, Refusal> {
    pointers
        .iter()
        .map(|pointer| Ok(body_member(body, pointer)?.map_or_else(Cow::default, Cow::Owned)))
        .collect()
}

/// Returns the text of the value at a JSON pointer in a JSON body. Returns `None` if the value is missing or null.
///
/// # Errors
/// Returns `signature_malformed` if the body is not JSON, if a JSON key occurs twice, or if the value is an object or an
/// array.
pub(in crate::signature) fn body_member(body: &[u8], pointer: &Pointer) -> Result<Option<String>, Refusal> {
    let Some(raw) = raw_body_member(body, pointer)? else { return Ok(None) };
    let word = Found::One(raw).word().map(Into::into);
    word.map(Some)
        .ok_or_else(|| malformed(format!("{} is not a string, a number or a boolean", pointer.as_str())))
}

/// Returns the JSON text of the value at a JSON pointer in a JSON body. Returns `None` if the value is missing or null.
///
/// # Errors
/// Returns `signature_malformed` if a JSON key occurs twice, because Callgate and the agent could read different
/// values.
pub(in crate::signature) fn raw_body_member<'b>(
    body: &'b [u8],
    pointer: &Pointer,
) -> Result<Option<&'b RawValue>, Refusal> {
    match find_strict(body, pointer).map_err(|_| malformed("the body is not JSON".to_owned()))? {
        Found::Missing => Ok(None),
        Found::Doubled => Err(malformed(format!(
            "{} occurs twice, or another member name differs from it only in case",
            pointer.as_str()
        ))),
        Found::One(raw) => Ok(Some(raw).filter(|raw| raw.get() != "null")),
    }
}

fn malformed(detail: String) -> Refusal {
    Refusal::new(Denial::SignatureMalformed, detail)
}
