//! The settings of the egress listener as a forward proxy for the agent. The settings determine which hosts the agent
//! may reach in addition to the hosts of the egress rules.

use std::fmt;
use std::time::Duration;

use crate::agent::Pem;
use crate::denial::{Denial, Refusal};
use crate::guard::{Guard, Scheme, Url};
use crate::secret::Secret;

/// The settings of the egress listener as a forward proxy for the agent.
#[derive(Clone, Debug)]
pub struct ForwardProxy {
    /// Whether connections to hosts that no egress rule names are tunneled. If false, these connections are refused.
    pub tunnels_others: bool,
    /// The hosts to which connections are tunneled even if `tunnels_others` is false.
    pub tunnel: Vec<HostPattern>,
    /// The ports to which Callgate opens tunnels.
    pub ports: Vec<u16>,
    /// The check of the IP addresses of tunneled hosts.
    pub guard: Guard,
    /// The folder into which Callgate writes the certificates that the agent must trust.
    pub bundle: Box<str>,
    /// The files of the certificate authority for intercepted hosts. If it is `None`, Callgate creates a certificate
    /// authority at start and keeps its key in memory.
    pub authority: Option<AuthorityFiles>,
    /// The password that the agent must send to the forward proxy. If it is `None`, no password is required.
    pub password: Option<Secret>,
    /// The maximum number of tunnels at the same time.
    pub tunnels_max: usize,
    /// The maximum time for which a tunnel may be idle.
    pub idle: Duration,
}

/// What Callgate does with a request to an intercepted host if the request matches no egress rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unmatched {
    /// The request is sent unchanged.
    Pass,
    /// The request is denied.
    Refuse,
}

impl Unmatched {
    /// Returns the name of this value in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Refuse => "refuse",
        }
    }
}

/// The files of the certificate authority for intercepted hosts.
#[derive(Clone, Debug)]
pub struct AuthorityFiles {
    /// The certificate of the authority.
    pub certificate: Pem,
    /// The private key of the certificate.
    pub key: Pem,
}

impl ForwardProxy {
    /// Reports whether the setting `tunnel` contains the host, so that the host is always tunneled.
    pub fn always_tunnels(&self, host: &str) -> bool {
        self.tunnel.iter().any(|pattern| pattern.matches(host))
    }

    /// Checks whether the agent may reach the host and the port of a URL that no egress rule names. Port 80 is always
    /// allowed for plain HTTP. The IP addresses of the host are checked later, after name resolution.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if the host or its port is not allowed.
    pub fn check_destination(&self, url: &Url) -> Result<(), Refusal> {
        let refused = |detail: String| Err(Refusal::new(Denial::ProxyHostRefused, detail));
        if !self.tunnels_others && !self.always_tunnels(url.host()) {
            return refused(format!("no rule names {}, and `others` is `refuse`", url.host()));
        }
        let is_plain = url.scheme() == Scheme::Http && url.port() == 80;
        if !is_plain && !self.ports.contains(&url.port()) {
            return refused(format!("`ports` does not list {}", url.port()));
        }
        Ok(())
    }
}

/// A pattern that matches one host name, or all names below a host name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPattern {
    /// The host name in lower case, without `*.`.
    name: Box<str>,
    /// Whether the pattern matches the names below `name`, at any depth, instead of `name` itself.
    is_below: bool,
}

impl HostPattern {
    /// Parses `host.example.com`, `*.example.com` or an IP address. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (is_below, host) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if host.contains(['/', '?', ':']) && host.parse::<std::net::Ipv6Addr>().is_err() {
            return None;
        }
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        // The host must follow the same rules as the host of a URL.
        let url = Url::parse(&format!("https://{bracketed}")).ok()?;
        (!is_below || url.address().is_none()).then(|| Self { name: url.host().into(), is_below })
    }

    fn matches(&self, host: &str) -> bool {
        match self.is_below {
            false => host == &*self.name,
            true => host.strip_suffix(&*self.name).is_some_and(|rest| rest.ends_with('.')),
        }
    }
}

/// Formats the pattern in the form that [`HostPattern::parse`] accepts.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_below { "*." } else { "" }, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_all_names_below_a_name() {
        for (pattern, matching, other) in [
            ("API.example.com", &["api.example.com"][..], &["x.api.example.com", "example.com"][..]),
            ("*.example.com", &["a.example.com", "a.b.example.com"], &["example.com", "aexample.com"]),
            ("192.0.2.1", &["192.0.2.1"], &["192.0.2.2"]),
            ("2001:db8::1", &["2001:db8::1"], &["2001:db8::2"]),
        ] {
            let parsed = HostPattern::parse(pattern).unwrap();
            assert!(matching.iter().all(|host| parsed.matches(host)), "{pattern}");
            assert!(!other.iter().any(|host| parsed.matches(host)), "{pattern}");
            assert_eq!(HostPattern::parse(&parsed.to_string()), Some(parsed));
        }
        for bad in
            ["", "*", "*.", "a.*.b", "a:443", "https://a", "a/b", "user@a", "*.192.0.2.1", "a..b", "127.1"]
        {
            assert_eq!(HostPattern::parse(bad), None, "{bad}");
        }
    }
}
