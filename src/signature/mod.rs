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

pub use content::{ContentPart, ContentScheme, ContentTemplate, ContentTemplateError};
pub use context::SignatureContext;
pub use coverage::SignatureCoverage;
pub use handshake::{
    Handshake, HandshakeCondition, HandshakeReply, HandshakeValueSource, ReplyBody, ReplyTemplate,
    ReplyTemplatePart, ReplyValue,
};
pub use keys::{
    AuthenticationTag, CertificateRule, CertificateSource, Encoding, KeySet, KeySetError, Keyring,
    MacAlgorithm, PublicKey, PublicKeyAlgorithm, PublicKeySource, SecretFormat, SecretFormatError,
    SignatureAlgorithm, VerifierKeys,
};
pub use proofs::{ExpectedClaim, JwtScheme, MessageSignatureScheme, SharedSecretPlace};
pub use request_parts::{
    EventIdSource, HeaderFormat, HeaderFormatError, SignaturePlace, TimestampRule, TimestampSource,
    TimestampUnit,
};
pub use scheme::{Proof, Scheme};
pub use verify::{PresentedSignature, SignedRequest, Verifier};
