//! The context of a signature: everything besides the body that verifying and signing need.

use super::keys::{Keyring, NOTHING};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The request head, and the keys, time and settings that verifying and signing need.
#[derive(Clone, Copy, Debug)]
pub struct SignatureContext<'a> {
    /// The request head, as received.
    pub head: RequestHead<'a>,
    /// The configured `public_url`. Together with the raw request target, it forms the URL that the provider called.
    pub public_url: &'a str,
    /// The fetched keys.
    pub keyring: &'a Keyring,
    /// The secrets that Callgate derived for the interaction of the request. The list is empty unless each interaction
    /// has secrets of its own.
    pub derived: &'a [Secret],
    /// The current time.
    pub now: Timestamp,
}

impl<'a> SignatureContext<'a> {
    /// Returns a context with no fetched keys and no derived secrets.
    pub fn new(head: RequestHead<'a>, public_url: &'a str, now: Timestamp) -> Self {
        Self { head, public_url, keyring: &NOTHING, derived: &[], now }
    }

    /// Returns the context with these derived secrets.
    #[must_use]
    pub fn with_derived(self, derived: &'a [Secret]) -> Self {
        Self { derived, ..self }
    }
}
