//! Everything that is tested with the proxy in it, in one binary.

mod agent_faults;
mod bodies;
mod command_line;
mod decisions;
mod framing;
mod harness;
mod http2;
mod observing;
mod vectors;
