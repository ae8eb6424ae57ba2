//! A permitted callback that is kept in the inbox, and the request to the agent that is written for each attempt to
//! deliver it.

mod head;
mod write;

pub use head::Kept;
pub use write::{Attempt, PulledHead};
