//! The external side of Callgate: what all routes share.

use super::fetched_data::FetchedData;
use crate::source::ClientAddress;

/// The external side of Callgate: its public URL, the rule for client addresses, and the fetched keys and lists.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The `Host` header for the agent: the authority of the public URL, or of the agent.
    pub authority: Box<str>,
    /// The rule for finding the client address. `None`: the address of the peer.
    pub client_address: Option<ClientAddress>,
    /// The fetched keys and address lists.
    pub fetched_data: FetchedData,
    /// The beginning of every external URL, without a slash at the end. Empty if it is not configured.
    pub public_url: Box<str>,
}
