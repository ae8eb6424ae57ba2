//! Requests on a route with `stream: true`. Their bodies are passed on while they arrive, and only their heads are
//! checked. Such a route has no callback token and no signature check, and its requests do not occur in the ledger.

use std::net::IpAddr;
use std::sync::Arc;

use super::decide::{Admitted, Denied, Seen};
use super::route::Route;
use crate::denial::Denial;
use crate::request::RequestHead;
use crate::trail::{Check, Trail};

/// A request on a route with `stream: true` whose head passed all checks. Its body is passed on while it arrives.
#[derive(Debug)]
pub struct Streamed {
    pub(super) admitted: Box<Admitted>,
    pub(super) target: String,
}

impl Admitted {
    /// Permits a request on a route with `stream: true`. Only its head was checked.
    ///
    /// # Errors
    /// Returns [`Denied`] if the route does not have `stream: true`, or if a check of the body would still be
    /// necessary. The configuration prevents the second case.
    pub fn stream(
        self: Box<Self>,
        head: &RequestHead<'_>,
        trail: &mut Trail,
    ) -> Result<Streamed, Box<Denied>> {
        let is_pending =
            self.route.verifier().is_some() || self.route.observes() || self.found.granted.is_some();
        let target = (self.route.stream && !is_pending).then(|| self.internal_target(head).ok()).flatten();
        match target {
            Some(target) => {
                trail.skip(Check::Body, "passed on while it arrives");
                Ok(Streamed { admitted: self, target })
            }
            None => {
                let denial = trail.deny(Check::Body, Denial::RouteUnknown, || "not a stream".to_owned());
                Err(Box::new(Denied { denial, seen: self.into_seen() }))
            }
        }
    }
}

impl Streamed {
    /// Returns the route.
    pub fn route(&self) -> &Arc<Route> {
        &self.admitted.route
    }

    /// Returns the internal request target (path and query at the agent).
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the client address.
    pub fn client(&self) -> IpAddr {
        self.admitted.client
    }

    /// Returns the maximum size of the body, in bytes.
    pub fn body_bytes_max(&self) -> u64 {
        self.admitted.route.body_bytes_max
    }

    /// Returns the data about this request for the log and the metrics.
    pub fn into_seen(self) -> Seen {
        self.admitted.into_seen()
    }
}
