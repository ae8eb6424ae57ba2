//! Tokens: callback tokens that Callgate creates for one interaction, JWTs of other issuers, static secrets, and the
//! assertions that prove to the agent that a message came through Callgate.
//!
//! Verification needs the text of the token, the path captures to which the token must be bound, and the time. The
//! checks of the route find the token in the request. The library `jsonwebtoken` provides the cryptography. This
//! module checks headers and claims itself, because the library's defaults accept tokens that RFC 8725 forbids: wrong
//! types of `iss` and `aud`, `crit`, embedded keys, and any `typ`.

mod assertion;
mod callback;
mod callback_claims;
mod derive;
mod jwt;
mod mint;
mod opaque;

pub use crate::jose::{Algorithm, Family, Key, KeyFault, KeyMaterial, SHARED_KEY_BYTES_MIN};
pub use assertion::{Asserted, Asserter, Stamp, UNTRUSTED};
pub use callback::{CallbackVerifier, Granted};
pub use derive::Deriver;
pub use jwt::{JwtRules, JwtVerifier};
pub use mint::{Form, Grant, MintedToken, Minter};
pub use opaque::OpaqueKey;

#[cfg(test)]
mod tests;
