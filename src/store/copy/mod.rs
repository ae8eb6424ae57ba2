//! Copies a whole ledger from one store to another. Also makes and restores backups of a ledger's file.
//!
//! No process may use the two ledgers during the copy. A copy can be repeated: if the target ledger has a newer record
//! of an interaction, the record is not changed.

mod backup;
mod file_content;
mod file_messages;

use std::path::Path;
use std::sync::Arc;

use self::file_content::FileContent;
use super::content::{Content, CopyReport, Lost};
use super::redis::{RedisStore, Use};
use crate::clock::Clock;
use crate::config::StoreSettings;
use crate::observe::Metrics;

pub use self::backup::{Backup, BackupError, Restored, back_up, restore};

/// The reason why a ledger was not copied.
#[derive(Debug)]
pub enum CopyError {
    /// A configuration has no ledger that can be copied, or both configurations have the same ledger.
    Unusable(String),
    /// A ledger cannot be reached, is in use, or cannot be read or written.
    Unavailable(String),
    /// The target ledger cannot store the whole content. Nothing was written.
    Loses(Lost),
}

/// The source or the target of a copy.
enum Side {
    File(Box<FileContent>),
    Redis(Arc<RedisStore>, Vec<u8>),
}

/// Copies the ledger of the configuration `from` to the ledger of the configuration `to`. If `loses` is false and the
/// target ledger cannot store the whole content, writes nothing. Must be called within a tokio runtime.
///
/// # Errors
/// Returns a [`CopyError`] if the ledger was not copied completely. The copy can be repeated.
pub async fn copy(
    from: &StoreSettings,
    to: &StoreSettings,
    loses: bool,
    metrics: &Arc<Metrics>,
) -> Result<CopyReport, CopyError> {
    if from.path.is_some() && from.path == to.path {
        return Err(CopyError::Unusable("both configurations name the same ledger".to_owned()));
    }
    let source = Side::open(from, true, metrics).await.map_err(|error| error.of("--from"))?;
    let target = Side::open(to, false, metrics).await.map_err(|error| error.of("--to"))?;
    if let (Side::Redis(_, one), Side::Redis(_, other)) = (&source, &target)
        && one == other
    {
        return Err(CopyError::Unusable("both configurations name the same ledger".to_owned()));
    }
    let failed = |refusal: crate::denial::Refusal| CopyError::Unavailable(refusal.detail.into_owned());
    let content = match &source {
        Side::File(file) => file.content(Clock::System.now()),
        Side::Redis(store, _) => store.read_all().await.map_err(failed)?,
    };
    let lost = losses(&source, &target, &content);
    if !loses && !lost.is_nothing() {
        return Err(CopyError::Loses(lost));
    }
    let mut report = CopyReport { lost, ..CopyReport::default() };
    match target {
        Side::File(mut file) => {
            let from = match &source {
                Side::File(from) => Some(&**from),
                Side::Redis(..) => None,
            };
            file.write_all(&content, from, &mut report).map_err(CopyError::Unavailable)?;
        }
        Side::Redis(store, _) => store.write_all(content, &mut report).await.map_err(failed)?,
    }
    report.events = report.events.saturating_sub(lost.events);
    Ok(report)
}

impl Side {
    async fn open(
        settings: &StoreSettings,
        must_exist: bool,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, CopyError> {
        if let Some(redis) = &settings.redis {
            let wall_clock = || Clock::System.now();
            let store = RedisStore::start(settings, redis, None, Arc::clone(metrics), wall_clock);
            let store = store.map_err(CopyError::Unavailable)?;
            return match store.use_of_ledger().await.map_err(CopyError::Unavailable)? {
                Use::Idle(name) => Ok(Self::Redis(store, name)),
                Use::Used(by) => Err(CopyError::Unavailable(format!(
                    "{} uses the ledger; stop all processes that use it, and copy it then",
                    by.join(", ")
                ))),
            };
        }
        let Some(path) = &settings.path else {
            let reason = "the ledger of this configuration is in memory, so only its process has it";
            return Err(CopyError::Unusable(reason.to_owned()));
        };
        if must_exist && !Path::new(&**path).exists() {
            return Err(CopyError::Unusable(format!("the ledger {path} does not exist")));
        }
        let opened = FileContent::open(path);
        let hint = |error: String| match error.as_str() {
            super::file::IN_USE => {
                format!("the ledger {path} is in use: stop the process that uses it, and copy it then")
            }
            _ => format!("cannot read the ledger {path}: {error}"),
        };
        opened.map(Box::new).map(Self::File).map_err(|error| CopyError::Unavailable(hint(error)))
    }
}

impl CopyError {
    fn of(self, side: &str) -> Self {
        match self {
            Self::Unusable(reason) => Self::Unusable(format!("{side}: {reason}")),
            Self::Unavailable(reason) => Self::Unavailable(format!("{side}: {reason}")),
            Self::Loses(lost) => Self::Loses(lost),
        }
    }
}

/// Returns the part of the content that the target ledger cannot store.
fn losses(source: &Side, target: &Side, content: &Content) -> Lost {
    let mut lost = match target {
        Side::File(file) => file.losses(content),
        Side::Redis(..) => {
            let left = content.interactions.iter().map(|one| one.with_inherited(content.key).1).sum();
            Lost { events: left, messages: 0 }
        }
    };
    if let Side::File(from) = source {
        lost.messages = match target {
            Side::File(to) if from.key() == Some(to.key_with(content)) => {
                from.messages.conflicts(&to.messages)
            }
            _ => from.messages.undelivered(),
        };
    }
    lost
}
