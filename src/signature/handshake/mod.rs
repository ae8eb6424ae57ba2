//! Handshakes.

mod reply;
mod request;
mod rule;

pub use self::reply::Reply;
pub(in crate::signature) use self::request::Request;
pub use self::rule::{Answer, Handshake, HandshakeToken, Piece, Template, Value, When};
