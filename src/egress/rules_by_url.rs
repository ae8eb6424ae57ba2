//! Egress rules with `proxied: true`. If Callgate is the agent's proxy, it finds these rules by the URL of a request.
//! They are also found by their path on the egress listener, like all egress rules.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::forward_proxy::Unmatched;
use super::rule::{Egress, Rule, Target, Unruled};
use crate::denial::Denial;
use crate::guard::{Scheme, Url};
use crate::path::{Captures, Template};
use crate::request::RequestHead;

/// The name of the generated rule for requests that are sent to an intercepted host and match no egress rule. The name
/// is a metric label and a log field.
pub const UNMATCHED: &str = "unmatched";
/// The name of the generated rule for plain HTTP requests to hosts that no egress rule names. The name is a metric
/// label and a log field.
pub const OTHERS: &str = "others";

/// The hosts that the agent's HTTP clients reach without the proxy, for the variable `NO_PROXY`: the local host, and
/// names in a Kubernetes cluster. Without the loopback addresses, an agent could not reach its local servers.
pub const DIRECT_HOSTS: [&str; 5] = ["localhost", "127.0.0.1", "::1", ".svc", ".cluster.local"];

/// Reports whether the agent's HTTP clients reach a host without the proxy.
pub fn is_direct(host: &str) -> bool {
    let host = host.trim_end_matches('.').trim_matches(['[', ']']);
    DIRECT_HOSTS.iter().any(|direct| match direct.strip_prefix('.') {
        Some(_) => host.ends_with(direct),
        None => host == *direct,
    })
}

/// The timeout for connecting to a host that no egress rule names.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

impl Egress {
    /// Reports whether an egress rule with `proxied: true` has the scheme, the host and the port of this URL.
    pub fn names(&self, url: &Url) -> bool {
        self.of_origin(url).next().is_some()
    }

    /// Returns the names of the intercepted hosts, sorted and without duplicates.
    pub fn intercepted_hosts(&self) -> Vec<Box<str>> {
        let https = self.by_url.iter().filter(|rule| rule.target.url.scheme() == Scheme::Https);
        let mut hosts: Vec<Box<str>> = https.map(|rule| rule.target.url.host().into()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// Returns the egress rule for a request to the origin of `url`, and the captures of the request path. At least one
    /// rule must have this origin. If no rule accepts the request, returns a generated rule that sends the request
    /// unchanged, unless the rules with this origin deny requests that match no rule.
    ///
    /// # Errors
    /// Returns [`Unruled`] if the request is denied.
    pub fn find_by_url(&self, head: &RequestHead<'_>, url: &Url) -> Result<(Arc<Rule>, Captures), Unruled> {
        let unmatched = self.of_origin(url).find_map(|rule| rule.proxied).unwrap_or(Unmatched::Refuse);
        match Self::find_among(self.of_origin(url), head) {
            Err(unruled)
                if unmatched == Unmatched::Pass && unruled.refusal.denial != Denial::BodyTooLarge =>
            {
                Ok((Arc::new(Rule::passing(UNMATCHED, url)), Captures::none()))
            }
            found => found,
        }
    }

    fn of_origin<'e>(&'e self, url: &'e Url) -> impl Iterator<Item = &'e Arc<Rule>> {
        self.by_url.iter().filter(move |rule| rule.target.url.has_origin_of(url))
    }
}

impl Rule {
    /// Creates an egress rule that sends every request unchanged to the origin of `url`.
    pub fn passing(name: &str, url: &Url) -> Self {
        let methods = [
            Method::DELETE,
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::PATCH,
            Method::POST,
            Method::PUT,
        ];
        Self {
            name: name.into(),
            path: Template::root(),
            methods: methods.to_vec(),
            target: Target { url: url.clone(), path: None },
            inject: None,
            headers: Vec::new(),
            body_bytes_max: u64::MAX,
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: RESPONSE_TIMEOUT,
            proxied: None,
            is_by_url: true,
        }
    }

    /// Returns a copy of the egress rule for requests that Callgate receives as a proxy. The path of the copy is the
    /// path of the rule's target, because these requests contain the URL of the provider. Returns `None` if the rule
    /// does not have `proxied: true`.
    pub(super) fn by_url(&self) -> Option<Self> {
        self.proxied?;
        let path = match &self.target.path {
            Some(template) => template.clone(),
            None => Template::parse(self.target.url.target()).ok()?,
        };
        Some(Self { path, is_by_url: true, ..self.clone() })
    }
}
