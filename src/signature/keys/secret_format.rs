//! The format of a shared secret. The format determines how Callgate converts the text of the secret into a key.

use std::fmt;

use zeroize::Zeroizing;

use crate::secret::Secret;

/// The format of a shared secret: how the text of the secret contains the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretFormat {
    /// The key is base64 after an optional prefix, such as `whsec_`.
    Base64 {
        /// The prefix before the base64 text. Secrets without the prefix are accepted.
        prefix: Box<str>,
    },
    /// The key is in hexadecimal.
    Hex,
    /// The secret consists of the id of the key, a colon, and the key as text.
    IdAndSecret,
    /// The bytes of the secret's text are the key.
    Utf8,
    /// The text after an optional prefix is the key. A `*` in the prefix matches any text.
    Utf8After {
        /// The prefix before the key, such as `signkey-*-`. Secrets without the prefix are accepted.
        prefix: Box<str>,
    },
}

/// The reason why a secret does not have the format that its signature scheme expects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SecretFormatError {
    /// The secret is not base64. The value describes the fault, and contains no part of the secret.
    Base64(&'static str),
    /// The key in the secret is empty.
    Empty,
    /// The secret is not hexadecimal.
    Hex,
    /// The secret has no colon between the id of the key and the key.
    Id,
}

impl fmt::Display for SecretFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64(fault) => return write!(f, "is not base64: {fault}"),
            Self::Empty => "is empty",
            Self::Hex => "is not hexadecimal: it has another character, or an odd number of digits",
            Self::Id => "has no colon between the id of the key and the key",
        })
    }
}

impl SecretFormat {
    /// Returns the id of the key in a secret, or `None` if secrets of this format contain no id.
    pub(in crate::signature) fn id<'s>(&self, secret: &'s Secret) -> Option<&'s [u8]> {
        match self {
            Self::IdAndSecret => secret.expose().split(|b| *b == b':').next(),
            _ => None,
        }
    }

    /// Returns the key that a secret of this format contains.
    ///
    /// # Errors
    /// Returns a [`SecretFormatError`] if the secret does not have this format, or if the key is empty.
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
                // The base64 padding is optional, because some tools omit it. The key is the same with and without
                // padding.
                let end = text.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1);
                let text = text.get(..end).unwrap_or_default();
                data_encoding::BASE64_NOPAD
                    .decode(text)
                    .map_err(|_| SecretFormatError::Base64(base64_fault(text)))?
            }
        };
        if key.is_empty() { Err(SecretFormatError::Empty) } else { Ok(Zeroizing::new(key)) }
    }
}

/// Returns the text after a prefix that may contain one `*`, which matches any text. Returns `None` if `text` does not
/// begin with the prefix.
fn behind<'t>(text: &'t [u8], prefix: &str) -> Option<&'t [u8]> {
    let (before, after) = prefix.split_once('*').unwrap_or((prefix, ""));
    let rest = text.strip_prefix(before.as_bytes())?;
    if after.is_empty() {
        return Some(rest);
    }
    let at = rest.windows(after.len()).position(|window| window == after.as_bytes())?;
    rest.get(at + after.len()..)
}

/// Returns the reason why a secret is not base64. The reason does not repeat any part of the secret.
fn base64_fault(text: &[u8]) -> &'static str {
    let has = |test: fn(&u8) -> bool| text.iter().any(test);
    if text.starts_with(b"v1,") {
        "it begins with `v1,`; write it from `whsec_` on"
    } else if text.starts_with(b"whsec_") {
        // The prefix of the scheme was already removed. A remaining `whsec_` means that the scheme has another prefix,
        // or that the secret has this prefix twice.
        "it begins with `whsec_`, but not with the prefix that this scheme expects; the table of presets shows the prefix"
    } else if text.starts_with(b"whpk_") || text.starts_with(b"v1a,whpk_") {
        "it is a public key, which begins with `whpk_`; this scheme needs the secret, which begins with `whsec_`"
    } else if text.starts_with(b"\xef\xbb\xbf") {
        "it begins with a byte order mark"
    } else if has(u8::is_ascii_whitespace) {
        "it contains white space"
    } else if has(|b| matches!(b, b'"' | b'\'' | b'`')) {
        "it contains quotation marks"
    } else if text.iter().any(|b| b"-_".contains(b)) && data_encoding::BASE64URL_NOPAD.decode(text).is_ok() {
        "it is base64url; replace `-` by `+`, and `_` by `/`"
    } else if has(|b| !b.is_ascii_alphanumeric() && !b"+/".contains(b)) {
        "it contains a character that base64 does not have"
    } else {
        "its length or its last character is wrong, so a part of it may be missing"
    }
}
