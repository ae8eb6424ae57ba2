//! Reads headers that belong to a signature.

use http::{HeaderName, HeaderValue};

use crate::denial::{Denial, Refusal};
use crate::request::{RequestHead, Single};

/// The maximum length of a header that belongs to a signature, in bytes.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// Returns the value of a header, or `None` if the request does not have the header.
///
/// # Errors
/// Returns `header_duplicated` if the header occurs more than once, and `signature_malformed` if the value is too
/// long.
pub(in crate::signature) fn optional_header<'a>(
    head: &RequestHead<'a>,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Refusal> {
    match head.single(name) {
        Single::Missing => Ok(None),
        Single::One(value) if value.len() <= HEADER_BYTES_MAX => Ok(Some(value)),
        Single::One(_) => {
            Err(Refusal::new(Denial::SignatureMalformed, format!("{name} is longer than 8 KiB")))
        }
        Single::Several => {
            Err(Refusal::new(Denial::HeaderDuplicated, format!("{name} occurs more than once")))
        }
    }
}

/// Returns the value of a header that the request must have.
///
/// # Errors
/// Returns the errors of [`optional_header`], and `signature_missing` if the request does not have the header.
pub(in crate::signature) fn required_header<'a>(
    head: &RequestHead<'a>,
    name: &HeaderName,
) -> Result<&'a HeaderValue, Refusal> {
    optional_header(head, name)?
        .ok_or_else(|| Refusal::new(Denial::SignatureMissing, format!("the request has no {name} header")))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn a_header_occurs_once_and_has_a_maximum_length() {
        let name = HeaderName::from_static("x-sig");
        let read = |values: &[usize]| {
            let mut headers = HeaderMap::new();
            for length in values {
                headers.append(&name, "v".repeat(*length).parse().unwrap());
            }
            let head = RequestHead::new("POST", "/", &headers, std::net::IpAddr::from([127, 0, 0, 1]));
            let length = |value: &HeaderValue| value.len();
            let optional = optional_header(&head, &name).map(|value| value.map(length));
            let required = required_header(&head, &name).map(length);
            (optional.map_err(|refusal| refusal.denial), required.map_err(|refusal| refusal.denial))
        };
        let denied = |denial| (Err(denial), Err(denial));
        for length in [0, 1, HEADER_BYTES_MAX] {
            assert_eq!(read(&[length]), (Ok(Some(length)), Ok(length)));
        }
        assert_eq!(read(&[HEADER_BYTES_MAX + 1]), denied(Denial::SignatureMalformed));
        assert_eq!(read(&[1, 1]), denied(Denial::HeaderDuplicated));
        assert_eq!(read(&[]), (Ok(None), Err(Denial::SignatureMissing)));
    }
}
