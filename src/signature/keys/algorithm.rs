//! The algorithm of a signature: a MAC, or one with a public key.

use super::mac::Algorithm;
use super::public_key_algorithm::PublicAlgorithm;

/// How the content of a message is signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cipher {
    /// Under a shared secret.
    Mac(Algorithm),
    /// With a private key.
    Public(PublicAlgorithm),
}
