//! The settings of `replicas`.

use std::time::Duration;

use super::proof::Prover;
use super::seal::{Owner, OwnerSealer};
use crate::agent::AgentTls;

/// What a member does with a callback whose owner is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gone {
    /// The member adopts the interaction, and delivers the callback to its own agent.
    Any,
    /// The member denies the callback finally.
    Refuse,
    /// The member denies the callback until the token expires, so that the provider tries again.
    Retry,
}

/// The settings of `replicas`, except the address of the listener.
#[derive(Clone, Debug)]
pub struct Replicas {
    /// The address at which other members reach this one, and the identity of this process. It is `None` in commands
    /// that do not serve.
    pub own: Option<Owner>,
    /// The address at which other members reach this one.
    pub advertise: Box<str>,
    /// Encrypts and decrypts the owners in tokens.
    pub sealer: OwnerSealer,
    /// Creates and verifies the proofs of requests between members.
    pub prover: Prover,
    /// Whether new tokens name their owner.
    pub mint: bool,
    /// The agents that can replace each other have the same group.
    pub group: Box<str>,
    /// The addresses of all members. A DNS name can resolve to several members.
    pub discover: Vec<Box<str>>,
    /// What happens to a callback whose owner is gone.
    pub gone: Gone,
    /// How long the address of a member must refuse connections until the member is considered gone.
    pub gone_after: Duration,
    /// How long a callback waits for its owner to accept a connection.
    pub patience: Duration,
    /// Timeout for the response of the owner.
    pub timeout: Duration,
    /// The TLS settings of connections to other members, as for an agent. The name is empty if each member's certificate
    /// must have the host of its address.
    pub tls: Option<AgentTls>,
}

impl Replicas {
    /// Returns these settings for this process.
    #[must_use]
    pub fn of(&self, own: Owner) -> Self {
        Self { own: Some(own), ..self.clone() }
    }

    /// Returns the process that new tokens name as their owner. Returns `None` if tokens do not name their owner.
    pub fn owner(&self) -> Option<&Owner> {
        self.own.as_ref().filter(|_| self.mint)
    }

    /// Reports whether the process comes back at its address with its ledger: the address is a name, as in a
    /// `StatefulSet`, and not the IP address of a pod.
    pub fn comes_back(&self) -> bool {
        let host = self.advertise.rsplit_once(':').map_or(&*self.advertise, |(host, _)| host);
        host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err()
    }
}
