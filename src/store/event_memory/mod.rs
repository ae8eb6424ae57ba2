//! A compact memory of delivered events, which finds an event by its fingerprint. It uses no locks, no clock and no
//! file.

mod fingerprint;
mod index;
mod log;
#[cfg(test)]
mod log_tests;

pub(super) use fingerprint::{FingerprintKey, is_inherited};
pub(super) use log::{EventLog, EventPlace, LoggedEvent, Oldest, WINDOW_MAX, window_of};
