//! Everything that is tested with the proxy in it, in one binary.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

mod agent_faults;
mod bodies;
mod command_line;
mod decisions;
mod framing;
mod harness;
mod http2;
mod observing;
mod properties;
mod vectors;
