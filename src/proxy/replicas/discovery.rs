//! Finds the other members: resolves `replicas.discover`, and asks the process at each address who it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;

use super::members::Presence;
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
    let mut addresses = BTreeSet::new();
    for name in &replicas.discover {
        addresses.extend(resolve(name).await);
    }
    // A member that is not in `discover` is asked, too, while callbacks for it arrive.
    for member in replication.members.all() {
        if member.presence(replicas.gone_after * FORGET_AFTER, instant()) != Presence::Gone {
            addresses.insert(member.owner.address);
        }
    }
    addresses.remove(&replication.own().address);
    let asked: Vec<_> = addresses
        .into_iter()
        .map(|address| {
            let (replication, replicas) = (Arc::clone(replication), Arc::clone(replicas));
            tokio::spawn(async move {
                let error = ask(&replication, &replicas, &address).await?;
                Some((address, error))
            })
        })
        .collect();
    let mut errors = BTreeMap::new();
    for one in asked {
        errors.extend(one.await.ok().flatten());
    }
    replication.log_presences(replicas, &errors);
}

/// Asks the process at an address who it is. Returns the reason if no member answers there.
async fn ask(replication: &Replication, replicas: &Replicas, address: &str) -> Option<String> {
    let error = replication.introduce(replicas, address).await.err()?;
    for member in replication.members.all() {
        if *member.owner.address == *address {
            replication.members.refused(&member.owner, replicas.gone_after, instant());
        }
    }
    Some(error)
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
