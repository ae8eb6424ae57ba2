//! What was fetched, as it is at one moment: a request sees one of these from its first byte to its last.

use crate::signature::Keyring;
use crate::source::Lists;

/// The fetched keys and lists of one moment.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// The keys.
    pub keyring: Keyring,
    /// The lists of addresses.
    pub lists: Lists,
}
