//! The verifier of a provider.

use crate::secret::Secret;
use crate::signature::context::SignatureContext;
use crate::signature::keys::{MacKey, SecretFormatError, VerifierKeys};
use crate::signature::scheme::Scheme;

/// A scheme with its keys. It verifies the messages of one provider.
#[derive(Clone)]
pub struct Verifier {
    pub(super) scheme: Scheme,
    pub(super) keys: VerifierKeys,
    /// The shared secrets, each with the MAC key that Callgate computed from it.
    pub(super) mac_keys: Vec<(MacKey, Secret)>,
    /// The configured values of `secrets`. Depending on the scheme, these are shared secrets, SNS topics or ids of
    /// webhooks.
    pub(super) secrets: Vec<Secret>,
    /// The verify token, for handshakes that must contain one. If it is `None`, the first of `secrets` is the verify
    /// token.
    pub(super) verify_token: Option<Secret>,
    /// The subscriptions for which Callgate answers handshakes.
    pub(super) subscriptions: Vec<Box<str>>,
}

/// Formats the scheme without the keys.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({} secrets, {:?})", self.secrets.len(), self.scheme)
    }
}

impl Verifier {
    /// Returns a verifier. A message may be signed with any of the secrets. Signing uses the first secret.
    ///
    /// # Errors
    /// [`SecretFormatError`] and the index of the secret that is not in the format of the scheme.
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

    /// Returns the verifier with a verify token and subscriptions for handshakes.
    #[must_use]
    pub fn with_handshakes(self, verify_token: Option<Secret>, subscriptions: Vec<Box<str>>) -> Self {
        Self { verify_token, subscriptions, ..self }
    }

    /// Returns the scheme.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Returns the keys, or their source.
    pub fn keys(&self) -> &VerifierKeys {
        &self.keys
    }

    /// Reports whether messages or handshakes of this provider make Callgate fetch a URL.
    pub fn fetches(&self) -> bool {
        self.names_certificates()
            || self.scheme.handshakes.iter().any(|handshake| handshake.confirmation.is_some())
    }

    /// Reports whether messages name certificates that Callgate fetches.
    pub fn names_certificates(&self) -> bool {
        matches!(self.keys, VerifierKeys::Named(_, None))
    }

    /// Reports whether a message may name the certificate with this URL.
    pub fn may_name(&self, url: &str) -> bool {
        matches!(&self.keys, VerifierKeys::Named(rule, None) if rule.allows(url))
    }

    /// Returns the configured values of `secrets`, for code that removes them from a text.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// Returns the number of secrets.
    pub fn secrets_count(&self) -> usize {
        self.secrets.len()
    }

    /// Returns the URL of the certificate that a message names, if Callgate has not fetched this certificate.
    pub fn missing_certificate(&self, context: &SignatureContext<'_>, body: &[u8]) -> Option<String> {
        let VerifierKeys::Named(rule, None) = &self.keys else { return None };
        let url = rule.url(&context.head, body).ok()?;
        context.keyring.certificate(&url).is_none().then_some(url)
    }
}
