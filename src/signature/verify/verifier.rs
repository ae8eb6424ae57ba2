//! The verifier of a provider: its signature scheme and its keys.

use crate::secret::Secret;
use crate::signature::context::SignatureContext;
use crate::signature::keys::{MacKey, SecretFormatError, VerifierKeys};
use crate::signature::scheme::Scheme;

/// A signature scheme together with its keys, which verifies the messages of one provider.
#[derive(Clone)]
pub struct Verifier {
    pub(super) scheme: Scheme,
    pub(super) keys: VerifierKeys,
    /// The shared secrets, each with the MAC key that is computed from the secret.
    pub(super) mac_keys: Vec<(MacKey, Secret)>,
    /// The configured values of `secrets`. Depending on the scheme, these values are shared secrets, SNS topics or ids
    /// of webhooks.
    pub(super) secrets: Vec<Secret>,
    /// The verify token for handshakes that must contain one. If it is `None`, the first of `secrets` is the verify
    /// token.
    pub(super) verify_token: Option<Secret>,
    /// The subscriptions for which Callgate accepts handshakes.
    pub(super) subscriptions: Vec<Box<str>>,
}

/// Formats the signature scheme, but not the keys.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({} secrets, {:?})", self.secrets.len(), self.scheme)
    }
}

impl Verifier {
    /// Creates a verifier. A message may be signed with any of the secrets. Callgate itself signs with the first
    /// secret.
    ///
    /// # Errors
    /// Returns a [`SecretFormatError`] and the index of the secret that does not have the format of the scheme.
    pub fn new(
        scheme: Scheme,
        keys: VerifierKeys,
        secrets: &[Secret],
    ) -> Result<Self, (usize, SecretFormatError)> {
        let algorithm = scheme.mac_algorithm();
        let prepare = |(i, secret): (usize, &Secret)| {
            let algorithm = algorithm?;
            let keyed = MacKey::new(algorithm, &scheme.secret_format, secret);
            Some(keyed.map(|keyed| (keyed, secret.clone())).map_err(|fault| (i, fault)))
        };
        let mac_keys = secrets.iter().enumerate().filter_map(prepare).collect::<Result<_, _>>()?;
        let secrets = secrets.to_vec();
        Ok(Self { scheme, keys, mac_keys, secrets, verify_token: None, subscriptions: Vec::new() })
    }

    /// Returns this verifier with a verify token and subscriptions, which some handshakes need.
    #[must_use]
    pub fn with_handshakes(self, verify_token: Option<Secret>, subscriptions: Vec<Box<str>>) -> Self {
        Self { verify_token, subscriptions, ..self }
    }

    /// Returns the signature scheme of the provider.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Returns the keys of the verifier, or the source of the keys.
    pub fn keys(&self) -> &VerifierKeys {
        &self.keys
    }

    /// Reports whether messages or handshakes of this provider make Callgate fetch a URL.
    pub fn fetches(&self) -> bool {
        self.names_certificates()
            || self.scheme.handshakes.iter().any(|handshake| handshake.confirmation.is_some())
    }

    /// Reports whether messages contain URLs of certificates that Callgate must fetch.
    pub fn names_certificates(&self) -> bool {
        matches!(self.keys, VerifierKeys::Named(_, None))
    }

    /// Reports whether the scheme allows messages to name a certificate at this URL.
    pub fn may_name(&self, url: &str) -> bool {
        matches!(&self.keys, VerifierKeys::Named(rule, None) if rule.allows(url))
    }

    /// Returns the configured values of `secrets`. Callers use them to remove secrets from a text.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// Returns the number of configured `secrets`.
    pub fn secrets_count(&self) -> usize {
        self.secrets.len()
    }

    /// Returns the URL of the certificate that a message names, if Callgate has not fetched this certificate yet.
    /// Otherwise returns `None`.
    pub fn missing_certificate(&self, context: &SignatureContext<'_>, body: &[u8]) -> Option<String> {
        let VerifierKeys::Named(rule, None) = &self.keys else { return None };
        let url = rule.url(&context.head, body).ok()?;
        context.keyring.certificate(&url).is_none().then_some(url)
    }
}
