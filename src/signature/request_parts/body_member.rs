//! Reads the members of a JSON body that are part of a signature.

use std::borrow::Cow;

use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find_strict};

/// Returns the text of each member, in the order of `pointers`. The text of a member that is missing or null is empty.
///
/// A member that occurs twice is an error, because Callgate and the agent could read different values.
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
        Found::Doubled => Err(malformed(format!(
            "{} occurs twice, or another member name differs from it only in case",
            pointer.as_str()
        ))),
        Found::One(raw) if raw.get() == "null" => Ok(Cow::Borrowed("")),
        found @ Found::One(_) => found
            .word()
            .map(|word| Cow::Owned(word.into()))
            .ok_or_else(|| malformed(format!("{} is not a string, a number or a boolean", pointer.as_str()))),
    };
    pointers.iter().map(text).collect()
}
