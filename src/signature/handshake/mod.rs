//! Handshakes: requests with which a provider checks that a URL accepts its messages.

mod handshake_request;
mod handshake_rule;
mod reply;

pub(in crate::signature) use self::handshake_request::HandshakeRequest;
pub use self::handshake_rule::{
    Handshake, HandshakeCondition, HandshakeValueSource, ReplyBody, ReplyTemplate, ReplyTemplatePart,
    ReplyValue,
};
pub use self::reply::HandshakeReply;
