//! How a signature is written.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};

use super::mac::{AuthenticationTag, MacAlgorithm};

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

    /// Reads a signature of any length; `None` when it is not written so.
    pub(in crate::signature) fn decode_any(self, text: &str) -> Option<Vec<u8>> {
        self.encoding().decode(text.as_bytes()).ok()
    }

    /// Writes bytes.
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
