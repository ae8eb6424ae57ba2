//! Hands the ledger over to another member before this process stops, so that a rollout forgets nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::api::{API_BODY_BYTES_MAX, LEDGER};
use super::member_client::API;
use super::replication::Replication;
use crate::replica::{Owner, Replicas};
use crate::store::HandedRecords;

/// The size at which a batch of records is sent, in bytes. A record has a few kilobytes at most.
const BATCH_BYTES: usize = (API_BODY_BYTES_MAX / 4) as usize;

/// Maximum number of lost interactions that the log names.
const NAMED_MAX: usize = 20;
/// How often a batch is offered to the same member, if the member does not answer or cannot take it now.
const ATTEMPTS_MAX: u32 = 3;
/// Pause between two of these attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What became of the ledger.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Left {
    /// The number of records that another member has taken over.
    pub(crate) handed_over: usize,
    /// The number of records that no other member has.
    pub(crate) kept: usize,
    /// The members that have taken records over, each with their number.
    takers: Vec<(Box<str>, usize)>,
    /// Some of the interactions that no other member has.
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
    /// Hands over all records of the ledger to a member of the same group. Callbacks must not arrive any more. Does
    /// nothing if the process comes back with its ledger at the same address.
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
            // The members send the callbacks of this incarnation to the successor. If this process comes back with the
            // same file, it must be another one.
            self.store().forget_incarnation();
        }
        left
    }

    /// Hands over a batch. What the first successor does not take is offered to the next one. A successor that does not
    /// answer is not asked again.
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

    /// Offers a batch to a successor. Returns the ids that it has taken over. A successor that may have received the
    /// batch is asked again, because two successors must not have the same interactions.
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
