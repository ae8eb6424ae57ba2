//! Tests of backups of a ledger's file, without a process that uses the ledger.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::interaction::{EventKey, Interaction};
use crate::store::file::{Change, NO_OWNER, StoredEvent};

const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

/// A folder with a ledger and a backup.
struct Saved(TempDir);

impl Saved {
    /// Creates a ledger with one interaction, and makes a backup of it.
    fn new() -> Self {
        let saved = Self(tempfile::tempdir().unwrap());
        saved.add(1, "int_a");
        let backup = back_up(&saved.ledger(), &saved.backup(), NOW).unwrap();
        assert_eq!(backup.interactions, 1);
        assert_eq!(backup.bytes, std::fs::metadata(saved.backup()).unwrap().len());
        saved
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn ledger(&self) -> String {
        self.path("ledger").to_str().unwrap().to_owned()
    }

    fn backup(&self) -> PathBuf {
        self.path("backup")
    }

    /// Adds an interaction to the ledger.
    fn add(&self, number: u64, id: &str) {
        let record =
            Interaction::new("r".into(), "".into(), NOW, NOW.plus(std::time::Duration::from_secs(60)));
        let record = serde_json::to_vec(&record).unwrap();
        let mut file = LedgerFile::open(&self.ledger()).unwrap();
        file.apply(&[Change::FingerprintKey([1, 2]), Change::Interaction(number, id.into(), record)])
            .unwrap();
    }

    /// Adds a delivered event with this key. `owner` is the number of its interaction.
    fn add_event(&self, number: u64, key: u128, owner: u64) {
        let event = StoredEvent::Key(EventKey(key));
        let until = NOW.plus(std::time::Duration::from_secs(60));
        let mut file = LedgerFile::open(&self.ledger()).unwrap();
        file.apply(&[Change::Event(number, event, until, owner)]).unwrap();
    }

    fn back_up_again(&self) {
        assert_eq!(back_up(&self.ledger(), &self.backup(), NOW).unwrap().interactions, 1);
    }

    fn restore(&self, force: bool) -> Result<Restored, BackupError> {
        let restored = restore(&self.ledger(), &self.backup(), force);
        assert!(!self.path("ledger.restored").exists(), "a draft is left over");
        restored
    }

    fn interactions(&self, name: &str) -> usize {
        FileContent::open(self.path(name).to_str().unwrap()).unwrap().interactions().count()
    }
}

#[test]
fn a_backup_is_restored_whether_or_not_the_ledger_exists() {
    let saved = Saved::new();
    for exists in [true, false] {
        if !exists {
            std::fs::remove_file(saved.ledger()).unwrap();
        }
        let restored = saved.restore(false).unwrap();
        assert_eq!((restored.interactions, restored.made, restored.former), (1, NOW, None), "{exists}");
        assert_eq!(saved.interactions("ledger"), 1, "{exists}");
    }
}

#[test]
fn a_newer_ledger_is_replaced_only_by_force_and_then_saved() {
    let saved = Saved::new();
    saved.add(2, "int_b");
    let error = saved.restore(false).unwrap_err();
    assert!(matches!(&error, BackupError::Newer(reason) if reason.contains(" 1 interactions")), "{error:?}");
    assert_eq!(saved.interactions("ledger"), 2);
    let restored = saved.restore(true).unwrap();
    assert_eq!(restored.former.as_deref(), Some(&*saved.path("ledger.former")));
    assert_eq!((saved.interactions("ledger"), saved.interactions("ledger.former")), (1, 2));
}

#[test]
fn a_ledger_with_a_delivered_event_that_the_backup_lacks_is_newer() {
    const NO_INTERACTION: u64 = 99;
    for (name, key, owner, is_newer) in [
        ("of the interaction", 3, 1, true),
        ("of no interaction", 3, NO_OWNER, true),
        ("known of no interaction, now of the interaction", 2, 1, true),
        ("known of the interaction, now of no interaction", 1, NO_OWNER, true),
        ("known of the interaction", 1, 1, false),
        ("known of no interaction", 2, NO_OWNER, false),
        ("of a removed interaction", 3, NO_INTERACTION, false),
    ] {
        let saved = Saved::new();
        saved.add_event(11, 1, 1);
        saved.add_event(12, 2, NO_OWNER);
        saved.back_up_again();
        saved.add_event(13, key, owner);
        let restored = saved.restore(false);
        if !is_newer {
            assert_eq!(restored.unwrap().former, None, "{name}");
            continue;
        }
        let reason = match restored.unwrap_err() {
            BackupError::Newer(reason) => reason,
            error => panic!("{name}: {error:?}"),
        };
        assert!(reason.contains(" 0 interactions and 1 delivered events"), "{name}: {reason}");
    }
}

/// Changes each part of a backup: its first line, the checksum in this line, and the bytes of the ledger. The changed
/// backup must not be restored.
#[test]
fn a_damaged_backup_is_not_restored() {
    let saved = Saved::new();
    let (good, ledger) = (std::fs::read(saved.backup()).unwrap(), std::fs::read(saved.ledger()).unwrap());
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let last = good.len() - 1;
    for (name, bytes) in [
        ("the magic text", flipped(0)),
        ("the checksum", flipped(LINE - 2)),
        ("the first byte of the ledger", flipped(LINE)),
        ("the last byte of the ledger", flipped(last)),
        ("cut off in the ledger", good[..last].to_vec()),
        ("cut off in the first line", good[..LINE - 1].to_vec()),
        ("too long", [&good[..], b" "].concat()),
        ("empty", Vec::new()),
    ] {
        std::fs::write(saved.backup(), &bytes).unwrap();
        for force in [false, true] {
            let error = saved.restore(force).unwrap_err();
            assert!(matches!(error, BackupError::Damaged(_)), "{name}: {error:?}");
            assert!(std::fs::read(saved.ledger()).unwrap() == ledger, "{name}: the ledger was changed");
        }
    }
    std::fs::write(saved.backup(), &good).unwrap();
    saved.restore(false).unwrap();
}

#[test]
fn a_file_that_is_no_backup_is_not_overwritten() {
    let saved = Saved::new();
    let other = saved.path("other");
    std::fs::write(&other, "text").unwrap();
    let error = back_up(&saved.ledger(), &other, NOW).unwrap_err();
    assert!(matches!(&error, BackupError::Failed(reason) if reason.contains("is no backup")), "{error:?}");
    assert_eq!(std::fs::read(&other).unwrap(), b"text");
    // An earlier backup is replaced. A ledger that does not exist cannot be backed up.
    saved.add(2, "int_b");
    assert_eq!(back_up(&saved.ledger(), &saved.backup(), NOW).unwrap().interactions, 2);
    let missing = saved.path("missing");
    assert!(back_up(missing.to_str().unwrap(), &saved.backup(), NOW).is_err());
    assert!(!Path::exists(&missing));
}
