//! A permitted callback in the inbox, and the request to the agent that is written for each delivery attempt.

mod head;
mod write;

pub use head::Kept;
pub use write::{Attempt, PulledHead};
