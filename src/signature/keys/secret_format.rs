//! How the text of a secret becomes a key.

use std::fmt;

use zeroize::Zeroizing;

use crate::secret::Secret;

/// How the text of a secret becomes the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretFormat {
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
pub enum SecretFormatError {
    /// Not base64.
    Base64,
    /// Nothing in it.
    Empty,
    /// Not hexadecimal.
    Hex,
    /// No colon between the name of the key and the key.
    Id,
}

impl fmt::Display for SecretFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64 => "is not base64",
            Self::Empty => "is empty",
            Self::Hex => "is not hexadecimal",
            Self::Id => "is not the name of the key, a colon, and the key",
        })
    }
}

impl SecretFormat {
    /// The name of the key, for the form that has one.
    pub(in crate::signature) fn id<'s>(&self, secret: &'s Secret) -> Option<&'s [u8]> {
        match self {
            Self::IdAndSecret => secret.expose().split(|b| *b == b':').next(),
            _ => None,
        }
    }

    pub(super) fn key(&self, secret: &Secret) -> Result<Zeroizing<Vec<u8>>, SecretFormatError> {
        let text = secret.expose();
        let key = match self {
            Self::Utf8 => text.to_vec(),
            Self::Utf8After { prefix } => behind(text, prefix).unwrap_or(text).to_vec(),
            Self::IdAndSecret => {
                let colon = text.iter().position(|b| *b == b':').ok_or(SecretFormatError::Id)?;
                text.get(colon + 1..).unwrap_or_default().to_vec()
            }
            Self::Hex => {
                data_encoding::HEXLOWER_PERMISSIVE.decode(text).map_err(|_| SecretFormatError::Hex)?
            }
            Self::Base64 { prefix } => {
                let text = text.strip_prefix(prefix.as_bytes()).unwrap_or(text);
                // Some tools print the padding and some do not; the key is the same.
                let end = text.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1);
                let text = text.get(..end).unwrap_or_default();
                data_encoding::BASE64_NOPAD.decode(text).map_err(|_| SecretFormatError::Base64)?
            }
        };
        if key.is_empty() { Err(SecretFormatError::Empty) } else { Ok(Zeroizing::new(key)) }
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
