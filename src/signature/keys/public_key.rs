//! Public keys in the formats that providers publish: JWK and JWKS (RFC 7517), PEM, X.509 certificates, base64 of a
//! SubjectPublicKeyInfo, and raw Ed25519 keys in base64 or hexadecimal.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use serde::Deserialize;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as Spki;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::time::Timestamp;

/// The maximum number of keys in one key set.
const KEYS_MAX: usize = 64;

/// The components of a public key, by the type of the key.
#[derive(Clone, Eq, PartialEq)]
pub(in crate::signature) enum PublicKeyMaterial {
    Ed25519(Box<[u8]>),
    /// The point on the curve P-256, in uncompressed form.
    P256(Box<[u8]>),
    /// The point on the curve P-384, in uncompressed form.
    P384(Box<[u8]>),
    Rsa {
        modulus: Box<[u8]>,
        exponent: Box<[u8]>,
    },
}

/// A public key that verifies signatures.
#[derive(Clone)]
pub struct PublicKey {
    id: Option<Box<str>>,
    /// The JOSE name of the only algorithm that the key allows. `None` if the key names no algorithm.
    algorithm: Option<Box<str>>,
    /// The purpose of the public key, which is the value of `adcp_use` in a JWK. `None` if the public key has no
    /// purpose.
    purpose: Option<Box<str>>,
    /// The first and the last moment of the validity period, if the key is from a certificate.
    valid: Option<(Timestamp, Timestamp)>,
    material: PublicKeyMaterial,
}

/// Formats the type and the id of the public key.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.material {
            PublicKeyMaterial::Ed25519(_) => "Ed25519",
            PublicKeyMaterial::P256(_) => "P-256",
            PublicKeyMaterial::P384(_) => "P-384",
            PublicKeyMaterial::Rsa { .. } => "RSA",
        };
        write!(f, "PublicKey({kind}, {:?})", self.id)
    }
}

impl PublicKey {
    /// Returns the id of the key (`kid`). Returns `None` if the key has no id.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the JOSE name of the only algorithm that the key allows. Returns `None` if the key names no algorithm.
    pub fn algorithm(&self) -> Option<&str> {
        self.algorithm.as_deref()
    }

    /// Returns the purpose of the key (`adcp_use`). Returns `None` if the key names no purpose.
    pub fn purpose(&self) -> Option<&str> {
        self.purpose.as_deref()
    }

    /// Reports whether the key is within its validity period at `now`. A key without a certificate is always valid.
    fn is_valid_at(&self, now: Timestamp) -> bool {
        self.valid.is_none_or(|(from, until)| from <= now && now <= until)
    }

    pub(in crate::signature) fn material(&self) -> &PublicKeyMaterial {
        &self.material
    }

    fn bare(material: PublicKeyMaterial) -> Self {
        Self { id: None, algorithm: None, purpose: None, valid: None, material }
    }

    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let bits: &[u8] = &info.subject_public_key.data;
        let material = match info.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" if bits.len() == 32 => PublicKeyMaterial::Ed25519(bits.into()),
            "1.2.840.10045.2.1" => point(bits)?,
            "1.2.840.113549.1.1.1" => match info.parsed().ok()? {
                Spki::RSA(key) => rsa(key.modulus, key.exponent)?,
                _ => return None,
            },
            _ => return None,
        };
        Some(Self::bare(material))
    }

    fn from_certificate(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        let from = Timestamp::from_unix_secs(certificate.validity.not_before.timestamp());
        let until = Timestamp::from_unix_secs(certificate.validity.not_after.timestamp());
        let key = Self::from_info(certificate.public_key())?;
        rest.is_empty().then_some(Self { valid: Some((from, until)), ..key })
    }

    fn from_spki(der: &[u8]) -> Option<Self> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
        rest.is_empty().then(|| Self::from_info(&info)).flatten()
    }
}

/// Parses an uncompressed point on an elliptic curve. The length of the point determines the curve. Returns `None` for
/// any other format or length.
fn point(bits: &[u8]) -> Option<PublicKeyMaterial> {
    match (bits.first()?, bits.len()) {
        (4, 65) => Some(PublicKeyMaterial::P256(bits.into())),
        (4, 97) => Some(PublicKeyMaterial::P384(bits.into())),
        _ => None,
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<PublicKeyMaterial> {
    let trim = |bytes: &[u8]| -> Box<[u8]> { bytes.iter().copied().skip_while(|b| *b == 0).collect() };
    let (modulus, exponent) = (trim(modulus), trim(exponent));
    // RSA keys shorter than 2048 bits are too weak.
    (modulus.len() >= 256 && !exponent.is_empty()).then_some(PublicKeyMaterial::Rsa { modulus, exponent })
}

/// The public keys of a provider.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
    /// True if one of the keys has verified a message. Clones of the set share this flag.
    proved: Arc<AtomicBool>,
}

/// The error for a text that contains no usable public key, or too many keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeySetError;

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "holds no public key that can be used. Callgate reads JWK, JWKS, PEM, certificates, base64 of a SubjectPublicKeyInfo, \
             and raw Ed25519 keys in base64 or hexadecimal. RSA keys need 2048 bits or more",
        )
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: Box<str>,
    #[serde(default)]
    kid: Option<Box<str>>,
    #[serde(default)]
    alg: Option<Box<str>>,
    #[serde(default, rename = "use")]
    usage: Option<Box<str>>,
    #[serde(default)]
    key_ops: Option<Vec<Box<str>>>,
    #[serde(default)]
    adcp_use: Option<Box<str>>,
    #[serde(default)]
    crv: Option<Box<str>>,
    #[serde(default)]
    x: Option<Box<str>>,
    #[serde(default)]
    y: Option<Box<str>>,
    #[serde(default)]
    n: Option<Box<str>>,
    #[serde(default)]
    e: Option<Box<str>>,
}

impl Jwk {
    /// Returns the public key of this JWK. Returns `None` if the key is not for verifying signatures, or if its type is
    /// not supported.
    fn key(self) -> Option<PublicKey> {
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| &**op == "verify"));
        if !signs || !verifies {
            return None;
        }
        let number = |text: &Option<Box<str>>| BASE64URL_NOPAD.decode(text.as_ref()?.as_bytes()).ok();
        let material = match (&*self.kty, self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => {
                PublicKeyMaterial::Ed25519(number(&self.x).filter(|x| x.len() == 32)?.into())
            }
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let bytes = if curve == "P-256" { 32 } else { 48 };
                let (x, y) = (number(&self.x)?, number(&self.y)?);
                (x.len() == bytes && y.len() == bytes).then_some(())?;
                point(&[&[4], &*x, &*y].concat())?
            }
            ("RSA", _) => rsa(&number(&self.n)?, &number(&self.e)?)?,
            _ => return None,
        };
        let key = PublicKey::bare(material);
        Some(PublicKey { id: self.kid, algorithm: self.alg, purpose: self.adcp_use, ..key })
    }
}

impl KeySet {
    /// Parses public keys in any supported format: JWK, JWKS, PEM, certificate, SubjectPublicKeyInfo, or raw Ed25519.
    /// Unusable keys of a JWKS are skipped (RFC 7517 section 5).
    ///
    /// # Errors
    /// Returns a [`KeySetError`] if the text contains no usable key, or too many keys.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let text = std::str::from_utf8(text).map_err(|_| KeySetError)?.trim();
        let keys = if text.starts_with('{') {
            json(text)
        } else if text.starts_with("-----BEGIN ") {
            pem(text)
        } else {
            bare(text).map(|key| vec![key])
        };
        match keys {
            Some(keys) if (1..=KEYS_MAX).contains(&keys.len()) => Ok(Self { keys, proved: Arc::default() }),
            _ => Err(KeySetError),
        }
    }

    /// Returns all keys of the set.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Returns a key set with the keys of all `sets`.
    pub fn merged(sets: impl IntoIterator<Item = Self>) -> Self {
        Self { keys: sets.into_iter().flat_map(|set| set.keys).collect(), proved: Arc::default() }
    }

    /// Reports whether one of the keys has verified a message.
    pub fn has_proved_itself(&self) -> bool {
        self.proved.load(Ordering::Relaxed)
    }

    /// Records that one of the keys has verified a message.
    pub fn prove(&self) {
        // The flag is written only if it is not set. A write for each message would slow down the other threads that
        // read the flag.
        if !self.has_proved_itself() {
            self.proved.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the keys of the set whose validity period contains `now`.
    pub(in crate::signature) fn usable(&self, now: Timestamp) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().filter(move |key| key.is_valid_at(now))
    }

    /// Returns the keys that have this id and are valid at `now`. Keys without an id match every id. If `id` is
    /// `None`, every valid key matches.
    pub(in crate::signature) fn named<'k>(
        &'k self,
        id: Option<&'k str>,
        now: Timestamp,
    ) -> impl Iterator<Item = &'k PublicKey> {
        self.usable(now).filter(move |key| id.is_none() || key.id().is_none() || key.id() == id)
    }
}

fn json(text: &str) -> Option<Vec<PublicKey>> {
    if let Ok(set) = serde_json::from_str::<Set>(text) {
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()?.key());
        return Some(keys.collect());
    }
    let key = serde_json::from_str::<Jwk>(text).ok()?.key()?;
    Some(vec![key])
}

fn pem(text: &str) -> Option<Vec<PublicKey>> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once("-----BEGIN ") {
        let (label, behind) = behind.split_once("-----")?;
        let (base64, behind) = behind.split_once(&format!("-----END {label}-----"))?;
        let base64: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = BASE64.decode(base64.as_bytes()).ok()?;
        keys.push(match label {
            "PUBLIC KEY" => PublicKey::from_spki(&der)?,
            "CERTIFICATE" => PublicKey::from_certificate(&der)?,
            _ => return None,
        });
        rest = behind;
    }
    Some(keys)
}

/// Parses one public key that is neither JSON nor PEM. `whpk_` is the prefix of public keys in Standard Webhooks.
fn bare(text: &str) -> Option<PublicKey> {
    let text = text.strip_prefix("whpk_").unwrap_or(text);
    let raw = |bytes: Vec<u8>| {
        (bytes.len() == 32).then(|| PublicKey::bare(PublicKeyMaterial::Ed25519(bytes.into())))
    };
    if text.len() == 64
        && let Ok(bytes) = HEXLOWER_PERMISSIVE.decode(text.as_bytes())
    {
        return raw(bytes);
    }
    let der = BASE64_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok()?;
    if der.len() == 32 { raw(der) } else { PublicKey::from_spki(&der) }
}
