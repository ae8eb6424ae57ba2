//! Copies a whole ledger to or from Redis or Valkey, while no process uses the ledger.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::events::copied_keys;
use super::members::Members;
use super::nodes::Failure;
use super::nodes::keys::Partition;
use super::nodes::scripts::{COPIED_KEYS, COPY_BINDING, COPY_EVENTS, COPY_KEY, EVENTS};
use super::records::{Decision, unavailable};
use super::store::RedisStore;
use crate::denial::{Denial, Refusal};
use crate::interaction::{Copies, EventKey, SharedRecord};

use crate::store::content::{Content, Copied, CopyReport, Loose, LooseEvent, Written};
use crate::store::event_memory::FingerprintKey;
use crate::store::file::StoredEvent;
use crate::time::Timestamp;

/// The maximum number of interactions that a copy reads or writes at the same time.
const PARALLEL: usize = 32;
/// The number of events that one call writes during a copy.
const EVENTS_PER_CALL: usize = 500;
/// The pause between two checks whether processes use the ledger.
const LOOK: Duration = Duration::from_secs(1);
/// The latest possible time. At this time, all leases have expired.
const NEVER: Timestamp = Timestamp::from_unix_ms(i64::MAX);

/// An interaction and the provider's id by which callbacks find the interaction.
struct Binding {
    id: Arc<str>,
    route: Arc<str>,
    provider_id: Box<str>,
    created: Timestamp,
}

/// Whether processes use the ledger that is copied.
pub(in crate::store) enum Use {
    /// No process uses the ledger. The value is the name of the ledger.
    Idle(Vec<u8>),
    /// Processes use the ledger. Each string describes one process.
    Used(Vec<String>),
}

impl RedisStore {
    /// Checks the Redis server, and waits until it is certain whether a process uses the ledger. A killed process
    /// counts as alive until 15 s after its last heartbeat.
    ///
    /// # Errors
    /// Returns an explanation if the Redis server does not respond or must not be used.
    pub(in crate::store) async fn use_of_ledger(&self) -> Result<Use, String> {
        self.probe().await;
        if let Some(fault) = self.health.why_unusable() {
            return Err(fault);
        }
        let mut first: Option<Members> = None;
        loop {
            let (now, members) = self.look_at_members().await.map_err(|failure| failure.reason)?;
            let Some(first) = &first else {
                first = Some(members);
                continue;
            };
            let has_beaten = |member: &&super::members::Member| {
                !first
                    .all
                    .iter()
                    .any(|known| (known.beat, &known.incarnation) == (member.beat, &member.incarnation))
            };
            let alive: Vec<_> =
                members.living(now).filter(has_beaten).map(|member| member.to_string()).collect();
            if !alive.is_empty() {
                return Ok(Use::Used(alive));
            }
            if members.count(now) == 0 {
                return Ok(Use::Idle(members.ledger.unwrap_or_default()));
            }
            sleep(LOOK).await;
        }
    }

    // === Reading ===

    /// Reads the whole content of the ledger.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub(in crate::store) async fn read_all(self: &Arc<Self>) -> Result<Content, Refusal> {
        let mut content = Content::default();
        let fault = |failure: Failure| unavailable(&failure);
        let keys = vec![self.keys.copied_keys()];
        let (_, values) =
            self.call(&COPIED_KEYS, Partition::Members, keys, Vec::new()).await.map_err(fault)?;
        let secrets = copied_keys(values.first());
        for partition in Partition::all() {
            let mut cursor = b"0".to_vec();
            loop {
                let (next, ids) = self.scan(partition, &cursor).await.map_err(fault)?;
                let read = |store: Arc<Self>, id: String| async move { store.read_copied(id.into()).await };
                let some = self.in_parallel(ids, read).await?;
                content.interactions.extend(some.into_iter().flatten());
                if next == b"0" {
                    break;
                }
                cursor = next;
            }
            let Partition::Number(number) = partition else { continue };
            for (event, until) in
                self.read_set(partition, self.keys.delivered_of(partition)).await.map_err(fault)?
            {
                if let Ok(key) = event.try_into().map(u128::from_be_bytes) {
                    content.loose.push(Loose { event: LooseEvent::Key(EventKey(key), number), until });
                }
            }
            for (event, until) in
                self.read_set(partition, self.keys.copied_of(partition)).await.map_err(fault)?
            {
                if let Ok(fingerprint) = event.try_into().map(u64::from_be_bytes) {
                    let events = secrets.iter().map(|key| LooseEvent::Fingerprint(*key, fingerprint));
                    content.loose.extend(events.map(|event| Loose { event, until }));
                }
            }
        }
        // A scan can return an id twice.
        content.interactions.sort_by(|one, other| one.id.cmp(&other.id));
        content.interactions.dedup_by(|one, other| one.id == other.id);
        Ok(content)
    }

    async fn read_copied(&self, id: Arc<str>) -> Result<Option<Copied>, Refusal> {
        let Some(mut record) = self.load(&id, &[]).await?.record else { return Ok(None) };
        // No process uses the ledger any more, so all leases in the record have ended.
        record.resume(NEVER);
        let events = self.call(&EVENTS, Partition::of(&id), vec![self.keys.events(&id)], Vec::new()).await;
        let (_, values) = events.map_err(|failure| unavailable(&failure))?;
        let Some(Value::Array(events)) = values.into_iter().next() else { return Ok(None) };
        let key = |value: Value| match value {
            Value::BulkString(bytes) => bytes.try_into().ok().map(u128::from_be_bytes).map(EventKey),
            _ => None,
        };
        let events = events.into_iter().filter_map(key).map(StoredEvent::Key).collect();
        Ok(Some(Copied { id, record, events }))
    }

    /// Reads a sorted set of events. Returns each event with the end of its retention. Omits events whose retention has
    /// ended.
    async fn read_set(
        &self,
        partition: Partition,
        key: String,
    ) -> Result<Vec<(Vec<u8>, Timestamp)>, Failure> {
        let (mut cursor, mut all) = (b"0".to_vec(), Vec::new());
        loop {
            let (next, pairs) = self.scan_set(partition, key.clone(), &cursor).await?;
            let micros = |score: &[u8]| std::str::from_utf8(score).ok()?.parse::<f64>().ok();
            #[allow(
                clippy::cast_possible_truncation,
                reason = "the engine has exact microseconds below 2^53"
            )]
            let until = |score: &[u8]| micros(score).map(|us| Timestamp::from_unix_ms((us / 1000.0) as i64));
            all.extend(pairs.into_iter().filter_map(|(event, score)| Some((event, until(&score)?))));
            if next == b"0" {
                let now = self.clock.now().unwrap_or(NEVER);
                all.retain(|(_, until)| *until > now);
                return Ok(all);
            }
            cursor = next;
        }
    }

    // === Writing ===

    /// Adds the content of another ledger to this ledger. A record that is newer in this ledger is not changed.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be written. The copy can then be repeated.
    pub(in crate::store) async fn write_all(
        self: &Arc<Self>,
        content: Content,
        report: &mut CopyReport,
    ) -> Result<(), Refusal> {
        let mut bindings: Vec<_> = content.interactions.iter().filter_map(binding).collect();
        let key = content.key;
        report.events += content
            .interactions
            .iter()
            .map(|one| one.keys().count() + one.fingerprints().count())
            .sum::<usize>();
        let write = |store: Arc<Self>, one: Copied| async move { store.write_copied(&one, key).await };
        for written in self.in_parallel(content.interactions, write).await? {
            report.count(written);
        }
        // Two interactions can have the same provider's id. Callbacks then find the later interaction.
        bindings.sort_by_key(|binding| std::cmp::Reverse(binding.created));
        for binding in bindings {
            report.provider_ids += usize::from(self.copy_binding(&binding).await?);
        }
        report.events += self.write_loose(&content.loose).await?;
        Ok(())
    }

    async fn write_copied(&self, one: &Copied, key: Option<FingerprintKey>) -> Result<Written, Refusal> {
        let (interaction, _) = one.with_inherited(key);
        let mut record = one.record.clone();
        record.interaction = interaction;
        let beside: Vec<_> = one.keys().filter(|event| !record.has_delivered(*event)).collect();
        let changed = self.change(&one.id, &[], None, |draft| {
            draft.surplus.clone_from(&beside);
            let Some(known) = &mut draft.record else {
                draft.record = Some(record.clone());
                return Decision::Write(Written::Added);
            };
            let compared = known.interaction.compare(&record.interaction);
            match compared {
                Copies::Equal | Copies::Newer => {
                    let written = if compared == Copies::Equal { Written::Unchanged } else { Written::Newer };
                    // Since the last copy, events may have been delivered with either ledger.
                    draft.surplus.extend(record.events());
                    draft.surplus.retain(|event| !known.has_delivered(*event));
                    let inherits = known.interaction.inherit_missing(&record.interaction);
                    match inherits || !draft.surplus.is_empty() {
                        true => Decision::Write(written),
                        false => Decision::Keep(written),
                    }
                }
                Copies::Older => {
                    let former = std::mem::replace(known, record.clone());
                    known.interaction.inherit_from(&former.interaction);
                    draft.surplus.extend(former.events());
                    Decision::Write(Written::Updated)
                }
                Copies::Diverged => {
                    known.interaction.merge(&record.interaction);
                    draft.surplus.extend(record.events());
                    Decision::Write(Written::Merged)
                }
            }
        });
        Ok(changed.await?.0)
    }

    /// Records that a provider's id belongs to an interaction, unless the provider's id belongs to a later interaction.
    /// Returns whether callbacks find the interaction `binding.id` by the provider's id now.
    async fn copy_binding(&self, binding: &Binding) -> Result<bool, Refusal> {
        let Binding { id, route, provider_id, created } = binding;
        let keys = vec![self.keys.provider_id(route, provider_id)];
        let bound = self.call(&COPY_BINDING, Partition::of(route), keys, vec![id.as_bytes().to_vec()]).await;
        let (_, values) = bound.map_err(|failure| unavailable(&failure))?;
        let Some(Value::BulkString(other)) = values.first() else { return Ok(false) };
        if other.as_slice() == id.as_bytes() {
            return Ok(true);
        }
        let other = String::from_utf8_lossy(other);
        let is_later = |record: &SharedRecord| (record.interaction.created(), &*other) > (*created, &**id);
        if self.load(&other, &[]).await?.record.as_ref().is_some_and(is_later) {
            return Ok(false);
        }
        self.remember_provider_id(route, provider_id, id).await?;
        Ok(true)
    }

    /// Writes delivered events that belong to no interaction. Returns the number of these events.
    async fn write_loose(&self, loose: &[Loose]) -> Result<usize, Refusal> {
        let mut sets: std::collections::BTreeMap<(Partition, String), Vec<Vec<u8>>> =
            std::collections::BTreeMap::new();
        let mut secrets = Vec::new();
        for Loose { event, until } in loose {
            let (place, bytes) = match event {
                LooseEvent::Key(key, number) => {
                    let partition = Partition::Number(*number);
                    ((partition, self.keys.delivered_of(partition)), key.0.to_be_bytes().to_vec())
                }
                LooseEvent::Fingerprint(secret, fingerprint) => {
                    if !secrets.contains(secret) {
                        secrets.push(*secret);
                    }
                    (self.keys.copied(*fingerprint), fingerprint.to_be_bytes().to_vec())
                }
            };
            let until = until.unix_ms().saturating_mul(1000).to_string().into_bytes();
            sets.entry(place).or_default().extend([until, bytes]);
        }
        // The secret keys are written first, because no process can find the fingerprints without these keys.
        for FingerprintKey([first, second]) in secrets {
            let secret = [first.to_be_bytes(), second.to_be_bytes()].concat();
            let written =
                self.call(&COPY_KEY, Partition::Members, vec![self.keys.copied_keys()], vec![secret]).await;
            written.map_err(|failure| unavailable(&failure))?;
        }
        for ((partition, key), arguments) in sets {
            for some in arguments.chunks(2 * EVENTS_PER_CALL) {
                let written = self.call(&COPY_EVENTS, partition, vec![key.clone()], some.to_vec()).await;
                written.map_err(|failure| unavailable(&failure))?;
            }
        }
        Ok(loose.len())
    }

    /// Runs a task for each item, with up to [`PARALLEL`] tasks at the same time. Returns the results in any order.
    async fn in_parallel<I, T, F>(
        self: &Arc<Self>,
        items: Vec<I>,
        run: impl Fn(Arc<Self>, I) -> F,
    ) -> Result<Vec<T>, Refusal>
    where
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
        T: Send + 'static,
    {
        let (mut tasks, mut results) = (JoinSet::new(), Vec::with_capacity(items.len()));
        for item in items {
            if tasks.len() >= PARALLEL
                && let Some(joined) = tasks.join_next().await
            {
                results.push(ended(joined)?);
            }
            tasks.spawn(run(Arc::clone(self), item));
        }
        while let Some(joined) = tasks.join_next().await {
            results.push(ended(joined)?);
        }
        Ok(results)
    }
}

fn ended<T>(joined: Result<Result<T, Refusal>, tokio::task::JoinError>) -> Result<T, Refusal> {
    joined.unwrap_or_else(|error| Err(Refusal::new(Denial::StoreUnavailable, error.to_string())))
}

/// Returns the [`Binding`] of an interaction, if callbacks find the interaction by its provider's id.
fn binding(one: &Copied) -> Option<Binding> {
    let record = &one.record.interaction;
    let provider_id = record.provider_id().filter(|_| record.is_matched())?.into();
    let (id, route) = (Arc::clone(&one.id), Arc::clone(&record.route));
    Some(Binding { id, route, provider_id, created: record.created() })
}

#[cfg(test)]
mod tests;
