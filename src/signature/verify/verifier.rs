//! A scheme with its keys.

use crate::secret::Secret;
use crate::signature::context::SignatureContext;
use crate::signature::keys::{MacKey, SecretFormatError, VerifierKeys};
use crate::signature::scheme::Scheme;

/// A scheme with its keys.
#[derive(Clone)]
pub struct Verifier {
    pub(super) scheme: Scheme,
    pub(super) keys: VerifierKeys,
    /// Every shared secret, ready for the MAC.
    pub(super) mac_keys: Vec<(MacKey, Secret)>,
    /// The secrets as they stand: tokens, topics, ids of webhooks.
    pub(super) secrets: Vec<Secret>,
    /// The token that handshakes prove themselves by.
    pub(super) verify_token: Option<Secret>,
    /// The origins that may subscribe.
    pub(super) subscriptions: Vec<Box<str>>,
}

/// Prints the scheme, not the keys.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({} secrets, {:?})", self.secrets.len(), self.scheme)
    }
}

impl Verifier {
    /// Prepares every secret for the scheme; any of them verifies, the first one signs.
    ///
    /// # Errors
    /// [`SecretFormatError`] and the index of the secret that is not in the scheme's key form.
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

    /// With what handshakes prove themselves by.
    #[must_use]
    pub fn with_handshakes(self, verify_token: Option<Secret>, subscriptions: Vec<Box<str>>) -> Self {
        Self { verify_token, subscriptions, ..self }
    }

    /// The scheme.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Where the keys are.
    pub fn keys(&self) -> &VerifierKeys {
        &self.keys
    }

    /// Whether messages or handshakes of this provider make us fetch something.
    pub fn fetches(&self) -> bool {
        self.names_certificates()
            || self.scheme.handshakes.iter().any(|handshake| handshake.confirmation.is_some())
    }

    /// Whether its messages name certificates, to be fetched.
    pub fn names_certificates(&self) -> bool {
        matches!(self.keys, VerifierKeys::Named(_, None))
    }

    /// Whether a message may name the certificate at this address, to be fetched.
    pub fn may_name(&self, url: &str) -> bool {
        matches!(&self.keys, VerifierKeys::Named(rule, None) if rule.allows(url))
    }

    /// How many secrets verify.
    pub fn secrets_count(&self) -> usize {
        self.secrets.len()
    }

    /// The certificate that a message needs and that is not there.
    pub fn missing_certificate(&self, context: &SignatureContext<'_>, body: &[u8]) -> Option<String> {
        let VerifierKeys::Named(rule, None) = &self.keys else { return None };
        let url = rule.url(&context.head, body).ok()?;
        context.keyring.certificate(&url).is_none().then_some(url)
    }
}
