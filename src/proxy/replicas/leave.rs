//! Moves the ledger of this process to another replica before the process stops, so that a rollout loses no
//! interaction.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::api::{API_BODY_BYTES_MAX, LEDGER};
use super::member_client::API;
use super::replication::Replication;
use crate::replica::{Owner, Replicas};
use crate::store::HandedRecords;

/// The size in bytes at which a batch of interactions is sent to another replica. An interaction has a few kilobytes at
/// most.
const BATCH_BYTES: usize = (API_BODY_BYTES_MAX / 4) as usize;

/// The maximum number of lost interactions that the log lists.
const NAMED_MAX: usize = 20;
/// The maximum number of times that a batch of interactions is offered to the same replica, if the replica does not
/// respond or cannot store the batch at the moment.
const ATTEMPTS_MAX: u32 = 3;
/// The pause between two offers of a batch of interactions to the same replica.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The result of moving the ledger to other replicas before this process stops.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Left {
    /// The number of interactions that other replicas have received.
    pub(crate) handed_over: usize,
    /// The number of interactions that no other replica has received.
    pub(crate) kept: usize,
    /// The address of each replica that has received interactions, and the number of the received interactions.
    takers: Vec<(Box<str>, usize)>,
    /// The ids of some interactions that no other replica has received.
    named: Vec<String>,
}

impl Left {
    fn taken(&mut self, by: &Owner, taken: &[String]) {
        self.handed_over += taken.len();
        match self.takers.iter_mut().find(|(address, _)| *address == by.address) {
            Some((_, count)) => *count += taken.len(),
            None => self.takers.push((by.address.clone(), taken.len())),
        }
    }

    fn lost<'i>(&mut self, ids: impl Iterator<Item = &'i str>) {
        for id in ids {
            self.kept += 1;
            if self.named.len() < NAMED_MAX {
                self.named.push(id.to_owned());
            }
        }
    }

    fn log(&self, group: &str) {
        for (address, count) in &self.takers {
            log::info!("handed over {count} interactions to {address}");
        }
        if self.kept > 0 {
            log::error!(
                "{} interactions were not handed over, because no member of the group `{group}` took them: {}{}",
                self.kept,
                self.named.join(", "),
                if self.named.len() < self.kept { ", and others" } else { "" }
            );
        }
    }
}

impl Replication {
    /// Moves all interactions of the ledger to other replicas of the same group. The caller must ensure that no more
    /// callbacks arrive. Does nothing if the replicas share one ledger, or if the process comes back at the same
    /// address with its ledger.
    pub(crate) async fn leave(&self) -> Left {
        let Some(replicas) = self.settings() else { return Left::default() };
        if self.store().is_shared() {
            log::info!("hands nothing over: the other members have the same ledger");
            return Left::default();
        }
        if replicas.comes_back() && self.store().is_durable() {
            log::info!(
                "hands nothing over: this process comes back at {} with its ledger in a file",
                self.address()
            );
            return Left::default();
        }
        self.is_handing_over.store(true, Ordering::SeqCst);
        let mut successors = self.members.successors(&replicas.group, replicas.gone_after);
        let mut left = Left::default();
        for shard in 0..self.store().shards() {
            let mut rest = self.store().records(shard, &self.own().incarnation.to_string());
            while !rest.is_empty() {
                let batch = rest.split_off_batch(BATCH_BYTES);
                self.hand_over_batch(&replicas, &mut successors, batch, &mut left).await;
            }
        }
        if left == Left::default() {
            log::info!("hands nothing over: the ledger is empty");
            return left;
        }
        self.metrics.handed_over(left.handed_over, left.kept);
        left.log(&replicas.group);
        if left.kept == 0 {
            // The other replicas now forward the callbacks for this replica id to the replica that received the
            // interactions. If this process starts again with the same file, this process therefore needs another
            // replica id.
            self.store().forget_incarnation();
        }
        left
    }

    /// Moves a batch of interactions to other replicas, beginning with the first replica in `successors`. Interactions
    /// that this replica does not store are offered to the next replica. A replica that does not respond is removed
    /// from `successors`.
    async fn hand_over_batch(
        &self,
        replicas: &Replicas,
        successors: &mut Vec<Owner>,
        mut batch: HandedRecords,
        left: &mut Left,
    ) {
        let mut next = 0;
        while let Some(successor) = successors.get(next)
            && !batch.is_empty()
        {
            match self.offer(replicas, successor, &batch).await {
                Ok(taken) => {
                    let taken = batch.remove(taken);
                    left.taken(successor, &taken);
                    self.store().handed_over(&taken).await;
                    next += 1;
                }
                Err(error) => {
                    log::warn!("{} takes nothing over: {error}", successor.address);
                    successors.remove(next);
                }
            }
        }
        left.lost(batch.ids());
    }

    /// Offers a batch of interactions to another replica (the successor). Returns the ids of the interactions that the
    /// successor has stored. If the response is lost, the same successor is asked again, because two replicas must not
    /// have the same interactions.
    ///
    /// # Errors
    /// Returns an explanation if the successor did not store the batch after [`ATTEMPTS_MAX`] attempts.
    async fn offer(
        &self,
        replicas: &Replicas,
        successor: &Owner,
        batch: &HandedRecords,
    ) -> Result<Vec<String>, String> {
        let body = serde_json::to_vec(batch).map(Bytes::from).map_err(|error| error.to_string())?;
        let target = format!("{API}{LEDGER}");
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = self.ask(replicas, successor, (&Method::POST, &target), body.clone()).await;
            let error = match answer {
                Ok(answer) if answer.status == 200 => {
                    return serde_json::from_slice(&answer.body).map_err(|error| error.to_string());
                }
                Ok(answer) => format!("status {}", answer.status),
                Err(error) => error,
            };
            if attempts >= ATTEMPTS_MAX {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}
