//! Checks that compare several sections of the configuration. The checks report settings that exclude each other, or
//! that have no effect.

use std::sync::Arc;
use std::time::Duration;

use super::agent::Agents;
use super::listen::Listener;
use super::restart_only::Startup;
use super::yaml::Cursor;
use crate::egress::{Egress, is_direct};
use crate::inbox::InboxSettings;
use crate::ingress::{Deliver, Route};
use crate::interaction::Follow;
use crate::path::CanonicalPath;
use crate::policy::{Limits, Minting};
use crate::time::format_duration;
use crate::token::Form;

/// The configuration key of the list of routes. The compiled routes are in the order of this list, so a compiled route
/// and its entry in the list have the same index.
const ROUTES: &str = "routes";

/// The compiled sections of the configuration, for checks that compare several sections. A section with a mistake is
/// `None` and is not checked here.
pub(super) struct Sections<'a> {
    pub(super) agents: &'a Agents<'a>,
    pub(super) startup: Option<&'a Startup>,
    pub(super) routes: &'a [Arc<Route>],
    pub(super) egress: Option<&'a Cursor<'a>>,
    pub(super) rules: Option<&'a Egress>,
    pub(super) minting: Option<&'a Minting>,
    pub(super) limits: Option<&'a Limits>,
    pub(super) inbox: Option<&'a InboxSettings>,
}

impl Sections<'_> {
    /// Reports the errors and warnings of all checks that compare several sections.
    pub(super) fn check(&self, root: &Cursor<'_>) {
        if let Some(startup) = self.startup {
            egress_listener(root, startup, self.routes, self.egress);
            egress_bodies(root, startup, self.rules);
            forward_proxy(root, startup, self.rules);
            health_paths(root, startup, self.routes);
            replicas(root, startup, self.minting.is_some());
            kept_callbacks(root, startup, self.routes, self.inbox);
        }
        if let Some(minting) = self.minting {
            deadlines(root, self.routes, minting.ttl);
            opaque_tokens(root, self.startup, minting);
        }
        interactions_that_only_expire(root, self.routes, self.rules);
        if let Some(limits) = self.limits {
            routes(root, self.routes, self.startup, limits);
            agent_shares(root, self.routes, self.agents, limits);
        }
        self.agents.warn_unused(self.routes);
    }
}

/// Reports an error if the configuration has egress rules, or routes with `actions`, but no egress listener.
fn egress_listener(root: &Cursor<'_>, startup: &Startup, routes: &[Arc<Route>], egress: Option<&Cursor<'_>>) {
    if startup.egress.is_some() {
        return;
    }
    if let Some(at) = egress {
        let _: Option<()> =
            at.error("there is no listener for the requests of the agent", "add `listen.egress`");
    } else if let Some((i, route)) = routes.iter().enumerate().find(|(_, route)| route.actions.is_some()) {
        let message = format!(
            "there is no listener for the agent's answers to the questions of the route {}",
            route.name
        );
        let _: Option<()> = root.element(ROUTES, i).error(message, "add `listen.egress`");
    }
}

/// Reports an error for each route that matches the path of a health check. Callgate replies to health checks itself,
/// so the route would never receive requests to this path.
fn health_paths(root: &Cursor<'_>, startup: &Startup, routes: &[Arc<Route>]) {
    let paths =
        startup.ingress.iter().filter_map(|listener| CanonicalPath::parse(listener.health.as_deref()?).ok());
    for path in paths {
        for (i, route) in routes.iter().enumerate().filter(|(_, route)| route.path.matches(&path)) {
            let message =
                format!("the route {} matches the path {} of a health check", route.name, path.as_str());
            let _: Option<()> = root.element(ROUTES, i).error(message, "change `health` in `listen.ingress`");
        }
    }
}

/// Reports a warning if callback tokens are opaque and the ledger is in memory. A restart then loses the rights of all
/// tokens, and Callgate denies callbacks with tokens from before the restart.
fn opaque_tokens(root: &Cursor<'_>, startup: Option<&Startup>, minting: &Minting) {
    let is_in_memory =
        startup.is_some_and(|startup| startup.store.path.is_none() && startup.store.redis.is_none());
    if minting.minter.form() == Form::Opaque && is_in_memory {
        root.warn(
            "`callback_tokens.form` is opaque, and the ledger is in memory: after a restart, the callbacks of earlier tokens are denied",
        );
    }
}

/// Reports an error if the replica listener has the address of another listener. Reports a warning if the configuration
/// has `replicas`, but no `callback_tokens`. Without `callback_tokens`, the section `replicas` has no effect, because
/// only interactions with a callback token belong to a replica.
fn replicas(root: &Cursor<'_>, startup: &Startup, has_tokens: bool) {
    let Some(replicas) = &startup.replicas else { return };
    let address = replicas.listener.address;
    let others = startup.ingress.iter().map(|listener| listener.address);
    let others = others.chain(startup.egress.as_ref().map(|egress| egress.address));
    let mut others = others.chain(startup.admin.as_ref().map(|admin| admin.address));
    if address.port() != 0 && others.any(|other| other == address) {
        let message = format!("another listener has the address {address} of `replicas`");
        let _: Option<()> = root.error(message, "");
    }
    if !has_tokens {
        root.warn(
            "`replicas` has no effect without `callback_tokens`: only their interactions have an owner",
        );
    }
}

/// Checks the storage of the callbacks of routes with `deliver: inbox` or `deliver: pull`.
///
/// - Reports a warning if each of several replicas stores callbacks in its own ledger.
/// - Reports an error for a route if the ledger is in memory, or if Redis may lose the callbacks of the route.
/// - Reports an error for a route with `deliver: pull` if there is no egress listener. The agent pulls its callbacks
///   there.
fn kept_callbacks(
    root: &Cursor<'_>,
    startup: &Startup,
    routes: &[Arc<Route>],
    inbox: Option<&InboxSettings>,
) {
    let may_lose = inbox.is_none_or(|inbox| inbox.may_lose);
    let forgets = startup.store.redis.as_ref().is_some_and(|redis| redis.wait_replicas == 0) && !may_lose;
    if startup.store.redis.is_none()
        && startup.replicas.is_some()
        && routes.iter().any(|route| route.deliver.keeps())
    {
        root.warn(
            "each replica keeps callbacks in its own ledger: put `store.path` on a volume that outlives the pod, such \
             as one of a StatefulSet; with an `emptyDir`, they are lost with the pod",
        );
    }
    for (i, route) in routes.iter().enumerate().filter(|(_, route)| route.deliver.keeps()) {
        let (name, word, at) = (&route.name, route.deliver.name(), root.element(ROUTES, i));
        if startup.store.path.is_none() && startup.store.redis.is_none() {
            let message = format!(
                "the route {name} has `deliver: {word}`, but the ledger is in memory and would lose its callbacks"
            );
            let _: Option<()> = at.error(message, "write `store: { kind: file, path: ... }`");
        }
        if forgets {
            let message = format!(
                "the route {name} has `deliver: {word}`, but Redis may lose the last callbacks when its primary fails"
            );
            let hint = "write `store.redis.wait: { replicas: 1 }`, or `inbox: { may_lose: true }` to accept the loss";
            let _: Option<()> = at.error(message, hint);
        }
        if route.deliver == Deliver::Pull && startup.egress.is_none() {
            let message =
                format!("there is no listener at which the agent asks for the callbacks of the route {name}");
            let _: Option<()> = at.error(message, "add `listen.egress`");
        }
    }
}

/// Compares the `proxied` egress rules with the settings of the forward proxy, `listen.egress.proxy`.
///
/// - Reports an error for each `proxied` rule if the egress listener is no forward proxy.
/// - Reports an error for each `proxied` rule if the proxy always tunnels the host of the rule's target.
/// - Reports a warning for each `proxied` rule if clients connect to the host of the rule's target without the proxy.
/// - Reports a warning if the proxy refuses every host.
fn forward_proxy(root: &Cursor<'_>, startup: &Startup, rules: Option<&Egress>) {
    let (Some(listener), Some(rules)) = (&startup.egress, rules) else { return };
    let mut proxied = rules.rules().iter().filter(|rule| rule.proxied.is_some()).peekable();
    let Some(proxy) = &listener.proxy else {
        for rule in proxied {
            let message = format!("the rule {} is `proxied`, but the egress listener is no proxy", rule.name);
            let _: Option<()> = root.error(message, "add `listen.egress.proxy`");
        }
        return;
    };
    if proxied.peek().is_none() && proxy.tunnel.is_empty() && !proxy.tunnels_others {
        root.warn("`listen.egress.proxy` refuses every host: no rule is `proxied`, and `others` is `refuse`");
    }
    let proxied: Vec<_> = proxied.collect();
    for rule in proxied.iter().filter(|rule| is_direct(rule.target.url.host())) {
        root.warn(&format!(
            "the rule {} is `proxied`, but clients reach {} directly: `callgate env` and `callgate inject --proxied` list it in \
             NO_PROXY. Point the client at the `path` of the rule instead",
            rule.name,
            rule.target.url.host()
        ));
    }
    for rule in proxied.iter().filter(|rule| proxy.always_tunnels(rule.target.url.host())) {
        let message = format!(
            "the rule {} needs to see the requests to {}, but `listen.egress.proxy.tunnel` lists this host",
            rule.name,
            rule.target.url.host()
        );
        let _: Option<()> = root.error(message, "remove one of the two");
    }
}

/// Reports an error for each egress rule that has `inject`, and a `body_max` larger than
/// `listen.egress.body_memory_max`. Rules without `inject` are not checked: Callgate never holds the complete bodies of
/// their requests in memory.
fn egress_bodies(root: &Cursor<'_>, startup: &Startup, rules: Option<&Egress>) {
    let Some(listener) = &startup.egress else { return };
    let rules = rules.into_iter().flat_map(Egress::rules).filter(|rule| rule.inject.is_some());
    for rule in rules.filter(|rule| rule.body_bytes_max > listener.body_memory_bytes_max) {
        let message =
            format!("the rule {} allows bodies larger than `listen.egress.body_memory_max`", rule.name);
        let hint = "lower `body_max` of the rule, or raise `listen.egress.body_memory_max`";
        let _: Option<()> = root.error(message, hint);
    }
}

/// Compares each route with the listeners and the limits.
///
/// - Reports an error if a route without `stream` accepts bodies larger than `limits.body_memory_max`.
/// - Reports an error if a route requires client certificates, but no listener requests them.
/// - Reports a warning for each route in observe mode.
/// - Reports one warning if any route requires client certificates, and the listeners trust different authorities.
fn routes(root: &Cursor<'_>, routes: &[Arc<Route>], startup: Option<&Startup>, limits: &Limits) {
    let asks = |listener: &Listener| listener.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    let authorities = startup.into_iter().flat_map(|startup| &startup.ingress);
    let mut authorities: Vec<_> =
        authorities.filter_map(|listener| Some(&*listener.tls.as_ref()?.clients.as_ref()?.file)).collect();
    authorities.sort_unstable();
    authorities.dedup();
    if authorities.len() > 1 && routes.iter().any(|route| route.certificate.is_some()) {
        root.warn("the listeners trust different authorities: a route with `client_certificate` accepts a certificate of any of them");
    }
    for (i, route) in routes.iter().enumerate() {
        let (name, at) = (&route.name, root.element(ROUTES, i));
        if !route.stream && route.body_bytes_max > limits.body_memory_bytes_max {
            let message = format!("the route {name} allows bodies larger than `limits.body_memory_max`");
            let _: Option<()> =
                at.error(message, "lower `body_max` of the route, or raise `limits.body_memory_max`");
        }
        if route.certificate.is_some() && startup.is_some_and(|startup| !startup.ingress.iter().any(asks)) {
            let message =
                format!("the route {name} requires client certificates, but no listener requests them");
            let _: Option<()> = at.error(message, "add `client_certificates` to the `tls` of a listener");
        }
        if route.observes() {
            at.warn(&format!(
                "the route {name} is in observe mode: it delivers requests that fail its checks"
            ));
        }
    }
}

/// Reports an error for each route that allows bodies larger than its agent's share of `limits.body_memory_max`. Each
/// agent has an equal share.
fn agent_shares(root: &Cursor<'_>, routes: &[Arc<Route>], agents: &Agents<'_>, limits: &Limits) {
    let Some(agents) = agents.all().filter(|agents| agents.len() > 1) else { return };
    let share = limits.body_memory_share(agents.len());
    let fits = |route: &Route| {
        route.stream || route.body_bytes_max <= share || route.body_bytes_max > limits.body_memory_bytes_max
    };
    for (i, route) in routes.iter().enumerate().filter(|(_, route)| !fits(route)) {
        let message = format!(
            "the route {} allows bodies larger than its agent's share of `limits.body_memory_max`, {share} bytes",
            route.name
        );
        let hint =
            "each agent has an equal share: lower `body_max` of the route, or raise `limits.body_memory_max`";
        let _: Option<()> = root.element(ROUTES, i).error(message, hint);
    }
}

/// Reports a warning for each route whose interactions end only when they expire. Two conditions must hold: the egress
/// rule that opens the interactions does not set `uses` (the maximum number of callbacks), and the route does not read
/// the states of interactions from callbacks. Routes with the section `interaction` are checked when that section is
/// read, not here.
fn interactions_that_only_expire(root: &Cursor<'_>, routes: &[Arc<Route>], rules: Option<&Egress>) {
    let injections: Vec<_> =
        rules.into_iter().flat_map(Egress::rules).filter_map(|rule| rule.inject.as_ref()).collect();
    let silent = |route: &Route| route.follow == Follow::default() && route.notify.is_none();
    for (i, route) in routes.iter().enumerate().filter(|(_, route)| silent(route)) {
        if injections.iter().any(|inject| inject.route == route.name && inject.uses.is_none()) {
            root.element(ROUTES, i).warn(&format!(
                "the interactions of the route {} can only expire: add `interaction` with `status` and `done`, or set \
                 `inject.uses` of its egress rules",
                route.name
            ));
        }
    }
}

/// Reports a warning for each route whose deadline has no effect, because the callback tokens expire before the
/// deadline. `ttl` is the validity of the tokens.
fn deadlines(root: &Cursor<'_>, routes: &[Arc<Route>], ttl: Duration) {
    let is_late = |route: &Route| route.follow.deadline.is_some_and(|deadline| deadline > ttl);
    for (i, route) in routes.iter().enumerate().filter(|(_, route)| is_late(route)) {
        root.element(ROUTES, i).warn(&format!(
            "the route {} has a deadline after the expiry of its tokens, which are valid for {}: the tokens end first",
            route.name,
            format_duration(ttl)
        ));
    }
}
