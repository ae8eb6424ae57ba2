//! The fetched keys of one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::public_key::KeySet;
use crate::feed::FeedId;
use crate::secret::Secret;

/// The fetched keys: key sets by their number, certificates by the address a message names.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    sets: Vec<Option<Arc<KeySet>>>,
    certificates: BTreeMap<Box<str>, Arc<KeySet>>,
    secrets: BTreeMap<usize, Secret>,
}

/// Nothing was fetched.
pub(in crate::signature) static NOTHING: Keyring =
    Keyring { sets: Vec::new(), certificates: BTreeMap::new(), secrets: BTreeMap::new() };

impl Keyring {
    /// The secret that a handshake handed over.
    pub fn secret(&self, id: FeedId) -> Option<&Secret> {
        self.secrets.get(&id.0)
    }

    /// Remembers the secret that a handshake handed over.
    pub fn put_secret(&mut self, id: FeedId, secret: Secret) {
        self.secrets.insert(id.0, secret);
    }

    /// Forgets a set that has become too old.
    pub fn drop_set(&mut self, id: FeedId) {
        if let Some(place) = self.sets.get_mut(id.0) {
            *place = None;
        }
    }

    /// A fetched set; `None`: it was not to be had so far.
    pub fn set(&self, id: FeedId) -> Option<&Arc<KeySet>> {
        self.sets.get(id.0)?.as_ref()
    }

    /// The certificate at an address.
    pub fn certificate(&self, url: &str) -> Option<&Arc<KeySet>> {
        self.certificates.get(url)
    }

    /// Puts a set in its place.
    pub fn put(&mut self, id: FeedId, set: KeySet) {
        if self.sets.len() <= id.0 {
            self.sets.resize(id.0 + 1, None);
        }
        if let Some(place) = self.sets.get_mut(id.0) {
            *place = Some(Arc::new(set));
        }
    }

    /// Takes over what was in a place of another keyring.
    pub fn take(&mut self, id: FeedId, from: &Self, before: FeedId) {
        if let Some(set) = from.set(before) {
            self.put(id, KeySet::clone(set));
        }
        if let Some(secret) = from.secret(before) {
            self.put_secret(id, secret.clone());
        }
    }

    /// Where the certificates are that there are.
    pub fn certificate_urls(&self) -> impl Iterator<Item = &str> {
        self.certificates.keys().map(|url| &**url)
    }

    /// Takes over the certificates of another keyring whose addresses fit.
    pub fn take_certificates(&mut self, from: &Self, fits: impl Fn(&str) -> bool) {
        let fitting = from.certificates.iter().filter(|(url, _)| fits(url));
        self.certificates.extend(fitting.map(|(url, set)| (url.clone(), Arc::clone(set))));
    }

    /// Remembers the certificate at an address.
    pub fn put_certificate(&mut self, url: &str, set: KeySet) {
        let before = self.certificates.insert(url.into(), Arc::new(set));
        // One that is fetched anew is the same one, as a rule.
        if before.is_some_and(|before| before.has_proved_itself())
            && let Some(set) = self.certificates.get(url)
        {
            set.prove();
        }
    }

    /// Forgets a certificate that has become too old.
    pub fn drop_certificate(&mut self, url: &str) {
        self.certificates.remove(url);
    }
}
