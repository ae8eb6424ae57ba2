//! Members of the body that take part in a signature.

use std::borrow::Cow;

use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find_strict};

/// Reads members of a body that a signature is made of: one that is there twice could be read either way.
pub(in crate::signature) fn body_members<'b>(
    body: &'b [u8],
    pointers: &[&Pointer],
) -> Result<Vec<Cow<'b, str>>, Refusal> {
    let malformed = |detail: String| Refusal::new(Denial::SignatureMalformed, detail);
    let find = |pointer: &&Pointer| {
        find_strict(body, pointer).map_err(|_| malformed("the body is not JSON".to_owned()))
    };
    let text = |pointer: &&Pointer| match find(pointer)? {
        Found::Missing => Ok(Cow::Borrowed("")),
        Found::Doubled => {
            Err(malformed(format!("{} is there twice, or in another spelling", pointer.as_str())))
        }
        Found::One(raw) if raw.get() == "null" => Ok(Cow::Borrowed("")),
        found @ Found::One(_) => found
            .word()
            .map(|word| Cow::Owned(word.into()))
            .ok_or_else(|| malformed(format!("{} is no plain value", pointer.as_str()))),
    };
    pointers.iter().map(text).collect()
}
