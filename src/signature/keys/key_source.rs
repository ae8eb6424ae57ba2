//! The sources of the keys that verify messages.

use super::certificate::CertificateRule;
use super::public_key::KeySet;
use crate::feed::FeedId;

/// The source from which Callgate fetches the public keys of a provider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PublicKeySource {
    /// A certificate at a URL that each message names.
    Certificate(CertificateRule),
    /// A JWKS document at a URL of the provider.
    Url(Box<str>),
}

/// The keys with which a verifier checks messages, or the source of these keys.
#[derive(Clone, Debug)]
pub enum VerifierKeys {
    /// Shared secrets that Callgate derives, one for each interaction. The verifier reads them from
    /// [`SignatureContext::derived`](crate::signature::SignatureContext::derived).
    Derived,
    /// Public keys that Callgate fetches. The value identifies the feed, which is the document with the keys.
    Fetched(FeedId),
    /// The shared secret that the provider sends in a handshake. The value is the id under which the keyring stores the
    /// secret.
    Learned(FeedId),
    /// Certificates. If the second value is `Some`, it contains the configured certificates. Otherwise Callgate fetches
    /// the certificates from the URLs in the messages. The first value is the rule for these URLs.
    Named(CertificateRule, Option<KeySet>),
    /// Public keys that the configuration contains.
    Public(KeySet),
    /// Shared secrets that the configuration contains.
    Shared,
}
