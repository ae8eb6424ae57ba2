//! Lists the interactions of the ledger: in the order of their ids, or the newest ones.

mod newest;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ledger::Store;
use super::memory::{Memory, SHARDS};
use super::outcome::OwnedInteraction;
use super::redis::RedisStore;
use super::sweep::READS_PER_LOCK;
use crate::denial::Refusal;
use crate::interaction::Interaction;

use newest::Newest;

/// The number of records of a shared ledger that the search for the newest interactions reads at once.
const RECORDS_AT_ONCE: usize = 4096;

impl Store {
    /// Returns the first `limit` interactions whose id comes after `after` and for which `wanted` returns true, in the
    /// order of ids.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub async fn list(
        &self,
        after: &str,
        limit: usize,
        wanted: impl Fn(&Interaction) -> bool,
    ) -> Result<BTreeMap<Arc<str>, OwnedInteraction>, Refusal> {
        if let Some(shared) = &self.shared {
            return shared.list(after, limit, wanted).await;
        }
        let mut found = BTreeMap::new();
        for index in 0..SHARDS {
            self.memory.list(index, (after, limit), &wanted, &mut found);
            // Reading a large ledger takes long. After each shard, other tasks can run on this thread, so that
            // callbacks do not wait.
            tokio::task::yield_now().await;
        }
        Ok(found.into_iter().map(|(id, interaction)| (id, (interaction, None))).collect())
    }

    /// Returns the `limit` newest interactions for which `wanted` returns true. If further such interactions were created
    /// at the same time as the oldest of these, they are also returned.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub async fn newest(
        &self,
        limit: usize,
        wanted: impl Fn(&Interaction) -> bool,
    ) -> Result<BTreeMap<Arc<str>, OwnedInteraction>, Refusal> {
        let mut newest = Newest::new(limit);
        if let Some(shared) = &self.shared {
            let mut ids = shared.ids_after("").await?.into_iter().peekable();
            while ids.peek().is_some() {
                for (id, record) in shared.read_many(ids.by_ref().take(RECORDS_AT_ONCE).collect()).await? {
                    if newest.has_room(record.interaction.created()) && wanted(&record.interaction) {
                        newest.add(Arc::from(id), RedisStore::owned(record));
                    }
                }
            }
            return Ok(newest.into_found());
        }
        for index in 0..SHARDS {
            self.memory.find_newest(index, &wanted, &mut newest);
            tokio::task::yield_now().await;
        }
        Ok(newest.into_found())
    }
}

impl Memory {
    /// Calls `visit` with each interaction of one shard. The shard is locked only for a short time: while its ids are
    /// copied, and while up to [`READS_PER_LOCK`] records are read.
    fn visit(&self, index: usize, mut visit: impl FnMut(&Arc<str>, &Interaction)) {
        for ids in self.ids(index).chunks(READS_PER_LOCK) {
            let shard = self.shard(index);
            for id in ids {
                if let Some(slot) = shard.interactions.get(id) {
                    visit(id, &slot.record);
                }
            }
        }
    }

    /// Adds interactions of one shard to `found`: their ids come after `after`, and `wanted` returns true for them.
    /// Then retains only the first `limit` interactions in `found`, in the order of ids.
    fn list(
        &self,
        index: usize,
        (after, limit): (&str, usize),
        wanted: impl Fn(&Interaction) -> bool,
        found: &mut BTreeMap<Arc<str>, Interaction>,
    ) {
        self.visit(index, |id, record| {
            let is_before = |last: (&Arc<str>, _)| *id < *last.0;
            let has_room = found.len() < limit || found.last_key_value().is_some_and(is_before);
            if **id > *after && has_room && wanted(record) {
                found.insert(Arc::clone(id), record.clone());
                if found.len() > limit {
                    found.pop_last();
                }
            }
        });
    }

    /// Adds the newest interactions of one shard for which `wanted` returns true.
    fn find_newest(&self, index: usize, wanted: impl Fn(&Interaction) -> bool, newest: &mut Newest) {
        self.visit(index, |id, record| {
            if newest.has_room(record.created()) && wanted(record) {
                newest.add(Arc::clone(id), (record.clone(), None));
            }
        });
    }
}
