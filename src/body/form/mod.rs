//! Reads single fields of a form, and parameters of a query, strictly. A form is
//! `application/x-www-form-urlencoded` (WHATWG URL) or `multipart/form-data` (RFC 7578).
//!
//! Programs differ in how they read malformed forms, repeated fields and similar names. The functions of this module
//! return an error if two programs could read different values of a wanted field.

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

/// Reports whether a text can be the name of a field or parameter that Callgate reads. The name consists of visible
/// ASCII characters. It contains no character that some programs read as syntax.
pub fn is_field_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !b"%&+;=#[]{}\"'\\?<>,".contains(&b);
    (1..=128).contains(&name.len()) && name.bytes().all(plain)
}

/// Returns the value of each field of a form, in the order of `names`. The value of a missing field is `None`.
///
/// # Errors
/// [`FormError`] if the body is not a form, if it is malformed, or if programs could read different values.
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

/// Returns the value of each parameter of a query, in the order of `names`. The value of a missing parameter is `None`.
///
/// # Errors
/// [`FormError`] if the query is malformed, or if programs could read different values.
pub fn query_parameters<'q>(
    query: &'q str,
    names: &[&str],
    plus: PlusSign,
) -> Result<Vec<Option<Cow<'q, str>>>, FormError> {
    let mut values = FieldValues::new(names);
    urlencoded::read(query.as_bytes(), plus, &mut values)?;
    values.finish()
}

/// Returns the form with this field set to a value. Returns `None` if the body is not a form, or if the form has the
/// field already and is `multipart/form-data`.
pub fn with_field(head: &RequestHead<'_>, body: &[u8], name: &str, value: &str) -> Option<Vec<u8>> {
    match kind(head).ok()? {
        Kind::Urlencoded => urlencoded::with_field(body, name, value),
        Kind::Multipart(boundary) => multipart::with_field(&boundary, body, name, value),
    }
}

/// The media type of a form.
enum Kind {
    /// `multipart/form-data` with this boundary.
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
