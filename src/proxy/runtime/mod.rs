//! The parts that ingress and egress share: clocks, the records of requests, and the number of exchanges in flight.

mod clocks;
mod drain;
mod recorder;

pub(crate) use clocks::Clocks;
pub(crate) use drain::{Drain, InFlight};
pub(crate) use recorder::{Recorder, RequestIds, known_method, micros};
