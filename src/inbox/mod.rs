//! The inbox: callbacks that are kept for an agent that is away. This module decides what happens to a message after
//! each attempt to deliver it, and when attempts pause because the agent does not respond.
//!
//! This module has no side effects: time and random numbers are arguments, and the store keeps the messages.

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
