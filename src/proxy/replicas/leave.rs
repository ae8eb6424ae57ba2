//! Hands the ledger over to another member before this process stops, so that a rollout forgets nothing.

use bytes::Bytes;
use http::Method;

use super::api::{API_BODY_BYTES_MAX, LEDGER};
use super::member_client::API;
use super::replication::Replication;
use crate::clock::instant;
use crate::replica::{Owner, Replicas};
use crate::store::HandedRecords;

/// The size at which a batch of records is sent, in bytes. A record has a few kilobytes at most.
const BATCH_BYTES: usize = (API_BODY_BYTES_MAX / 4) as usize;

/// Maximum number of lost interactions that the log names.
const NAMED_MAX: usize = 20;

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
    fn taken(&mut self, by: &Owner, batch: &HandedRecords, taken: &[String]) {
        self.handed_over += taken.len();
        match self.takers.iter_mut().find(|(address, _)| *address == by.address) {
            Some((_, count)) => *count += taken.len(),
            None => self.takers.push((by.address.clone(), taken.len())),
        }
        if taken.len() < batch.len() {
            self.lost(batch.ids().filter(|id| !taken.iter().any(|one| one == id)));
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
        let is_kept = replicas.comes_back() && self.store().is_durable();
        if is_kept {
            log::info!(
                "hands nothing over: this process comes back at {} with its ledger in a file",
                self.address()
            );
            return Left::default();
        }
        if self.store().counts().0 == 0 {
            log::info!("hands nothing over: the ledger is empty");
            return Left::default();
        }
        let mut successors = self.members.successors(&replicas.group, replicas.gone_after, instant());
        let mut left = Left::default();
        for shard in 0..self.store().shards() {
            let mut rest = self.store().records(shard, &self.own().incarnation.to_string());
            while !rest.is_empty() {
                let batch = rest.split_off_batch(BATCH_BYTES);
                self.hand_over_batch(&replicas, &mut successors, batch, &mut left).await;
            }
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

    /// Hands over a batch to the first successor that takes it. A successor that does not answer is not asked again.
    async fn hand_over_batch(
        &self,
        replicas: &Replicas,
        successors: &mut Vec<Owner>,
        batch: HandedRecords,
        left: &mut Left,
    ) {
        let Ok(body) = serde_json::to_vec(&batch).map(Bytes::from) else { return };
        let target = format!("{API}{LEDGER}");
        while let Some(successor) = successors.first() {
            let answer = self.ask(replicas, successor, (&Method::POST, &target), body.clone()).await;
            let taken: Option<Vec<String>> = match answer {
                Ok(answer) if answer.status == 200 => serde_json::from_slice(&answer.body).ok(),
                Ok(answer) => {
                    log::warn!("{} takes nothing over: status {}", successor.address, answer.status);
                    None
                }
                Err(error) => {
                    log::warn!("{} takes nothing over: {error}", successor.address);
                    None
                }
            };
            if let Some(taken) = taken {
                left.taken(successor, &batch, &taken);
                self.store().handed_over(&taken).await;
                return;
            }
            successors.remove(0);
        }
        left.lost(batch.ids());
    }
}
