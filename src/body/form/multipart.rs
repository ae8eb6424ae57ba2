//! Reads `multipart/form-data` bodies (RFC 7578).
//!
//! The delimiter must occur only where a part begins or the body ends. Programs differ in how they read a delimiter
//! after a bare LF, a delimiter with text behind it, and text before the first or after the last part. A body with any
//! of these irregularities is malformed.

use std::borrow::Cow;

use memchr::memmem::Finder;

use super::field_values::{FieldValues, text};
use super::form_error::FormError;

/// The maximum length of the headers of one part, in bytes.
const PART_HEAD_BYTES_MAX: usize = 8 * 1024;

/// The headers of one part of a multipart body.
#[derive(Default)]
struct PartHead<'h> {
    name: Option<&'h str>,
    has_file_name: bool,
    media_type: Option<&'h str>,
    transfer_encoding: Option<&'h str>,
}

/// Returns the boundary from the value of `Content-Type`. Returns `None` if the boundary is missing, malformed or
/// ambiguous.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (_, rest) = content_type.split_once(';')?;
    let parameters = parameters(rest)?;
    // RFC 2231 allows `boundary*` and `boundary*0` as other spellings of a parameter. Some programs read these
    // parameters instead of `boundary`.
    if parameters.iter().any(|(name, _)| name.contains('*')) {
        return None;
    }
    let mut found = parameters.iter().filter(|(name, _)| name.eq_ignore_ascii_case("boundary"));
    let (Some((_, boundary)), None) = (found.next(), found.next()) else { return None };
    // RFC 2046 section 5.1.1 defines the length and the characters of a boundary.
    let valid = (1..=70).contains(&boundary.len())
        && !boundary.ends_with(' ')
        && boundary.bytes().all(|b| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b));
    valid.then(|| (*boundary).to_owned())
}

/// Reads all fields of a multipart body, and stores the values of the requested fields in `values`.
///
/// # Errors
/// Returns a [`FormError`] if the body is malformed, or if a requested field is ambiguous.
pub(super) fn read<'b>(
    boundary: &str,
    body: &'b [u8],
    values: &mut FieldValues<'_, 'b>,
) -> Result<(), FormError> {
    const DELIMITER: FormError = FormError::Malformed("a delimiter of the multipart body is malformed");
    let delimiter = format!("--{boundary}");
    let finder = Finder::new(&delimiter);
    let mut rest = body
        .strip_prefix(delimiter.as_bytes())
        .ok_or(FormError::Malformed("the multipart body does not begin with its boundary"))?;
    loop {
        if let Some(end) = rest.strip_prefix(b"--") {
            return if end.is_empty() || end == b"\r\n" { Ok(()) } else { Err(DELIMITER) };
        }
        let after = rest.strip_prefix(b"\r\n").ok_or(DELIMITER)?;
        let at = finder.find(after).ok_or(FormError::Malformed("the multipart body has no end"))?;
        let (part, behind) = after.split_at_checked(at).ok_or(DELIMITER)?;
        add_part(part.strip_suffix(b"\r\n").ok_or(DELIMITER)?, values)?;
        rest = behind.strip_prefix(delimiter.as_bytes()).ok_or(DELIMITER)?;
    }
}

/// Returns the multipart body with one more field at its end. Returns `None` if the body is malformed or already has
/// the field.
pub(super) fn with_field(boundary: &str, body: &[u8], name: &str, value: &str) -> Option<Vec<u8>> {
    let end = format!("--{boundary}--");
    let before = body.strip_suffix(b"\r\n").unwrap_or(body).strip_suffix(end.as_bytes())?;
    let mut values = FieldValues::new(&[name]);
    read(boundary, body, &mut values).ok()?;
    if values.finish().ok()?.into_iter().flatten().next().is_some() {
        return None;
    }
    let part = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n{end}\r\n"
    );
    Some([before, part.as_bytes()].concat())
}

fn add_part<'b>(part: &'b [u8], values: &mut FieldValues<'_, 'b>) -> Result<(), FormError> {
    let malformed = || FormError::Malformed("the headers of a part of the multipart body are malformed");
    let at = memchr::memmem::find(part, b"\r\n\r\n").ok_or_else(malformed)?;
    let (head, behind) = part.split_at_checked(at).ok_or_else(malformed)?;
    let content = behind.get(4..).ok_or_else(malformed)?;
    if head.len() > PART_HEAD_BYTES_MAX {
        return Err(malformed());
    }
    // Names with bytes outside UTF-8 are never requested, so the replaced bytes do not matter.
    let head = String::from_utf8_lossy(head);
    let head = part_head(&head).ok_or_else(malformed)?;
    let name = head.name.ok_or_else(malformed)?;
    values.add(name, || if head.is_plain_text() { text(Cow::Borrowed(content)) } else { None })
}

impl PartHead<'_> {
    /// Reports whether all programs interpret the content of the part as UTF-8 text.
    fn is_plain_text(&self) -> bool {
        let media_type = self.media_type.is_none_or(|value| {
            let (media_type, rest) = value.split_once(';').unwrap_or((value, ""));
            let charset = |(name, value): &(&str, &str)| {
                !name.eq_ignore_ascii_case("charset")
                    || ["utf-8", "us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known))
            };
            media_type.trim().eq_ignore_ascii_case("text/plain")
                && parameters(rest).is_some_and(|parameters| parameters.iter().all(charset))
        });
        let encoding = self.transfer_encoding.is_none_or(|value| {
            ["7bit", "8bit", "binary"].iter().any(|known| value.eq_ignore_ascii_case(known))
        });
        media_type && encoding && !self.has_file_name
    }
}

/// Parses the headers of a part. Returns `None` if the headers are malformed, or if a header occurs twice.
fn part_head(text: &str) -> Option<PartHead<'_>> {
    let mut head = PartHead::default();
    for line in text.split("\r\n") {
        // A line that begins with white space continues the previous line. Not every program supports this.
        if line.starts_with([' ', '\t']) || line.contains(['\r', '\n', '\0']) {
            return None;
        }
        let (name, value) = line.split_once(':')?;
        let value = value.trim_matches([' ', '\t']);
        if !is_token(name) {
            return None;
        }
        let earlier = if name.eq_ignore_ascii_case("content-disposition") {
            let was_read = head.name.is_some();
            let (kind, rest) = value.split_once(';')?;
            if !kind.trim().eq_ignore_ascii_case("form-data") {
                return None;
            }
            disposition(rest, &mut head)?;
            was_read
        } else if name.eq_ignore_ascii_case("content-type") {
            let kind = value.get(.."multipart/".len()).unwrap_or_default();
            // Some programs read the parts of a nested multipart body as additional fields.
            if kind.eq_ignore_ascii_case("multipart/") {
                return None;
            }
            head.media_type.replace(value).is_some()
        } else if name.eq_ignore_ascii_case("content-transfer-encoding") {
            head.transfer_encoding.replace(value).is_some()
        } else {
            false
        };
        if earlier {
            return None;
        }
    }
    Some(head)
}

/// Parses the parameters of `Content-Disposition`. The parameter `name` must occur once. The parameter `name*` is not
/// allowed, because not every program supports it.
fn disposition<'h>(text: &'h str, head: &mut PartHead<'h>) -> Option<()> {
    let mut name = None;
    for (parameter, value) in parameters(text)? {
        match parameter.to_ascii_lowercase().as_str() {
            "name" if name.is_none() => name = Some(value),
            "name" => return None,
            "filename" | "filename*" => head.has_file_name = true,
            other if other.contains('*') => return None,
            _ => {}
        }
    }
    head.name = Some(name?);
    Some(())
}

/// Parses a list of parameters, such as `name="a"; filename="b"`. The value of a parameter is a token or a quoted text.
/// A quoted text must not contain backslashes, because programs differ in how they interpret a backslash.
fn parameters(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut found = Vec::new();
    let mut rest = text.trim_matches([' ', '\t']);
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=')?;
        let (value, after) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => behind.split_at_checked(behind.find(';').unwrap_or(behind.len()))?,
        };
        let value = if behind.starts_with('"') { value } else { value.trim_end_matches([' ', '\t']) };
        let is_valid = match behind.starts_with('"') {
            true => !value.contains(['\\', '\r', '\n', '\0']),
            // The value of `filename*` contains `'` and `%`. Both characters are allowed in a token.
            false => is_token(value),
        };
        if !is_token(name) || !is_valid {
            return None;
        }
        found.push((name, value));
        let after = after.trim_start_matches([' ', '\t']);
        rest = match after.is_empty() {
            true => after,
            false => after.strip_prefix(';')?.trim_start_matches([' ', '\t']),
        };
    }
    Some(found)
}

/// Reports whether a text is a token (RFC 9110 section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_token)
}
