//! The addresses of Callgate's own listeners and of the agents. Callgate never sends an agent's answer to one of these
//! addresses, even if a provider names the address in a callback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use crate::agent::{Agent, AgentAddress};
use crate::guard::classify;

/// The bound addresses of Callgate's listeners.
#[derive(Clone, Debug)]
pub(crate) struct OwnAddresses {
    listeners: Vec<SocketAddr>,
    /// The function that reports whether an address belongs to this host. Tests replace this function.
    is_of_host: fn(IpAddr) -> bool,
}

impl Default for OwnAddresses {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl OwnAddresses {
    /// Stores the bound addresses of Callgate's listeners.
    pub(crate) fn new(listeners: Vec<SocketAddr>) -> Self {
        Self { listeners, is_of_host }
    }

    /// Reports whether a listener of Callgate has this port.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.listeners.iter().any(|listener| listener.port() == port)
    }

    /// Reports whether a connection to `address` could reach a listener of Callgate or one of the agents.
    pub(super) fn contains(&self, address: SocketAddr, agents: &[Arc<Agent>]) -> bool {
        self.listeners.iter().any(|listener| reaches(address, *listener, self.is_of_host))
            || agents.iter().any(|agent| may_be_agent(address, &agent.address, self.is_of_host))
    }
}

/// Reports whether a connection to `address` could reach the listener that is bound to `bound`.
fn reaches(address: SocketAddr, bound: SocketAddr, is_of_host: fn(IpAddr) -> bool) -> bool {
    if bound.port() != address.port() {
        return false;
    }
    let (bound_ip, ip) = (bound.ip().to_canonical(), destination(address.ip()));
    // A listener that is bound to 0.0.0.0 or [::] accepts connections to every address of this host. A non-public
    // address that no interface of this host has, such as the address of a NAT gateway, can also lead to this host.
    // Therefore every non-public address counts as an address of this host.
    let is_on_every_address = bound_ip.is_unspecified() && (classify(ip).is_some() || is_of_host(ip));
    bound_ip == ip || (bound_ip.is_loopback() && ip.is_loopback()) || is_on_every_address
}

/// Returns the address that a connection to `ip` reaches. A connection to 0.0.0.0 or [::] reaches the loopback address.
fn destination(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Reports whether an address belongs to this host. Connects a UDP socket to the address, which sends nothing, and
/// reads the local address that the system chose. The local address is equal to `ip` only if `ip` belongs to this host.
fn is_of_host(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let local = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    local.is_ok_and(|local| local.ip() == ip)
}

fn may_be_agent(address: SocketAddr, agent: &AgentAddress, is_of_host: fn(IpAddr) -> bool) -> bool {
    let AgentAddress::Tcp(text) = agent else { return false };
    match text.parse() {
        Ok(agent) => reaches(address, agent, is_of_host),
        // The agent's address is a host name, so any non-public address with the agent's port could be the address of
        // the agent.
        Err(_) => text.rsplit_once(':').is_some_and(|(_, port)| {
            port.parse() == Ok(address.port()) && classify(destination(address.ip())).is_some()
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Returns agents with these addresses.
    fn agents(addresses: &[&str]) -> Vec<Arc<Agent>> {
        let one = |text: &&str| {
            let address = match text.strip_prefix("unix:") {
                Some(path) => AgentAddress::Unix(path.into()),
                None => AgentAddress::Tcp((*text).into()),
            };
            Arc::new(Agent {
                name: "a".into(),
                address,
                tls: None,
                connect_timeout: Duration::from_secs(1),
                response_timeout: Duration::from_secs(1),
                idle_timeout: Duration::from_secs(1),
                forwarded_headers: true,
                wake: None,
            })
        };
        addresses.iter().map(one).collect()
    }

    fn contains(listener: &str, agent: &str, address: &str) -> bool {
        let is_of_host = |ip: IpAddr| ip == IpAddr::from([93, 184, 216, 35]);
        let own = OwnAddresses { listeners: vec![listener.parse().unwrap()], is_of_host };
        own.contains(address.parse().unwrap(), &agents(&["127.0.0.1:2", agent, "127.0.0.1:3"]))
    }

    #[test]
    fn a_listener_is_recognized_in_every_notation() {
        let agent = "127.0.0.1:1";
        for (listener, address, is_own) in [
            ("10.0.0.1:80", "10.0.0.1:80", true),
            ("10.0.0.1:80", "[::ffff:10.0.0.1]:80", true),
            ("10.0.0.1:80", "10.0.0.1:81", false),
            ("10.0.0.1:80", "10.0.0.2:80", false),
            ("127.0.0.1:80", "127.9.9.9:80", true),
            ("127.0.0.1:80", "[::1]:80", true),
            ("0.0.0.0:80", "10.0.0.2:80", true),
            ("[::]:80", "192.168.1.1:80", true),
            ("0.0.0.0:80", "93.184.216.34:80", false),
            ("0.0.0.0:80", "93.184.216.35:80", true),
            ("0.0.0.0:80", "93.184.216.35:81", false),
            ("0.0.0.0:80", "0.0.0.0:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("127.0.0.1:80", "[::]:80", true),
            ("127.0.0.1:80", "[::ffff:0.0.0.0]:80", true),
            ("[::1]:80", "[::]:80", true),
        ] {
            assert_eq!(contains(listener, agent, address), is_own, "{listener} {address}");
        }
    }

    #[test]
    fn an_address_of_this_host_is_recognized() {
        assert!(is_of_host([127, 0, 0, 1].into()));
        assert!(!is_of_host([192, 0, 2, 1].into()));
    }

    #[test]
    fn the_agent_is_recognized_by_address_and_by_port() {
        let listener = "10.0.0.1:80";
        for (agent, address, is_own) in [
            ("10.0.0.9:8000", "10.0.0.9:8000", true),
            ("10.0.0.9:8000", "10.0.0.8:8000", false),
            ("127.0.0.1:8000", "[::1]:8000", true),
            ("127.0.0.1:8000", "0.0.0.0:8000", true),
            ("agent.internal:8000", "0.0.0.0:8000", true),
            ("agent.internal:8000", "10.0.0.9:8000", true),
            ("agent.internal:8000", "10.0.0.9:8001", false),
            ("agent.internal:8000", "93.184.216.34:8000", false),
        ] {
            assert_eq!(contains(listener, agent, address), is_own, "{agent} {address}");
        }
        let sockets = agents(&["unix:/run/agent.sock"]);
        assert!(!OwnAddresses::default().contains("127.0.0.1:8000".parse().unwrap(), &sockets));
    }
}
