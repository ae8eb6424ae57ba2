//! The first part of the gate (the checks of a request). It finds the route of a request and checks the head of the
//! request.

use std::net::IpAddr;
use std::sync::Arc;

use super::edge::{Edge, FetchedData};
use super::head_checks::{self, Found};
use super::route::{Mode, Route};
use super::router::Router;
use crate::denial::Denial;
use crate::path::{CanonicalPath, Captures, check_query};
use crate::request::RequestHead;
use crate::source::{ClientAddress, SourceFault};
use crate::time::Timestamp;
use crate::trail::{Check, Trail};

/// The maximum size of a body in observe mode, in bytes. If the limit of the route is larger, the route's limit
/// applies.
const OBSERVED_BYTES_MAX: u64 = 8 << 20;

/// The compiled routes, and the settings and fetched data that all routes share.
#[derive(Clone, Debug)]
pub struct Ingress {
    edge: Arc<Edge>,
    routes: Arc<[Arc<Route>]>,
    router: Arc<Router>,
    /// The groups of routes with the same path, as one list for each route. The list of the first route of a group
    /// contains the indices of all routes of the group. The lists of the remaining routes are empty.
    same_path: Arc<[Vec<usize>]>,
    documents: Arc<[Document]>,
}

/// A public JSON document that Callgate serves to every caller without checks, for example the list of the paths that
/// accept a provider's messages.
#[derive(Clone, Debug)]
pub struct Document {
    /// The path of the document.
    pub path: Box<str>,
    /// The document as JSON text.
    pub body: String,
}

/// The data about a request for the log and the metrics. A field is `None` if the checks ended before its value was
/// determined.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The client address of the request.
    pub client: Option<IpAddr>,
    /// The route of the request, if one was found.
    pub route: Option<Arc<Route>>,
    /// The values of the path captures of the request.
    pub captures: Option<Captures>,
    /// The id of the interaction that the token names. The id is also set if the token is denied because the token is
    /// expired or belongs to another URL.
    pub interaction: Option<Box<str>>,
    /// The provider's event id, if the callback was verified.
    pub event_id: Option<Box<str>>,
    /// The position of the secret that verified the request, starting at 1. `None` if only one secret is configured.
    pub secret: Option<usize>,
    /// The reason for which the action endpoint was denied, as a stable name. `None` if it was not denied.
    pub guarded: Option<&'static str>,
    /// The URL of the certificate that is needed to verify the signature, if the certificate has not been fetched yet.
    pub wanted: Option<Box<str>>,
}

/// A denied request: the reason, and the data for the log and the metrics.
#[derive(Clone, Debug)]
pub struct Denied {
    /// The reason for the denial.
    pub denial: Denial,
    /// The data about the request for the log and the metrics.
    pub seen: Seen,
}

/// A request whose head passed all checks. It must not be delivered before its body has been checked.
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
    /// Compiles the routes into a router. Two routes that match the same paths (see
    /// [`Template::same_shape`](crate::path::Template::same_shape)) must not have a method in common.
    pub fn new(routes: Vec<Arc<Route>>, edge: Edge) -> Self {
        let mut router = Router::default();
        for (index, route) in routes.iter().enumerate() {
            router.insert(&route.path, index);
        }
        let same_path = same_path(&routes);
        Self {
            edge: Arc::new(edge),
            routes: routes.into(),
            router: Arc::new(router),
            same_path: same_path.into(),
            documents: Arc::default(),
        }
    }

    /// Returns this `Ingress`, changed so that it serves these public JSON documents.
    #[must_use]
    pub fn with_documents(self, documents: Vec<Document>) -> Self {
        Self { documents: documents.into(), ..self }
    }

    /// Returns a copy in which the route with the name `route` is in observe mode. If `route` is `None`, all routes of
    /// the copy are in observe mode. All checks of these routes run, even after a failed check. The copy is for
    /// explaining a decision, and must not be used for deliveries.
    #[must_use]
    pub fn observing(&self, route: Option<&str>) -> Self {
        let observing = |one: &Arc<Route>| match route.is_none_or(|name| name == &*one.name) {
            true => Arc::new(Route { mode: Mode::Observe, ..Route::clone(one) }),
            false => Arc::clone(one),
        };
        Self { routes: self.routes.iter().map(observing).collect(), ..self.clone() }
    }

    /// Returns the public document whose path equals the request target. Returns `None` if there is no such document,
    /// or if the method is not GET.
    pub fn document(&self, head: &RequestHead<'_>) -> Option<&Document> {
        let asked = |document: &&Document| head.method == "GET" && head.target == &*document.path;
        self.documents.iter().find(asked)
    }

    /// Returns a copy of this `Ingress` in which `fetched_data` replaces the fetched keys and address lists.
    #[must_use]
    pub fn with_fetched_data(&self, fetched_data: FetchedData) -> Self {
        let edge = Edge { fetched_data, ..Edge::clone(&self.edge) };
        Self { edge: Arc::new(edge), ..self.clone() }
    }

    /// Returns the settings and the fetched data that all routes share.
    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// Returns the routes, in the order of the configuration.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Finds the route of a request, and runs the checks that need only the head.
    ///
    /// # Errors
    /// Returns [`Denied`] if the path is not canonical, if no route has the path, or if a check fails.
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
        let run = head_checks::Run { route: &route, captures: &captures, head, now, edge: &self.edge };
        match run.run(client, &mut found, trail) {
            // The value is large and is passed from check to check, so it is boxed.
            Ok(client) => {
                Ok(Box::new(Admitted { route, captures, client, found, now, edge: Arc::clone(&self.edge) }))
            }
            Err(denial) => {
                seen.route = Some(route);
                seen.captures = Some(captures);
                seen.interaction = found.granted.map(|granted| granted.interaction).or(found.named);
                Err(Box::new(Denied { denial, seen }))
            }
        }
    }

    /// Reports whether `address` belongs to a trusted proxy. Limits per address do not apply to a trusted proxy,
    /// because it sends the requests of many clients.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let lists = &self.edge.fetched_data.lists;
        let trusts = |rule: &ClientAddress| rule.trusted_proxies.contains(address.to_canonical(), lists);
        self.edge.client_address.as_ref().is_some_and(|rule| trusts(rule).unwrap_or(false))
    }

    fn client(&self, head: &RequestHead<'_>) -> Result<IpAddr, SourceFault> {
        match &self.edge.client_address {
            None => Ok(head.peer.to_canonical()),
            Some(rule) => rule.resolve(head.peer, head.headers, &self.edge.fetched_data.lists),
        }
    }

    /// Chooses a route for the request among the routes with the same path. Prefers a route that accepts the method of
    /// the request. If there is none, prefers a route for which the request may be a handshake. Otherwise returns the
    /// first route, which denies the method. Returns `None` if the path captures of no route accept the path.
    fn choose(&self, first: usize, path: &CanonicalPath<'_>, head: &RequestHead<'_>) -> Option<usize> {
        let fitting = || self.with_path(first, path);
        let takes = |route: &Route| route.methods.iter().any(|method| method.as_str() == head.method);
        let shakes = |route: &Route| route.verifier().is_some_and(|verifier| verifier.may_be_handshake(head));
        let found = fitting()
            .find(|(_, route)| takes(route))
            .or_else(|| fitting().find(|(_, route)| shakes(route)))
            .or_else(|| fitting().next());
        found.map(|(index, _)| index)
    }

    /// Returns the routes that have the same path as the route with the index `first`, and whose path captures accept
    /// the segments of `path`. `first` must be the lowest index of the routes with this path.
    fn with_path<'i>(
        &'i self,
        first: usize,
        path: &'i CanonicalPath<'_>,
    ) -> impl Iterator<Item = (usize, &'i Route)> {
        let indices = self.same_path.get(first).into_iter().flatten();
        let routes = indices.filter_map(|index| Some((*index, &**self.routes.get(*index)?)));
        routes.filter(|(_, route)| route.path.matches(path))
    }

    fn find(&self, head: &RequestHead<'_>, trail: &mut Trail) -> Result<(Arc<Route>, Captures), Denial> {
        let path = CanonicalPath::parse(head.raw_path())
            .map_err(|fault| trail.deny(Check::Path, Denial::PathMalformed, || fault.to_string()))?;
        if let Err(at) = check_query(head.raw_query().unwrap_or_default()) {
            return Err(trail.deny(Check::Path, Denial::PathMalformed, || {
                format!("the query has a forbidden character at byte {at}")
            }));
        }
        trail.pass(Check::Path, || "canonical".to_owned());
        let fits = |index: usize| self.with_path(index, &path).next().is_some();
        let found = self.router.find(&path, fits).and_then(|index| self.choose(index, &path, head));
        let Some(route) = found.and_then(|index| self.routes.get(index)) else {
            return Err(trail.deny(Check::Route, Denial::RouteUnknown, || {
                format!("none of the {} routes has this path", self.routes.len())
            }));
        };
        let captures = route.path.capture(&path);
        trail.pass(Check::Route, || format!("{} with {captures}", route.name));
        Ok((Arc::clone(route), captures))
    }
}

/// Groups the routes by their paths. Returns one list for each route. The list of the first route of a group contains
/// the indices of all routes of the group. The lists of the remaining routes are empty.
fn same_path(routes: &[Arc<Route>]) -> Vec<Vec<usize>> {
    let mut sorted: Vec<_> = routes.iter().enumerate().collect();
    // The sort is stable, so the routes with the same path stay in the order of the configuration.
    sorted.sort_by(|(_, a), (_, b)| a.path.precedence(&b.path));
    let mut same_path = vec![Vec::new(); routes.len()];
    for group in sorted.chunk_by(|(_, a), (_, b)| a.path.same_shape(&b.path)) {
        if let Some(place) = group.first().and_then(|(first, _)| same_path.get_mut(*first)) {
            place.extend(group.iter().map(|(index, _)| *index));
        }
    }
    same_path
}

impl Admitted {
    /// Returns the route.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Returns the maximum size of the body, in bytes. In observe mode, bodies above the limit of the route are
    /// accepted up to a fixed maximum.
    pub fn body_bytes_max(&self) -> u64 {
        match self.route.observes() {
            true => self.route.body_bytes_max.max(OBSERVED_BYTES_MAX),
            false => self.route.body_bytes_max,
        }
    }

    /// Returns the client address.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Denies the request because it exceeds a rate limit. In observe mode, records the denial and returns the request.
    ///
    /// # Errors
    /// Returns [`Denied`] if the route is in enforce mode.
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

    /// Returns the data about this request for the log and the metrics.
    pub fn into_seen(self) -> Seen {
        Seen {
            client: Some(self.client),
            route: Some(self.route),
            captures: Some(self.captures),
            guarded: self.found.guarded,
            wanted: self.found.wanted,
            event_id: self.found.event_id,
            secret: self.found.secret,
            interaction: self
                .found
                .granted
                .map(|granted| granted.interaction)
                .or(self.found.matched)
                .or(self.found.named),
        }
    }
}
