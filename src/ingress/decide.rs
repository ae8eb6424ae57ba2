//! From a request to a verdict, in two halves: the head admits, the body permits.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::gate::{self, Found};
use super::route::{QueryRule, Route};
use super::{forward, router::Router};
use crate::denial::Denial;
use crate::path::{CanonicalPath, Captures, check_query};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::{Presented, Signed};
use crate::source::{ClientAddress, SourceFault};
use crate::time::Timestamp;
use crate::trail::{Check, Trail};

/// The routes, compiled, and what they share.
#[derive(Debug)]
pub struct Ingress {
    edge: Arc<Edge>,
    routes: Vec<Arc<Route>>,
    router: Router,
}

/// How Callgate is reached from outside.
#[derive(Debug)]
pub struct Edge {
    /// The `Host` the agent sees: the authority of the public URL, or the agent's own.
    pub authority: Box<str>,
    /// How the client address is found; `None`: it is the peer's.
    pub client_address: Option<ClientAddress>,
    /// What every external URL begins with, without a slash at the end; empty when none is configured.
    pub public_url: Box<str>,
}

/// What was found out about a request, however far it got: for the log and the metrics.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Who called.
    pub client: Option<IpAddr>,
    /// Which route.
    pub route: Option<Arc<Route>>,
    /// What the path captured.
    pub captures: Option<Captures>,
    /// The interaction its token belongs to.
    pub interaction: Option<Box<str>>,
}

/// A refused request.
#[derive(Clone, Debug)]
pub struct Denied {
    /// Why.
    pub denial: Denial,
    /// What is known of it.
    pub seen: Seen,
}

/// A request whose head passed every check that needs no body. It is not yet allowed to be delivered.
#[derive(Clone, Debug)]
pub struct Admitted {
    route: Arc<Route>,
    captures: Captures,
    client: IpAddr,
    found: Found,
    edge: Arc<Edge>,
}

/// The proof that every check of a route's gate passed. It is made in one place, by
/// [`Admitted::decide_body`], and delivering takes one.
#[derive(Clone, Debug)]
pub struct Permit {
    admitted: Admitted,
    target: String,
}

impl Ingress {
    /// Compiles the routes, which are known to differ in shape.
    pub fn new(routes: Vec<Arc<Route>>, edge: Edge) -> Self {
        let mut router = Router::default();
        for (index, route) in routes.iter().enumerate() {
            router.insert(&route.path, index);
        }
        Self { edge: Arc::new(edge), routes, router }
    }

    /// How Callgate is reached from outside.
    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// The routes, in the order of the configuration.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Decides on the head: canonical path, route, and the checks of the gate that need no body.
    ///
    /// # Errors
    /// [`Denied`] by the first check that refuses.
    pub fn decide_head(
        &self,
        head: &RequestHead<'_>,
        now: Timestamp,
        trail: &mut Trail,
    ) -> Result<Admitted, Box<Denied>> {
        let client = self.client(head);
        let mut seen = Seen { client: client.ok(), ..Seen::default() };
        let (route, captures) = match self.find(head, trail) {
            Ok(found) => found,
            Err(denial) => return Err(Box::new(Denied { denial, seen })),
        };
        let mut found = Found::default();
        match gate::run(&route, &captures, client, head, now, &mut found, trail) {
            Ok(client) => Ok(Admitted { route, captures, client, found, edge: Arc::clone(&self.edge) }),
            Err(denial) => {
                seen.route = Some(route);
                seen.captures = Some(captures);
                seen.interaction = found.granted.map(|granted| granted.interaction);
                Err(Box::new(Denied { denial, seen }))
            }
        }
    }

    fn client(&self, head: &RequestHead<'_>) -> Result<IpAddr, SourceFault> {
        match &self.edge.client_address {
            None => Ok(head.peer.to_canonical()),
            Some(rule) => rule.resolve(head.peer, head.headers),
        }
    }

    fn find(&self, head: &RequestHead<'_>, trail: &mut Trail) -> Result<(Arc<Route>, Captures), Denial> {
        let path = CanonicalPath::parse(head.raw_path())
            .map_err(|fault| trail.deny(Check::Path, Denial::PathMalformed, || fault.to_string()))?;
        if let Err(at) = check_query(head.raw_query().unwrap_or_default()) {
            return Err(trail.deny(Check::Path, Denial::PathMalformed, || {
                format!("forbidden character at byte {at} of the query")
            }));
        }
        trail.pass(Check::Path, || "canonical".to_owned());
        let fits = |index: usize| self.routes.get(index).is_some_and(|route| route.path.matches(&path));
        let Some(route) = self.router.find(&path, fits).and_then(|index| self.routes.get(index)) else {
            return Err(trail.deny(Check::Route, Denial::RouteUnknown, || {
                format!("none of {} routes has this path", self.routes.len())
            }));
        };
        let captures = route.path.capture(&path);
        trail.pass(Check::Route, || format!("{} with {captures}", route.name));
        Ok((Arc::clone(route), captures))
    }
}

impl Admitted {
    /// Largest body this route takes, in bytes.
    pub fn body_bytes_max(&self) -> u64 {
        self.route.body_bytes_max
    }

    /// What is known of the request so far.
    pub fn into_seen(self) -> Seen {
        Seen {
            client: Some(self.client),
            route: Some(self.route),
            captures: Some(self.captures),
            interaction: self.found.granted.map(|granted| granted.interaction),
        }
    }

    /// Decides on the whole body. `head` is the head that was admitted.
    ///
    /// # Errors
    /// [`Denied`] when the body is too large or no signature matches it.
    pub fn decide_body(
        self,
        head: &RequestHead<'_>,
        body: &[u8],
        trail: &mut Trail,
    ) -> Result<Permit, Box<Denied>> {
        let checked = self.check_body(head, body, trail);
        // The configuration made sure that every capture of `forward` is one of the path; if that were ever
        // wrong, there is no such internal path, and nothing is delivered anywhere else.
        let target = checked.and_then(|()| self.target(head).ok_or(Denial::RouteUnknown));
        match target {
            Ok(target) => Ok(Permit { admitted: self, target }),
            Err(denial) => Err(Box::new(Denied { denial, seen: self.into_seen() })),
        }
    }

    /// The internal request target: the path from the captures, and the query without the token.
    fn target(&self, head: &RequestHead<'_>) -> Option<String> {
        let mut target = self.route.forward.fill(|name| self.captures.value(name))?;
        let query = match self.route.query {
            QueryRule::Drop => None,
            QueryRule::Pass => {
                head.raw_query().and_then(|query| forward::query(&self.route, self.token(), query))
            }
        };
        if let Some(query) = query {
            target.push('?');
            target.push_str(&query);
        }
        Some(target)
    }

    fn token(&self) -> Option<&[u8]> {
        self.found.token.as_ref().map(Secret::expose)
    }

    fn check_body(&self, head: &RequestHead<'_>, body: &[u8], trail: &mut Trail) -> Result<(), Denial> {
        let bytes = body.len() as u64;
        if bytes > self.route.body_bytes_max {
            return Err(trail.deny(Check::Body, Denial::BodyTooLarge, || {
                format!("{bytes} bytes, {} allowed", self.route.body_bytes_max)
            }));
        }
        if head.body_bytes_declared.is_some_and(|declared| declared != bytes) {
            return Err(trail.deny(Check::Body, Denial::BodyIncomplete, || {
                format!("{bytes} bytes, {} declared", head.body_bytes_declared.unwrap_or_default())
            }));
        }
        trail.pass(Check::Body, || format!("{bytes} bytes"));
        let verifier = self.route.provider.as_ref().and_then(|provider| provider.verifier.as_ref());
        let (Some(verifier), Some(presented)) = (verifier, &self.found.presented) else {
            trail.skip(Check::Signature, "the provider does not sign");
            return Ok(());
        };
        let signed = Signed { head: *head, public_url: &self.edge.public_url };
        match verifier.verify(presented, &signed, body) {
            Ok(()) => {
                trail.pass(Check::Signature, || format!("matches over {bytes} body bytes"));
                Ok(())
            }
            Err(refusal) => Err(trail.deny(Check::Signature, refusal.denial, || refusal.detail.into_owned())),
        }
    }
}

impl Permit {
    /// The route whose gate was passed.
    pub fn route(&self) -> &Arc<Route> {
        &self.admitted.route
    }

    /// Who called.
    pub fn client(&self) -> IpAddr {
        self.admitted.client
    }

    /// The interaction, where the token names one.
    pub fn interaction(&self) -> Option<&str> {
        self.admitted.found.granted.as_ref().map(|granted| &*granted.interaction)
    }

    /// The provider's id of this event, where it sends one.
    pub fn event_id(&self) -> Option<&HeaderValue> {
        self.admitted.found.presented.as_ref().and_then(Presented::event_id)
    }

    /// The internal request target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The `Host` the agent sees, whatever the caller sent.
    pub(super) fn authority(&self) -> &str {
        &self.admitted.edge.authority
    }

    /// The header in which trusted proxies tell the client address, which nobody else may set.
    pub(super) fn address_header(&self) -> Option<HeaderName> {
        self.admitted.edge.client_address.as_ref().map(|rule| rule.header.name())
    }

    /// The verified token, which is not passed on wherever it stands.
    pub(super) fn token(&self) -> Option<&[u8]> {
        self.admitted.token()
    }

    /// What is known of the request.
    pub fn into_seen(self) -> Seen {
        self.admitted.into_seen()
    }
}
