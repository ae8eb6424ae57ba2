//! The fetched keys and address lists. A request uses one immutable snapshot of them from beginning to end.

use crate::signature::Keyring;
use crate::source::Lists;

/// A snapshot of the fetched keys and address lists.
#[derive(Clone, Debug, Default)]
pub struct FetchedData {
    /// The keys.
    pub keyring: Keyring,
    /// The address lists.
    pub lists: Lists,
}
