//! Selects access-log entries by the option `--since`, a time or a duration.

use std::collections::VecDeque;
use std::time::Duration;

use super::entry::{Entry, Line};
use super::log::Log;
use crate::time::{Timestamp, parse_duration};

/// The value of the option `--since`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Since {
    /// Selects the entries within this duration before the newest entry of all log files.
    Duration(Duration),
    /// Selects the entries since this time.
    Time(Timestamp),
}

impl Since {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let duration = parse_duration(text).map(Self::Duration);
        duration.or_else(|| Timestamp::parse(text).map(Self::Time)).ok_or_else(|| {
            "expected a duration, such as 2h, or RFC 3339, such as 2026-01-01T00:00:00Z".to_owned()
        })
    }
}

/// Counts the entries of access logs. With `--since`, an entry before the selected time, or without a valid time, only
/// increases the number of older entries.
#[derive(Debug, Default)]
pub(super) struct Window {
    log: Log,
    since: Option<Since>,
    newest: Option<Timestamp>,
    /// The entries that were read but not counted yet, if `--since` is a duration. The entries wait until the end of
    /// the logs, because only then the time of the newest entry is known.
    waiting: VecDeque<(Timestamp, Entry)>,
}

impl Window {
    pub(super) fn new(since: Option<Since>) -> Self {
        Self { since, ..Self::default() }
    }

    /// Counts one line of an access log.
    pub(super) fn add(&mut self, line: &[u8]) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        self.log.lines += 1;
        match Line::parse(line) {
            Line::Entry(entry) => self.add_entry(*entry),
            Line::OtherJson => self.log.other_json += 1,
            Line::NotJson => self.log.not_json += 1,
        }
    }

    fn add_entry(&mut self, entry: Entry) {
        let Some(since) = self.since else { return self.log.add(entry) };
        let Some(time) = entry.time.as_deref().and_then(Timestamp::parse) else {
            self.log.older += 1;
            return;
        };
        self.newest = self.newest.max(Some(time));
        match since {
            Since::Time(first) if time >= first => self.log.add(entry),
            Since::Duration(_) if self.first().is_none_or(|first| time >= first) => {
                self.waiting.push_back((time, entry));
                self.forget_older();
            }
            _ => self.log.older += 1,
        }
    }

    /// Returns the time from which entries are selected. If `--since` is a duration, this time is computed from the
    /// newest entry that was read so far.
    fn first(&self) -> Option<Timestamp> {
        match self.since? {
            Since::Time(first) => Some(first),
            Since::Duration(duration) => Some(self.newest?.minus(duration)),
        }
    }

    /// Removes the waiting entries that are older than the time that [`Self::first`] returns now, and counts them as
    /// older entries. The memory therefore depends on the duration of `--since` and not on the size of the log.
    fn forget_older(&mut self) {
        let first = self.first();
        while self.waiting.front().is_some_and(|(time, _)| Some(*time) < first) {
            self.waiting.pop_front();
            self.log.older += 1;
        }
    }

    /// Returns the counts of the selected entries.
    pub(super) fn into_log(mut self) -> Log {
        let first = self.first();
        for (time, entry) in std::mem::take(&mut self.waiting) {
            if Some(time) >= first {
                self.log.add(entry);
            } else {
                self.log.older += 1;
            }
        }
        self.log
    }
}
