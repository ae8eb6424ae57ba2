//! The egress listener: requests of the agent to providers, the agent's answers to questions, and pulled callbacks.

mod action_url;
mod agent_exchange;
mod answer_question;
mod context;
mod egress_limits;
pub(crate) mod listener;
mod outbound;
mod own_addresses;
mod pass_on;
mod provider_client;
mod proxied;
mod pull;
mod request_log;
mod resolver;
mod response;

pub(crate) use context::EgressContext;
pub(crate) use egress_limits::{EgressLimits, EgressSettings};
pub(crate) use own_addresses::OwnAddresses;
pub use proxied::{NewAuthority, check_authority, create_authority, previous_certificates};

pub(crate) use provider_client::{Providers, Timeouts};
pub(crate) use proxied::authority::Authority;
