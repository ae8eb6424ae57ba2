//! The kinds of proofs other than a signature over a content template: JWTs, HTTP message signatures, SNS messages and
//! shared secrets.

mod http_message_signatures;
mod jwt;
mod shared_secret;
mod sns;

pub use self::http_message_signatures::MessageSignatureScheme;
pub(in crate::signature) use self::http_message_signatures::{MessageKeys, VerifiedMessageSignature};
pub use self::jwt::{ExpectedClaim, JwtPlace, JwtScheme};
pub(in crate::signature) use self::jwt::{JwtKeys, VerifiedJwt};
pub use self::shared_secret::SharedSecretPlace;
pub(in crate::signature) use self::sns::SnsMessage;
