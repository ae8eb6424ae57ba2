//! The first half of the way from a request to a verdict: the head admits.

use std::net::IpAddr;
use std::sync::Arc;

use super::gate::{self, Found};
use super::outside::Outside;
use super::route::Route;
use super::router::Router;
use crate::denial::Denial;
use crate::path::{CanonicalPath, Captures, check_query};
use crate::request::RequestHead;
use crate::source::{ClientAddress, SourceFault};
use crate::time::Timestamp;
use crate::trail::{Check, Trail};

/// Largest body that is let through where it is too large and the route only observes, in bytes.
const OBSERVED_BYTES_MAX: u64 = 8 << 20;

/// The routes, compiled, and what they share.
#[derive(Clone, Debug)]
pub struct Ingress {
    edge: Arc<Edge>,
    routes: Arc<[Arc<Route>]>,
    router: Arc<Router>,
    documents: Arc<[Document]>,
}

/// A document that anybody may read.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it is.
    pub path: Box<str>,
    /// JSON.
    pub body: String,
}

/// How Callgate is reached from outside, and what it knows from there.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The `Host` the agent sees: the authority of the public URL, or the agent's own.
    pub authority: Box<str>,
    /// How the client address is found; `None`: it is the peer's.
    pub client_address: Option<ClientAddress>,
    /// The fetched keys and lists of the moment.
    pub outside: Outside,
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
    /// The class of what the guard of action endpoints refused.
    pub guarded: Option<&'static str>,
    /// The address of a certificate that is needed to decide and was not fetched so far.
    pub wanted: Option<Box<str>>,
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
    pub(super) route: Arc<Route>,
    pub(super) captures: Captures,
    pub(super) client: IpAddr,
    pub(super) found: Found,
    pub(super) now: Timestamp,
    pub(super) edge: Arc<Edge>,
}

impl Ingress {
    /// Compiles the routes, which are known to differ in shape.
    pub fn new(routes: Vec<Arc<Route>>, edge: Edge) -> Self {
        let mut router = Router::default();
        for (index, route) in routes.iter().enumerate() {
            router.insert(&route.path, index);
        }
        Self {
            edge: Arc::new(edge),
            routes: routes.into(),
            router: Arc::new(router),
            documents: Arc::default(),
        }
    }

    /// The same with documents that anybody may read.
    #[must_use]
    pub fn with_documents(self, documents: Vec<Document>) -> Self {
        Self { documents: documents.into(), ..self }
    }

    /// The document that a request asks for.
    pub fn document(&self, head: &RequestHead<'_>) -> Option<&Document> {
        let asked = |document: &&Document| head.method == "GET" && head.target == &*document.path;
        self.documents.iter().find(asked)
    }

    /// The same routes with other things fetched.
    #[must_use]
    pub fn with_outside(&self, outside: Outside) -> Self {
        let edge = Edge { outside, ..Edge::clone(&self.edge) };
        Self { edge: Arc::new(edge), ..self.clone() }
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
    ) -> Result<Box<Admitted>, Box<Denied>> {
        let client = self.client(head);
        let mut seen = Seen { client: client.ok(), ..Seen::default() };
        let (route, captures) = match self.find(head, trail) {
            Ok(found) => found,
            Err(denial) => return Err(Box::new(Denied { denial, seen })),
        };
        let mut found = Found::default();
        let run = gate::Run { route: &route, captures: &captures, head, now, edge: &self.edge };
        match run.run(client, &mut found, trail) {
            // Boxed: it is handed on from check to check.
            Ok(client) => {
                Ok(Box::new(Admitted { route, captures, client, found, now, edge: Arc::clone(&self.edge) }))
            }
            Err(denial) => {
                seen.route = Some(route);
                seen.captures = Some(captures);
                seen.interaction = found.granted.map(|granted| granted.interaction);
                Err(Box::new(Denied { denial, seen }))
            }
        }
    }

    /// Whether an address is a trusted proxy's, who calls for many.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let lists = &self.edge.outside.lists;
        let trusts = |rule: &ClientAddress| rule.trusted_proxies.contains(address.to_canonical(), lists);
        self.edge.client_address.as_ref().is_some_and(|rule| trusts(rule).unwrap_or(false))
    }

    fn client(&self, head: &RequestHead<'_>) -> Result<IpAddr, SourceFault> {
        match &self.edge.client_address {
            None => Ok(head.peer.to_canonical()),
            Some(rule) => rule.resolve(head.peer, head.headers, &self.edge.outside.lists),
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
    /// Largest body this route takes, in bytes; where it only observes, one that would be too large is read all the
    /// same, within reason.
    pub fn body_bytes_max(&self) -> u64 {
        match self.route.observes() {
            true => self.route.body_bytes_max.max(OBSERVED_BYTES_MAX),
            false => self.route.body_bytes_max,
        }
    }

    /// Who calls.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Notes that more requests came than may. On a route that only observes, that is all.
    ///
    /// # Errors
    /// The denial, elsewhere.
    pub fn too_many(
        mut self: Box<Self>,
        detail: &'static str,
        trail: &mut Trail,
    ) -> Result<Box<Self>, Box<Denied>> {
        let denial = trail.deny(Check::Rate, Denial::RateLimited, || detail.to_owned());
        match self.found.heed::<()>(&self.route, Err(denial)) {
            Ok(_) => Ok(self),
            Err(denial) => Err(Box::new(Denied { denial, seen: self.into_seen() })),
        }
    }

    /// What is known of the request so far.
    pub fn into_seen(self) -> Seen {
        Seen {
            client: Some(self.client),
            route: Some(self.route),
            captures: Some(self.captures),
            guarded: self.found.guarded,
            wanted: self.found.wanted,
            interaction: self.found.granted.map(|granted| granted.interaction),
        }
    }
}
