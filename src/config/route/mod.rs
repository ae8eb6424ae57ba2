//! Reads the configuration section `routes`: the external path, the checks and the internal path of callbacks.

mod assertion;
mod deliver;
mod interaction;
mod passed_headers;
mod same_path;
mod stream;
mod token;

use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;

use crate::config::agent::Agents;
use crate::config::listen::rate;
use crate::config::provider::{CallbackConvention, scheme_of};
use crate::config::repeated::repeated;
use crate::config::yaml::{Cursor, did_you_mean};
use crate::ingress::{
    Carrier, CertificateRule, HeaderAllowlist, Mode, Provider, QueryRule, Route, TokenRule,
};
use crate::path::{TOKEN_CAPTURE, Template};
use crate::signature::{Proof, VerifierKeys};
use crate::token::Asserter;
use stream::stream;
use token::token;

pub(super) use assertion::assertion;
pub(super) use passed_headers::passed_headers;
pub(super) use token::CallbackTokens;
pub(super) use token::callback_tokens;

/// The default of `body_max`, the maximum size of a request body, in bytes.
pub(super) const BODY_BYTES_DEFAULT: u64 = 1 << 20;
/// The largest accepted value of `body_max`, in bytes. Callgate holds whole bodies in memory.
pub(super) const BODY_BYTES_MAX: u64 = 64 << 20;

const METHODS: &[(&str, &http::Method)] = &[
    ("DELETE", &http::Method::DELETE),
    ("GET", &http::Method::GET),
    ("HEAD", &http::Method::HEAD),
    ("OPTIONS", &http::Method::OPTIONS),
    ("PATCH", &http::Method::PATCH),
    ("POST", &http::Method::POST),
    ("PUT", &http::Method::PUT),
];

/// The other sections of the configuration to which a route can refer.
pub(super) struct References<'k, 'n> {
    pub(super) agents: &'k Agents<'n>,
    pub(super) providers: &'k [Arc<Provider>],
    /// True if the section `providers` has mistakes. A route that refers to this section then causes no additional
    /// error. The flags `tokens_failed` and `asserter_failed` have the same purpose for the sections `callback_tokens`
    /// and `assertion`.
    pub(super) providers_failed: bool,
    pub(super) tokens: Option<&'k CallbackTokens>,
    pub(super) tokens_failed: bool,
    pub(super) asserter: Option<&'k Arc<Asserter>>,
    pub(super) asserter_failed: bool,
    /// The mode of routes that do not set `mode`.
    pub(super) mode: Mode,
    /// True if each replica has its own ledger.
    pub(super) has_replicas: bool,
    /// The header allowlist of routes without their own allowlist.
    pub(super) passed_headers: Option<Arc<HeaderAllowlist>>,
    /// For each egress rule with a preset: the name of the rule's route, and the callback convention of the preset.
    pub(super) conventions: &'k [(String, CallbackConvention)],
}

impl References<'_, '_> {
    /// Returns the callback convention of the preset that the egress rule for a route names. `route` is the name of
    /// the route.
    fn convention(&self, route: &str) -> Option<&CallbackConvention> {
        self.conventions.iter().find(|(name, _)| name == route).map(|(_, callback)| callback)
    }
}

/// Reads the configuration section `routes`.
pub(super) fn routes<'n>(at: &Cursor<'n>, known: &References<'_, 'n>) -> Option<Vec<Arc<Route>>> {
    let list = at.list()?;
    let kept = |at: &Cursor<'n>, route: Route| deliver::can_be_kept(at, &route).map(|()| route);
    let read = list.iter().map(|at| Some((at.clone(), kept(at, route(at, known)?)?)));
    let mut read: Vec<_> = read.collect();
    distinct_names(&read.iter().flatten().collect::<Vec<_>>());
    same_path::combine(&mut read.iter_mut().flatten().collect::<Vec<_>>());
    read.into_iter().map(|read| read.map(|(_, route)| Arc::new(route))).collect()
}

/// Reports an error for each route that has the same name as an earlier route.
fn distinct_names(routes: &[&(Cursor<'_>, Route)]) {
    for (i, _) in repeated(routes, |(_, a), (_, b)| a.name.cmp(&b.name)) {
        let Some((at, route)) = routes.get(i) else { continue };
        let _: Option<()> = at.error(
            format!("the name {} is used twice", route.name),
            "each token is bound to the name of a route",
        );
    }
}

fn route<'n>(at: &Cursor<'n>, known: &References<'_, 'n>) -> Option<Route> {
    let mut fields = at.fields()?;
    let name = fields.required("name").and_then(|at| at.name());
    let agent = known.agents.of_route(&mut fields);
    let path = fields.required("path").and_then(|at| at.template());
    let methods = fields.optional("methods").map_or(Some(vec![http::Method::POST]), |at| methods(&at));
    let provider = fields.optional("provider").map(|at| provider(&at, known));
    let token =
        fields.optional("token").map(|at| token(&at, path.as_ref(), known.tokens, known.tokens_failed));
    let open = fields.optional("open").map_or(Some(false), |at| at.boolean());
    let forward = fields.required("forward").and_then(|at| forward(&at, path.as_ref()));
    let query = query(fields.optional("query"));
    let body_max = fields.optional("body_max").map_or(Some(BODY_BYTES_DEFAULT), |at| at.size(BODY_BYTES_MAX));
    let (stream_at, states_duplicates) = (fields.optional("stream"), fields.has("duplicates"));
    let tells_duplicates = duplicates(fields.optional("duplicates"));
    let deliver = deliver::deliver(fields.optional("deliver"));
    let interaction_at = fields.optional("interaction");
    let asked = name.and_then(|name| known.convention(name));
    let interaction = interaction_at.as_ref().map(|at| interaction::interaction(at, path.as_ref(), asked));
    let actions_at = fields.optional("actions");
    let actions = actions_at.as_ref().map(interaction::actions);
    let asserter = asserter(fields.optional("assertion"), known);
    let certificate = certificate(fields.optional("client_certificate"));
    let rate = fields.optional("rate").map_or(Some(None), |at| rate(&at).map(Some));
    let mode = fields.optional("mode").map_or(Some(known.mode), |at| mode(&at));
    let passed_headers = passed_headers(fields.optional("headers"), known.passed_headers.as_ref());
    let token_stated = fields.has("token");
    fields.finish();

    token_in_path(at, token_stated, path.as_ref())?;
    let provider = provider.map_or(Some(None), |read| read.map(Some))?;
    let certified = matches!(&certificate, Some(Some(rule)) if !rule.names.is_empty());
    guarded(at, provider.as_deref(), token_stated || certified, open?)?;
    let token = token.map_or(Some(None), |read| read.map(Some))?;
    let (follow, notify) = interaction.unwrap_or_else(|| Some((CallbackConvention::follow(asked), None)))?;
    let named_by = (follow.matching.is_some(), token.as_ref(), known.has_replicas);
    interaction::named((interaction_at.as_ref(), actions_at.as_ref()), named_by)?;
    fit_together(at, provider.as_deref(), token.as_ref(), path.as_ref())?;
    let stream = stream(stream_at, provider.as_deref(), token.as_ref(), mode, states_duplicates);
    Some(Route {
        name: name?.into(),
        agent: agent?,
        path: path?,
        methods: methods?,
        path_methods: Vec::new(),
        provider,
        token,
        forward: forward?,
        query: query?,
        passed_headers: passed_headers?,
        body_bytes_max: body_max?,
        stream: stream?,
        tells_duplicates: tells_duplicates?,
        deliver: deliver?,
        follow,
        notify,
        actions: actions.map_or(Some(None), |read| read.map(Some))?,
        mode: mode?,
        certificate: certificate?,
        rate: rate?,
        asserter: asserter?,
    })
}

/// Reports whether the provider's callbacks contain a proof of their sender: a signature or a shared secret.
fn is_signed(provider: Option<&Provider>) -> bool {
    let verifier = provider.and_then(|provider| provider.verifier.as_ref());
    verifier.is_some_and(|verifier| verifier.scheme().has_proof())
}

/// Reports an error if the settings of a route's provider contradict the settings of the route's token. Reports a
/// warning if neither the signature nor the token binds a message to its path.
fn fit_together(
    at: &Cursor<'_>,
    provider: Option<&Provider>,
    token: Option<&TokenRule>,
    path: Option<&Template>,
) -> Option<()> {
    unbound(at, provider, token, path);
    derived(at, provider, token)?;
    in_one_header(at, provider, token)?;
    registered(at, provider, token)
}

/// Reads the setting `query: pass | drop` of a route: whether the agent receives the query of a request.
fn query(at: Option<Cursor<'_>>) -> Option<QueryRule> {
    let words = [("drop", QueryRule::Drop), ("pass", QueryRule::Pass)];
    at.map_or(Some(QueryRule::Pass), |at| at.one_of(&words))
}

/// Reads the setting `duplicates: answer | deliver` of a route. Returns true for `answer`, the default: Callgate
/// acknowledges a repeated callback and does not deliver the callback again. Returns false for `deliver`.
fn duplicates(at: Option<Cursor<'_>>) -> Option<bool> {
    at.map_or(Some(true), |at| at.one_of(&[("answer", true), ("deliver", false)]))
}

/// Reports an error if the path of a route contains `{callback_token}`, but the route has no `token`.
fn token_in_path(at: &Cursor<'_>, token_stated: bool, path: Option<&Template>) -> Option<()> {
    if !token_stated && path.is_some_and(|path| path.has(TOKEN_CAPTURE)) {
        return at.error("the path has {callback_token}, but the route has no `token`", "");
    }
    Some(())
}

/// Reads the setting `mode: enforce | observe` of a route or of the configuration.
pub(super) fn mode(at: &Cursor<'_>) -> Option<Mode> {
    at.one_of(&[("enforce", Mode::Enforce), ("observe", Mode::Observe)])
}

/// Reads the setting `client_certificate` of a route: `required` or `{names: [...]}`.
fn certificate(at: Option<Cursor<'_>>) -> Option<Option<CertificateRule>> {
    let Some(at) = at else { return Some(None) };
    if !at.is_map() {
        at.one_of(&[("required", ())])?;
        return Some(Some(CertificateRule { names: Vec::new() }));
    }
    let mut fields = at.fields()?;
    let names = fields.required("names").and_then(|at| at.texts());
    fields.finish();
    Some(Some(CertificateRule { names: names? }))
}

/// Reads the setting `assertion: true | false` of a route. Returns the signer of assertions, `Some(None)` if the agent
/// receives no assertions, or `None` if the setting has a mistake. The default is true if the configuration has the section `assertion`.
fn asserter(at: Option<Cursor<'_>>, known: &References<'_, '_>) -> Option<Option<Arc<Asserter>>> {
    let asked = at.as_ref().map_or(Some(known.asserter.is_some()), |at| at.boolean())?;
    match (asked, known.asserter) {
        (false, _) => Some(None),
        (true, Some(asserter)) => Some(Some(Arc::clone(asserter))),
        (true, None) if known.asserter_failed => None,
        (true, None) => at?
            .error("there is no key to sign the assertion with", "add the section `assertion` with a `key`"),
    }
}

/// Reports a warning for a route with path captures if neither a token nor the signature binds a message to its path. A
/// message that is valid for one path, such as `/jobs/1`, would then be valid for every path of the route, such as
/// `/jobs/2`.
fn unbound(at: &Cursor<'_>, provider: Option<&Provider>, token: Option<&TokenRule>, path: Option<&Template>) {
    let signs_the_address = |provider: &Provider| {
        provider.verifier.as_ref().is_some_and(|verifier| verifier.scheme().covers().url)
    };
    let captures = path.is_some_and(|path| path.names().next().is_some());
    if captures && token.is_none() && !provider.is_some_and(signs_the_address) {
        at.warn("nothing binds a message to its path: a message for one value of a capture is valid for every other value; add a `token`");
    }
}

/// Reports an error if the provider sends its secret in a handshake, and the route accepts handshakes from anybody.
/// Otherwise the first caller could set the secret.
fn registered(at: &Cursor<'_>, provider: Option<&Provider>, token: Option<&TokenRule>) -> Option<()> {
    let learns = |provider: &&Provider| {
        provider.verifier.as_ref().is_some_and(|verifier| matches!(verifier.keys(), VerifierKeys::Learned(_)))
    };
    match provider.filter(learns) {
        Some(provider) if provider.allow.is_none() && token.is_none() => at.error(
            "anybody can register the secret of this route's provider",
            "add `allow` to the provider, or a `token` that only the provider has",
        ),
        _ => Some(()),
    }
}

/// Reports an error if the provider has `secrets: derived`, but the route has no callback token. Callgate derives the
/// secret from the interaction that the token names.
fn derived(at: &Cursor<'_>, provider: Option<&Provider>, token: Option<&TokenRule>) -> Option<()> {
    let derives = provider
        .and_then(|provider| provider.verifier.as_ref())
        .is_some_and(|verifier| matches!(verifier.keys(), VerifierKeys::Derived));
    if derives && !matches!(token, Some(TokenRule::Callback { .. })) {
        return at.error(
            "the provider's secrets are derived from tokens of kind callback",
            "add such a `token` to the route",
        );
    }
    Some(())
}

/// The hint for a route that expects both a token and a fixed secret in the same header.
pub(super) const CONTRADICTION_HINT: &str = "the provider sends back the token that the request contained: remove `secrets` from the provider, and set `from` of \
     the route's token to this header";

/// Reports an error if all locations of the token are headers in which the provider sends its signature or secret. One
/// header cannot contain both values.
fn in_one_header(at: &Cursor<'_>, provider: Option<&Provider>, token: Option<&TokenRule>) -> Option<()> {
    let Some(TokenRule::Callback { carriers, .. } | TokenRule::Jwt { carriers, .. }) = token else {
        return Some(());
    };
    let Some(verifier) = provider.and_then(|provider| provider.verifier.as_ref()) else { return Some(()) };
    let scheme = verifier.scheme();
    let header = |carrier: &Carrier| match carrier {
        Carrier::Bearer => Some(AUTHORIZATION),
        Carrier::Header(name) => Some(name.clone()),
        Carrier::Path | Carrier::Query(_) => None,
    };
    let headers: Vec<_> = carriers.iter().map(header).collect();
    let taken = |header: &Option<HeaderName>| {
        header.as_ref().is_some_and(|header| scheme.proof_headers().contains(header))
    };
    match headers.iter().flatten().next() {
        Some(name) if headers.iter().all(taken) => {
            let hint = match scheme.proof {
                Proof::SharedSecret(_) => CONTRADICTION_HINT,
                _ => "let the URL contain the token: `from: [query]`",
            };
            let message =
                format!("the header {name} would have to contain both the token and {}", scheme.proof_name());
            at.error(message, hint)
        }
        _ => Some(()),
    }
}

/// Reports an error for a route that has neither token nor signature and is not marked as open. Also reports an error
/// for an open route that has a token or a signature, and a warning for every other open route. `token` is true if the
/// route has a token or requires certificates with certain names.
fn guarded(at: &Cursor<'_>, provider: Option<&Provider>, token: bool, open: bool) -> Option<()> {
    let signed = is_signed(provider);
    // If the preset has a signature scheme, the hint names both `token` and `secrets`, because a provider without
    // `secrets` may send back the token of the interaction.
    let has_scheme = provider.and_then(|provider| scheme_of(provider.preset?)).is_some_and(|s| s.has_proof());
    match (token || signed, open) {
        (false, false) => {
            let hint = match has_scheme {
                true => {
                    "add `token: { kind: callback }`, or `secrets` to the provider if it sends a fixed secret"
                }
                false => {
                    "add `token`, or a `provider` with a `signature`; or write `open: true` if anyone may call it"
                }
            };
            at.error("the route has neither token nor signature", hint)
        }
        (true, true) => {
            at.error("the route has `open: true`, but has a token or signature", "remove one of them")
        }
        (false, true) => {
            at.warn("open: every caller that passes the address check can call the agent through this route");
            Some(())
        }
        (true, false) => Some(()),
    }
}

pub(super) fn methods(at: &Cursor<'_>) -> Option<Vec<http::Method>> {
    let read: Vec<_> = at.list()?.iter().map(|at| at.one_of(METHODS).cloned()).collect();
    let methods = read.into_iter().collect::<Option<Vec<_>>>()?;
    if methods.iter().enumerate().any(|(i, method)| methods.iter().take(i).any(|earlier| earlier == method)) {
        return at.error("a method occurs twice", "");
    }
    Some(methods)
}

fn provider(at: &Cursor<'_>, known: &References<'_, '_>) -> Option<Arc<Provider>> {
    let name = at.text()?;
    if let Some(provider) = known.providers.iter().find(|provider| *provider.name == *name) {
        return Some(Arc::clone(provider));
    }
    if known.providers_failed {
        return None;
    }
    let names: Vec<_> = known.providers.iter().map(|provider| &*provider.name).collect();
    at.error(format!("there is no provider {name}"), did_you_mean(name, &names))
}

/// Reads an internal path, to which Callgate delivers callbacks. The internal path can contain only captures of `path`,
/// the external path.
pub(super) fn forward(at: &Cursor<'_>, path: Option<&Template>) -> Option<Template> {
    let template = at.template()?;
    let path = path?;
    if template.has(TOKEN_CAPTURE) {
        return at.error("the agent never receives the token", "remove {callback_token} from the path");
    }
    if let Some(name) = template.names().find(|name| !path.has(name)) {
        let hint = format!("the path captures: {}", path.names().collect::<Vec<_>>().join(", "));
        return at.error(format!("the path has no capture {name}"), hint);
    }
    at.filled_from(template, path)
}
