//! Finds the other replicas: resolves the names in `replicas.discover`, and asks the process at each address to
//! identify itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::lookup_host;

use super::member_client::SendError;
use super::replication::Replication;
use crate::clock::instant;
use crate::replica::Replicas;

/// The interval between two rounds of discovery. The first rounds follow each other faster, so that a new process soon
/// finds the other replicas.
const ROUND: Duration = Duration::from_secs(5);
const FIRST_ROUNDS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(2)];
/// How long a dead replica is still contacted, as a multiple of `gone_after`.
const FORGET_AFTER: u32 = 60;
/// The timeout for one DNS lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Contacts all replicas in regular rounds. Runs until the task is aborted.
pub(crate) async fn run(replication: Arc<Replication>) {
    let mut pauses = FIRST_ROUNDS.into_iter().chain(std::iter::repeat(ROUND));
    loop {
        tokio::time::sleep(pauses.next().unwrap_or(ROUND)).await;
        if let Some(replicas) = replication.settings() {
            round(&replication, &replicas).await;
            replication.sweep();
        }
    }
}

/// Asks the processes at all addresses to identify themselves.
async fn round(replication: &Arc<Replication>, replicas: &Arc<Replicas>) {
    let (mut addresses, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for name in &replicas.discover {
        let found = resolve(name).await;
        if found.is_empty() {
            silent.insert(name.clone());
        }
        addresses.extend(found);
    }
    let listed = addresses.clone();
    // A replica that is not in `discover` is also contacted, because callbacks for this replica may arrive.
    for member in replication.members.all_but_gone(replicas.gone_after * FORGET_AFTER) {
        addresses.insert(member.owner.address);
    }
    addresses.remove(&replication.own().address);
    let asked: Vec<_> = addresses
        .into_iter()
        .map(|address| {
            let (replication, replicas) = (Arc::clone(replication), Arc::clone(replicas));
            tokio::spawn(async move { (ask(&replication, &replicas, &address).await, address) })
        })
        .collect();
    let mut errors = BTreeMap::new();
    for one in asked {
        let Ok((Some(error), address)) = one.await else { continue };
        if listed.contains(&address) {
            silent.insert(address.clone());
        }
        errors.insert(address, error);
    }
    replication.log_presences(replicas, &errors);
    replication.members.are_silent(silent, instant());
    replication.has_looked.store(true, Ordering::SeqCst);
}

/// Asks the process at an address to identify itself. Returns the reason if no replica responds at this address.
async fn ask(replication: &Replication, replicas: &Replicas, address: &str) -> Option<String> {
    let error = replication.introduce(replicas, address).await.err()?;
    let kind = match &error {
        SendError::Clock => Some("clock"),
        SendError::Stranger => Some("stranger"),
        _ => None,
    };
    if kind.is_some_and(|kind| replication.log_throttle.should_log(kind, instant())) {
        log::warn!("{address} is not asked as a member: {error}");
    }
    if error.is_refusal() {
        for member in replication.members.all() {
            if *member.owner.address == *address {
                replication.members.refused(&member.owner, replicas.gone_after, instant());
            }
        }
    }
    Some(error.to_string())
}

impl Replication {
    /// Returns the addresses in `discover` at which there may be a replica that this process has not found yet. If no
    /// round of discovery has ended yet, first performs a round.
    pub async fn unknown_members(self: &Arc<Self>) -> Vec<Box<str>> {
        let Some(replicas) = self.settings() else { return Vec::new() };
        if !self.has_looked.load(Ordering::SeqCst) {
            round(self, &replicas).await;
        }
        self.members.silent(replicas.gone_after, instant())
    }
}

/// Returns the addresses of an entry in `discover`. A DNS name can have several addresses. An IP address with a port
/// needs no lookup.
async fn resolve(name: &str) -> Vec<Box<str>> {
    if name.parse::<std::net::SocketAddr>().is_ok() {
        return vec![name.into()];
    }
    match tokio::time::timeout(LOOKUP_TIMEOUT, lookup_host(name)).await {
        Ok(Ok(found)) => found.map(|address| address.to_string().into()).collect(),
        _ => Vec::new(),
    }
}
