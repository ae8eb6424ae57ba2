//! The settings of a listener that accepts callbacks.

use std::net::SocketAddr;

use super::tls::Tls;
use crate::config::yaml::Cursor;
use crate::source::Networks;

/// The settings of an ingress listener, which accepts callbacks.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The address at which the listener accepts connections. Port 0 selects a free port.
    pub address: SocketAddr,
    /// The TLS settings of the listener. If they are `None`, the listener accepts plain HTTP.
    pub tls: Option<Tls>,
    /// The proxies that send a PROXY protocol header. If they are `None`, the listener does not expect such a header.
    pub proxied_by: Option<Networks>,
    /// The path at which load balancers check the health of this listener. `None` if there is no such path.
    pub health: Option<Box<str>>,
}

pub(super) fn address(at: &Cursor<'_>) -> Option<SocketAddr> {
    let text = at.text()?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => at.error(format!("`{text}` is not an address"), "such as 0.0.0.0:8443 or [::]:8443"),
    }
}
