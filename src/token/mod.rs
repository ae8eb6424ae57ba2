//! Tokens: the ones minted here for one interaction, JWTs of somebody else's, static secrets; and the assertions
//! that tell the agent what came through here.
//!
//! Verifying takes the token's text, the captures it must be bound to, and the time. Where on the request a
//! token travels is not known here. The cryptography is `jsonwebtoken`'s; what a header or claim may say is
//! decided here, because the library's defaults accept several things that RFC 8725 does not (wrongly typed
//! `iss` and `aud`, `crit`, embedded keys, any `typ`).

mod assertion;
mod callback;
mod derive;
mod jwt;
mod mint;

pub use crate::jose::{Algorithm, Family, Key, KeyFault, KeyMaterial, SHARED_KEY_BYTES_MIN};
pub use assertion::{Asserted, Asserter, Stamp};
pub use callback::{CallbackVerifier, Granted};
pub use derive::Deriver;
pub use jwt::{JwtRules, JwtVerifier};
pub use mint::{Grant, Minter};

/// The `typ` of tokens minted here.
const CALLBACK_TYPE: &str = "callback+jwt";
/// The `iss` of everything signed here.
const CALLGATE_ISSUER: &str = "callgate";
/// The version of the claims of tokens minted here.
const CALLBACK_VERSION: u8 = 1;

#[cfg(test)]
mod tests;
