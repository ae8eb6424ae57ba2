//! The algorithm of a signature: a MAC, or one with a public key.

use super::mac::MacAlgorithm;
use super::public_key_algorithm::PublicKeyAlgorithm;

/// How the content of a message is signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignatureAlgorithm {
    /// Under a shared secret.
    Mac(MacAlgorithm),
    /// With a private key.
    Public(PublicKeyAlgorithm),
}
