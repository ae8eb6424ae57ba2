//! Prevents the `Location` of a provider's response from leading the agent to a wrong rule of the egress listener.

use std::net::IpAddr;

use http::header::LOCATION;
use http::uri::Authority;
use http::{HeaderValue, StatusCode};

use crate::browser;
use crate::egress::relayed_location;
use crate::guard::Url;
use crate::http::head_of;
use crate::proxy::egress::agent_exchange::AgentExchange;
use crate::proxy::egress::provider_client::ProviderResponse;

impl AgentExchange<'_> {
    /// Replaces the `Location` of a redirect, of a 201 or of a 202. If `local` returns a URL on the egress listener for
    /// the location, the new value is this URL. Otherwise, if the agent would resolve the location against the egress
    /// listener, the new value is the absolute URL at the provider. `sent` is the URL of the request.
    pub(in crate::proxy::egress) fn keep_location_local(
        &self,
        provider_response: &mut ProviderResponse,
        sent: &Url,
        local: impl Fn(&str) -> Option<String>,
    ) {
        // A client of the forward proxy resolves the location against the URL of its request, not against the listener.
        if self.origin.is_some() {
            return;
        }
        let response = &mut provider_response.response;
        let status = response.status();
        if !(status.is_redirection() || matches!(status, StatusCode::CREATED | StatusCode::ACCEPTED)) {
            return;
        }
        let listener = OwnListener::new(self);
        response.replace_values(&LOCATION, |location| {
            let is_own = |host: &str, port| listener.has(host, port);
            let replaced = relayed_location(location.as_bytes(), sent, &local, is_own)?;
            HeaderValue::from_str(&replaced).ok()
        });
    }
}

/// The addresses at which the agent reaches the egress listener.
struct OwnListener<'x> {
    exchange: &'x AgentExchange<'x>,
    /// The host and the port in the agent's request. With a port mapping, this host and port can differ from the bound
    /// address of the listener.
    requested: Option<(String, u16)>,
}

impl<'x> OwnListener<'x> {
    fn new(exchange: &'x AgentExchange<'x>) -> Self {
        let head = head_of(exchange.session, exchange.caller);
        let authority = browser::host(head.headers).parse::<Authority>().ok();
        let default_port = if head.is_tls { 443 } else { 80 };
        let requested = authority.map(|authority| {
            let host = authority.host().trim_matches(['[', ']']).to_owned();
            (host, authority.port_u16().unwrap_or(default_port))
        });
        Self { exchange, requested }
    }

    /// Reports whether a URL with this host and port leads to the egress listener. `host` is in lower case and has no
    /// brackets.
    fn has(&self, host: &str, port: u16) -> bool {
        let providers = self.exchange.context.providers.load();
        let is_requested_port = self.requested.as_ref().is_some_and(|(_, requested)| *requested == port);
        let is_requested_host = self.requested.as_ref().is_some_and(|(requested, _)| requested == host);
        if !is_requested_port && !providers.listens_on(port) {
            return false;
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return is_requested_host
                || address.is_unspecified()
                || providers.is_listener((address, port).into())
                || (is_requested_port && address.to_canonical().is_loopback());
        }
        // Some clients read a host such as `2130706433` or `0x7f000001` as an IP address, or characters outside ASCII
        // as digits. Therefore such a host may be an address of the listener.
        let last = host.rsplit('.').next().unwrap_or_default();
        let may_be_address =
            !host.is_ascii() || last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit());
        is_requested_host || may_be_address || host == "localhost" || self.is_listed(host)
    }

    /// Reports whether `listen.egress.hosts` contains this host, with or without a port.
    fn is_listed(&self, host: &str) -> bool {
        let settings = self.exchange.context.limits.settings.load();
        let hosts = settings.as_ref().map_or(&[] as &[_], |settings| &settings.hosts);
        hosts.iter().any(|listed| listed.split(':').next() == Some(host))
    }
}
