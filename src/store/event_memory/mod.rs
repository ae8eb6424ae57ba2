//! A compact memory of delivered events, by fingerprint. It is without locks, clocks and files.

mod fingerprint;
mod index;
mod log;
#[cfg(test)]
mod log_tests;

pub(super) use fingerprint::FingerprintKey;
pub(super) use log::{EventLog, EventPlace, LoggedEvent, Oldest};
