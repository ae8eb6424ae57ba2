//! The settings of Callgate's connections to providers and of its fetches of published documents: the outbound proxy
//! and the trusted certificate authorities.

mod exemption;
mod proxy;

pub use exemption::Exemption;
pub use proxy::OutboundProxy;

/// A file with trusted certificate authorities.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustedRoots {
    /// The path of the PEM file.
    pub path: Box<str>,
    /// The SHA-256 digest of the file, by which Callgate notices a changed file.
    pub digest: [u8; 32],
}
