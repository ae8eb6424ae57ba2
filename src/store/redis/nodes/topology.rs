//! The topology: which node has which slots. It consists of a single node, of the primary that sentinels name, or of
//! the nodes of a cluster.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{RedisError, Value, cmd};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::keys::SLOTS;

/// The address of a node, as `host:port`.
pub(in crate::store::redis) type Address = Box<str>;

/// The nodes of Redis or Valkey, by the slots that they have.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(in crate::store::redis) struct Topology {
    /// The last slot of each range of slots and the node that has the range, in the order of the slots.
    ranges: Vec<(u16, Address)>,
}

impl Topology {
    /// Returns the topology in which one node has all slots.
    pub(in crate::store::redis) fn single(address: &str) -> Self {
        Self { ranges: vec![(SLOTS - 1, address.into())] }
    }

    /// Returns the topology in which all these nodes have the same number of slots.
    #[cfg(test)]
    pub(in crate::store::redis) fn even(addresses: &[Address]) -> Self {
        let last = |number: usize| number * usize::from(SLOTS) / addresses.len() - 1;
        let range = |(number, address): (usize, &Address)| (last(number + 1) as u16, address.clone());
        Self { ranges: addresses.iter().enumerate().map(range).collect() }
    }

    /// Returns the node that has a slot.
    pub(in crate::store::redis) fn node(&self, slot: u16) -> Option<&str> {
        let at = self.ranges.partition_point(|(last, _)| *last < slot);
        self.ranges.get(at).map(|(_, address)| &**address)
    }

    /// Returns the nodes that have slots.
    pub(in crate::store::redis) fn nodes(&self) -> Vec<Address> {
        let mut nodes: Vec<_> = self.ranges.iter().map(|(_, address)| address.clone()).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }

    /// Parses the response to `CLUSTER SLOTS` from the node at the address `asked`.
    fn of_cluster(value: &Value, asked: &str) -> Option<Self> {
        let Value::Array(rows) = value else { return None };
        let mut ranges = Vec::with_capacity(rows.len());
        for row in rows {
            let Value::Array(row) = row else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = row.as_slice() else {
                return None;
            };
            let [host, Value::Int(port), ..] = primary.as_slice() else { return None };
            let host = match text(host) {
                // A node whose address is not configured returns no host for itself.
                None | Some("" | "?") => asked.rsplit_once(':')?.0.to_owned(),
                Some(host) if host.contains(':') => format!("[{host}]"),
                Some(host) => host.to_owned(),
            };
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            ranges.push((first, last, Box::from(format!("{host}:{port}"))));
        }
        ranges.sort();
        // A slot without a node is assigned to the next node, which then responds with an error.
        Some(Self { ranges: ranges.into_iter().map(|(_, last, address)| (last, address)).collect() })
            .filter(|topology| !topology.ranges.is_empty())
    }

    /// Parses the response to `SENTINEL GET-MASTER-ADDR-BY-NAME`.
    fn of_sentinel(value: &Value) -> Option<Self> {
        let Value::Array(parts) = value else { return None };
        let [host, port] = parts.as_slice() else { return None };
        let (host, port) = (text(host)?, text(port)?);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Some(Self::single(&format!("{host}:{port}")))
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// A request for the topology.
#[derive(Clone, Debug)]
pub(in crate::store::redis) enum Question {
    /// The request to the nodes of a cluster.
    Cluster,
    /// The request to sentinels, for the primary with this name.
    Sentinel(Box<str>),
}

impl Question {
    fn read(&self, value: &Value, asked: &str) -> Option<Topology> {
        match self {
            Self::Cluster => Topology::of_cluster(value, asked),
            Self::Sentinel(_) => Topology::of_sentinel(value),
        }
    }

    fn command(&self) -> redis::Cmd {
        let mut command = redis::Cmd::new();
        match self {
            Self::Cluster => command.arg("CLUSTER").arg("SLOTS"),
            Self::Sentinel(name) => command.arg("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&**name),
        };
        command
    }

    /// Requests the topology from several nodes. Returns the topology that most nodes return, because a node without a
    /// connection to the other nodes returns an outdated topology.
    ///
    /// # Errors
    /// Returns an explanation if no node responded in time.
    pub(in crate::store::redis) async fn ask(
        &self,
        nodes: Vec<(Address, ConnectionManager)>,
        patience: Duration,
    ) -> Result<Topology, String> {
        let mut asking = JoinSet::new();
        let count = nodes.len();
        for (address, mut connection) in nodes {
            let question = self.clone();
            asking.spawn(async move {
                let command = question.command();
                let answer: Result<Value, RedisError> =
                    timeout(patience, command.query_async(&mut connection))
                        .await
                        .map_err(|_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))?;
                let value = answer?;
                question.read(&value, &address).ok_or_else(|| {
                    RedisError::from((redis::ErrorKind::UnexpectedReturnType, "no node was named"))
                })
            });
        }
        let (mut votes, mut error) = (Votes::of(count), "no node is known".to_owned());
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok(Ok(topology)) => {
                    if votes.decide(topology) {
                        break;
                    }
                }
                Ok(Err(refused)) => error = refused.to_string(),
                Err(_) => {}
            }
        }
        votes.winner().ok_or(error)
    }
}

/// The number of nodes that have returned each topology.
struct Votes {
    /// The number of nodes that were asked.
    nodes: usize,
    counts: HashMap<Topology, usize>,
}

impl Votes {
    fn of(nodes: usize) -> Self {
        Self { nodes, counts: HashMap::new() }
    }

    /// Counts the response of a node. Returns true if more than half of the nodes have returned the same topology, so
    /// that the other nodes cannot change the result.
    fn decide(&mut self, topology: Topology) -> bool {
        let count = self.counts.entry(topology).or_default();
        *count += 1;
        *count > self.nodes / 2
    }

    /// Returns the topology that most nodes have returned.
    fn winner(self) -> Option<Topology> {
        self.counts.into_iter().max_by_key(|(_, count)| *count).map(|(topology, _)| topology)
    }
}

/// Returns the fields of a node's response to `INFO`.
pub(in crate::store::redis) async fn info(
    connection: &mut ConnectionManager,
) -> Result<HashMap<String, String>, RedisError> {
    let text: String = cmd("INFO").query_async(connection).await?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn most_nodes_decide_and_half_of_them_do_not() {
        for (nodes, answers, decided) in [
            (0, "", None),
            (1, "a", Some('a')),
            (2, "aa", Some('a')),
            (3, "aba", Some('a')),
            (3, "abb", Some('b')),
            (4, "abbb", Some('b')),
            (5, "ababb", Some('b')),
        ] {
            let mut votes = Votes::of(nodes);
            let ends: Vec<_> =
                answers.chars().map(|node| votes.decide(Topology::single(&node.to_string()))).collect();
            let is_last = |at: usize| at + 1 == answers.len();
            assert!((0..ends.len()).all(|at| ends[at] == is_last(at)), "{answers} of {nodes}: {ends:?}");
            assert_eq!(votes.winner(), decided.map(|node| Topology::single(&node.to_string())), "{answers}");
        }
        let mut votes = Votes::of(4);
        assert!(["a", "b", "b"].iter().all(|node| !votes.decide(Topology::single(node))));
        assert_eq!(votes.winner(), Some(Topology::single("b")), "the fourth node does not answer");
    }

    #[test]
    fn slots_lead_to_their_nodes() {
        let row = |first, last, host: &str, port| {
            Value::Array(vec![
                Value::Int(first),
                Value::Int(last),
                Value::Array(vec![bulk(host), Value::Int(port), bulk("id")]),
            ])
        };
        let answer = Value::Array(vec![row(8192, 16383, "fd00::1", 7001), row(0, 8191, "", 7000)]);
        let topology = Topology::of_cluster(&answer, "a.example:1").unwrap();
        assert_eq!(topology.node(0), Some("a.example:7000"));
        assert_eq!(
            (topology.node(8191), topology.node(8192)),
            (Some("a.example:7000"), Some("[fd00::1]:7001"))
        );
        assert_eq!((topology.node(16383), topology.nodes().len()), (Some("[fd00::1]:7001"), 2));
        assert!(Topology::of_cluster(&Value::Array(Vec::new()), "a:1").is_none());
        assert!(Topology::of_cluster(&Value::Nil, "a:1").is_none());
        let answer = Value::Array(vec![bulk("10.0.0.1"), bulk("6379")]);
        assert_eq!(Topology::of_sentinel(&answer), Some(Topology::single("10.0.0.1:6379")));
        assert_eq!(Topology::of_sentinel(&Value::Nil), None);
    }
}
