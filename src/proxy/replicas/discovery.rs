//! Finds the other members: resolves `replicas.discover`, and asks the process at each address who it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::lookup_host;

use super::member_client::SendError;
use super::replication::Replication;
use crate::clock::instant;
use crate::replica::Replicas;

/// Interval between two rounds. The first rounds follow faster, so that a process that starts knows the others soon.
const ROUND: Duration = Duration::from_secs(5);
const FIRST_ROUNDS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(2)];
/// How long a member that is gone is still asked whether it has come back, as a multiple of `gone_after`.
const FORGET_AFTER: u32 = 60;
/// Timeout for one lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks all members in rounds. Runs until it is aborted.
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

/// Asks the processes at all addresses who they are.
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
    // A member that is not in `discover` is asked, too, while callbacks for it arrive.
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

/// Asks the process at an address who it is. Returns the reason if no member answers there.
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
    /// Returns the addresses of `discover` at which a member may be that this process does not know. Asks all of them
    /// first if that has not been done since the start.
    pub async fn unknown_members(self: &Arc<Self>) -> Vec<Box<str>> {
        let Some(replicas) = self.settings() else { return Vec::new() };
        if !self.has_looked.load(Ordering::SeqCst) {
            round(self, &replicas).await;
        }
        self.members.silent(replicas.gone_after, instant())
    }
}

/// Returns the addresses of a name. An IP address needs no lookup. A name that a single member advertises stays a name,
/// because its certificate has this name.
async fn resolve(name: &str) -> Vec<Box<str>> {
    if name.parse::<std::net::SocketAddr>().is_ok() {
        return vec![name.into()];
    }
    match tokio::time::timeout(LOOKUP_TIMEOUT, lookup_host(name)).await {
        Ok(Ok(found)) => found.map(|address| address.to_string().into()).collect(),
        _ => Vec::new(),
    }
}
