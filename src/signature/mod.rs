//! Verifies the signatures of providers.
//!
//! A [`Scheme`] describes how a provider signs its messages. The [`Proof`] of a scheme describes which part of a
//! request proves that the provider sent the message. A [`Verifier`] is a scheme together with its keys.
//!
//! Verification has two steps. [`Verifier::verify_head`] needs only the request head. It denies a request with a
//! missing, malformed or outdated signature before Callgate reads the body. [`Verifier::verify_body`] verifies the raw
//! body.
//!
//! | folder | contents |
//! |---|---|
//! | `request_parts` | reads headers, values of the body, timestamps, event ids and structured fields |
//! | `keys` | algorithms, shared secrets, public keys, fetched keys |
//! | `content` | the signed bytes: templates, canonical JSON, Twilio's forms |
//! | `proofs` | JWTs, HTTP message signatures, SNS messages, shared secrets |
//! | `handshake` | the rules of handshakes, and the parts of a reply |
//! | `verify` | the verifier: head, body, handshakes, signing |
//!
//! A folder depends only on the folders above it in this table.

mod body_format;
mod content;
mod context;
mod coverage_table;
mod event_identity;
mod handshake;
mod identity_part;
mod keys;
mod proofs;
mod request_parts;
mod scheme;
mod stated_algorithm;
mod verify;

pub use body_format::BodyFormat;
pub use content::{ContentPart, ContentScheme, ContentTemplate, ContentTemplateError};
pub use context::SignatureContext;
pub use coverage_table::SignatureCoverage;
pub use handshake::{
    Handshake, HandshakeCondition, HandshakeReply, HandshakeValueSource, ReplyBody, ReplyTemplate,
    ReplyTemplatePart, ReplyValue,
};
pub use identity_part::{DuplicateRule, IdentityPart};
pub use keys::{
    AuthenticationTag, CertificateRule, CertificateSource, Encoding, KeySet, KeySetError, Keyring,
    MacAlgorithm, PublicKey, PublicKeyAlgorithm, PublicKeySource, SecretFormat, SecretFormatError,
    SignatureAlgorithm, VerifierKeys,
};
pub use proofs::{ExpectedClaim, JwtPlace, JwtScheme, MessageSignatureScheme, SharedSecretPlace};
pub use request_parts::{
    EventIdSource, HeaderFormat, HeaderFormatError, SignaturePlace, TimestampRule, TimestampSource,
    TimestampUnit,
};
pub use scheme::{Proof, Scheme};
pub use stated_algorithm::StatedAlgorithm;
pub use verify::{PresentedSignature, SignedRequest, Verifier};
