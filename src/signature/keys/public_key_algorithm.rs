//! Public-key signature algorithms. The library `ring` implements the cryptography.

use ring::signature as crypto;

use super::public_key::{PublicKey, PublicKeyMaterial};

/// A public-key signature algorithm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublicKeyAlgorithm {
    /// ECDSA on P-256 with SHA-256. The signature is in DER.
    EcdsaP256Der,
    /// ECDSA on P-256 with SHA-256. The signature has a fixed length (IEEE P1363), as in JWS.
    EcdsaP256Fixed,
    /// ECDSA on P-384 with SHA-384. The signature is in DER.
    EcdsaP384Der,
    /// ECDSA on P-384 with SHA-384. The signature has a fixed length (IEEE P1363), as in JWS.
    EcdsaP384Fixed,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// RSASSA-PKCS1-v1_5 with SHA-1. Some providers still sign with this algorithm.
    RsaPkcs1Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256.
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512.
    RsaPssSha512,
}

impl PublicKeyAlgorithm {
    /// Returns the name of the algorithm.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256Der | Self::EcdsaP256Fixed => "ecdsa-p256-sha256",
            Self::EcdsaP384Der | Self::EcdsaP384Fixed => "ecdsa-p384-sha384",
            Self::Ed25519 => "ed25519",
            Self::RsaPkcs1Sha1 => "rsa-pkcs1-sha1",
            Self::RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
            Self::RsaPkcs1Sha384 => "rsa-pkcs1-sha384",
            Self::RsaPkcs1Sha512 => "rsa-pkcs1-sha512",
            Self::RsaPssSha256 => "rsa-pss-sha256",
            Self::RsaPssSha384 => "rsa-pss-sha384",
            Self::RsaPssSha512 => "rsa-pss-sha512",
        }
    }

    /// Returns the public-key algorithm with this JOSE name (RFC 7518 section 3.1). Returns `None` for all other
    /// names.
    pub fn from_jose(name: &str) -> Option<Self> {
        Some(match name {
            "ES256" => Self::EcdsaP256Fixed,
            "ES384" => Self::EcdsaP384Fixed,
            "EdDSA" | "Ed25519" => Self::Ed25519,
            "RS256" => Self::RsaPkcs1Sha256,
            "RS384" => Self::RsaPkcs1Sha384,
            "RS512" => Self::RsaPkcs1Sha512,
            "PS256" => Self::RsaPssSha256,
            "PS384" => Self::RsaPssSha384,
            "PS512" => Self::RsaPssSha512,
            _ => return None,
        })
    }

    /// Reports whether `signature` is a valid signature of `message` under `key`. Returns false if the type of the key
    /// does not fit the algorithm.
    pub(in crate::signature) fn verifies(self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        match key.material() {
            PublicKeyMaterial::Ed25519(bytes) if self == Self::Ed25519 => {
                crypto::UnparsedPublicKey::new(&crypto::ED25519, bytes).verify(message, signature).is_ok()
            }
            PublicKeyMaterial::P256(point) => match self {
                Self::EcdsaP256Der => verify(&crypto::ECDSA_P256_SHA256_ASN1, point, message, signature),
                Self::EcdsaP256Fixed => verify(&crypto::ECDSA_P256_SHA256_FIXED, point, message, signature),
                _ => false,
            },
            PublicKeyMaterial::P384(point) => match self {
                Self::EcdsaP384Der => verify(&crypto::ECDSA_P384_SHA384_ASN1, point, message, signature),
                Self::EcdsaP384Fixed => verify(&crypto::ECDSA_P384_SHA384_FIXED, point, message, signature),
                _ => false,
            },
            PublicKeyMaterial::Rsa { modulus, exponent } => self.rsa().is_some_and(|parameters| {
                let key = crypto::RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, message, signature).is_ok()
            }),
            PublicKeyMaterial::Ed25519(_) => false,
        }
    }

    /// Returns the RSA parameters of the algorithm, or `None` if this is not an RSA algorithm. The parameters allow
    /// keys of 2048 to 8192 bits.
    fn rsa(self) -> Option<&'static crypto::RsaParameters> {
        Some(match self {
            Self::RsaPkcs1Sha1 => &crypto::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Self::RsaPkcs1Sha256 => &crypto::RSA_PKCS1_2048_8192_SHA256,
            Self::RsaPkcs1Sha384 => &crypto::RSA_PKCS1_2048_8192_SHA384,
            Self::RsaPkcs1Sha512 => &crypto::RSA_PKCS1_2048_8192_SHA512,
            Self::RsaPssSha256 => &crypto::RSA_PSS_2048_8192_SHA256,
            Self::RsaPssSha384 => &crypto::RSA_PSS_2048_8192_SHA384,
            Self::RsaPssSha512 => &crypto::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}

fn verify(
    algorithm: &'static dyn crypto::VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    crypto::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}
