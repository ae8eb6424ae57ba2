//! The components that ingress and egress share: clocks, the records of requests, and the number of requests in flight.

mod boxed_future;
mod clocks;
mod drain;
mod recorder;

pub(crate) use boxed_future::boxed_future;
pub(crate) use clocks::Clocks;
pub(crate) use drain::{Drain, InFlight};
pub(crate) use recorder::{Recorder, RequestIds, known_method, micros};
