//! Handshakes: requests with which a provider checks that an address accepts its messages.

mod reply;
mod request;
mod rule;

pub use self::reply::HandshakeReply;
pub(in crate::signature) use self::request::HandshakeRequest;
pub use self::rule::{
    Handshake, HandshakeCondition, HandshakeValueSource, ReplyBody, ReplyTemplate, ReplyTemplatePart,
    ReplyValue,
};
