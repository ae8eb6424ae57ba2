//! The settings of the section `replicas`.

use std::time::Duration;

use super::proof::Prover;
use super::seal::{Owner, OwnerSealer};
use crate::agent::AgentTls;

/// What a replica does with a callback if the owner of its interaction is dead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gone {
    /// The replica adopts the interaction, and delivers the callback to its own agent.
    Any,
    /// The replica denies the callback permanently.
    Refuse,
    /// The replica denies the callback temporarily until the token expires, so that the provider sends the callback
    /// again.
    Retry,
}

/// The settings of the section `replicas`, except the address of the listener.
#[derive(Clone, Debug)]
pub struct Replicas {
    /// The address at which other replicas reach this process, and the replica id of this process. `None` in commands
    /// that do not serve requests.
    pub own: Option<Owner>,
    /// The `host:port` at which other replicas reach this process.
    pub advertise: Box<str>,
    /// Encrypts and decrypts the owners in callback tokens.
    pub sealer: OwnerSealer,
    /// Creates and verifies the proofs of requests between replicas.
    pub prover: Prover,
    /// Whether a new callback token contains the encrypted owner of the interaction.
    pub mint: bool,
    /// The name of the group to which this replica belongs. The agents of all replicas with the same group name can
    /// replace each other.
    pub group: Box<str>,
    /// The configured addresses of all replicas. A DNS name can resolve to several replicas.
    pub discover: Vec<Box<str>>,
    /// What happens to a callback if the owner of its interaction is dead.
    pub gone: Gone,
    /// How long connections to a replica's address must fail until the replica is considered dead.
    pub gone_after: Duration,
    /// How long a callback waits until the owner of its interaction accepts a connection.
    pub patience: Duration,
    /// The timeout for the response of the owner to which a callback was forwarded.
    pub timeout: Duration,
    /// The TLS settings of connections to other replicas. If the name in these settings is empty, the certificate of
    /// each replica must be valid for the host in the address of the replica.
    pub tls: Option<AgentTls>,
}

impl Replicas {
    /// Returns these settings with `own` as the address and id of this process.
    #[must_use]
    pub fn of(&self, own: Owner) -> Self {
        Self { own: Some(own), ..self.clone() }
    }

    /// Returns the owner that new callback tokens contain. Returns `None` if tokens do not contain an owner.
    pub fn owner(&self) -> Option<&Owner> {
        self.own.as_ref().filter(|_| self.mint)
    }

    /// Reports whether a restarted process has the same address and the same ledger. This is assumed if the address is
    /// a name, as in a `StatefulSet`, and not the IP address of a pod.
    pub fn comes_back(&self) -> bool {
        let host = self.advertise.rsplit_once(':').map_or(&*self.advertise, |(host, _)| host);
        host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err()
    }
}
