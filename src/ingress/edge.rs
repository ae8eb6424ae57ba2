//! The settings and the fetched data that all routes share.

use crate::signature::Keyring;
use crate::source::{ClientAddress, Lists};

/// What all routes share: the public URL, the rule for client addresses, and the fetched keys and lists.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The value of the `Host` header in requests to the agent. This is the authority of the public URL, or the agent's
    /// own authority if no public URL is configured.
    pub authority: Box<str>,
    /// The rule for finding the client address. If it is `None`, the client address is the address of the peer.
    pub client_address: Option<ClientAddress>,
    /// The fetched keys and address lists.
    pub fetched_data: FetchedData,
    /// The beginning of every external URL, without a slash at the end. Empty if no public URL is configured.
    pub public_url: Box<str>,
}

/// A snapshot of the fetched keys and address lists. A request uses one snapshot from beginning to end.
#[derive(Clone, Debug, Default)]
pub struct FetchedData {
    /// The keys.
    pub keyring: Keyring,
    /// The address lists.
    pub lists: Lists,
}
