//! The egress listener as a forward proxy: requests with an absolute URL, CONNECT requests, and requests on intercepted
//! connections.

pub(super) mod authority;
mod connect;
mod exchange;
mod handshake;
mod request_kind;

use crate::denial::{Denial, Refusal};
use crate::egress::ForwardProxy;
use crate::guard::{Scheme, Url};
use crate::http::Session;
use crate::proxy::egress::context::EgressContext;

pub use authority::{NewAuthority, check_authority, create_authority, previous_certificates};

pub(crate) use connect::{Accepted, Connected};
pub(crate) use exchange::Origin;
pub(crate) use request_kind::Asked;

/// Returns what kind of target a request to the egress listener has. `origin` is the origin of an intercepted
/// connection, or `None` for other connections.
///
/// # Errors
/// Returns a [`Refusal`] if the target is ambiguous, if the request requires the password of the forward proxy and has
/// no valid one, or if a request on an intercepted connection is not for the host of this connection.
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
    request_kind::asked(session, proxy.password.as_ref(), is_own)
}

/// Checks whether the agent may reach the host of a URL that no rule names.
///
/// # Errors
/// Returns a [`Refusal`] if the host is not allowed. Always returns a [`Refusal`] for an intercepted connection,
/// because only hosts that a rule names are intercepted.
pub(crate) fn check_other(
    proxy: Option<&ForwardProxy>,
    is_intercepted: bool,
    url: &Url,
) -> Result<(), Refusal> {
    match proxy {
        Some(proxy) if !is_intercepted => proxy.check_destination(url),
        // A reload has removed the rule for the host after the connection was intercepted.
        _ => Err(Refusal::new(Denial::ProxyMisdirected, "no rule names the host any more")),
    }
}
