//! Checks the settings of Redis or Valkey. The store is not used with settings that make it lose interactions or refuse
//! changes. Settings with a smaller risk cause a warning.

use std::collections::HashMap;

use super::nodes::Nodes;
use super::nodes::info;
use super::store::RedisStore;

/// The lowest version of Redis that supports all commands of the scripts.
const VERSION_MIN: (u32, u32) = (6, 2);

/// The result of checking the settings of Redis or Valkey nodes.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// The reasons why the Redis server must not be used.
    faults: Vec<String>,
    /// The warnings about settings with which the store may lose interactions or refuse changes.
    warnings: Vec<String>,
}

impl Judgement {
    fn of(facts: &HashMap<String, String>, address: &str, wait_replicas: u8) -> Self {
        let mut judgement = Self::default();
        let fact = |name: &str| facts.get(name).map_or("", String::as_str);
        let policy = fact("maxmemory_policy");
        let evicts = fact("maxmemory") != "0" && !fact("maxmemory").is_empty();
        if policy.starts_with("allkeys-") {
            judgement.faults.push(format!(
                "{address} has the eviction policy `{policy}`, so it may forget interactions at any time; set \
                 `maxmemory-policy noeviction`"
            ));
        } else if evicts && policy != "noeviction" {
            judgement.warnings.push(format!(
                "{address} has the eviction policy `{policy}`; it evicts no key of Callgate, but `noeviction` is safer"
            ));
        }
        let version = fact("redis_version");
        if !version.is_empty() && parse_version(version) < Some(VERSION_MIN) {
            judgement.faults.push(format!("{address} has version {version}; at least 6.2 is needed"));
        }
        let role = fact("role");
        if !role.is_empty() && role != "master" {
            judgement.faults.push(format!("{address} is a read-only replica; name the primary"));
        }
        if fact("aof_enabled") == "0" {
            judgement.warnings.push(format!(
                "{address} has `appendonly no`: a restart of it loses the interactions since the last snapshot"
            ));
        }
        let replicas: u32 = fact("connected_slaves").parse().unwrap_or_default();
        if replicas < u32::from(wait_replicas) {
            judgement.warnings.push(format!(
                "{address} has {replicas} replicas, and `store.redis.wait.replicas` is {wait_replicas}: nothing is \
                 accepted until there are enough"
            ));
        }
        judgement
    }
}

/// Parses the major and the minor version.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

impl RedisStore {
    /// Checks the settings of all nodes, and records whether the Redis server may be used. Does nothing if no node
    /// responds.
    pub(super) async fn probe(&self) {
        let Some(judgement) = judge(&self.nodes).await else { return };
        judgement.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        self.health.judged((!judgement.faults.is_empty()).then(|| judgement.faults.join("; ")));
    }

    /// Checks the settings of all nodes again if the Redis server must not be used.
    pub(super) async fn probe_again(&self) {
        if self.health.why_unusable().is_some() {
            self.probe().await;
        }
    }

    /// Checks whether full nodes have memory again.
    pub(super) async fn look_for_room(&self) {
        let full = self.health.perhaps_not_full();
        if full.is_empty() {
            return;
        }
        let mut primaries = self.nodes.primaries();
        for node in full {
            let Some((_, connection)) = primaries.iter_mut().find(|(address, _)| *address == node) else {
                self.health.record_room(&node);
                continue;
            };
            if info(connection).await.is_ok_and(|facts| has_room(&facts)) {
                self.health.record_room(&node);
            }
        }
    }
}

/// Reports whether a node has memory for new records, according to the fields of its response to `INFO`.
fn has_room(facts: &HashMap<String, String>) -> bool {
    let bytes = |name: &str| facts.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let most = bytes("maxmemory");
    // Buffers for replicas do not count toward `maxmemory`.
    most == 0 || bytes("used_memory").saturating_sub(bytes("mem_not_counted_for_evict")) < most
}

async fn judge(nodes: &Nodes) -> Option<Judgement> {
    if let Err(error) = nodes.refresh(0).await {
        log::warn!("the store cannot be reached: {error}");
    }
    let mut all = Judgement::default();
    let mut has_answered = false;
    for (address, mut connection) in nodes.primaries() {
        match info(&mut connection).await {
            Ok(facts) => {
                has_answered = true;
                let wait_replicas = nodes.settings().wait_replicas;
                let Judgement { faults, warnings } = Judgement::of(&facts, &address, wait_replicas);
                all.faults.extend(faults);
                all.warnings.extend(warnings);
            }
            Err(error) => log::warn!("{address} does not answer: {error}"),
        }
    }
    has_answered.then_some(all)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::nodes::Failure;
    use super::super::simulation::SimulatedLedger;
    use super::*;

    /// A full node that does not answer may still be full. A node that has no keys any more does not matter.
    #[tokio::test(start_paused = true)]
    async fn a_full_node_is_asked_for_room_unless_it_has_no_keys() {
        let silent = "127.0.0.1:1";
        let nodes = vec![silent.into()];
        let start = SimulatedLedger::start(|settings| settings.redis.as_mut().unwrap().nodes = nodes);
        let (_, [store]) = start.await;
        for node in [silent, "127.0.0.1:2"] {
            let full = Failure { full_node: Some(node.into()), ..Failure::refused("OOM") };
            store.health.called(|| node.into(), true, Some(&full));
        }
        let are_full = || [silent, "127.0.0.1:2"].map(|node| store.health.is_full(node));
        store.look_for_room().await;
        assert_eq!(are_full(), [true, true], "both have just refused a change");
        tokio::time::advance(Duration::from_secs(10)).await;
        store.look_for_room().await;
        assert_eq!(are_full(), [true, false]);
    }

    fn judged(changes: &[(&str, &str)]) -> (usize, usize) {
        let mut facts: HashMap<_, _> = [
            ("redis_version", "7.0.15"),
            ("maxmemory", "0"),
            ("maxmemory_policy", "noeviction"),
            ("role", "master"),
            ("aof_enabled", "1"),
            ("connected_slaves", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        facts.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let judgement = Judgement::of(&facts, "a:1", 1);
        (judgement.faults.len(), judgement.warnings.len())
    }

    #[test]
    fn a_node_has_room_below_its_limit_and_without_a_limit() {
        for (limit, used, not_counted, expected) in [
            ("0", "100", "0", true),
            ("100", "99", "0", true),
            ("100", "100", "0", false),
            ("100", "150", "0", false),
            ("100", "150", "50", false),
            ("100", "150", "51", true),
        ] {
            let facts =
                [("maxmemory", limit), ("used_memory", used), ("mem_not_counted_for_evict", not_counted)];
            let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            assert_eq!(has_room(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn what_cannot_keep_a_promise_is_refused_and_what_weakens_one_is_a_warning() {
        assert_eq!(judged(&[]), (0, 0));
        assert_eq!(judged(&[("maxmemory_policy", "allkeys-lru")]), (1, 0));
        assert_eq!(judged(&[("maxmemory_policy", "allkeys-lru"), ("maxmemory", "100")]), (1, 0));
        assert_eq!(judged(&[("maxmemory_policy", "volatile-lru"), ("maxmemory", "100")]), (0, 1));
        assert_eq!(judged(&[("redis_version", "6.0.16")]), (1, 0));
        assert_eq!(judged(&[("redis_version", "6.2.0")]), (0, 0));
        assert_eq!(judged(&[("redis_version", "10.0.0")]), (0, 0));
        assert_eq!(judged(&[("role", "slave")]), (1, 0));
        assert_eq!(judged(&[("aof_enabled", "0")]), (0, 1));
        assert_eq!(judged(&[("connected_slaves", "0")]), (0, 1));
    }
}
