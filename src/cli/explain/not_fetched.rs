//! Finds the key sets and address lists that `callgate explain` does not have. `explain` fetches nothing, and reads
//! only the copies that a running Callgate stores in `fetch.cache`.

use crate::feed::FeedId;
use crate::ingress::Route;
use crate::policy::Policy;
use crate::signature::VerifierKeys;

/// The key sets and address lists that a check needs and that `callgate explain` does not have.
#[derive(Debug, Default)]
pub(super) struct NotFetched {
    /// The URLs of the missing key sets and address lists, without secrets.
    pub(super) feeds: Vec<String>,
    /// The reason why `callgate explain` has no copies of the missing key sets and address lists, as part of a
    /// sentence.
    why: String,
}

impl NotFetched {
    /// Returns the key sets and address lists that the checks of a route need and that `callgate explain` does not
    /// have.
    pub(super) fn of(policy: &Policy, route: Option<&Route>) -> Self {
        let proxies = policy.ingress.edge().client_address.as_ref().map(|rule| &rule.trusted_proxies);
        let provider = route.and_then(|route| route.provider.as_ref());
        let lists = proxies.into_iter().chain(provider.and_then(|provider| provider.allow.as_ref()));
        let keys =
            provider.and_then(|provider| provider.verifier.as_ref()).and_then(|verifier| {
                match verifier.keys() {
                    VerifierKeys::Fetched(id) => Some(*id),
                    _ => None,
                }
            });
        let needed: Vec<FeedId> = lists.flat_map(|list| list.feeds.iter().copied()).chain(keys).collect();
        let missing =
            policy.missing_feeds().filter(|feed| policy.feed(feed).is_some_and(|id| needed.contains(&id)));
        let why = match &policy.fetching.cache {
            Some(cache) => format!("and it has no copy in `fetch.cache` ({cache})"),
            None => "and without `fetch.cache` there are no copies".to_owned(),
        };
        Self { feeds: missing.map(|feed| feed.label().to_owned()).collect(), why }
    }

    /// Returns a sentence about what the missing key sets and address lists mean for the verdict.
    pub(super) fn text(&self) -> String {
        let missing = match self.feeds.as_slice() {
            [] => format!("`explain` does not fetch what it needs, {}", self.why),
            feeds if feeds.iter().all(|feed| feed.starts_with("file:")) => {
                format!("`explain` cannot use {}", feeds.join(" and "))
            }
            feeds => format!("`explain` does not fetch {}, {}", feeds.join(" and "), self.why),
        };
        format!(
            "this check cannot be judged here: {missing}. A running Callgate answers 503 only while it does not have it \
             either (`not_fetched` in `GET /readyz?verbose`)"
        )
    }
}
