//! Reads the format `application/x-www-form-urlencoded`, in bodies and in queries.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::field_values::{FieldValues, text};
use super::form_error::FormError;
use crate::query::pair;

/// The meaning of the character `+` in a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlusSign {
    /// Programs differ in how they interpret `+`, so a value that contains `+` is an error.
    Ambiguous,
    /// `+` stands for itself. Used for values that cannot contain a space.
    Literal,
    /// `+` stands for a space, as the format specifies.
    Space,
}

/// Reads all fields of a form or a query, and stores the values of the requested fields in `values`.
///
/// # Errors
/// Returns a [`FormError`] if a name or a requested value is malformed or ambiguous.
pub(super) fn read<'b>(
    form: &'b [u8],
    plus: PlusSign,
    values: &mut FieldValues<'_, 'b>,
) -> Result<(), FormError> {
    for pair in form.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
        // Some programs also separate fields at `;`. Therefore a requested field is ambiguous if its value contains
        // `;`, or if the field follows a `;`.
        let mut pieces = pair.split(|b| *b == b';');
        let first = pieces.next().unwrap_or_default();
        let has_semicolon = first.len() != pair.len();
        let (raw_name, _) = split(first);
        let (_, raw_value) = split(pair);
        let name = name(raw_name)?;
        values.add(&name, || if has_semicolon { None } else { value(raw_value, plus) })?;
        for piece in pieces {
            let (raw_name, _) = split(piece);
            values.add(&self::name(raw_name)?, || None)?;
        }
    }
    Ok(())
}

/// Returns the form with the field `name` set to `value`. Removes all existing fields with this name. Returns `None` if
/// the form is not UTF-8.
pub(super) fn with_field(form: &[u8], name: &str, value: &str) -> Option<Vec<u8>> {
    let form = std::str::from_utf8(form).ok()?;
    let kept = crate::query::without_parameter(form, name).unwrap_or_default();
    let joint = if kept.is_empty() { "" } else { "&" };
    Some(format!("{kept}{joint}{}", pair(name, value)).into_bytes())
}

fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|b| *b == b'=') {
        Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
        None => (pair, b""),
    }
}

fn name(raw: &[u8]) -> Result<String, FormError> {
    if !has_valid_escapes(raw) {
        return Err(FormError::Malformed("a field name has an incomplete percent escape"));
    }
    let spaced: Vec<u8> = raw.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    Ok(percent_decode(&spaced).decode_utf8_lossy().into_owned())
}

fn value(raw: &[u8], plus: PlusSign) -> Option<Cow<'_, str>> {
    // A form consists of visible ASCII characters. Programs differ in how they interpret other bytes.
    if !has_valid_escapes(raw) || !raw.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    match (raw.contains(&b'+'), plus) {
        (true, PlusSign::Ambiguous) => None,
        (true, PlusSign::Space) => {
            let spaced: Vec<u8> = raw.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
            text(Cow::Owned(percent_decode(&spaced).collect()))
        }
        _ => text(percent_decode(raw).into()),
    }
}

/// Reports whether each `%` is followed by two hexadecimal digits.
fn has_valid_escapes(raw: &[u8]) -> bool {
    let digits = |rest: &[u8]| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    raw.split(|b| *b == b'%').skip(1).all(digits)
}
