//! Message authentication codes (MACs).

use std::fmt;

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use super::secret_format::{SecretFormat, SecretFormatError};
use crate::secret::Secret;

/// An algorithm for message authentication codes (MACs).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MacAlgorithm {
    /// HMAC-SHA1 (RFC 2104). Some providers still sign with HMAC-SHA1.
    HmacSha1,
    /// HMAC-SHA256 (RFC 2104).
    HmacSha256,
    /// HMAC-SHA384 (RFC 2104).
    HmacSha384,
    /// HMAC-SHA512 (RFC 2104).
    HmacSha512,
    /// SHA-256 of a content that includes the secret. This algorithm is not a MAC, but HubSpot uses it as a signature.
    PlainSha256,
}

impl MacAlgorithm {
    /// Returns the name of the algorithm.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac-sha1",
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
            Self::PlainSha256 => "plain-sha256",
        }
    }

    /// Returns the MAC algorithm with this JOSE name (RFC 7518 section 3.1). Returns `None` for all other names.
    pub(in crate::signature) fn from_jose(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::HmacSha256),
            "HS384" => Some(Self::HmacSha384),
            "HS512" => Some(Self::HmacSha512),
            _ => None,
        }
    }

    /// Returns the length of an authentication tag of this algorithm, in bytes.
    pub const fn tag_bytes(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha256 | Self::PlainSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }
}

/// The authentication tag of a message. If the message is signed with a MAC, the tag is the MAC. Otherwise, the tag is
/// the SHA-256 digest of the signed content.
///
/// Messages with the same tag have the same signed content. Callgate therefore uses tags to recognize duplicates.
#[derive(Clone, Copy)]
pub struct AuthenticationTag {
    pub(super) bytes: [u8; 64],
    pub(super) len: usize,
}

impl AuthenticationTag {
    /// Creates an authentication tag from at most 64 bytes.
    pub(in crate::signature) fn new(bytes: &[u8]) -> Self {
        let mut tag = Self { bytes: [0; 64], len: bytes.len() };
        if let Some(room) = tag.bytes.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        tag
    }

    /// Returns the raw bytes of the tag. The bytes must not appear in a log or an error.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Reports whether two authentication tags are equal. The comparison takes constant time.
    pub(in crate::signature) fn matches(&self, other: &Self) -> bool {
        self.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

/// Formats only the length of the tag, because anyone who knows the tag can send the same message with a valid
/// signature.
impl fmt::Debug for AuthenticationTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} byte tag]", self.len)
    }
}

/// A MAC key whose initial state is already computed. Each clone computes the MAC of one message.
#[derive(Clone)]
pub(in crate::signature) enum MacKey {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
    Plain(Sha256),
}

impl MacKey {
    pub(in crate::signature) fn new(
        algorithm: MacAlgorithm,
        form: &SecretFormat,
        secret: &Secret,
    ) -> Result<Self, SecretFormatError> {
        let key = form.key(secret)?;
        // HMAC accepts keys of every length, so the error case never occurs. `new_from_slice` returns a `Result`
        // because it belongs to a trait for all MACs.
        match algorithm {
            MacAlgorithm::HmacSha1 => Hmac::new_from_slice(&key).map(Self::Sha1),
            MacAlgorithm::HmacSha256 => Hmac::new_from_slice(&key).map(Self::Sha256),
            MacAlgorithm::HmacSha384 => Hmac::new_from_slice(&key).map(Self::Sha384),
            MacAlgorithm::HmacSha512 => Hmac::new_from_slice(&key).map(Self::Sha512),
            MacAlgorithm::PlainSha256 => Ok(Self::Plain(Sha256::new())),
        }
        .map_err(|_| SecretFormatError::Empty)
    }

    /// Starts the MAC of one message with a clone of this key.
    pub(in crate::signature) fn start(&self) -> Self {
        self.clone()
    }

    /// Adds bytes of the message to the MAC.
    pub(in crate::signature) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(mac) => Mac::update(mac, bytes),
            Self::Sha256(mac) => Mac::update(mac, bytes),
            Self::Sha384(mac) => Mac::update(mac, bytes),
            Self::Sha512(mac) => Mac::update(mac, bytes),
            Self::Plain(hash) => Digest::update(hash, bytes),
        }
    }

    /// Returns the MAC of all bytes that were added.
    pub(in crate::signature) fn finish(self) -> AuthenticationTag {
        match self {
            Self::Sha1(mac) => AuthenticationTag::new(&mac.finalize().into_bytes()),
            Self::Sha256(mac) => AuthenticationTag::new(&mac.finalize().into_bytes()),
            Self::Sha384(mac) => AuthenticationTag::new(&mac.finalize().into_bytes()),
            Self::Sha512(mac) => AuthenticationTag::new(&mac.finalize().into_bytes()),
            Self::Plain(hash) => AuthenticationTag::new(&hash.finalize()),
        }
    }
}
