//! Keys and algorithms.

mod algorithm;
mod certificate;
mod encoding;
mod key_source;
mod keyring;
mod mac;
mod public_key;
mod public_key_algorithm;
mod secret_format;

pub use self::algorithm::Cipher;
pub use self::certificate::{CertificateRule, CertificateSource};
pub use self::encoding::Encoding;
pub use self::key_source::{Keys, KeysAt};
pub use self::keyring::Keyring;
pub(in crate::signature) use self::keyring::NOTHING;
pub(in crate::signature) use self::mac::Keyed;
pub use self::mac::{Algorithm, Tag};
pub use self::public_key::{KeySet, NoKeys, PublicKey};
pub use self::public_key_algorithm::PublicAlgorithm;
pub use self::secret_format::{KeyFault, KeyForm};

#[cfg(test)]
mod mac_tests;

#[cfg(test)]
mod public_key_tests;
