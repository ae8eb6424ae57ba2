//! Requests of the agent to providers, and its answers to their questions.

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
