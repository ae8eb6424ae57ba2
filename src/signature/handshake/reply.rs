//! The answer to a handshake.

use http::{HeaderName, HeaderValue};

use crate::secret::Secret;

/// The answer to one handshake.
#[derive(Clone, Debug)]
pub struct HandshakeReply {
    /// Which handshake it is.
    pub name: Box<str>,
    /// The status.
    pub status: u16,
    /// The headers; never a token of ours.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The media type; `None`: without a body.
    pub media_type: Option<&'static str>,
    /// The body.
    pub body: String,
    /// The secret that was handed over.
    pub secret: Option<Secret>,
    /// What is to be fetched.
    pub confirmation_url: Option<String>,
}
