//! The HTTP clients for the agents of the configuration.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::agent::Agent;
use crate::proxy::agent_client::{AgentClient, AgentShare};

/// The HTTP clients for all agents of the configuration.
pub(crate) struct Agents {
    clients: ArcSwap<Vec<Arc<AgentClient>>>,
}

/// The HTTP clients for the agents of a new configuration, to be activated by [`Agents::install`].
pub(crate) struct PreparedAgents(Vec<Arc<AgentClient>>);

impl Agents {
    /// Creates the HTTP clients for these agents.
    ///
    /// # Errors
    /// Returns a message for the operator if the TLS settings of an agent cannot be used.
    pub(crate) fn new(agents: &[Arc<Agent>]) -> Result<Self, String> {
        let none = Self { clients: ArcSwap::default() };
        let prepared = none.prepare(agents)?;
        none.install(prepared);
        Ok(none)
    }

    /// Prepares the HTTP clients for these agents. If the address and the TLS settings of an agent have not changed,
    /// its client with the idle connections is reused. A client that trusts the authorities of the operating system is
    /// always created anew, because these authorities may have changed.
    ///
    /// # Errors
    /// Returns a message for the operator if the TLS settings of an agent cannot be used.
    pub(crate) fn prepare(&self, agents: &[Arc<Agent>]) -> Result<PreparedAgents, String> {
        let one = |agent: &Arc<Agent>| match self.known(agent).filter(|_| !trusts_platform(agent)) {
            Some(client) => Ok(client),
            None => AgentClient::new(Arc::clone(agent), self.share(agent)).map(Arc::new),
        };
        agents.iter().map(one).collect::<Result<_, _>>().map(PreparedAgents)
    }

    /// Replaces the HTTP clients. Closes the idle connections of clients that are no longer used.
    pub(crate) fn install(&self, PreparedAgents(clients): PreparedAgents) {
        let is_kept = |old: &&Arc<AgentClient>| clients.iter().any(|client| Arc::ptr_eq(client, old));
        let former = self.clients.load_full();
        let gone: Vec<_> = former.iter().filter(|old| !is_kept(old)).collect();
        self.clients.store(Arc::new(clients.clone()));
        gone.into_iter().for_each(|client| client.close());
    }

    /// Returns the HTTP client for an agent. If a reload has changed or removed the agent after the request began,
    /// creates a client for this request only.
    pub(crate) fn client(&self, agent: &Arc<Agent>) -> Arc<AgentClient> {
        self.known(agent).unwrap_or_else(|| {
            let share = self.share(agent);
            let made = AgentClient::new(Arc::clone(agent), Arc::clone(&share));
            Arc::new(made.unwrap_or_else(|error| AgentClient::unusable(Arc::clone(agent), share, error)))
        })
    }

    fn known(&self, agent: &Arc<Agent>) -> Option<Arc<AgentClient>> {
        let is_same = |client: &&Arc<AgentClient>| {
            Arc::ptr_eq(&client.agent, agent) || client.agent.shares_connections_with(agent)
        };
        self.clients.load().iter().find(is_same).map(Arc::clone)
    }

    /// Returns the share of the limits that an agent uses. All clients for agents with the same name use one share.
    fn share(&self, agent: &Agent) -> Arc<AgentShare> {
        let clients = self.clients.load();
        let former = clients.iter().find(|client| client.agent.name == agent.name);
        former.map(|client| Arc::clone(&client.share)).unwrap_or_default()
    }

    /// Closes each connection to an agent that has been idle for longer than the agent's idle timeout.
    pub(crate) fn sweep(&self, now: Instant) {
        self.clients.load().iter().for_each(|client| client.sweep(now));
    }
}

/// Reports whether the agent's certificate is verified with the authorities of the operating system.
fn trusts_platform(agent: &Agent) -> bool {
    agent.tls.as_ref().is_some_and(|tls| tls.authorities.is_none())
}

/// Checks that the TLS settings of an agent are usable.
///
/// # Errors
/// Returns a message for the operator that names the unusable file.
pub fn check_agent(agent: &Arc<Agent>) -> Result<(), String> {
    AgentClient::new(Arc::clone(agent), Arc::default()).map(|_| ())
}
