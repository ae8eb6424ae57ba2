//! The algorithm of a signature: a MAC or a public-key algorithm.

use super::mac::MacAlgorithm;
use super::public_key_algorithm::PublicKeyAlgorithm;

/// The algorithm of a signature: a MAC or a public-key algorithm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignatureAlgorithm {
    /// A MAC with a secret that the provider and Callgate share.
    Mac(MacAlgorithm),
    /// A signature that a public key verifies.
    Public(PublicKeyAlgorithm),
}
