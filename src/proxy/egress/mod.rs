//! The egress: requests of the agent to providers, and answers of the agent to questions of providers.

mod action;
mod agent_exchange;
mod context;
mod limits;
pub(crate) mod listener;
mod provider_client;
mod question;
mod request_log;
mod resolver;

pub(crate) use context::EgressContext;
pub(crate) use limits::EgressLimits;
pub(crate) use provider_client::Providers;
