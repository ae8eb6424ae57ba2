//! The egress listener as a forward proxy: requests with an absolute URL, CONNECT requests, and requests on intercepted
//! connections.

mod asked;
pub(super) mod authority;
mod connect;
mod exchange;
mod handshake;

use crate::denial::{Denial, Refusal};
use crate::egress::ForwardProxy;
use crate::guard::{Scheme, Url};
use crate::http::Session;
use crate::proxy::egress::context::EgressContext;

pub use authority::{NewAuthority, check_authority, create_authority, previous_certificates};

pub(crate) use asked::Asked;
pub(crate) use connect::{Accepted, Connected};
pub(crate) use exchange::Origin;

/// Returns what a request asks for. `origin` is the origin of the requests on an intercepted connection.
///
/// # Errors
/// Returns a [`Refusal`] if the request is ambiguous, has no valid password although it needs one, or is for another host
/// than its connection.
pub(crate) fn what(
    context: &EgressContext,
    session: &Session,
    origin: Option<&Origin>,
    proxy: Option<&ForwardProxy>,
) -> Result<Asked, Refusal> {
    if let Some(origin) = origin {
        return origin.check(session).map(|()| Asked::Url(origin.url.clone()));
    }
    let Some(proxy) = proxy else { return Ok(Asked::Path) };
    let is_own =
        |url: &Url| (url.scheme() == Scheme::Http || context.limits.has_tls()) && context.limits.is_own(url);
    asked::asked(session, proxy.password.as_ref(), is_own)
}

/// Checks whether the agent may reach the host of a URL that no rule names.
pub(crate) fn check_other(
    proxy: Option<&ForwardProxy>,
    is_intercepted: bool,
    url: &Url,
) -> Result<(), Refusal> {
    match proxy {
        Some(proxy) if !is_intercepted => proxy.check_destination(url),
        // The configuration has changed since the connection was intercepted.
        _ => Err(Refusal::new(Denial::ProxyMisdirected, "no rule names the host any more")),
    }
}
