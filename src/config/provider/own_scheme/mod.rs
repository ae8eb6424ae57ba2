//! Checks of a signature scheme that a user describes. A mistake in the scheme must not let unverified callers in. The
//! mistake must also be reported before the provider sends its first message.

mod handshakes;
mod signed_parts;

use crate::config::yaml::{Cursor, Fields};
use crate::signature::Scheme;
use handshakes::{answerable, complete};
use signed_parts::{covered, unambiguous, verifiable};

/// Reports an error for each part of a user's signature scheme that is not safe, or that cannot work. `accepted` is
/// true if the user accepts a signature that does not cover the body.
pub(super) fn check(at: &Cursor<'_>, fields: &mut Fields<'_>, scheme: &Scheme, accepted: bool) {
    covered(at, scheme, accepted);
    unambiguous(fields, scheme);
    verifiable(at, scheme);
    answerable(fields, scheme);
    complete(fields, scheme);
}
