//! Where the keys of a verifier come from.

use super::certificate::CertificateRule;
use super::public_key::KeySet;
use crate::feed::FeedId;

/// Where public keys are to be had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PublicKeySource {
    /// At an address that the message names.
    Certificate(CertificateRule),
    /// At an address of the provider's, as JWKS.
    Url(Box<str>),
}

/// Where the keys of a verifier are.
#[derive(Clone, Debug)]
pub enum VerifierKeys {
    /// Each interaction has a secret of its own, which comes with what is signed.
    Derived,
    /// Public keys, fetched.
    Fetched(FeedId),
    /// The secret that a handshake handed over.
    Learned(FeedId),
    /// Public keys at an address that the message names; `Some`: these are the ones to use.
    Named(CertificateRule, Option<KeySet>),
    /// Public keys.
    Public(KeySet),
    /// Shared secrets.
    Shared,
}
