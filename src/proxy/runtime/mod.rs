//! The parts that ingress and egress share: clocks, the records of requests, and the number of exchanges in flight.

mod clocks;
mod in_flight;
mod recorder;

pub(crate) use clocks::Clocks;
pub(crate) use in_flight::{Drain, OwnedInFlight};
pub(crate) use recorder::{Recorder, RequestIds, known_method, micros};
