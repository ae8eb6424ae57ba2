//! Headers that take part in a signature.

use http::{HeaderName, HeaderValue};

use crate::denial::{Denial, Refusal};
use crate::request::{RequestHead, Single};

/// Longest header that takes part in a signature, in bytes.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// A header that takes part in a signature, where it is there.
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

/// A header that takes part in a signature.
pub(in crate::signature) fn required_header<'a>(
    head: &RequestHead<'a>,
    name: &HeaderName,
) -> Result<&'a HeaderValue, Refusal> {
    optional_header(head, name)?
        .ok_or_else(|| Refusal::new(Denial::SignatureMissing, format!("no {name} header")))
}
