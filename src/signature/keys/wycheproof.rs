//! Reads the test vectors of Wycheproof, for MACs and for public keys.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    test_groups: Vec<Group>,
}

/// A group of tests. In a group for public keys, all tests have the same key. In a group for MACs, all tags have the
/// same length.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Group {
    /// The length of the tags, in bits. It is 0 for public keys.
    pub(super) tag_size: usize,
    /// The public key. It is empty for MACs.
    pub(super) public_key_pem: String,
    pub(super) tests: Vec<Vector>,
}

/// One test. Keys, messages, tags and signatures are in hexadecimal digits.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Vector {
    pub(super) tc_id: u32,
    pub(super) comment: String,
    /// The key of a MAC.
    #[serde(default)]
    pub(super) key: String,
    pub(super) msg: String,
    /// The MAC.
    #[serde(default)]
    pub(super) tag: String,
    /// The signature.
    #[serde(default)]
    pub(super) sig: String,
    /// `valid`, `invalid` or `acceptable`.
    pub(super) result: String,
}

/// Parses a file of test vectors.
pub(super) fn groups(text: &str) -> Vec<Group> {
    serde_json::from_str::<File>(text).unwrap().test_groups
}

/// Decodes hexadecimal digits.
pub(super) fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}
