//! `routes`: external path, checks, internal path.

use std::sync::Arc;

use super::reader::{Cursor, Fields, did_you_mean};
use super::token::{CallbackTokens, token};
use crate::ingress::{Provider, QueryRule, Route};
use crate::path::{TOKEN_CAPTURE, Template};

/// Largest body unless said otherwise, in bytes.
const BODY_BYTES_DEFAULT: u64 = 1 << 20;
/// Largest body that can be allowed, in bytes: bodies are held in memory whole.
const BODY_BYTES_MAX: u64 = 64 << 20;

const METHODS: &[(&str, &http::Method)] = &[
    ("DELETE", &http::Method::DELETE),
    ("GET", &http::Method::GET),
    ("HEAD", &http::Method::HEAD),
    ("OPTIONS", &http::Method::OPTIONS),
    ("PATCH", &http::Method::PATCH),
    ("POST", &http::Method::POST),
    ("PUT", &http::Method::PUT),
];

/// What a route may refer to.
pub(super) struct Known<'k> {
    pub(super) providers: &'k [Arc<Provider>],
    pub(super) providers_failed: bool,
    pub(super) tokens: Option<&'k CallbackTokens>,
    pub(super) tokens_failed: bool,
}

/// Reads all routes.
pub(super) fn routes(at: &Cursor<'_>, known: &Known<'_>) -> Option<Vec<Arc<Route>>> {
    let list = at.list()?;
    let read: Vec<_> = list.iter().map(|at| route(at, known)).collect();
    for (i, (at, route)) in list.iter().zip(&read).enumerate() {
        let Some(route) = route else { continue };
        for earlier in read.iter().take(i).flatten() {
            distinct(at, route, earlier);
        }
    }
    read.into_iter().map(|route| route.map(Arc::new)).collect()
}

fn distinct(at: &Cursor<'_>, route: &Route, earlier: &Route) {
    if route.name == earlier.name {
        let _: Option<()> =
            at.error(format!("the name {} is used twice", route.name), "tokens are bound to it");
    }
    if route.path.same_shape(&earlier.path) {
        let message = format!("matches the same paths as the route {}", earlier.name);
        let hint = format!("{} and {} cannot be told apart", earlier.path.as_str(), route.path.as_str());
        let _: Option<()> = at.error(message, hint);
    }
}

fn route(at: &Cursor<'_>, known: &Known<'_>) -> Option<Route> {
    let mut fields = at.fields()?;
    let name = fields.required("name").and_then(|at| at.name());
    let path = fields.required("path").and_then(|at| at.template());
    let methods = fields.optional("methods").map_or(Some(vec![http::Method::POST]), |at| methods(&at));
    let provider = fields.optional("provider").map(|at| provider(&at, known));
    let token =
        fields.optional("token").map(|at| token(&at, path.as_ref(), known.tokens, known.tokens_failed));
    let open = fields.optional("open").map_or(Some(false), |at| at.boolean());
    let forward = fields.required("forward").and_then(|at| forward(&at, path.as_ref()));
    let words = [("drop", QueryRule::Drop), ("pass", QueryRule::Pass)];
    let query = fields.optional("query").map_or(Some(QueryRule::Pass), |at| at.one_of(&words));
    let body_max = fields.optional("body_max").map_or(Some(BODY_BYTES_DEFAULT), |at| at.size(BODY_BYTES_MAX));
    interaction(fields.optional("interaction"), path.as_ref());
    actions(fields.optional("actions"));
    let token_stated = fields.has("token");
    fields.finish();

    if !token_stated && path.as_ref().is_some_and(|path| path.has(TOKEN_CAPTURE)) {
        return at.error("the path has {callback_token}, but the route has no `token`", "");
    }
    let provider = provider.map_or(Some(None), |read| read.map(Some))?;
    let signed = provider.as_ref().is_some_and(|provider| provider.verifier.is_some());
    guarded(at, token_stated, signed, open?)?;
    Some(Route {
        name: name?.into(),
        path: path?,
        methods: methods?,
        provider,
        token: token.map_or(Some(None), |read| read.map(Some))?,
        forward: forward?,
        query: query?,
        body_bytes_max: body_max?,
    })
}

/// A route that anyone may call must say so; one that says so must mean it.
fn guarded(at: &Cursor<'_>, token: bool, signed: bool, open: bool) -> Option<()> {
    match (token || signed, open) {
        (false, false) => {
            let hint = "add `token`, or a `provider` with a `signature`; or write `open: true` if anyone may call it";
            at.error("the route has neither token nor signature", hint)
        }
        (true, true) => {
            at.error("the route says `open: true` but has a token or signature", "take one of them out")
        }
        (false, true) => {
            at.warn("open: whoever the address check lets through can call the agent through this route");
            Some(())
        }
        (true, false) => Some(()),
    }
}

fn methods(at: &Cursor<'_>) -> Option<Vec<http::Method>> {
    let read: Vec<_> = at.list()?.iter().map(|at| at.one_of(METHODS).cloned()).collect();
    let methods = read.into_iter().collect::<Option<Vec<_>>>()?;
    if methods.iter().enumerate().any(|(i, method)| methods.iter().take(i).any(|earlier| earlier == method)) {
        return at.error("a method occurs twice", "");
    }
    Some(methods)
}

fn provider(at: &Cursor<'_>, known: &Known<'_>) -> Option<Arc<Provider>> {
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

/// The internal path: every capture in it must be one of the external path.
fn forward(at: &Cursor<'_>, path: Option<&Template>) -> Option<Template> {
    let template = at.template()?;
    let path = path?;
    if template.has(TOKEN_CAPTURE) {
        return at.error("the token is never passed on", "take {callback_token} out of `forward`");
    }
    if let Some(name) = template.names().find(|name| !path.has(name)) {
        let hint = format!("the path captures: {}", path.names().collect::<Vec<_>>().join(", "));
        return at.error(format!("the path has no capture {name}"), hint);
    }
    Some(template)
}

/// Reads `interaction`, which is checked but not acted on by this version.
fn interaction(at: Option<Cursor<'_>>, path: Option<&Template>) {
    let Some(at) = at else { return };
    at.warn("this version does not follow interactions yet: callbacks are verified and delivered, no more");
    let Some(mut fields) = at.fields() else { return };
    for key in ["status", "progress"] {
        fields.optional(key).and_then(|at| at.pointer());
    }
    for key in ["done", "failed"] {
        words(&mut fields, key);
    }
    for key in ["deadline", "stalled_after"] {
        fields.optional(key).and_then(|at| at.duration());
    }
    if let Some(at) = fields.optional("notify") {
        forward(&at, path);
    }
    fields.finish();
}

fn words(fields: &mut Fields<'_>, key: &'static str) {
    for at in fields.optional(key).and_then(|at| at.list()).unwrap_or_default() {
        at.text();
    }
}

/// Reads `actions`, which is checked but not acted on by this version.
fn actions(at: Option<Cursor<'_>>) {
    let Some(at) = at else { return };
    at.warn("this version does not guard answers to action endpoints yet");
    let Some(mut fields) = at.fields() else { return };
    fields.required("pointer").and_then(|at| at.pointer());
    for at in fields.required("hosts").and_then(|at| at.list()).unwrap_or_default() {
        at.text();
    }
    fields.finish();
}
