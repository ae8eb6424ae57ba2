//! What verifying and signing need besides the body.

use super::keys::{Keyring, NOTHING};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::time::Timestamp;

/// What is signed besides the body, and what is known of the world.
#[derive(Clone, Copy, Debug)]
pub struct SignatureContext<'a> {
    /// The head, as received.
    pub head: RequestHead<'a>,
    /// What every external URL begins with: `{url}` is this and the raw target.
    pub public_url: &'a str,
    /// The fetched keys.
    pub keyring: &'a Keyring,
    /// The secrets of this one interaction, for providers that were given one with the request.
    pub derived: &'a [Secret],
    /// The time.
    pub now: Timestamp,
}

impl<'a> SignatureContext<'a> {
    /// A head at a moment, with nothing fetched and no secret of its own.
    pub fn new(head: RequestHead<'a>, public_url: &'a str, now: Timestamp) -> Self {
        Self { head, public_url, keyring: &NOTHING, derived: &[], now }
    }
}
