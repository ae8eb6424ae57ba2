//! The keys that Callgate has fetched from providers, and the secrets that providers sent in handshakes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::public_key::KeySet;
use crate::feed::FeedId;
use crate::secret::Secret;

/// The public keys that Callgate fetched, and the secrets that providers sent in handshakes. Key sets and secrets are
/// stored by feed, and certificates by URL. A feed is one source of keys, such as a JWKS document.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    sets: Vec<Option<Arc<KeySet>>>,
    certificates: BTreeMap<Box<str>, Arc<KeySet>>,
    secrets: BTreeMap<usize, Secret>,
}

/// A keyring without keys.
pub(in crate::signature) static NOTHING: Keyring =
    Keyring { sets: Vec::new(), certificates: BTreeMap::new(), secrets: BTreeMap::new() };

impl Keyring {
    /// Returns the secret that a provider sent in a handshake, or `None` if the provider has sent no secret yet. `id`
    /// is the feed of this provider.
    pub fn secret(&self, id: FeedId) -> Option<&Secret> {
        self.secrets.get(&id.0)
    }

    /// Stores the secret that a provider sent in a handshake. `id` is the feed of this provider.
    pub fn put_secret(&mut self, id: FeedId, secret: Secret) {
        self.secrets.insert(id.0, secret);
    }

    /// Removes the key set that was fetched for the feed `id`.
    pub fn drop_set(&mut self, id: FeedId) {
        if let Some(place) = self.sets.get_mut(id.0) {
            *place = None;
        }
    }

    /// Returns the key set that was fetched for the feed `id`, or `None` if it has not been fetched.
    pub fn set(&self, id: FeedId) -> Option<&Arc<KeySet>> {
        self.sets.get(id.0)?.as_ref()
    }

    /// Returns the certificate at this URL, or `None` if it has not been fetched.
    pub fn certificate(&self, url: &str) -> Option<&Arc<KeySet>> {
        self.certificates.get(url)
    }

    /// Stores the key set that was fetched for the feed `id`.
    pub fn put(&mut self, id: FeedId, set: KeySet) {
        if self.sets.len() <= id.0 {
            self.sets.resize(id.0 + 1, None);
        }
        if let Some(place) = self.sets.get_mut(id.0) {
            *place = Some(Arc::new(set));
        }
    }

    /// Copies the key set and the secret of a feed from the keyring `from` into this keyring. The feed is `before` in
    /// `from`, and `id` in this keyring.
    pub fn take(&mut self, id: FeedId, from: &Self, before: FeedId) {
        if let Some(set) = from.set(before) {
            self.put(id, KeySet::clone(set));
        }
        if let Some(secret) = from.secret(before) {
            self.put_secret(id, secret.clone());
        }
    }

    /// Returns the URLs of all certificates in the keyring.
    pub fn certificate_urls(&self) -> impl Iterator<Item = &str> {
        self.certificates.keys().map(|url| &**url)
    }

    /// Copies certificates from the keyring `from`, if `fits` returns true for their URL.
    pub fn take_certificates(&mut self, from: &Self, fits: impl Fn(&str) -> bool) {
        let fitting = from.certificates.iter().filter(|(url, _)| fits(url));
        self.certificates.extend(fitting.map(|(url, set)| (url.clone(), Arc::clone(set))));
    }

    /// Stores the certificate at this URL.
    pub fn put_certificate(&mut self, url: &str, set: KeySet) {
        let before = self.certificates.insert(url.into(), Arc::new(set));
        // A certificate that is fetched again is usually unchanged. If the old certificate has verified a message, the
        // new certificate therefore also counts as a certificate that has verified a message.
        if before.is_some_and(|before| before.has_proved_itself())
            && let Some(set) = self.certificates.get(url)
        {
            set.prove();
        }
    }

    /// Removes the certificate at this URL.
    pub fn drop_certificate(&mut self, url: &str) {
        self.certificates.remove(url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"whpk_PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM=";

    fn set() -> KeySet {
        KeySet::parse(KEY).unwrap()
    }

    #[test]
    fn key_sets_and_secrets_are_kept_by_feed() {
        let mut keyring = Keyring::default();
        keyring.put(FeedId(2), set());
        keyring.put_secret(FeedId(0), Secret::new(b"s".to_vec()));
        let sets = |keyring: &Keyring| [0, 1, 2, 3].map(|id| keyring.set(FeedId(id)).is_some());
        let secrets = |keyring: &Keyring| [0, 1, 2, 3].map(|id| keyring.secret(FeedId(id)).is_some());
        assert_eq!(sets(&keyring), [false, false, true, false]);
        assert_eq!(secrets(&keyring), [true, false, false, false]);
        let mut next = Keyring::default();
        next.take(FeedId(1), &keyring, FeedId(2));
        next.take(FeedId(3), &keyring, FeedId(0));
        assert_eq!(sets(&next), [false, true, false, false]);
        assert_eq!(secrets(&next), [false, false, false, true]);
        next.drop_set(FeedId(1));
        next.drop_set(FeedId(9));
        assert_eq!(sets(&next), [false; 4]);
    }

    #[test]
    fn certificates_are_kept_by_url() {
        let mut keyring = Keyring::default();
        let urls = |keyring: &Keyring| keyring.certificate_urls().map(str::to_owned).collect::<Vec<_>>();
        assert!(urls(&keyring).is_empty());
        keyring.put_certificate("https://b/", set());
        keyring.put_certificate("https://a/", set());
        assert_eq!(urls(&keyring), ["https://a/", "https://b/"]);
        assert!(keyring.certificate("https://a/").is_some() && keyring.certificate("https://c/").is_none());
        let mut next = Keyring::default();
        next.take_certificates(&keyring, |url| url == "https://b/");
        assert_eq!(urls(&next), ["https://b/"]);
        next.drop_certificate("https://b/");
        next.drop_certificate("https://c/");
        assert!(urls(&next).is_empty());
    }

    #[test]
    fn a_certificate_that_is_fetched_again_stays_proved() {
        let mut keyring = Keyring::default();
        let proved = |keyring: &Keyring| keyring.certificate("https://a/").unwrap().has_proved_itself();
        keyring.put_certificate("https://a/", set());
        keyring.put_certificate("https://a/", set());
        assert!(!proved(&keyring));
        keyring.certificate("https://a/").unwrap().prove();
        keyring.put_certificate("https://a/", set());
        assert!(proved(&keyring));
    }
}
