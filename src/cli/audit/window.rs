//! The entries that `--since` selects.

use std::collections::VecDeque;
use std::time::Duration;

use super::entry::{Entry, Line};
use super::log::Log;
use crate::time::{Timestamp, parse_duration};

/// The value of `--since`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Since {
    /// The duration before the newest entry of all files.
    Duration(Duration),
    /// A time.
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

/// Counts the entries of a log, except for those before `--since`.
#[derive(Debug, Default)]
pub(super) struct Window {
    log: Log,
    since: Option<Since>,
    newest: Option<Timestamp>,
    /// The entries that may be in the window. It is needed only for a duration: the time of the newest entry is known
    /// at the end.
    waiting: VecDeque<(Timestamp, Entry)>,
}

impl Window {
    pub(super) fn new(since: Option<Since>) -> Self {
        Self { since, ..Self::default() }
    }

    /// Reads one line.
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

    /// Returns the time at which the window begins, as far as it is known.
    fn first(&self) -> Option<Timestamp> {
        match self.since? {
            Since::Time(first) => Some(first),
            Since::Duration(duration) => Some(self.newest?.minus(duration)),
        }
    }

    /// Removes entries that are too old already, so that the memory depends on the window and not on the log.
    fn forget_older(&mut self) {
        let first = self.first();
        while self.waiting.front().is_some_and(|(time, _)| Some(*time) < first) {
            self.waiting.pop_front();
            self.log.older += 1;
        }
    }

    /// Returns what was counted.
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
