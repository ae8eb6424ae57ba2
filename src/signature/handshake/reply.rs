//! The reply to a handshake.

use http::{HeaderName, HeaderValue};

use crate::secret::Secret;

/// The reply to one handshake.
#[derive(Clone, Debug)]
pub struct HandshakeReply {
    /// The name of the handshake.
    pub name: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// The headers. They never contain a configured secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The media type of the body. `None` if the reply has no body.
    pub media_type: Option<&'static str>,
    /// The body.
    pub body: String,
    /// The secret that the provider sent in the handshake, if it sent one.
    pub secret: Option<Secret>,
    /// The URL that Callgate must fetch to confirm a subscription, if the handshake requires it.
    pub confirmation_url: Option<String>,
}
