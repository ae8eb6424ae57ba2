//! Egress rules. They determine where the agent's requests are sent, and which callbacks are inserted into them.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::callback_request::{BodyKind, CallbackRequest};
use super::forward_proxy::Unmatched;
use super::inject::{self, Inject, ValueSource};
use super::shape::Callback;
use crate::denial::{Denial, Refusal};
use crate::guard::Url;
use crate::path::{CanonicalPath, Captures, Template, check_query};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::time::Timestamp;

/// An egress rule: it sends requests of the agent to a provider, and can insert a callback into them.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The name of the rule. The name is a metric label and a log field.
    pub name: Box<str>,
    /// The path on the egress listener to which the agent sends its requests.
    pub path: Template,
    /// The HTTP methods that the rule accepts.
    pub methods: Vec<Method>,
    /// The provider's URL to which Callgate sends the requests.
    pub target: Target,
    /// The callback that is inserted into the requests. `None` if the rule inserts no callback.
    pub inject: Option<Inject>,
    /// The headers that Callgate adds to the requests, including the provider's credentials. They replace headers of
    /// the agent with the same names.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The maximum size of the body, in bytes.
    pub body_bytes_max: u64,
    /// The timeout for connecting to the provider, including the TLS handshake.
    pub connect_timeout: Duration,
    /// The timeout for the head of the provider's response, and for each read of the response body.
    pub response_timeout: Duration,
    /// What Callgate, as the agent's proxy, does with a request that is sent to the host of this rule and matches no
    /// egress rule. `None` if the rule does not have `proxied: true`.
    pub proxied: Option<Unmatched>,
    /// Whether this rule is for requests that Callgate receives as the agent's proxy. The path and the query of these
    /// requests are sent as the agent wrote them. URLs in the responses are not replaced, because the client reaches
    /// these URLs through Callgate anyway.
    pub is_by_url: bool,
}

/// The destination of the requests of an egress rule.
#[derive(Clone, Debug)]
pub struct Target {
    /// The URL of the destination. If `path` is `Some`, only the scheme, the host and the port of this URL are used.
    pub url: Url,
    /// The template of the destination path. `None` if the destination path has no captures.
    pub path: Option<Template>,
}

/// The decision about a request of the agent: whether it gets a callback.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Plan {
    /// Mint a callback with these names and values of path captures, and then send the request.
    Mint(Vec<(Box<str>, String)>),
    /// Send the request without a callback.
    Pass {
        /// Whether the request already has a callback of the agent, which Callgate does not replace.
        kept: bool,
    },
}

/// The error for a request that is not sent, because no egress rule accepts it.
#[derive(Clone, Debug)]
pub struct Unruled {
    /// The reason for the denial.
    pub refusal: Refusal,
    /// The rule that has the path of the request, but does not accept the method or the size of the request. `None` if
    /// no rule has this path.
    pub rule: Option<Arc<Rule>>,
}

/// All egress rules.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    rules: Vec<Arc<Rule>>,
    /// For each rule with `proxied: true`, a copy for the requests that Callgate receives as the agent's proxy.
    pub(super) by_url: Vec<Arc<Rule>>,
}

impl Egress {
    /// Creates the set of egress rules. Two rules must not match the same paths (see [`Template::same_shape`]).
    pub fn new(mut rules: Vec<Arc<Rule>>) -> Self {
        let mut by_url: Vec<_> = rules.iter().filter_map(|rule| rule.by_url().map(Arc::new)).collect();
        by_url.sort_by(|a, b| a.path.precedence(&b.path));
        rules.sort_by(|a, b| a.path.precedence(&b.path));
        Self { rules, by_url }
    }

    /// Returns the rules in the order in which they are compared with a request (see [`Template::precedence`]).
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// Returns the egress rule for a request, and the captures of the request path. If the first rule that matches the
    /// path does not accept the method, a later rule that ends with a remainder (`{*name}`) can apply. Otherwise a rule
    /// for `POST` to one path would hide this path for all other methods of the same API.
    ///
    /// # Errors
    /// Returns [`Unruled`] if no rule accepts the request.
    pub fn find(&self, head: &RequestHead<'_>) -> Result<(Arc<Rule>, Captures), Unruled> {
        Self::find_among(self.rules.iter(), head)
    }

    /// Returns the first rule in `rules` that accepts a request, with the captures of the request path. See
    /// [`Self::find`].
    pub(super) fn find_among<'r>(
        rules: impl Iterator<Item = &'r Arc<Rule>>,
        head: &RequestHead<'_>,
    ) -> Result<(Arc<Rule>, Captures), Unruled> {
        let unruled = |denial, detail: String, rule: Option<&Arc<Rule>>| Unruled {
            refusal: Refusal::new(denial, detail),
            rule: rule.cloned(),
        };
        let malformed = |detail: String| unruled(Denial::PathMalformed, detail, None);
        let path = CanonicalPath::parse(head.raw_path()).map_err(|fault| malformed(fault.to_string()))?;
        check_query(head.raw_query().unwrap_or_default())
            .map_err(|at| malformed(format!("the query has a forbidden character at byte {at}")))?;
        let mut count = 0;
        let mut matching = rules.inspect(|_| count += 1).filter(|rule| rule.path.matches(&path));
        let Some(first) = matching.next() else {
            drop(matching);
            let detail = format!("none of the {count} rules has this path");
            return Err(unruled(Denial::RuleUnknown, detail, None));
        };
        let accepts = |rule: &&Arc<Rule>| rule.methods.iter().any(|method| method.as_str() == head.method);
        let mut prefixes = matching.filter(|rule| rule.path.remainder().is_some());
        let Some(rule) = Some(first).filter(accepts).or_else(|| prefixes.find(accepts)) else {
            let detail = format!("{} is not one of {:?}", head.method, first.methods);
            return Err(unruled(Denial::MethodNotAllowed, detail, Some(first)));
        };
        if let Some(declared) = head.body_bytes_declared.filter(|declared| *declared > rule.body_bytes_max) {
            let detail = format!("{declared} bytes declared, {} allowed", rule.body_bytes_max);
            return Err(unruled(Denial::BodyTooLarge, detail, Some(rule)));
        }
        Ok((Arc::clone(rule), rule.path.capture(&path)))
    }
}

impl Rule {
    /// Returns the settings of the callback for a request with this head. Returns `None` if the request is sent
    /// unchanged.
    ///
    /// A rule whose path ends with a remainder (`{*name}`) applies to a whole API, including requests such as `GET
    /// /v1/models`. It inserts a callback only into requests with an accepted path. The body must have the kind that
    /// [`Inject::body_kind`] returns. If the rule lists the accepted paths and does not use the body, a `POST` may have
    /// any body, such as a recording.
    pub fn injection(&self, head: &RequestHead<'_>) -> Option<&Inject> {
        let inject = self.inject.as_ref().filter(|inject| inject.may_apply(head))?;
        if !self.is_prefix() {
            return Some(inject);
        }
        let kind = inject.body_kind();
        let fits = |request: &CallbackRequest| {
            let is_named = !request.condition.paths.is_empty() && kind == BodyKind::Any;
            let has_body = kind.is_of(head) || (is_named && head.method == "POST");
            has_body && request.condition.may_match(head, true)
        };
        inject.requests.iter().any(fits).then_some(inject)
    }

    /// Returns the settings of the callback, and the kind of the request. Returns `None` if the request gets no
    /// callback.
    pub fn callback_request(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
    ) -> Option<(&Inject, &CallbackRequest)> {
        let inject = self.injection(head).filter(|inject| inject.applies(body))?;
        let request = inject.requests.iter().find(|request| request.matches(head, body, self.is_prefix()))?;
        Some((inject, request))
    }

    /// Reports whether the path of the rule ends with a remainder (`{*name}`).
    fn is_prefix(&self) -> bool {
        self.path.remainder().is_some()
    }

    /// Decides whether a request needs a callback, and reads the values of the callback's path captures from the
    /// request. `fresh` generates an id for a capture whose source is [`ValueSource::New`].
    ///
    /// # Errors
    /// Returns a [`Refusal`] if the callback cannot be inserted into the request. The request must then not be sent.
    pub fn plan(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
        captures: &Captures,
        mut fresh: impl FnMut() -> String,
    ) -> Result<Plan, Refusal> {
        let Some((inject, request)) = self.callback_request(head, body) else {
            return Ok(Plan::Pass { kept: false });
        };
        if let Some(place) = request.taken(head, body)? {
            if inject.keep {
                return Ok(Plan::Pass { kept: true });
            }
            return Err(Refusal::new(
                Denial::CallbackPresent,
                format!("the request already has a value at {place}"),
            ));
        }
        let mut params = Vec::with_capacity(inject.params.len());
        for (name, source) in &inject.params {
            let value = match source {
                ValueSource::New => Some(fresh()),
                source => source.read(head, body, captures),
            };
            match value.filter(|value| inject.accepts(name, value)) {
                Some(value) => params.push((name.clone(), value)),
                None => {
                    let detail = format!("{source} has no valid value for the capture {name}");
                    let denial = match inject::parse(body) {
                        Err(refusal) if matches!(source, ValueSource::Body(_)) => return Err(refusal),
                        _ => Denial::ParameterUnusable,
                    };
                    return Err(Refusal::new(denial, detail));
                }
            }
        }
        // The insertion is tried with empty values before a callback is minted. If the insertion is not possible, the
        // ledger must not record an interaction.
        let nothing = Callback { url: "", token: "", secret: "", expires: Timestamp::from_unix_secs(0) };
        inject::body(request, head, body, &nothing)?;
        Ok(Plan::Mint(params))
    }
}
