//! The families of signatures that are none over a content of one's own choice.

mod http_message_signatures;
mod jwt;
mod shared_secret;
mod sns;

pub use self::http_message_signatures::MessageScheme;
pub(in crate::signature) use self::http_message_signatures::{MessageKeys, Sealed};
pub use self::jwt::{Expected, JwtScheme};
pub(in crate::signature) use self::jwt::{JwtKeys, Statement, jwt_mac};
pub use self::shared_secret::TokenPlace;
pub(in crate::signature) use self::sns::SnsMessage;
