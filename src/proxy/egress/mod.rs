//! The egress: requests of the agent to providers, and answers of the agent to questions of providers.

mod action;
mod context;
mod exchange;
mod limits;
pub(crate) mod listener;
mod providers;
mod question;
mod record;

pub(crate) use context::EgressContext;
pub(crate) use limits::EgressLimits;
pub(crate) use providers::Providers;
