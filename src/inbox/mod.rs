//! The inbox: callbacks that Callgate stores until their agent accepts them. This module decides what happens to a
//! message after each attempt to deliver it, and when attempts pause because the agent does not respond.
//!
//! This module has no side effects: time and random numbers are arguments. The messages themselves are in the store.

mod circuit;
mod message;
mod outcome;
mod seal;
mod settings;

pub use circuit::{Circuit, Start};
pub use message::{Attempted, Cause, MessageState, Next, Tries};
pub use outcome::{Outcome, retry_after};
pub use seal::{BodySealer, SEAL_BYTES};
pub use settings::{Backoff, InboxSettings};
