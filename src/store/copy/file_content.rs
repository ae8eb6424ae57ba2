//! Copies the whole content of a ledger to or from a file, while no process uses the file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::file_messages::{Messages, copy_messages};
use crate::interaction::{Copies, EventKey, Interaction, SharedRecord};
use crate::store::content::{Content, Copied, CopyReport, Loose, LooseEvent, Lost, Written};
use crate::store::event_memory::FingerprintKey;
use crate::store::file::{Change, LedgerFile, NO_OWNER, Record, StoredEvent};
use crate::time::Timestamp;

/// The number of changes after which a copy commits them.
const CHANGES_PER_COMMIT: usize = 2_000;

/// The content of a ledger's file.
#[derive(Debug)]
pub(super) struct FileContent {
    file: LedgerFile,
    key: Option<FingerprintKey>,
    interactions: HashMap<Arc<str>, (u64, Interaction)>,
    /// The delivered events, each with the end of its retention. The key of the map is the number of the interaction,
    /// or [`NO_OWNER`] for events without an interaction.
    events: HashMap<u64, Vec<(StoredEvent, Timestamp)>>,
    pub(super) messages: Messages,
    number_max: u64,
}

impl FileContent {
    /// Opens the file of a ledger and reads its content.
    ///
    /// # Errors
    /// Returns an explanation if the file cannot be read, or if a process uses it.
    pub(super) fn open(path: &str) -> Result<Self, String> {
        let mut file = LedgerFile::open(path)?;
        let key = file.fingerprint_key()?.map(FingerprintKey);
        let (mut interactions, mut events) = (HashMap::new(), HashMap::<u64, Vec<_>>::new());
        let (mut messages, mut number_max) = (Messages::default(), 0);
        file.read(|record| match record {
            Record::Interaction(number, id, interaction) => {
                number_max = number_max.max(number);
                interactions.insert(id.into(), (number, interaction));
            }
            Record::Event(number, event, until, owner) => {
                number_max = number_max.max(number);
                events.entry(owner).or_default().push((event, until));
            }
            Record::Message(number, head, state) => messages.add(number, head, state),
            Record::MessageNumber(number) => messages.number = number,
        })?;
        Ok(Self { file, key, interactions, events, messages, number_max })
    }

    /// Reports whether the file contains no interactions, no events and no messages.
    fn is_empty(&self) -> bool {
        self.interactions.is_empty() && self.events.is_empty() && self.messages.number == 0
    }

    /// Returns the file, which stays locked.
    pub(super) fn into_file(self) -> LedgerFile {
        self.file
    }

    /// Returns the secret key of the fingerprints.
    pub(super) fn key(&self) -> Option<FingerprintKey> {
        self.key
    }

    /// Returns the interactions, each with its id.
    pub(super) fn interactions(&self) -> impl Iterator<Item = (&str, &Interaction)> {
        self.interactions.iter().map(|(id, (_, interaction))| (&**id, interaction))
    }

    /// Returns the record of the interaction with this id.
    pub(super) fn interaction(&self, id: &str) -> Option<&Interaction> {
        self.interactions.get(id).map(|(_, interaction)| interaction)
    }

    /// Returns the delivered events, each with the id of its interaction, or with `None` if it belongs to no
    /// interaction.
    pub(super) fn event_set(&self) -> HashSet<(Option<&str>, u128)> {
        let owners: HashMap<u64, &str> =
            self.interactions.iter().map(|(id, (number, _))| (*number, &**id)).collect();
        let of = |owner: &u64| owners.get(owner).copied();
        let owned = self.events.iter().filter(|(owner, _)| **owner == NO_OWNER || of(owner).is_some());
        owned
            .flat_map(|(owner, events)| events.iter().map(move |(event, _)| (of(owner), event.to_bits())))
            .collect()
    }

    // === Reading ===

    /// Returns the content of the file for a copy to another ledger. Events that belong to no interaction are omitted
    /// if their retention has ended at `now`.
    pub(super) fn content(&self, now: Timestamp) -> Content {
        let events_of = |number: &u64| self.events.get(number).into_iter().flatten();
        let copied = |(id, (number, interaction)): (&Arc<str>, &(u64, Interaction))| Copied {
            id: Arc::clone(id),
            record: SharedRecord::new(interaction.clone(), None),
            events: events_of(number).map(|(event, _)| *event).collect(),
        };
        let mut interactions: Vec<_> = self.interactions.iter().map(copied).collect();
        interactions.sort_by_key(|one| (one.record.interaction.created(), Arc::clone(&one.id)));
        let loose = |(event, until): &(StoredEvent, Timestamp)| {
            let key = self.key?;
            let fingerprint = match event {
                StoredEvent::Fingerprint(fingerprint, _) => *fingerprint,
                StoredEvent::Key(event) => key.fingerprint("", *event),
            };
            Some(Loose { event: LooseEvent::Fingerprint(key, fingerprint), until: *until })
        };
        let is_remembered = |(_, until): &&(StoredEvent, Timestamp)| *until > now;
        let loose = events_of(&NO_OWNER).filter(is_remembered).filter_map(loose).collect();
        Content { key: self.key, interactions, loose }
    }

    // === Writing ===

    /// Returns the secret key with which this file computes fingerprints after `content` was copied to it. A file that
    /// is not empty retains its own key. An empty file gets the key of the copied ledger.
    pub(super) fn key_with(&self, content: &Content) -> FingerprintKey {
        let other = content.key.or_else(|| {
            content.loose.iter().find_map(|loose| match loose.event {
                LooseEvent::Fingerprint(key, _) => Some(key),
                LooseEvent::Key(..) => None,
            })
        });
        match (self.key, other) {
            (Some(own), _) if !self.is_empty() => own,
            (_, Some(other)) => other,
            (own, None) => own.unwrap_or_else(FingerprintKey::random),
        }
    }

    /// Returns what a copy of `content` to this file would lose: the number of delivered events that the file cannot
    /// store. Messages are not counted.
    pub(super) fn losses(&self, content: &Content) -> Lost {
        let key = self.key_with(content);
        let foreign = content.loose.iter().filter(|loose| event_under(key, loose.event).is_none()).count();
        let own = |one: &Copied| content.key == Some(key) || one.fingerprints().next().is_none();
        let left: usize = content
            .interactions
            .iter()
            .filter(|one| !own(one))
            .map(|one| one.with_inherited(content.key).1)
            .sum();
        Lost { messages: 0, events: foreign + left }
    }

    /// Adds the content of another ledger to this file. If this file has a newer record of an interaction, the record
    /// is not changed.
    ///
    /// # Errors
    /// Returns an explanation if the file cannot be written. The copy can then be repeated.
    pub(super) fn write_all(
        &mut self,
        content: &Content,
        from: Option<&FileContent>,
        report: &mut CopyReport,
    ) -> Result<(), String> {
        let key = self.key_with(content);
        if self.key != Some(key) {
            self.apply(&mut vec![Change::FingerprintKey(key.0)])?;
            self.key = Some(key);
        }
        let mut changes = Vec::new();
        for one in &content.interactions {
            let written = self.write_copied(one, content.key, key, &mut changes);
            report.count(written);
            report.events += one.keys().count() + one.fingerprints().count();
            report.provider_ids += usize::from(
                one.record.interaction.is_matched() && one.record.interaction.provider_id().is_some(),
            );
            if changes.len() >= CHANGES_PER_COMMIT {
                self.apply(&mut changes)?;
            }
        }
        let mut known: HashSet<u128> =
            self.events.get(&NO_OWNER).into_iter().flatten().map(|(event, _)| bits(*event)).collect();
        for loose in &content.loose {
            let Some(event) = event_under(key, loose.event) else { continue };
            report.events += 1;
            if known.insert(bits(event)) {
                let number = self.next_number();
                changes.push(Change::Event(number, event, loose.until, NO_OWNER));
            }
            if changes.len() >= CHANGES_PER_COMMIT {
                self.apply(&mut changes)?;
            }
        }
        self.apply(&mut changes)?;
        if let Some(from) = from.filter(|from| from.key == Some(key)) {
            report.messages = copy_messages(&from.file, &mut self.file, &self.messages)?;
        }
        Ok(())
    }

    fn write_copied(
        &mut self,
        one: &Copied,
        from: Option<FingerprintKey>,
        key: FingerprintKey,
        changes: &mut Vec<Change>,
    ) -> Written {
        // Fingerprints that were computed with another secret key cannot be converted. They are added to the record of
        // the interaction, together with their key.
        let is_own = from == Some(key);
        let mut record = if is_own { one.record.interaction.clone() } else { one.with_inherited(from).0 };
        let (number, written) = match self.interactions.get(&one.id) {
            None => (self.next_number(), Written::Added),
            Some((number, known)) => match known.compare(&record) {
                Copies::Equal => (*number, Written::Unchanged),
                Copies::Newer => (*number, Written::Newer),
                Copies::Older => {
                    record.inherit_from(known);
                    (*number, Written::Updated)
                }
                Copies::Diverged => {
                    let mut merged = known.clone();
                    merged.merge(&record);
                    record = merged;
                    (*number, Written::Merged)
                }
            },
        };
        let expires = record.expires();
        if !matches!(written, Written::Unchanged | Written::Newer) {
            let json = serde_json::to_vec(&record).unwrap_or_default();
            changes.push(Change::Interaction(number, Arc::clone(&one.id), json));
        }
        let known = self.events.get(&number).into_iter().flatten();
        let mut known: HashSet<u64> = known.map(|(event, _)| fingerprint(key, &one.id, *event)).collect();
        let own = one.fingerprints().filter(|_| is_own);
        let own = own.map(|(fingerprint, until)| StoredEvent::Fingerprint(fingerprint, until));
        let events: Vec<_> = one.keys().map(StoredEvent::Key).chain(own).collect();
        for event in events {
            if known.insert(fingerprint(key, &one.id, event)) {
                changes.push(Change::Event(self.next_number(), event, expires, number));
            }
        }
        written
    }

    fn next_number(&mut self) -> u64 {
        self.number_max += 1;
        self.number_max
    }

    fn apply(&mut self, changes: &mut Vec<Change>) -> Result<(), String> {
        let applied = self.file.apply(changes).map_err(|fault| fault.message);
        changes.clear();
        applied
    }
}

/// Returns the event as a file with this fingerprint key stores it. Returns `None` for a fingerprint that was computed
/// with another key, because it cannot be converted.
fn event_under(key: FingerprintKey, event: LooseEvent) -> Option<StoredEvent> {
    match event {
        LooseEvent::Key(event, _) => Some(StoredEvent::Fingerprint(key.fingerprint("", event), 0)),
        LooseEvent::Fingerprint(own, fingerprint) => {
            (own == key).then_some(StoredEvent::Fingerprint(fingerprint, 0))
        }
    }
}

fn fingerprint(key: FingerprintKey, id: &str, event: StoredEvent) -> u64 {
    match event {
        StoredEvent::Fingerprint(fingerprint, _) => fingerprint,
        StoredEvent::Key(EventKey(event)) => key.fingerprint(id, EventKey(event)),
    }
}

/// Returns the fingerprint or the key of an event as a number, without the time that is stored with a fingerprint.
fn bits(event: StoredEvent) -> u128 {
    match event {
        StoredEvent::Fingerprint(fingerprint, _) => fingerprint.into(),
        StoredEvent::Key(EventKey(key)) => key,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

    /// Returns the change that adds an interaction with this number and id.
    fn interaction(number: u64, id: &str) -> Change {
        let record = Interaction::new("r".into(), "".into(), NOW, NOW.plus(Duration::from_secs(60)));
        Change::Interaction(number, id.into(), serde_json::to_vec(&record).unwrap())
    }

    fn event(number: u64, fingerprint: u64, owner: u64) -> Change {
        let until = NOW.plus(Duration::from_secs(60));
        Change::Event(number, StoredEvent::Fingerprint(fingerprint, 0), until, owner)
    }

    #[test]
    fn an_empty_file_gets_the_fingerprint_key_of_the_copied_ledger_and_any_other_keeps_its_own() {
        let (key, other) = (Change::FingerprintKey([1, 2]), Change::FingerprintKey([3, 4]));
        for (name, former, expected, events) in [
            ("new", vec![], [1, 2], 2),
            ("empty", vec![other.clone()], [1, 2], 2),
            ("the same key", vec![key.clone(), interaction(9, "int_b")], [1, 2], 2),
            ("another key", vec![other, interaction(9, "int_b")], [3, 4], 0),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let open = |name: &str| FileContent::open(folder.path().join(name).to_str().unwrap()).unwrap();
            let mut content = [interaction(1, "int_a"), event(2, 5, 1), event(3, 6, NO_OWNER)].to_vec();
            content.insert(0, key.clone());
            for (name, changes) in [("from", content), ("to", former)] {
                open(name).file.apply(&changes).unwrap();
            }
            let (from, mut report) = (open("from"), CopyReport::default());
            open("to").write_all(&from.content(NOW), Some(&from), &mut report).unwrap();
            let written = open("to");
            assert_eq!(written.key(), Some(FingerprintKey(expected)), "{name}");
            assert_eq!((report.added, written.event_set().len()), (1, events), "{name}");
            // The report counts the event of the interaction in any case.
            assert_eq!(report.events, events.max(1), "{name}");
            // Fingerprints under another key are in the record of the interaction.
            let inherited: usize =
                written.interaction("int_a").unwrap().inherited().iter().map(|one| one.events.len()).sum();
            assert_eq!(inherited, usize::from(events == 0), "{name}");
        }
    }
}
