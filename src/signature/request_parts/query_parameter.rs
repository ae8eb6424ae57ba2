//! Reads query parameters that belong to a signature.

use std::borrow::Cow;

use super::body_member::malformed_field;
use crate::body::form::{PlusSign, query_parameters};
use crate::denial::{Denial, Refusal};
use crate::request::RequestHead;

/// The maximum length of a query parameter that belongs to a signature, in bytes.
const PARAMETER_BYTES_MAX: usize = 8 * 1024;

/// Returns the decoded value of a query parameter, or `None` if the query does not have the parameter.
///
/// # Errors
/// Returns `signature_malformed` if different programs could read different values of the parameter, if the value is
/// too long, or if the value has a control character. For some programs, a line break or a NUL ends the value, which
/// would move the boundary between signed parts.
pub(in crate::signature) fn optional_parameter<'a>(
    head: &RequestHead<'a>,
    name: &str,
    plus: PlusSign,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    let found = query_parameters(head.raw_query().unwrap_or_default(), &[name], plus);
    let value = found.map_err(|error| malformed_field(&error))?.into_iter().flatten().next();
    match value {
        Some(value) if value.len() > PARAMETER_BYTES_MAX => {
            let detail = format!("the query parameter {name} is longer than 8 KiB");
            Err(Refusal::new(Denial::SignatureMalformed, detail))
        }
        Some(value) if value.chars().any(is_control) => {
            let detail = format!("the query parameter {name} has a control character");
            Err(Refusal::new(Denial::SignatureMalformed, detail))
        }
        value => Ok(value),
    }
}

/// Returns the decoded value of a query parameter that the request must have.
///
/// # Errors
/// Returns the errors of [`optional_parameter`], and `signature_missing` if the query does not have the parameter.
pub(in crate::signature) fn required_parameter<'a>(
    head: &RequestHead<'a>,
    name: &str,
    plus: PlusSign,
) -> Result<Cow<'a, str>, Refusal> {
    optional_parameter(head, name, plus)?
        .ok_or_else(|| Refusal::new(Denial::SignatureMissing, format!("the query has no parameter {name}")))
}

/// Reports whether a character is a control character, or a line separator or paragraph separator of Unicode.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}
