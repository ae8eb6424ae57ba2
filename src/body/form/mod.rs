//! Reads single fields of a form, and parameters of a query, strictly. A form is `application/x-www-form-urlencoded`
//! (WHATWG URL) or `multipart/form-data` (RFC 7578).
//!
//! Programs differ in how they read malformed forms, repeated fields and similar names. The functions of this module
//! return an error if two programs could read different values of a requested field.

mod field_values;
mod form_error;
mod multipart;
mod urlencoded;

use std::borrow::Cow;

use http::header::CONTENT_TYPE;

use crate::request::{RequestHead, Single};
use field_values::FieldValues;

pub use form_error::FormError;
pub use urlencoded::PlusSign;

/// Reports whether a text can be the name of a field or parameter that Callgate reads. The name must consist of 1 to
/// 128 visible ASCII characters, and must not contain a character that some programs interpret as syntax.
pub fn is_field_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !b"%&+;=#[]{}\"'\\?<>,".contains(&b);
    (1..=128).contains(&name.len()) && name.bytes().all(plain)
}

/// Returns the values of the form fields in `names`, in the same order. The value of a missing field is `None`.
///
/// # Errors
/// Returns a [`FormError`] if the body is not a form, if it is malformed, or if programs could read different values.
pub fn form_fields<'b>(
    head: &RequestHead<'_>,
    body: &'b [u8],
    names: &[&str],
) -> Result<Vec<Option<Cow<'b, str>>>, FormError> {
    let mut values = FieldValues::new(names);
    match kind(head)? {
        Kind::Urlencoded => urlencoded::read(body, PlusSign::Space, &mut values)?,
        Kind::Multipart(boundary) => multipart::read(&boundary, body, &mut values)?,
    }
    values.finish()
}

/// Returns the values of the query parameters in `names`, in the same order. The value of a missing parameter is
/// `None`.
///
/// # Errors
/// Returns a [`FormError`] if the query is malformed, or if programs could read different values.
pub fn query_parameters<'q>(
    query: &'q str,
    names: &[&str],
    plus: PlusSign,
) -> Result<Vec<Option<Cow<'q, str>>>, FormError> {
    let mut values = FieldValues::new(names);
    urlencoded::read(query.as_bytes(), plus, &mut values)?;
    values.finish()
}

/// Returns the form with the field `name` set to `value`. Returns `None` if the body is not a form, or if it is
/// `multipart/form-data` and already has this field.
pub fn with_field(head: &RequestHead<'_>, body: &[u8], name: &str, value: &str) -> Option<Vec<u8>> {
    match kind(head).ok()? {
        Kind::Urlencoded => urlencoded::with_field(body, name, value),
        Kind::Multipart(boundary) => multipart::with_field(&boundary, body, name, value),
    }
}

/// The media type of a form body.
enum Kind {
    /// `multipart/form-data`. The field is the boundary.
    Multipart(String),
    /// `application/x-www-form-urlencoded`.
    Urlencoded,
}

fn kind(head: &RequestHead<'_>) -> Result<Kind, FormError> {
    let value = match head.single(&CONTENT_TYPE) {
        Single::One(value) => value.to_str().map_err(|_| FormError::NotForm)?,
        Single::Missing | Single::Several => return Err(FormError::NotForm),
    };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(Kind::Urlencoded);
    }
    if !media_type.eq_ignore_ascii_case("multipart/form-data") {
        return Err(FormError::NotForm);
    }
    multipart::boundary(value).map(Kind::Multipart).ok_or(FormError::Malformed("the boundary is malformed"))
}

#[cfg(test)]
mod tests;
