//! Provider signatures: a scheme is data, and verifying is the same few lines for every scheme.
//!
//! A scheme says how a provider proves that a message is its own ([`Proof`]), and where the id of an event is.
//! Verification has two halves: [`Verifier::present`] needs the head alone and refuses what is missing, unreadable or
//! stale before a byte of body is read; [`Verifier::verify`] takes the raw bytes.

mod content;
mod context;
mod coverage;
mod handshake;
mod keys;
mod proofs;
mod request_parts;
mod scheme;
mod verify;

pub use content::{Content, ContentFault, ContentScheme, Part};
pub use context::Signed;
pub use coverage::Covers;
pub use handshake::{Answer, Handshake, HandshakeToken, Piece, Reply, Template, Value, When};
pub use keys::{
    Algorithm, CertificateRule, CertificateSource, Cipher, Encoding, KeyFault, KeyForm, KeySet, Keyring,
    Keys, KeysAt, NoKeys, PublicAlgorithm, PublicKey, Tag,
};
pub use proofs::{Expected, JwtScheme, MessageScheme, TokenPlace};
pub use request_parts::{
    Format, FormatFault, IdSource, Place, TimestampRule, TimestampSource, TimestampUnit,
};
pub use scheme::{Proof, Scheme};
pub use verify::{Presented, Signature, Verifier};
