//! The data for verifying and signing a message, except the body.

use super::keys::{Keyring, NOTHING};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The data for verifying and signing a message, except the body: the request head, the public URL, the keys and the
/// time.
#[derive(Clone, Copy, Debug)]
pub struct SignatureContext<'a> {
    /// The request head, as received.
    pub head: RequestHead<'a>,
    /// The configured `public_url`. Together with the raw request target, it forms the URL that the provider called.
    pub public_url: &'a str,
    /// The keys and secrets that Callgate has fetched or learned from handshakes.
    pub keyring: &'a Keyring,
    /// The secrets that Callgate derived for the interaction of the request. The list is empty unless the provider has
    /// the setting `secrets: derived`.
    pub derived: &'a [Secret],
    /// The current time.
    pub now: Timestamp,
}

impl<'a> SignatureContext<'a> {
    /// Returns a context without fetched keys and without derived secrets.
    pub fn new(head: RequestHead<'a>, public_url: &'a str, now: Timestamp) -> Self {
        Self { head, public_url, keyring: &NOTHING, derived: &[], now }
    }

    /// Returns this context with `derived` as the secrets of the interaction.
    #[must_use]
    pub fn with_derived(self, derived: &'a [Secret]) -> Self {
        Self { derived, ..self }
    }
}
