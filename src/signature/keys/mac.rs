//! The MACs: keys made ready once, tags compared in constant time.

use std::fmt;

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use super::secret_format::{KeyFault, KeyForm};
use crate::secret::Secret;

/// The MAC of a scheme.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// HMAC-SHA1: only because some providers still sign with it.
    HmacSha1,
    /// HMAC-SHA256.
    HmacSha256,
    /// HMAC-SHA384.
    HmacSha384,
    /// HMAC-SHA512.
    HmacSha512,
    /// A plain SHA-256 of content that holds the secret: no MAC, only because HubSpot still signs so.
    PlainSha256,
}

impl Algorithm {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac-sha1",
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
            Self::PlainSha256 => "plain-sha256",
        }
    }

    /// Length of a tag, in bytes.
    pub const fn tag_bytes(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha256 | Self::PlainSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }
}

/// The result of a MAC, computed or presented.
#[derive(Clone, Copy)]
pub struct Tag {
    pub(super) bytes: [u8; 64],
    pub(super) len: usize,
}

impl Tag {
    pub(in crate::signature) fn new(bytes: &[u8]) -> Self {
        let mut tag = Self { bytes: [0; 64], len: bytes.len() };
        if let Some(room) = tag.bytes.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        tag
    }

    /// The raw bytes. Never for a log or an error.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Compares in constant time.
    pub(in crate::signature) fn matches(&self, other: &Self) -> bool {
        self.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

/// A computed tag is as good as the secret for one message: it is not printed.
impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} byte tag]", self.len)
    }
}

/// A key whose schedule is made: cloned for each message.
#[derive(Clone)]
pub(in crate::signature) enum Keyed {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
    Plain(Sha256),
}

impl Keyed {
    pub(in crate::signature) fn new(
        algorithm: Algorithm,
        form: &KeyForm,
        secret: &Secret,
    ) -> Result<Self, KeyFault> {
        let key = form.key(secret)?;
        // HMAC takes keys of any length; the error type is that of other MACs.
        match algorithm {
            Algorithm::HmacSha1 => Hmac::new_from_slice(&key).map(Self::Sha1),
            Algorithm::HmacSha256 => Hmac::new_from_slice(&key).map(Self::Sha256),
            Algorithm::HmacSha384 => Hmac::new_from_slice(&key).map(Self::Sha384),
            Algorithm::HmacSha512 => Hmac::new_from_slice(&key).map(Self::Sha512),
            Algorithm::PlainSha256 => Ok(Self::Plain(Sha256::new())),
        }
        .map_err(|_| KeyFault::Empty)
    }

    pub(in crate::signature) fn start(&self) -> Self {
        self.clone()
    }

    pub(in crate::signature) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(mac) => Mac::update(mac, bytes),
            Self::Sha256(mac) => Mac::update(mac, bytes),
            Self::Sha384(mac) => Mac::update(mac, bytes),
            Self::Sha512(mac) => Mac::update(mac, bytes),
            Self::Plain(hash) => Digest::update(hash, bytes),
        }
    }

    pub(in crate::signature) fn finish(self) -> Tag {
        match self {
            Self::Sha1(mac) => Tag::new(&mac.finalize().into_bytes()),
            Self::Sha256(mac) => Tag::new(&mac.finalize().into_bytes()),
            Self::Sha384(mac) => Tag::new(&mac.finalize().into_bytes()),
            Self::Sha512(mac) => Tag::new(&mac.finalize().into_bytes()),
            Self::Plain(hash) => Tag::new(&hash.finalize()),
        }
    }
}
