//! Calls scripts on the nodes of Redis or Valkey. A call finds the node that has the keys, even after a failover or
//! after a slot was moved.
//!
//! While an old primary hangs with open sockets, the cluster client of the crate `redis` does not find the new primary.
//! Therefore this module manages the topology itself, with one connection to each node.

mod connect;
mod faults;
pub(super) mod keys;
pub(super) mod message_scripts;
mod replicated_writes;
mod request;
pub(super) mod scripts;
mod topology;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use redis::aio::{ConnectionLike, ConnectionManager};
use redis::{Cmd, RedisError, Value};
use tokio::time::{sleep, timeout};

use self::connect::connection;
use self::faults::{Fault, classify};
use self::keys::Partition;
use self::replicated_writes::ReplicatedWrites;
use self::request::{is_unknown_script, server_error};
use self::scripts::Call;
use self::topology::{Address, Question, Topology};
use crate::clock::instant;
use crate::config::{RedisMode, RedisSettings};
use crate::observe::Metrics;

pub(super) use self::faults::Failure;
pub(super) use self::request::Request;
pub(super) use self::topology::info;

/// The pause before Callgate repeats a call that a node could not execute.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The number of consecutive timeouts after which a connection is replaced. A network that drops packets does not close
/// the connection.
const TIMEOUTS_MAX: u32 = 3;
/// The maximum duration of a call with all its attempts, as a multiple of the configured timeout.
const PATIENCE: u32 = 2;

/// The connections to a node of Redis or Valkey.
struct Node {
    connection: ConnectionManager,
    /// The connection for changes that replicas must confirm. `None` if no replica must confirm changes.
    writes: Option<ReplicatedWrites>,
    timeouts: AtomicU32,
}

#[derive(Default)]
struct Known {
    topology: Topology,
    nodes: HashMap<Address, Arc<Node>>,
    sentinels: HashMap<Address, ConnectionManager>,
    /// A number that changes with each new topology.
    generation: u64,
}

/// The nodes of Redis or Valkey.
pub(super) struct Nodes {
    settings: ArcSwap<RedisSettings>,
    known: Mutex<Known>,
    /// Locked while the topology is requested.
    refreshing: tokio::sync::Mutex<()>,
    metrics: Arc<Metrics>,
    /// The stand-in for Redis that executes all calls in a simulation.
    #[cfg(test)]
    stand_in: Option<Arc<super::simulation::StandIn>>,
}

impl Nodes {
    pub(super) fn new(settings: RedisSettings, metrics: Arc<Metrics>) -> Self {
        let mut known = Known::default();
        if let (RedisMode::Single, Some(node)) = (&settings.mode, settings.nodes.first()) {
            known.topology = Topology::single(node);
        }
        Self {
            settings: ArcSwap::from_pointee(settings),
            known: Mutex::new(known),
            refreshing: tokio::sync::Mutex::new(()),
            metrics,
            #[cfg(test)]
            stand_in: None,
        }
    }

    /// Creates simulated nodes: `stand_in` executes all calls. Each node of the settings has the same number of slots.
    #[cfg(test)]
    pub(super) fn simulated(
        settings: RedisSettings,
        metrics: Arc<Metrics>,
        stand_in: Arc<super::simulation::StandIn>,
    ) -> Self {
        let known = Known { topology: Topology::even(&settings.nodes), ..Known::default() };
        let known = Mutex::new(known);
        Self { known, stand_in: Some(stand_in), ..Self::new(settings, metrics) }
    }

    pub(super) fn settings(&self) -> Arc<RedisSettings> {
        self.settings.load_full()
    }

    /// Uses these logins and certificates for all connections from now on.
    pub(super) fn log_in_again(&self, settings: &RedisSettings) {
        if !self.settings.load().has_same_credentials(settings) {
            self.settings.store(Arc::new(settings.clone()));
            let mut known = self.known.lock();
            known.nodes.clear();
            known.sentinels.clear();
        }
    }

    /// Returns the addresses of the nodes that have slots, each with a connection.
    pub(super) fn primaries(&self) -> Vec<(Address, ConnectionManager)> {
        let nodes = self.known.lock().topology.nodes();
        let connected = nodes.into_iter().map(|address| {
            let node = self.at(&address)?;
            Ok((address, node.connection.clone()))
        });
        connected.filter_map(|node: Result<_, RedisError>| node.ok()).collect()
    }

    /// Calls a script. Repeats the call until the script was certainly executed, or the time for the call is over.
    ///
    /// # Errors
    /// Returns a [`Failure`] if there is no result. The failure states whether the script may have been executed.
    pub(super) async fn call(&self, request: &Request) -> Result<Vec<Value>, Failure> {
        #[cfg(test)]
        if let Some(stand_in) = &self.stand_in {
            return stand_in.call(request).await;
        }
        let patience = patience(&self.settings.load(), request.call);
        let began = instant();
        let mut last = None;
        // The future is on the heap. Otherwise, the future of every operation of every store would contain this future
        // and be copied with it.
        let called = timeout(patience, Box::pin(self.call_until_executed(request, &mut last))).await;
        let seconds = instant().saturating_duration_since(began).as_secs_f64();
        self.metrics.store_call(request.call.name, seconds);
        let failure = match called {
            Ok(Ok(Value::Array(values))) => return Ok(values),
            Ok(Ok(_)) => Failure::refused("the engine returned something else than a list"),
            Ok(Err(failure)) => failure,
            Err(_) => last.unwrap_or_else(|| Failure::unknown("the engine did not answer in time")),
        };
        if failure.may_have_happened && request.call.writes {
            self.metrics.store_unknown_outcome();
        }
        Err(failure)
    }

    async fn call_until_executed(
        &self,
        request: &Request,
        last: &mut Option<Failure>,
    ) -> Result<Value, Failure> {
        let mut is_first = true;
        loop {
            if !std::mem::take(&mut is_first) {
                sleep(RETRY_PAUSE).await;
            }
            let (address, generation) = match self.place(request.partition) {
                Ok(place) => place,
                Err(generation) => {
                    if let Err(error) = self.refresh(generation).await {
                        *last = Some(Failure::not_executed(error));
                    }
                    continue;
                }
            };
            let node = match self.at(&address) {
                Ok(node) => node,
                Err(error) => return Err(Failure::not_executed(error.to_string())),
            };
            // If the time is over during this attempt, the outcome of the call is unknown.
            *last = None;
            let error = match self.attempt(&node, request).await {
                Ok(value) => {
                    node.timeouts.store(0, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) => error,
            };
            if error.is_timeout() && node.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_MAX {
                self.known.lock().nodes.remove(&address);
            }
            let (fault, failure) = (classify(&error), Failure::of(&error, &address));
            match fault {
                Fault::Refused => return Err(failure),
                Fault::NotNow => {}
                Fault::Elsewhere => {
                    let _ = self.refresh(generation).await;
                }
                Fault::Asked(other) => match self.ask_at(&other, request).await {
                    Ok(value) => return Ok(value),
                    Err(error) => {
                        let failure = Failure::of(&error, &other);
                        let is_unknown = failure.may_have_happened && request.call.writes;
                        if is_unknown || classify(&error) == Fault::Refused {
                            return Err(failure);
                        }
                        *last = Some(failure);
                        continue;
                    }
                },
                Fault::Unknown => {
                    let _ = self.refresh(generation).await;
                    if request.call.writes {
                        return Err(failure);
                    }
                }
            }
            *last = Some(failure);
        }
    }

    /// Returns the address of the node that has a partition. The address is empty if no node is known.
    pub(super) fn node_of(&self, partition: Partition) -> Address {
        self.place(partition).map_or_else(|_| Address::default(), |(address, _)| address)
    }

    /// Returns the addresses of the nodes that have slots.
    pub(super) fn addresses(&self) -> Vec<Address> {
        self.known.lock().topology.nodes()
    }

    /// Returns the address of the node that has a partition, and the generation of the topology. If no node is known,
    /// returns the generation of the topology as the error.
    fn place(&self, partition: Partition) -> Result<(Address, u64), u64> {
        let known = self.known.lock();
        let node = known.topology.node(partition.slot());
        node.map(|node| (node.into(), known.generation)).ok_or(known.generation)
    }

    fn at(&self, address: &str) -> Result<Arc<Node>, RedisError> {
        if let Some(node) = self.known.lock().nodes.get(address) {
            return Ok(Arc::clone(node));
        }
        let settings = self.settings.load_full();
        let writes = match settings.wait_replicas {
            0 => None,
            _ => Some(ReplicatedWrites::start(&settings, address)?),
        };
        let node = Arc::new(Node {
            connection: connection(&settings, &settings.login, address)?,
            writes,
            timeouts: AtomicU32::new(0),
        });
        Ok(Arc::clone(self.known.lock().nodes.entry(address.into()).or_insert(node)))
    }

    async fn attempt(&self, node: &Node, request: &Request) -> Result<Value, RedisError> {
        if let Some(writes) = node.writes.as_ref().filter(|_| request.call.writes) {
            return writes.write(request, false).await;
        }
        let mut connection = node.connection.clone();
        match one(&mut connection, &request.command(true)).await {
            Err(error) if is_unknown_script(&error) => one(&mut connection, &request.command(false)).await,
            result => result,
        }
    }

    /// Executes a script on the node to which the slot of its keys is being moved. Returns the response of the node.
    async fn ask_at(&self, address: &str, request: &Request) -> Result<Value, RedisError> {
        let node = self.at(address)?;
        if let Some(writes) = node.writes.as_ref().filter(|_| request.call.writes) {
            return writes.write(request, true).await;
        }
        let mut connection = node.connection.clone();
        let mut pipeline = redis::pipe();
        pipeline.cmd("ASKING").add_command(request.command(false));
        let values = connection.req_packed_commands(&pipeline, 0, 2).await?;
        values.into_iter().nth(1).map_or(Ok(Value::Nil), server_error)
    }

    /// Requests the topology from the nodes, unless the topology has changed since `generation`.
    ///
    /// # Errors
    /// Returns an explanation if no node responded.
    pub(super) async fn refresh(&self, generation: u64) -> Result<(), String> {
        let _guard = self.refreshing.lock().await;
        if self.known.lock().generation != generation {
            return Ok(());
        }
        let settings = self.settings.load_full();
        let (question, asked) = match &settings.mode {
            RedisMode::Single => return Ok(()),
            RedisMode::Sentinel(master) => (Question::Sentinel(master.clone()), self.sentinels(&settings)),
            RedisMode::Cluster => (Question::Cluster, self.some_nodes(&settings)),
        };
        let topology = question.ask(asked, settings.timeout).await?;
        let mut known = self.known.lock();
        if known.topology != topology {
            let nodes = topology.nodes();
            log::info!("the store is now on {}", nodes.join(", "));
            known.nodes.retain(|address, _| nodes.contains(address));
            known.topology = topology;
            known.generation += 1;
        }
        Ok(())
    }

    /// Returns connections to the configured nodes and to the nodes that have slots.
    fn some_nodes(&self, settings: &RedisSettings) -> Vec<(Address, ConnectionManager)> {
        let mut addresses = self.known.lock().topology.nodes();
        addresses.extend(
            settings.nodes.iter().filter(|node| !addresses.contains(node)).cloned().collect::<Vec<_>>(),
        );
        self.questioned(settings, addresses, &settings.login)
    }

    fn sentinels(&self, settings: &RedisSettings) -> Vec<(Address, ConnectionManager)> {
        self.questioned(settings, settings.nodes.clone(), &settings.sentinel_login)
    }

    /// Returns connections on which the topology is requested. Scripts use other connections, because a hanging script
    /// must not delay a request for the topology.
    fn questioned(
        &self,
        settings: &RedisSettings,
        addresses: Vec<Address>,
        login: &crate::config::RedisLogin,
    ) -> Vec<(Address, ConnectionManager)> {
        let mut known = self.known.lock();
        known.sentinels.retain(|address, _| addresses.contains(address));
        let mut connections = Vec::with_capacity(addresses.len());
        for address in addresses {
            if let Some(connection) = known.sentinels.get(&address) {
                connections.push((address, connection.clone()));
            } else if let Ok(connection) = connection(settings, login, &address) {
                known.sentinels.insert(address.clone(), connection.clone());
                connections.push((address, connection));
            }
        }
        connections
    }
}

/// Returns the maximum duration of a call with all its attempts.
fn patience(settings: &RedisSettings, call: &Call) -> Duration {
    let confirmed = call.writes && settings.wait_replicas > 0;
    settings.timeout * PATIENCE + if confirmed { settings.wait_timeout } else { Duration::ZERO }
}

async fn one(connection: &mut ConnectionManager, command: &Cmd) -> Result<Value, RedisError> {
    server_error(connection.send_packed_command(command).await?)
}

#[cfg(test)]
mod tests;
