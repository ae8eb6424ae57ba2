//! The keys that Callgate has fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::public_key::KeySet;
use crate::feed::FeedId;
use crate::secret::Secret;

/// The fetched keys: key sets and secrets by feed, certificates by URL.
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
    /// Returns the secret of the feed `id`, which the provider sent in a handshake.
    pub fn secret(&self, id: FeedId) -> Option<&Secret> {
        self.secrets.get(&id.0)
    }

    /// Stores the secret of the feed `id`, which the provider sent in a handshake.
    pub fn put_secret(&mut self, id: FeedId, secret: Secret) {
        self.secrets.insert(id.0, secret);
    }

    /// Removes a key set.
    pub fn drop_set(&mut self, id: FeedId) {
        if let Some(place) = self.sets.get_mut(id.0) {
            *place = None;
        }
    }

    /// Returns a key set, or `None` if it has not been fetched.
    pub fn set(&self, id: FeedId) -> Option<&Arc<KeySet>> {
        self.sets.get(id.0)?.as_ref()
    }

    /// Returns the certificate with this URL, if it has been fetched.
    pub fn certificate(&self, url: &str) -> Option<&Arc<KeySet>> {
        self.certificates.get(url)
    }

    /// Stores a key set.
    pub fn put(&mut self, id: FeedId, set: KeySet) {
        if self.sets.len() <= id.0 {
            self.sets.resize(id.0 + 1, None);
        }
        if let Some(place) = self.sets.get_mut(id.0) {
            *place = Some(Arc::new(set));
        }
    }

    /// Copies the key set and the secret that the keyring `from` has for the feed `before`, and stores them for the
    /// feed `id`.
    pub fn take(&mut self, id: FeedId, from: &Self, before: FeedId) {
        if let Some(set) = from.set(before) {
            self.put(id, KeySet::clone(set));
        }
        if let Some(secret) = from.secret(before) {
            self.put_secret(id, secret.clone());
        }
    }

    /// Returns the URLs of all certificates.
    pub fn certificate_urls(&self) -> impl Iterator<Item = &str> {
        self.certificates.keys().map(|url| &**url)
    }

    /// Copies those certificates of the keyring `from` whose URL satisfies `fits`.
    pub fn take_certificates(&mut self, from: &Self, fits: impl Fn(&str) -> bool) {
        let fitting = from.certificates.iter().filter(|(url, _)| fits(url));
        self.certificates.extend(fitting.map(|(url, set)| (url.clone(), Arc::clone(set))));
    }

    /// Stores the certificate with this URL.
    pub fn put_certificate(&mut self, url: &str, set: KeySet) {
        let before = self.certificates.insert(url.into(), Arc::new(set));
        // A certificate that is fetched again is usually unchanged. If the old certificate has verified a message, the
        // new certificate is marked as if it had verified a message, too.
        if before.is_some_and(|before| before.has_proved_itself())
            && let Some(set) = self.certificates.get(url)
        {
            set.prove();
        }
    }

    /// Removes a certificate.
    pub fn drop_certificate(&mut self, url: &str) {
        self.certificates.remove(url);
    }
}
