//! The reply to a handshake request.

use http::{HeaderName, HeaderValue};

use crate::secret::Secret;

/// The reply to one handshake request, with all templates filled.
#[derive(Clone, Debug)]
pub struct HandshakeReply {
    /// The name of the handshake.
    pub name: Box<str>,
    /// The HTTP status of the reply.
    pub status: u16,
    /// The headers of the reply. They never contain a configured secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The media type of the body. `None` if the reply has no body.
    pub media_type: Option<&'static str>,
    /// The body of the reply.
    pub body: String,
    /// The secret that the provider sent in the handshake. `None` if it sent none.
    pub secret: Option<Secret>,
    /// The URL that Callgate must fetch to confirm a subscription. `None` if the handshake needs no confirmation.
    pub confirmation_url: Option<String>,
}
