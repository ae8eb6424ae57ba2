//! The sources of keys.

use super::certificate::CertificateRule;
use super::public_key::KeySet;
use crate::feed::FeedId;

/// The place from which Callgate fetches the public keys of a provider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PublicKeySource {
    /// A certificate at a URL that each message names.
    Certificate(CertificateRule),
    /// A JWKS document at a URL of the provider.
    Url(Box<str>),
}

/// The keys of a verifier, or their source.
#[derive(Clone, Debug)]
pub enum VerifierKeys {
    /// One shared secret for each interaction.
    /// [`SignatureContext::derived`](crate::signature::SignatureContext::derived) contains it.
    Derived,
    /// Public keys that Callgate fetches.
    Fetched(FeedId),
    /// The shared secret that the provider sends in a handshake.
    Learned(FeedId),
    /// Certificates at the URLs that the messages name. If the second field is `Some`, its configured keys are used
    /// instead.
    Named(CertificateRule, Option<KeySet>),
    /// Configured public keys.
    Public(KeySet),
    /// Configured shared secrets.
    Shared,
}
