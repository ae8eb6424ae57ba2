//! Reads the test vectors of Project Wycheproof for MACs and for public keys.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    test_groups: Vec<Group>,
}

/// A group of Wycheproof test vectors. In a group for public keys, all tests have the same key. In a group for MACs,
/// all tags have the same length.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Group {
    /// The length of the MACs in this group, in bits. The length is 0 for public keys.
    pub(super) tag_size: usize,
    /// The public key of all tests in this group, in PEM. The text is empty for MACs.
    pub(super) public_key_pem: String,
    pub(super) tests: Vec<Vector>,
}

/// One Wycheproof test. Keys, messages, tags and signatures are in hexadecimal.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Vector {
    pub(super) tc_id: u32,
    pub(super) comment: String,
    /// The key of a MAC in hexadecimal. The text is empty for public keys.
    #[serde(default)]
    pub(super) key: String,
    pub(super) msg: String,
    /// The MAC in hexadecimal. The text is empty for public keys.
    #[serde(default)]
    pub(super) tag: String,
    /// The public-key signature in hexadecimal. The text is empty for MACs.
    #[serde(default)]
    pub(super) sig: String,
    /// The expected result: `valid`, `invalid` or `acceptable`.
    pub(super) result: String,
}

/// Parses a file of Wycheproof test vectors, and returns its groups.
pub(super) fn groups(text: &str) -> Vec<Group> {
    serde_json::from_str::<File>(text).unwrap().test_groups
}

/// Decodes hexadecimal digits.
pub(super) fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}
