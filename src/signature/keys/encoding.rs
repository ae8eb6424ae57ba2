//! The encoding of a signature as text.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};

use super::mac::{AuthenticationTag, MacAlgorithm};

/// The encoding of a signature as text.
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
    /// Returns the name of the encoding in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Hex => "hex",
        }
    }

    /// Decodes a tag of exactly the algorithm's length. Returns `None` for every other text, because a truncated tag
    /// must never be compared.
    pub(in crate::signature) fn decode(
        self,
        text: &str,
        algorithm: MacAlgorithm,
    ) -> Option<AuthenticationTag> {
        let encoding = self.encoding();
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
        self.encoding().decode(text.as_bytes()).ok()
    }

    /// Encodes bytes.
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
