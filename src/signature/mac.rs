//! The MACs: keys made ready once, tags compared in constant time.

use std::fmt;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

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

/// How the text of a secret becomes the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyForm {
    /// Base64 after an optional prefix, such as `whsec_`.
    Base64 {
        /// Stripped where it is there.
        prefix: Box<str>,
    },
    /// Hexadecimal.
    Hex,
    /// What stands behind the first colon, as text; before it stands the name of the key.
    IdAndSecret,
    /// The text itself.
    Utf8,
    /// The text behind a prefix, where it is there; a `*` in the prefix stands for anything.
    Utf8After {
        /// Such as `signkey-*-`.
        prefix: Box<str>,
    },
}

/// Why a secret is no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyFault {
    /// Not base64.
    Base64,
    /// Nothing in it.
    Empty,
    /// Not hexadecimal.
    Hex,
    /// No colon between the name of the key and the key.
    Id,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64 => "is not base64",
            Self::Empty => "is empty",
            Self::Hex => "is not hexadecimal",
            Self::Id => "is not the name of the key, a colon, and the key",
        })
    }
}

impl KeyForm {
    /// The name of the key, for the form that has one.
    pub(super) fn id<'s>(&self, secret: &'s Secret) -> Option<&'s [u8]> {
        match self {
            Self::IdAndSecret => secret.expose().split(|b| *b == b':').next(),
            _ => None,
        }
    }

    fn key(&self, secret: &Secret) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
        let text = secret.expose();
        let key = match self {
            Self::Utf8 => text.to_vec(),
            Self::Utf8After { prefix } => behind(text, prefix).unwrap_or(text).to_vec(),
            Self::IdAndSecret => {
                let colon = text.iter().position(|b| *b == b':').ok_or(KeyFault::Id)?;
                text.get(colon + 1..).unwrap_or_default().to_vec()
            }
            Self::Hex => data_encoding::HEXLOWER_PERMISSIVE.decode(text).map_err(|_| KeyFault::Hex)?,
            Self::Base64 { prefix } => {
                let text = text.strip_prefix(prefix.as_bytes()).unwrap_or(text);
                // Some tools print the padding and some do not; the key is the same.
                let end = text.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1);
                let text = text.get(..end).unwrap_or_default();
                data_encoding::BASE64_NOPAD.decode(text).map_err(|_| KeyFault::Base64)?
            }
        };
        if key.is_empty() { Err(KeyFault::Empty) } else { Ok(Zeroizing::new(key)) }
    }
}

/// What stands behind a prefix with a `*` in it.
fn behind<'t>(text: &'t [u8], prefix: &str) -> Option<&'t [u8]> {
    let (before, after) = prefix.split_once('*').unwrap_or((prefix, ""));
    let rest = text.strip_prefix(before.as_bytes())?;
    if after.is_empty() {
        return Some(rest);
    }
    let at = rest.windows(after.len()).position(|window| window == after.as_bytes())?;
    rest.get(at + after.len()..)
}

/// How a tag is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// Base64 with padding.
    Base64,
    /// Base64url without padding.
    Base64Url,
    /// Lower-case hexadecimal.
    Hex,
}

impl Encoding {
    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Hex => "hex",
        }
    }

    /// Reads a tag of exactly the algorithm's length; `None` for anything else, so that a shortened
    /// signature never gets as far as being compared.
    pub(super) fn decode(self, text: &str, algorithm: Algorithm) -> Option<Tag> {
        let encoding = self.encoding();
        let mut tag = Tag { bytes: [0; 64], len: algorithm.tag_bytes() };
        if text.len() != encoding.encode_len(tag.len) {
            return None;
        }
        let mut room = [0; 68];
        let room = room.get_mut(..encoding.decode_len(text.len()).ok()?)?;
        let len = encoding.decode_mut(text.as_bytes(), room).ok()?;
        tag.bytes.get_mut(..len)?.copy_from_slice(room.get(..len)?);
        (len == tag.len).then_some(tag)
    }

    /// Reads a signature of any length; `None` when it is not written so.
    pub(super) fn decode_any(self, text: &str) -> Option<Vec<u8>> {
        self.encoding().decode(text.as_bytes()).ok()
    }

    /// Writes bytes.
    pub(super) fn encode(self, bytes: &[u8]) -> String {
        self.encoding().encode(bytes)
    }

    fn encoding(self) -> data_encoding::Encoding {
        match self {
            Self::Base64 => BASE64,
            Self::Base64Url => BASE64URL_NOPAD,
            Self::Hex => HEXLOWER,
        }
    }
}

/// The result of a MAC, computed or presented.
#[derive(Clone, Copy)]
pub struct Tag {
    bytes: [u8; 64],
    len: usize,
}

impl Tag {
    pub(super) fn new(bytes: &[u8]) -> Self {
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
    pub(super) fn matches(&self, other: &Self) -> bool {
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
pub(super) enum Keyed {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
    Plain(Sha256),
}

impl Keyed {
    pub(super) fn new(algorithm: Algorithm, form: &KeyForm, secret: &Secret) -> Result<Self, KeyFault> {
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

    pub(super) fn start(&self) -> Self {
        self.clone()
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(mac) => Mac::update(mac, bytes),
            Self::Sha256(mac) => Mac::update(mac, bytes),
            Self::Sha384(mac) => Mac::update(mac, bytes),
            Self::Sha512(mac) => Mac::update(mac, bytes),
            Self::Plain(hash) => Digest::update(hash, bytes),
        }
    }

    pub(super) fn finish(self) -> Tag {
        match self {
            Self::Sha1(mac) => Tag::new(&mac.finalize().into_bytes()),
            Self::Sha256(mac) => Tag::new(&mac.finalize().into_bytes()),
            Self::Sha384(mac) => Tag::new(&mac.finalize().into_bytes()),
            Self::Sha512(mac) => Tag::new(&mac.finalize().into_bytes()),
            Self::Plain(hash) => Tag::new(&hash.finalize()),
        }
    }
}
