//! Stores fetched certificates. A message of a provider can name the URL of the certificate that verifies the message.
//!
//! Fetched certificates are stored in memory and, across restarts, in the cache folder. The number of certificates per
//! provider is limited, so that messages with invented URLs cannot fill the memory.

use std::cmp::Reverse;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::cache::Cache;
use super::publish::update;
use crate::policy::Policy;
use crate::signature::{KeySet, Keyring, Verifier};

/// The maximum number of certificates that are stored for one provider.
const CERTIFICATES_MAX: usize = 256;

/// Loads the certificates from the cache folder. Skips a certificate if it is stale, if no provider in the policy may
/// use its URL, or if its provider already has [`CERTIFICATES_MAX`] certificates.
///
/// # Errors
/// Returns the reason as text if the cache folder cannot be used.
pub(super) fn load_cached_certificates(policy: &ArcSwap<Policy>) -> Result<(), String> {
    let now = policy.load_full();
    if !now.verifiers().any(Verifier::names_certificates) {
        return Ok(());
    }
    for kept in Cache::new(now.fetching.cache.as_deref())?.certificates() {
        let fresh = kept.age <= now.fetching.stale_ok;
        let Some(set) = KeySet::parse(&kept.bytes).ok().filter(|_| fresh) else { continue };
        let full = {
            let now = policy.load();
            let keyring = &now.ingress.edge().fetched_data.keyring;
            verifiers_of(&now, &kept.url)
                .any(|rule| certificates_of(rule, keyring).count() >= CERTIFICATES_MAX)
        };
        if !full {
            put(policy, &kept.url, &set);
        }
    }
    Ok(())
}

/// Publishes a policy that contains the certificate from `url`. Publishes nothing and returns `false` if no provider in
/// the current policy may use this URL.
pub(super) fn put(policy: &ArcSwap<Policy>, url: &str, set: &KeySet) -> bool {
    let before = policy.rcu(|old| {
        if !old.may_be_named(url) {
            return Policy::clone(old);
        }
        let mut data = old.ingress.edge().fetched_data.clone();
        data.keyring.put_certificate(url, set.clone());
        old.with_fetched_data(data)
    });
    before.may_be_named(url)
}

/// Removes certificates of each provider that may use the new certificate from `url`, until the provider has at most
/// [`CERTIFICATES_MAX`] certificates. First removes certificates that have never verified a message, oldest first. Then
/// removes certificates that have verified a message, oldest first. Never removes the certificate from `url`. `age`
/// returns the age of the certificate from a URL.
pub(super) fn make_room(policy: &ArcSwap<Policy>, url: &str, age: impl Fn(&str) -> Duration) {
    loop {
        let now = policy.load_full();
        let keyring = &now.ingress.edge().fetched_data.keyring;
        let proved = |url: &str| keyring.certificate(url).is_some_and(|set| set.has_proved_itself());
        let worst = verifiers_of(&now, url)
            .filter(|rule| certificates_of(rule, keyring).count() > CERTIFICATES_MAX)
            .find_map(|rule| {
                certificates_of(rule, keyring)
                    .filter(|other| *other != url)
                    .min_by_key(|other| (proved(other), Reverse(age(other))))
            });
        let Some(worst) = worst else { return };
        update(policy, |data| data.keyring.drop_certificate(worst));
    }
}

/// Returns the verifiers of the providers that may use a certificate from `url`.
fn verifiers_of<'p>(policy: &'p Policy, url: &str) -> impl Iterator<Item = &'p Verifier> {
    policy.verifiers().filter(move |verifier| verifier.may_name(url))
}

/// Returns the URLs of the certificates in `keyring` that the provider of `verifier` may use.
fn certificates_of<'k>(verifier: &Verifier, keyring: &'k Keyring) -> impl Iterator<Item = &'k str> {
    keyring.certificate_urls().filter(|url| verifier.may_name(url))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
pub(super) mod tests {
    use super::*;
    use crate::config::{Config, Surroundings};

    pub(in crate::fetch) fn policy() -> ArcSwap<Policy> {
        let text = "public_url: https://agent.example.com
listen: { ingress: [ { address: 127.0.0.1:0 } ] }
agent: { address: 127.0.0.1:1 }
providers:
  paypal: { preset: paypal, secrets: [ { env: ID } ] }
  sns: { preset: aws-sns, secrets: [ { env: TOPIC } ] }
routes:
  - { name: p, path: /p, provider: paypal, forward: /p }
  - { name: s, path: /s, provider: sns, forward: /s }
";
        let env = |name: &str| match name {
            "ID" => Some("8PT597110X687430LKGECATA".to_owned()),
            "TOPIC" => Some("arn:aws:sns:eu-west-1:123456789012:jobs".to_owned()),
            _ => None,
        };
        let nothing = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        let config = Config::parse(text, &Surroundings { env: &env, file: &nothing });
        ArcSwap::from_pointee(
            config
                .map_err(|errors| errors.iter().map(ToString::to_string).collect::<String>())
                .unwrap()
                .policy,
        )
    }

    #[test]
    fn what_proved_itself_stays_and_the_room_is_each_providers_own() {
        let policy = policy();
        let set = KeySet::parse(b"PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM=").unwrap();
        let paypal = |i: usize| format!("https://api.paypal.com/v1/notifications/certs/CERT-{i}");
        let sns = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem";
        let has = |url: &str| policy.load().ingress.edge().fetched_data.keyring.certificate(url).is_some();
        assert!(put(&policy, sns, &KeySet::merged([set.clone()])));
        assert!(!put(&policy, "https://evil.example/v1/notifications/certs/CERT-1", &set));
        for i in 0..CERTIFICATES_MAX * 2 {
            let one = KeySet::merged([set.clone()]);
            // Marks the second certificate as one that has verified a message.
            if i == 1 {
                one.prove();
            }
            put(&policy, &paypal(i), &one);
            // A certificate with a higher number was fetched later.
            let age = |url: &str| {
                let number = url.rsplit('-').next().and_then(|end| end.parse::<u64>().ok()).unwrap_or(0);
                Duration::from_secs(10_000 - number)
            };
            make_room(&policy, &paypal(i), age);
        }
        assert!(has(sns) && has(&paypal(1)) && !has(&paypal(0)) && !has(&paypal(2)));
        assert!(has(&paypal(CERTIFICATES_MAX * 2 - 1)) && has(&paypal(CERTIFICATES_MAX + 1)));
        assert_eq!(
            policy.load().ingress.edge().fetched_data.keyring.certificate_urls().count(),
            CERTIFICATES_MAX + 1
        );
        // A certificate that is fetched again keeps the mark that it has verified a message.
        put(&policy, &paypal(1), &KeySet::merged([set]));
        let now = policy.load();
        assert!(now.ingress.edge().fetched_data.keyring.certificate(&paypal(1)).unwrap().has_proved_itself());
    }
}
