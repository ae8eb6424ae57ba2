//! Keys that verify messages, and the algorithms that use these keys.

mod algorithm;
mod certificate;
mod encoding;
mod fetched_keys;
mod key_source;
mod mac;
mod public_key;
mod public_key_algorithm;
mod secret_format;

pub use self::algorithm::SignatureAlgorithm;
pub use self::certificate::{CertificateRule, CertificateSource};
pub use self::encoding::Encoding;
pub use self::fetched_keys::Keyring;
pub(in crate::signature) use self::fetched_keys::NOTHING;
pub use self::key_source::{PublicKeySource, VerifierKeys};
pub(in crate::signature) use self::mac::MacKey;
pub use self::mac::{AuthenticationTag, MacAlgorithm};
pub use self::public_key::{KeySet, KeySetError, PublicKey};
pub use self::public_key_algorithm::PublicKeyAlgorithm;
pub use self::secret_format::{SecretFormat, SecretFormatError};

#[cfg(test)]
mod mac_tests;

#[cfg(test)]
mod public_key_tests;

#[cfg(test)]
mod wycheproof;
