//! The encoding of a signature as text.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

use super::mac::{AuthenticationTag, MacAlgorithm};

/// The encoding of the bytes of a signature as text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// Base64 with padding (RFC 4648 section 4).
    Base64,
    /// Base64url without padding (RFC 4648 section 5).
    Base64Url,
    /// Hexadecimal. The letters of one signature must all have the same case. Callgate writes lower case.
    Hex,
}

impl Encoding {
    /// Returns the name of the encoding in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Hex => "hex",
        }
    }

    /// Decodes an authentication tag, such as a MAC. Returns `None` if the text is malformed, or if the length is not
    /// the tag length of `algorithm`. A truncated tag must never be compared.
    pub(in crate::signature) fn decode(
        self,
        text: &str,
        algorithm: MacAlgorithm,
    ) -> Option<AuthenticationTag> {
        let encoding = self.decoder(text);
        let mut tag = AuthenticationTag { bytes: [0; 64], len: algorithm.tag_bytes() };
        if text.len() != encoding.encode_len(tag.len) {
            return None;
        }
        let mut room = [0; 68];
        let room = room.get_mut(..encoding.decode_len(text.len()).ok()?)?;
        let len = encoding.decode_mut(text.as_bytes(), room).ok()?;
        tag.bytes.get_mut(..len)?.copy_from_slice(room.get(..len)?);
        (len == tag.len).then_some(tag)
    }

    /// Decodes a signature of any length. Returns `None` if the text is not in this encoding.
    pub(in crate::signature) fn decode_any(self, text: &str) -> Option<Vec<u8>> {
        self.decoder(text).decode(text.as_bytes()).ok()
    }

    /// Returns the decoder for a text. The case of the first letter in a hexadecimal text determines the case of all
    /// letters.
    fn decoder(self, text: &str) -> data_encoding::Encoding {
        let first = text.bytes().find(u8::is_ascii_alphabetic);
        match self {
            Self::Hex if first.is_some_and(|letter| letter.is_ascii_uppercase()) => HEXUPPER,
            _ => self.encoding(),
        }
    }

    /// Returns the reason why a text is not a signature in this encoding, as a predicate such as `is not base64`. The
    /// reason does not repeat the text. For a MAC, `algorithm` determines the expected length. For a public-key
    /// signature, `algorithm` is `None`, and the length is not checked.
    pub(in crate::signature) fn fault(self, text: &str, algorithm: Option<MacAlgorithm>) -> String {
        let hex = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        if text.is_empty() {
            return "is empty".to_owned();
        }
        if text.contains(['"', '\'']) {
            return "is in quotation marks".to_owned();
        }
        if text.contains(char::is_whitespace) {
            return "contains white space".to_owned();
        }
        if self == Self::Hex && hex && self.decode_any(text).is_none() && text.len().is_multiple_of(2) {
            return "mixes upper-case and lower-case hexadecimal digits".to_owned();
        }
        let bytes = algorithm.map(MacAlgorithm::tag_bytes);
        let wanted = |needed: usize| match algorithm {
            Some(algorithm) => format!("{} needs {needed}", algorithm.name()),
            None => "which is an odd number".to_owned(),
        };
        let is_hex_of_tag = hex && bytes.is_some_and(|bytes| text.len() == bytes * 2);
        if self == Self::Hex && hex {
            let needed = bytes.map_or(0, |bytes| bytes * 2);
            return format!("has {} hexadecimal digits, {}", text.len(), wanted(needed));
        }
        if self != Self::Hex && is_hex_of_tag {
            return format!("is hexadecimal, expected {}", self.name());
        }
        if let Some(decoded) = self.decode_any(text) {
            return format!("is {} of {} bytes, {}", self.name(), decoded.len(), wanted(bytes.unwrap_or(0)));
        }
        let unpadded = text.trim_end_matches('=').as_bytes();
        let name = match self {
            Self::Hex => "hexadecimal",
            _ => self.name(),
        };
        let fault = match self {
            Self::Base64 if data_encoding::BASE64_NOPAD.decode(unpadded).is_ok() => "has wrong padding,",
            Self::Base64Url if BASE64URL_NOPAD.decode(unpadded).is_ok() => "has padding,",
            _ if data_encoding::BASE64_NOPAD.decode(unpadded).is_ok() => "is base64,",
            _ if BASE64URL_NOPAD.decode(unpadded).is_ok() => "is base64url,",
            _ => return format!("is not {name}"),
        };
        format!("{fault} expected {name}")
    }

    /// Encodes bytes as text in this encoding.
    pub(in crate::signature) fn encode(self, bytes: &[u8]) -> String {
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
